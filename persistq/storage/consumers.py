"""The registry of consumers: for eyes only, recovery never reads it."""

import json
from datetime import datetime

from sqlalchemy import Connection, delete, or_, select, update

from ..model import ConsumerInfo, JobStatus
from .schema import ConsumerRow, consumers, jobs, status_is
from .statements import kind_of, upsert


def beat(connection: Connection, info: ConsumerInfo) -> str | None:
    """Write what a consumer says of itself, and return what an operator wants of it."""
    row = {name: getattr(info, name) for name in consumers.c.keys()}  # noqa: SIM118
    row |= {"queues": json.dumps(info.queues), "tasks": None if info.tasks is None else json.dumps(info.tasks)}
    statement = upsert(kind_of(connection), ConsumerRow, lambda new: {key: new[key] for key in ("running", "seen_at")})
    connection.execute(statement, row)
    return connection.execute(select(consumers.c.wish).where(consumers.c.id == info.id)).scalar()


def tell(connection: Connection, consumer: str, wish: str | None) -> list[str]:
    """Write what is wanted of the consumers of an id or a name; return their ids."""
    meant = or_(consumers.c.id == consumer, consumers.c.name == consumer)
    ids = list(connection.execute(select(consumers.c.id).where(meant).order_by(consumers.c.id)).scalars())
    connection.execute(update(consumers).where(consumers.c.id.in_(ids)).values(wish=wish))
    return ids


def remove(connection: Connection, consumer_id: str) -> None:
    """Forget a consumer that stopped."""
    connection.execute(delete(consumers).where(consumers.c.id == consumer_id))


def of_process(connection: Connection, host: str, pid: int) -> list[str]:
    """Return the ids of the consumers that a process was, as the list and the leases know them."""
    known = select(consumers.c.id).where(consumers.c.host == host, consumers.c.pid == pid)
    holders = select(jobs.c.consumer_id).where(status_is(JobStatus.PROCESSING)).distinct()
    mark = f"@{host}:{pid}:"
    held = [found for found in connection.execute(holders).scalars() if found and mark in found]
    return sorted({*connection.execute(known).scalars(), *held})


def prune(connection: Connection, before: datetime) -> int:
    """Forget the consumers that were last seen before a time; return how many."""
    return connection.execute(delete(consumers).where(consumers.c.seen_at < before)).rowcount


def overview(connection: Connection) -> list[ConsumerInfo]:
    """Return the consumers by name."""
    rows = connection.execute(select(consumers).order_by(consumers.c.name, consumers.c.started_at))
    return [
        ConsumerInfo(
            **{
                **row._asdict(),
                "queues": tuple(json.loads(row.queues)),
                "tasks": None if row.tasks is None else tuple(json.loads(row.tasks)),
            }
        )
        for row in rows
    ]
