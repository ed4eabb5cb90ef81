"""monitor-activity: what the queue does now, again and again."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

import persistq
from persistq.clock import SystemClock
from persistq.text import shorten

from .output import ago, item_of
from .window import window

NEWEST = 8


def monitor_activity(
    context: typer.Context,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 5.0,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many looks.")] = None,
) -> None:
    """Watch the queue until Ctrl-C: persistq monitor-activity --interval 5."""
    watch(window(context).queue(), interval, count, lambda: True)


def watch(
    q: "persistq.PersistentQSQLAlchemy",
    interval: float,
    count: int | None,
    go_on: Callable[[], bool],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Print one block per look, in place on a terminal, while ``go_on`` says so."""
    before: dict[str, int] = {}
    looks = 0
    with _screen() as draw:
        while go_on():
            try:
                counts = q.counts()
                lines = list(_block(q, counts, before))
                before = counts
            except (persistq.DatabaseUnavailable, persistq.QueueFull) as error:
                lines = [f"{_clock()}  {error}  Trying again."]
            draw(lines)
            looks += 1
            if count is not None and looks >= count:
                return
            sleep(interval)


def _block(q: "persistq.PersistentQSQLAlchemy", counts: dict[str, int], before: dict[str, int]) -> Iterator[str]:
    changed = {status: number - before.get(status, number) for status, number in counts.items()}
    totals = "  ".join(f"{status} {n:,}" + (f" ({changed[status]:+,})" if changed[status] else "")
                       for status, n in counts.items())  # fmt: skip
    yield f"{_clock()}  {totals}"
    for queue in q.queues():
        waiting = f"next in line due {ago(queue.waiting_since)} ago" if queue.waiting_since else "nothing waits"
        yield f"  queue {queue.name}: {waiting}{', PAUSED' if queue.paused else ''}"
    consumers = q.consumers()
    for info in consumers:
        load = f"{info.running} of {info.concurrency} running"
        yield f"  {shorten(info.name, 30)} pid {info.pid}: {load}, seen {ago(info.seen_at)} ago"
    if not consumers and counts["pending"]:
        yield "  no consumer is running: start one with 'persistq consumer' or 'persistq up'"
    for job in q.list_jobs(limit=NEWEST, newest=True):
        yield f"  job {job.id:<6} {job.status:10} {item_of(job)} {shorten(job.error or '', 60)}".rstrip()


def _clock() -> str:
    return SystemClock().now().strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def _screen() -> Iterator[Callable[[list[str]], None]]:
    """Yield what draws a block: over the last one on a terminal, below it elsewhere."""
    if not sys.stdout.isatty():
        yield lambda lines: print("\n".join(lines), flush=True)
        return
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(highlight=False), auto_refresh=False) as live:
        yield lambda lines: live.update(
            Group(*(Text(line, no_wrap=True, overflow="ellipsis") for line in lines)), refresh=True
        )
