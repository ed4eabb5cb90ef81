"""The rows that stand on a visitor's screen. Here and not in a page, whose classes are made anew at each run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import persistq

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
    #: Down to which id all jobs were looked at, and where the next page begins; None when there are no older ones.
    edge: int | None

    @property
    def key(self) -> str:
        """A name for the table of these rows and no others, so that no selection outlives them."""
        return f"jobs-{hash((self.of, tuple((job.id, job.fence) for job in self.jobs)))}"


def newest(q: persistq.PersistentQSQLAlchemy) -> int:
    """Return the newest job's id, 0 when there is none."""
    return next((job.id for job in q.list_jobs(limit=1, newest=True)), 0)


def short(job: persistq.Job) -> persistq.Job:
    """Return the job without the megabytes that an item or a result may have, for sessions are kept in memory."""
    return replace(job, item=job.item[:_LONGEST], error=job.error and job.error[:_LONGEST], result=None)
