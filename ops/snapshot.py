"""The rows that stand on a visitor's screen. Here and not in a page, whose classes are made anew at each run."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

import persistq

SPAN = 50_000
"""Ids that are looked through at once for what no index finds."""

FEW = 10_000
"""So many jobs are looked through at once, whatever their ids are."""

PATIENCE = 10.0
"""Seconds for which older jobs are looked through on request."""

_LONGEST = 500


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A page of jobs as it was read. Actions go by its ids, whatever has happened in the queue since."""

    #: What it was read by; with another filter, page or after a change it is read anew.
    of: tuple[Any, ...]
    jobs: Sequence[persistq.Job]
    taken_at: datetime
    #: The newest job there was, of any kind.
    newest: int
    #: All jobs from this id on were looked at, up to where the page begins.
    down_to: int

    @property
    def key(self) -> str:
        """A name for the table of these rows and no others, so that no selection outlives them."""
        return f"jobs-{hash((self.of, tuple((job.id, job.fence) for job in self.jobs)))}"


def newest(q: persistq.PersistentQSQLAlchemy) -> int:
    """Return the newest job's id, 0 when there is none."""
    return next((job.id for job in q.list_jobs(limit=1, newest=True)), 0)


def search(
    q: persistq.PersistentQSQLAlchemy, which: persistq.JobFilter, size: int, below: int, *, seconds: float | None = None
) -> tuple[list[persistq.Job], int]:
    """Return up to ``size`` of the newest jobs below an id, and the id down to which all were looked at, at least 1.

    A filter that may have to look through many looks at the newest only; with ``seconds``, further until that time is
    over. So no statement takes long, however many jobs there are.
    """
    asked = {field.name: getattr(which, field.name) for field in fields(which)}
    crashed = asked.pop("crashed")
    status = asked.pop("status") or (("crashed",) if crashed else ())
    end = q.clock.monotonic() + (seconds or 0.0)
    found: list[persistq.Job] = []
    wide = _is_wide(q, which)
    while True:
        floor = max(0, below - 1 - SPAN) if wide else 0
        missing = size - len(found)
        page = q.list_jobs(status, **asked, limit=missing, newest=True, before=below, after=floor)
        found += page
        below = page[-1].id if len(page) == missing else floor + 1
        if len(page) == missing or not floor or q.clock.monotonic() >= end:
            return found, below


def _is_wide(q: persistq.PersistentQSQLAlchemy, which: persistq.JobFilter) -> bool:
    """Return whether more jobs may have to be looked through than a page can wait for."""
    if which == persistq.JobFilter(status=which.status):
        return False  # an index has them in order
    counts = q.counts()
    wanted = ["pending"] if which.crashed else which.status or counts
    return sum(counts[status] for status in wanted) > FEW


def short(job: persistq.Job) -> persistq.Job:
    """Return the job without the megabytes that an item or a result may have, for sessions are kept in memory."""
    return replace(job, item=job.item[:_LONGEST], error=job.error and job.error[:_LONGEST], result=None)
