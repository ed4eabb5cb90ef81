"""Queues and tasks: what waits in each, and how its attempts went within the last hour."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import persistq
from persistq import spans

from ..pane import TablePane
from ..poller import Queue
from ..table import Column, Row
from ..widgets import compact


@dataclass(frozen=True)
class QueuesLook:
    """Every queue, and the timings of the last hour."""

    def read(self, q: Queue) -> tuple[list[persistq.QueueInfo], list[persistq.Timing]]:
        """Return them."""
        return q.queues(), q.timings(3600)


@dataclass(frozen=True)
class Subject:
    """What a row is about: a queue, or one of its tasks; ``task`` is None for the queue itself."""

    queue: str
    task: str | None = None
    paused: bool = False


def _count(number: int, _now: datetime) -> str:
    return compact(number)


def _ago(when: datetime, now: datetime) -> str:
    return spans.ago(when, now)


def _span(seconds: float, _now: datetime) -> str:
    return f"{seconds * 1000:.0f}ms" if seconds < 1 else f"{seconds:.1f}s" if seconds < 100 else f"{seconds / 60:.0f}m"


def _rate(rate: float, _now: datetime) -> str:
    return f"{rate:.2f}" if rate < 10 else f"{rate:,.0f}"


class QueuesPane(TablePane):
    """Queues, each with its tasks below it."""

    name, title, key = "queues", "Queues and tasks", "4"
    opens = "jobs"
    columns = (
        Column("queue / task", 18, elastic=True),
        Column("state", 6, style=lambda state: "class:warn" if state == "PAUSED" else ""),
        Column("pending", 7, right=True, show=_count),
        Column("running", 7, right=True, show=_count),
        Column("done", 7, right=True, yields=7, show=_count),
        Column("failed", 7, right=True, show=_count),
        Column("cancelled", 9, right=True, yields=8, show=_count),
        Column("waits", 7, right=True, yields=3, show=_ago),
        Column("a second", 8, right=True, yields=4, show=_rate),
        Column("wait p95", 8, right=True, yields=6, show=_span),
        Column("run p50", 8, right=True, yields=9, show=_span),
        Column("run p95", 8, right=True, yields=5, show=_span),
    )

    def look(self) -> QueuesLook:
        """Return what the poller is to look at."""
        return QueuesLook()

    def rows(self, data: Any) -> list[Row]:
        """Return a row for each queue, followed by its tasks."""
        infos, timings = data
        found: list[Row] = []
        for info in infos:
            counts = info.counts
            values = (
                info.name, "PAUSED" if info.paused else "open", counts["pending"], counts["processing"], counts["done"],
                counts["failed"], counts["cancelled"], info.waiting_since, None, None, None, None,
            )  # fmt: skip
            found.append(Row(("queue", info.name), values, Subject(info.name, paused=info.paused), "class:name"))
            found += [_task(one, info.paused) for one in timings if one.queue == info.name]
        return found

    def heading(self) -> str:
        """Return what the line above the table says."""
        return "  ".join(filter(None, ["tasks: within the last hour", super().heading()]))


def _task(one: persistq.Timing, paused: bool) -> Row:
    values = (
        f"  {one.task or '(plain items)'}", None, None, None, one.done, one.failed, None, None, one.per_second,
        one.wait.get("p95"), one.run.get("p50"), one.run.get("p95"),
    )  # fmt: skip
    return Row(("task", one.queue, one.task), values, Subject(one.queue, one.task, paused))
