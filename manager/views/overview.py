"""Overview: what there is, how fast it goes, and what needs a person."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import persistq
from persistq import spans

from ..pane import TextPane
from ..poller import Queue, Seen
from ..widgets import Line, bar, fit, join, sparkline, wrap

MINUTES = 60
_NAMED = 5


@dataclass(frozen=True)
class Whole:
    """The queue at a glance."""

    queues: Sequence[persistq.QueueInfo]
    consumers: Sequence[persistq.ConsumerInfo]
    minutes: Sequence[persistq.Minute]


@dataclass(frozen=True)
class OverviewLook:
    """Everything that the overview shows."""

    def read(self, q: Queue) -> Whole:
        """Return it."""
        return Whole(q.queues(), q.consumers(), q.throughput(MINUTES))


class OverviewPane(TextPane):
    """Counts, throughput, and what is not as it should be."""

    name, title, key = "overview", "Overview", "1"
    opens = "jobs"

    def look(self) -> OverviewLook:
        """Return what the poller is to look at."""
        return OverviewLook()

    def build(self, seen: Seen, width: int, now: datetime) -> list[Line]:
        """Return every line."""
        whole: Whole = seen.data
        lines = list(_counts(seen.counts, width))
        lines.append([])
        lines += _throughput(whole.minutes, width)
        lines.append([])
        for style, text in _findings(whole, now):
            lines += [join([(style, f" {part}")], width) for part in wrap(text, width - 2)]
        return lines


def _counts(counts: Mapping[str, int], width: int) -> Iterator[Line]:
    total = sum(counts.values())
    room = max(0, width - 28)
    for status, number in counts.items():
        parts = [(f"class:{status}", f" {fit(status, 11)}"), ("", fit(f"{number:,}", 13, right=True)), ("", "  ")]
        yield join([*parts, (f"class:{status}", bar(number, total, room))], width)


def _throughput(minutes: Sequence[persistq.Minute], width: int) -> Iterator[Line]:
    ended = [one.done + one.failed for one in minutes]
    failed = sum(one.failed for one in minutes)
    full = ended[-2] if len(ended) > 1 else 0
    yield join([("class:name", f" attempts a minute, the last {min(MINUTES, width - 2)} minutes")], width)
    yield join([("class:good", f" {sparkline(ended, width - 2)}")], width)
    text = f"last full minute {full:,} ({full / 60:,.1f}/s), most {max(ended, default=0):,}, in the hour {sum(ended):,}"
    yield join([("", f" {text}, of which failed {failed:,}")], width)


def _findings(whole: Whole, now: datetime) -> Iterator[tuple[str, str]]:
    """Yield what a person wants to know first: the oldest that waits, and what nobody takes care of."""
    waiting = [(info.waiting_since, info.name) for info in whole.queues if info.waiting_since]
    alive = [info for info in whole.consumers if info.is_alive(now)]
    lost = [info.name for info in whole.consumers if not info.is_alive(now)]
    if waiting:
        since, name = min(waiting)
        yield "", f"oldest next in line: due {spans.ago(since, now)} ago, in queue {name}"
    else:
        yield "", "nothing is due and waiting"
    load = f"{sum(info.running for info in alive):,} of {sum(info.concurrency for info in alive):,} places taken"
    yield "", f"consumers: {len(alive):,} alive, {load}"
    if lost:
        yield "class:warn", f"lost, silent for 30 s or more: {_named(lost)}"
    for info in whole.queues:
        pending = info.counts["pending"]
        if info.paused:
            yield "class:warn", f"queue {info.name} is paused, with {pending:,} pending"
        elif pending and not any(not one.queues or info.name in one.queues for one in alive):
            yield "class:bad", f"queue {info.name} has {pending:,} pending and no live consumer"


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
