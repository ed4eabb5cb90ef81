"""Consumers: who is there, what each does, who is lost."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import persistq
from persistq import spans

from ..pane import TablePane
from ..poller import Queue
from ..table import Column, Row

_MOST_JOBS = 1_000


@dataclass(frozen=True)
class ConsumersLook:
    """The consumers, and the jobs that they hold."""

    def read(self, q: Queue) -> tuple[list[persistq.ConsumerInfo], list[persistq.Job], datetime]:
        """Return them, and the time to judge their signs of life by."""
        return q.consumers(), q.list_jobs("processing", limit=_MOST_JOBS), q.clock.now()


def _ago(when: datetime, now: datetime) -> str:
    return spans.ago(when, now)


def _style(state: str) -> str:
    return {"alive": "class:good", "lost": "class:bad"}.get(state, "class:warn")


class ConsumersPane(TablePane):
    """The consumers."""

    name, title, key = "consumers", "Consumers", "5"
    opens = "jobs"
    columns = (
        Column("name", 16),
        Column("state", 6, style=_style),
        Column("load", 9, right=True),
        Column("seen", 7, right=True, show=_ago),
        Column("jobs", 18, elastic=True),
        Column("queues", 14, elastic=True, yields=4),
        Column("host", 16, yields=5),
        Column("pid", 8, right=True, yields=3),
        Column("up", 7, right=True, yields=6, show=_ago),
        Column("id", 20, elastic=True, yields=7),
    )

    def look(self) -> ConsumersLook:
        """Return what the poller is to look at."""
        return ConsumersLook()

    def rows(self, data: Any) -> list[Row]:
        """Return a row for each consumer."""
        infos, jobs, now = data
        held: dict[str | None, list[int]] = {}
        for job in jobs:
            held.setdefault(job.consumer_id, []).append(job.id)
        return [
            Row(
                info.id,
                (
                    info.name, info.wish or "alive" if info.is_alive(now) else "lost",
                    f"{info.running}/{info.concurrency}", info.seen_at, ", ".join(map(str, held.get(info.id, ()))),
                    ", ".join(info.queues) or "all", info.host, info.pid, info.started_at, info.id,
                ),
                info,
            )
            for info in infos
        ]  # fmt: skip

    def empty(self) -> str:
        """Return what is said instead of rows."""
        return "no consumer is on the list: start one with 'persistq consumer' or 'persistq up'"
