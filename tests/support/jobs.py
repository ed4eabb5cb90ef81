"""Jobs brought into a wanted state through the public door."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import persistq
from persistq import Job, JobStatus

if TYPE_CHECKING:
    from support.clock import FakeClock

Queue = persistq.PersistentQSQLAlchemy
MakeQueue = Callable[..., Queue]

WORKER = "worker@host:1:aaaa"
OTHER = "other@host:2:bbbb"


def claim(q: Queue, consumer: str = WORKER, **options: object) -> Job:
    """Return the next job, leased; there has to be one."""
    job = q.dequeue(consumer, **options)
    assert job is not None, "there is no job to claim"
    return job


def job_in(q: Queue, status: str, item: str = "work") -> Job:
    """Enqueue a job, bring it to a status by the ordinary way, and return it as it stands."""
    job_id = q.enqueue(item, f"to-{status}")
    if status in ("processing", "done", "failed"):
        job = claim(q, queue=f"to-{status}")
        if status == "done":
            q.complete(job)
        elif status == "failed":
            q.fail(job, "broken", permanent=True)
    elif status == "cancelled":
        q.cancel(job_id)
    found = q.get_job(job_id)
    assert found.status == status
    return found


def run_out_of_attempts(q: Queue, clock: "FakeClock") -> list[int]:
    """Let each delivery end in an expired lease until none comes, and return the attempts counted."""
    seen = []
    while job := q.dequeue(WORKER):
        seen.append(job.attempts)
        clock.advance(q.settings.timeout_seconds + 1)
        q.recover()
    return seen


STATUSES = tuple(str(status) for status in JobStatus)
