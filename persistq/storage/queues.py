"""Queues: which there are, and which a person has paused."""

from collections.abc import Mapping

from sqlalchemy import Connection, select

from ..model import JobStatus, QueueInfo
from . import tallies
from .now import Now
from .schema import READY, QueueRow, jobs, queues
from .statements import kind_of, upsert


def set_paused(connection: Connection, now: Now, name: str, *, paused: bool) -> None:
    """Pause or resume a queue; one that has no jobs yet may be paused too."""
    at = now.value if paused else None
    statement = upsert(kind_of(connection), QueueRow, lambda new: {"paused_at": new.paused_at})
    connection.execute(statement, {"name": name, "paused_at": at})


def overview(connection: Connection) -> list[QueueInfo]:
    """Return every queue that ever held a job or was paused."""
    counts = tallies.by_queue(connection)
    paused = set(connection.execute(select(queues.c.name).where(queues.c.paused_at.is_not(None))).scalars())
    return [_info(connection, name, name in paused, counts.get(name, {})) for name in sorted({*counts, *paused})]


def _info(connection: Connection, name: str, paused: bool, counts: Mapping[str, int]) -> QueueInfo:
    head = (
        select(jobs.c.run_at).where(*READY, jobs.c.queue == name).order_by(jobs.c.priority.desc(), jobs.c.id).limit(1)
    )
    return QueueInfo(
        name=name,
        paused=paused,
        counts={**dict.fromkeys(map(str, JobStatus), 0), **counts},
        waiting_since=connection.execute(head).scalar() if counts.get(JobStatus.PENDING) else None,
    )
