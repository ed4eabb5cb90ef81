"""Leases: who may perform which tube, until when."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, or_, select, update

from ..errors import LeaseLost
from .now import Now
from .schema import LeaseRow, leases, micros
from .statements import Statement, insert_of


@dataclass(frozen=True, slots=True)
class Bound:
    """What became of a tube that was bound."""

    name: str
    tube: str
    tries: int
    #: Whether its last holder let it run out.
    taken_over: bool


def free(connection: Connection, now: Now, names: Sequence[str], *, calm: bool) -> list[str]:
    """Return which of these nobody holds, in their order.

    Unless the clock is ``calm``, what has run out counts as held: it may only look so.
    """
    query = select(leases.c.name).where(leases.c.name.in_(names))
    held = leases.c.lease_until > now.value
    busy = set(connection.execute(query.where(held if calm else or_(held, leases.c.owner != ""))).scalars())
    return [name for name in names if name not in busy]


def bind_first(connection: Connection, now: Now, tubes: Mapping[str, str], token: str, seconds: float) -> Bound | None:
    """Bind the first of these tubes, by their names, that is free, and return which."""
    for name, tube in tubes.items():
        if bound := _bind(connection, now, name, tube, token, seconds):
            return bound
    return None


def _bind(connection: Connection, now: Now, name: str, tube: str, token: str, seconds: float) -> Bound | None:
    times = {"bound_at": now.value, "lease_until": now.after(seconds)}
    found = connection.execute(
        select(leases.c.owner, leases.c.tries, leases.c.lease_until).where(leases.c.name == name).with_for_update()
    ).one_or_none()
    if found is None:
        # The driver's own count tells who came first; what SQLAlchemy says of an INSERT may be -1.
        row = {"name": name, "tube": tube, "owner": token, "tries": 0}
        row |= {column: micros(time) for column, time in times.items()}
        return Bound(name, tube, 0, False) if _INSERT.count(connection, **row) == 1 else None
    if found.lease_until > now.value:
        return None
    died = found.owner != ""
    tries = found.tries + died
    connection.execute(update(leases).where(leases.c.name == name).values(owner=token, tries=tries, **times))
    return Bound(name, tube, tries, died)


def _insert(kind: str) -> Any:
    if kind == "mysql":
        return insert(LeaseRow).prefix_with("IGNORE").inline()
    return insert_of(kind, LeaseRow).on_conflict_do_nothing().inline()


def _held(_kind: str) -> Any:
    ours = (leases.c.name == bindparam("name"), leases.c.owner == bindparam("token"))
    return select(leases.c.tries, leases.c.bound_at).where(*ours).with_for_update()


_INSERT = Statement(_insert, ["name", "tube", "owner", "tries", "bound_at", "lease_until"])
_HELD = Statement(_held)
_PROGRESS = Statement(lambda _kind: update(leases).where(leases.c.name == bindparam("lease")).values(tries=0))


def check(connection: Connection, name: str, token: str, tube: str) -> tuple[int, int]:
    """Return the lease's tries and when it was bound, in microseconds; it is locked until the transaction ends.

    Raises:
        LeaseLost: it is not the newest.
    """
    found = _HELD.rows(connection, name=name, token=token)
    if not found:
        raise LeaseLost(f"tube {tube}")
    tries, bound_at = found[0]
    return tries, bound_at


def progress(connection: Connection, name: str) -> None:
    """Note that the holder gets on: the head is another one."""
    _PROGRESS.run(connection, lease=name).close()


def renew(connection: Connection, now: Now, name: str, token: str, tube: str, seconds: float, cap: float) -> None:
    """Make a lease last ``seconds`` from now, but never past ``cap`` seconds after it was bound.

    Raises:
        LeaseLost: it is not the newest, or that time is over.
    """
    _, bound_at = check(connection, name, token, tube)
    left = min(seconds, (bound_at - now.micros) / 1_000_000 + cap)
    if left <= 0:
        raise LeaseLost(f"tube {tube} was held for QUEUE_COORDINATOR_TIMEOUT")
    connection.execute(update(leases).where(leases.c.name == name).values(lease_until=now.after(left)))


def unbind(connection: Connection, now: Now, name: str, token: str, tries: int, pause: float) -> None:
    """Give a tube back, if the lease is the newest; let it rest for ``pause`` seconds, and remember its tries."""
    which = (leases.c.name == name, leases.c.owner == token)
    if tries or pause > 0:
        rest = {"owner": "", "tries": tries, "lease_until": now.after(pause)}
        connection.execute(update(leases).where(*which).values(**rest))
    else:
        connection.execute(delete(leases).where(*which))


def release(connection: Connection, name: str) -> bool:
    """Forget a lease, whoever holds it; return whether there was one."""
    return connection.execute(delete(leases).where(leases.c.name == name)).rowcount > 0


def overview(connection: Connection, prefix: str, limit: int) -> list[tuple[str, str, int, datetime, datetime]]:
    """Return tube, owner, tries, since when and until when, by tube."""
    columns = (leases.c.tube, leases.c.owner, leases.c.tries, leases.c.bound_at, leases.c.lease_until)
    ours = leases.c.name.startswith(prefix, autoescape=True)
    rows = connection.execute(select(*columns).where(ours).order_by(leases.c.tube).limit(limit))
    return [tuple(row) for row in rows]
