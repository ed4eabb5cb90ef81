"""The screens in ``docs/tui.md``: drawn by the manager itself, from a queue that is always the same.

``make docs`` writes them, a test compares them.
"""

import os
import tempfile
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import persistq
from persistq import ConsumerInfo
from support.clock import START, FakeClock
from support.generated import ROOT
from support.tui import ENTER, Manager

PAGE = ROOT / "docs/tui.md"
COLUMNS, ROWS = 96, 22
_BEGIN, _END = "<!-- screens: written by make docs -->\n", "<!-- end of screens -->\n"
_WORKER = "consumer_00@host-a:4711:1a2b3c4d"


def page(text: str) -> str:
    """Return the page with its screens as they would be drawn now."""
    head, _, rest = text.partition(_BEGIN)
    _, _, foot = rest.partition(_END)
    drawn = "".join(f"\n### {title}\n\n```text\n{lines}\n```\n" for title, lines in screens().items())
    return f"{head}{_BEGIN}{drawn}\n{_END}{foot}"


def screens() -> dict[str, str]:
    """Return what is drawn, by title."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            clock = FakeClock(START.replace(hour=12, second=0, microsecond=0))
            with closing(persistq.connect("queue.db", clock=clock, actor="tui:ann@host-a")) as q:
                _fill(q, clock)
                return _draw(q)
        finally:
            os.chdir(before)


def _fill(q: persistq.PersistentQSQLAlchemy, clock: FakeClock) -> None:
    for minute in range(40):
        q.enqueue_many([f"/data/in/{minute:02}-{n}.csv" for n in range(3 + minute * 7 % 11)], "mail", max_attempts=1)
        for job in q.dequeue_many(_WORKER, limit=2 + minute * 5 % 9):
            clock.advance(1.1)  # what ends is counted at most once a second
            if job.id % 13:
                q.complete(job)
            else:
                q.fail(job, TimeoutError(f"no answer from 10.0.0.{job.id} in 30 s"))
        clock.advance(60 - clock.now().second)
    q.enqueue('{"month": "2024-02"}', "reports", task="make_report", priority=5)
    q.dequeue(_WORKER, "mail")
    q.pause("reports", "new printer")
    q.cancel(q.list_jobs("pending")[0].id, "sent by hand")
    for name, age in (("consumer_00", 2), ("consumer_01", 3), ("consumer_02", 400)):
        identity = _WORKER if name == "consumer_00" else f"{name}@host-a:47{age}:5e6f7a8b"
        at = clock.now()
        q.beat(
            ConsumerInfo(
                id=identity, name=name, host="host-a", pid=4711 + age, queues=("mail",), concurrency=4,
                running=int(identity == _WORKER), started_at=at.replace(hour=11),
                seen_at=at - timedelta(seconds=age), tasks=("make_report",),
            )
        )  # fmt: skip


def _draw(q: persistq.PersistentQSQLAlchemy) -> dict[str, str]:
    shown = Manager(q, COLUMNS, ROWS)
    found: dict[str, str] = {}

    def keep(title: str, *texts: str) -> None:
        shown.until(*texts)
        found[title] = "\n".join(shown.lines())

    try:
        keep("`1` Overview", "attempts a minute")
        shown.press("2")
        keep("`2` Jobs", "newest first")
        shown.press("/")
        shown.until("Enter does it")
        shown.press("state:failed", ENTER)
        shown.until("filter: state:failed", "TimeoutError")
        shown.press(ENTER)
        keep("`3` Job", "All 1 attempts are spent")
        for key, title, text in (
            ("4", "Queues and tasks", "PAUSED"), ("5", "Consumers", "lost"), ("8", "Errors", "no answer"),
            ("9", "Audit", "queue_pause"),
        ):  # fmt: skip
            shown.press(key)
            keep(f"`{key}` {title}", f"{title} ·", text)
        shown.press("2", "*")
        shown.until("ALL THAT MATCH")
        shown.press("R")
        keep("`*` `R`: all that match, after the number was asked for", "to go ahead")
    finally:
        shown.close()
    return found


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
