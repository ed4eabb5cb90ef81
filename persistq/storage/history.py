"""The events table: what happened to a job besides the happy path."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from .. import codec
from ..model import Event
from .now import Now
from .schema import events

KEPT = 100
"""Events of one job; a job that is resubmitted for ever would otherwise never stop growing."""

LOOK_EVERY = 16
"""Moves of a job between two looks whether it has more."""

Line = tuple[int, int | None, dict[str, Any]]
"""Job id, attempt, detail."""


def record(connection: Connection, now: Now, kind: str, actor: str | None, lines: Iterable[Line]) -> None:
    """Write one event for each job."""
    rows = [
        {
            "job_id": job_id,
            "at": now.value,
            "kind": kind,
            "actor": codec.storable(actor, 255) if actor else None,
            "attempt": attempt,
            "detail": codec.dumps({key: value for key, value in detail.items() if value is not None}),
        }
        for job_id, attempt, detail in lines
    ]
    if rows:
        connection.execute(insert(events), rows)


def trim(connection: Connection, moved: Iterable[Any]) -> None:
    """Forget the oldest events of jobs, or rows of jobs, that something was just recorded for, when there are too many.

    It looks now and then only. Of two fences in a row at least one has an event, for nobody but a claim
    raises the fence without one; so it looks at two, lest a job that goes in circles should slip through.
    """
    for job in moved:
        if job.fence % LOOK_EVERY < LOOK_EVERY - 2:
            continue
        newest = select(events.c.id).where(events.c.job_id == job.id).order_by(events.c.id.desc())
        last = connection.execute(newest.offset(KEPT).limit(1)).scalar()
        if last is not None:
            connection.execute(delete(events).where(events.c.job_id == job.id, events.c.id <= last))


def of_job(connection: Connection, job_id: int) -> list[Event]:
    """Return a job's events, oldest first."""
    query = select(events).where(events.c.job_id == job_id).order_by(events.c.id)
    return [
        Event(at=row.at, kind=row.kind, actor=row.actor, attempt=row.attempt, detail=codec.loads(row.detail))
        for row in connection.execute(query)
    ]
