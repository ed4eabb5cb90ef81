"""Promotion: an item of a stream that its handler has failed for good becomes a job that waits for a person."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from ..codec import storable
from . import history, insert
from .jobs import transition
from .now import Now
from .rows import Run
from .schema import jobs


def promote(connection: Connection, now: Now, actor: str, run: Run, why: str, detail: Mapping[str, Any]) -> int:
    """Make a failed job of an item under its unique key, unless there is one, and return the job's id."""
    job_id, new = insert.insert_unique(connection, run)
    if new:
        changes: dict[str, Any] = {"error": storable(why), "finished_at": now.value, "lease_until": None}
        transition(connection, "mark_failed", jobs.c.id == job_id, **changes)
        history.record(connection, now, "promoted", actor, [(job_id, 0, {"error": storable(why), **detail})])
    return job_id
