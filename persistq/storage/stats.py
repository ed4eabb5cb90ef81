"""What operators ask about jobs besides lists and counts; nothing here reads more than a bounded number of rows."""

import re
from collections import Counter
from datetime import datetime

from sqlalchemy import BigInteger, Connection, and_, func, select, type_coerce

from ..actions import ErrorGroup
from ..explain import MOST_AHEAD, Facts
from ..model import Job, JobFilter, JobStatus
from . import consumers, search
from .jobs import conditions, get
from .now import Now
from .schema import READY, jobs, queues, time_of

MOST_FAILURES = 3_000
"""Failures, the newest ones, that are looked at to group them: of a million, as many as a page can wait for."""

_LONGEST = 300
# What makes alike messages differ: numbers, hexadecimal ids, quoted names, paths.
_VARYING = re.compile(r"'[^']*'|\"[^\"]*\"|0x[0-9a-fA-F]+|\b[0-9a-fA-F]{8,}\b|(?:/[\w.-]+)+|\d+")
_CLASS = re.compile(r"[A-Za-z_][\w.]*(?=:|$)")


def facts(connection: Connection, now: Now, wall: datetime, job_id: int) -> Facts:
    """Return what the database knows about a job and its surroundings.

    Raises:
        JobNotFound: no job has the id.
    """
    job = get(connection, job_id)
    return Facts(
        job=job,
        now=now.value,
        wall=wall,
        paused_at=connection.execute(select(queues.c.paused_at).where(queues.c.name == job.queue)).scalar(),
        consumers=consumers.overview(connection),
        ahead=_ahead(connection, job) if job.status is JobStatus.PENDING else 0,
    )


def errors(connection: Connection, which: JobFilter) -> tuple[list[ErrorGroup], bool]:
    """Return the newest failures in groups, the largest first, and whether older jobs were not looked at."""
    ended = type_coerce(jobs.c.finished_at, BigInteger)  # as it is kept: only a group's newest is told
    query = select(jobs.c.id, jobs.c.queue, jobs.c.task, func.substr(jobs.c.error, 1, _LONGEST), ended)
    end = search.reach(connection, which, newest=True)
    query = query.where(jobs.c.id >= (end or 0), jobs.c.error.is_not(None), *conditions(connection, which))
    rows = connection.execute(query.order_by(jobs.c.id.desc()).limit(MOST_FAILURES + 1)).all()
    known: dict[str, tuple[str, str]] = {}
    sizes: Counter[tuple[str, str, str, str | None]] = Counter()
    newest: dict[tuple[str, str, str, str | None], tuple[int, int | None]] = {}
    for job_id, queue, task, error, ended_at in rows[:MOST_FAILURES]:
        alike = known.get(error) or known.setdefault(error, _likeness(error))
        group = (*alike, queue, task)
        sizes[group] += 1
        newest.setdefault(group, (job_id, ended_at))
    found = [
        ErrorGroup(
            error=error, message=message, queue=queue, task=task, count=sizes[error, message, queue, task],
            newest_id=job_id, newest_at=None if ended_at is None else time_of(ended_at),
        )
        for (error, message, queue, task), (job_id, ended_at) in newest.items()
    ]  # fmt: skip
    left_out = end is not None or len(rows) > MOST_FAILURES
    return sorted(found, key=lambda group: (-group.count, -group.newest_id)), left_out


def _ahead(connection: Connection, job: Job) -> int:
    """Return how many ready jobs of the queue come first, each kind of them read from the index where it stands."""
    urgent = jobs.c.priority > job.priority
    earlier = and_(jobs.c.priority == job.priority, jobs.c.id < job.id)
    found = 0
    for before in (urgent, earlier):
        line = select(jobs.c.id).where(*READY, jobs.c.queue == job.queue, before).limit(MOST_AHEAD - found)
        found += connection.execute(select(func.count()).select_from(line.subquery())).scalar_one()
    return found


def _likeness(error: str) -> tuple[str, str]:
    """Return an error's class and its message without what varies; no class where it is no exception's."""
    first = _CLASS.match(error)
    name = first[0] if first and (error[first.end() :].startswith(": ") or first.end() == len(error)) else ""
    message = error[len(name) :].removeprefix(": ")
    return name, _VARYING.sub("#", message)
