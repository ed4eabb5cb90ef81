"""Tubes: sharded requests, ready in their order or due later."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, case, delete, func, insert, select, text, update

from . import leases
from .now import Now
from .schema import RequestRow, TubeRow, micros, requests, time_of, tubes
from .statements import Statement, among, kind_of, upsert

PAGE = 500
"""Requests that one transaction makes ready when they are due."""

Kept = tuple[int, bytes, int]
"""Id, payload, place."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """Requests for one tube. Times are microseconds."""

    tube: str
    place: int
    payloads: Sequence[bytes]
    #: Of each payload, if they are to be found by it.
    digests: Sequence[str] | None = None
    due: int | None = None
    every: int | None = None
    unique: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether they are for now."""
        return self.due is None


class Shard(NamedTuple):
    """One tube, for eyes only."""

    tube: str
    ready: int
    later: int
    since: datetime | None


def extend(connection: Connection, now: Now, incoming: Sequence[Incoming]) -> int:
    """Add requests and return how many were not left out.

    The rows of their tubes are held until the commit, taken in the order of their names: so requests
    become visible in the order of their ids, and nobody deadlocks.
    """
    plain: dict[str, int] = {}
    for one in incoming:
        if one.is_ready or one.unique or one.every is not None:
            plain[one.tube] = max(plain.get(one.tube, 0), int(one.is_ready and one.digests is None))
    if plain:
        _HOLD.many(connection, [{"name": name, "turn": now.micros, "plain": plain[name]} for name in sorted(plain)])
    rows = [row for one in incoming for row in _rows(connection, one)]
    _insert(connection, rows)
    filled = {row["tube"] for row in rows if row["due_at"] is None}
    for name in sorted(plain.keys() - filled):
        _DROP_EMPTY.run(connection, tube=name, name=name).close()
    return len(rows)


def _rows(connection: Connection, one: Incoming) -> list[dict[str, Any]]:
    same = {"tube": one.tube, "place": one.place, "due_at": one.due, "every": one.every}
    if one.digests is None:
        return [{**same, "digest": None, "payload": payload} for payload in one.payloads]
    left_out: set[str] = set()
    if one.every is not None:
        left_out = _recurring(connection, one)
    elif one.unique:
        left_out = _known(connection, one)
    rows = []
    for payload, digest in zip(one.payloads, one.digests, strict=True):
        if digest not in left_out:
            rows.append({**same, "digest": digest, "payload": payload})
            if one.unique or one.every is not None:
                left_out.add(digest)
    return rows


def _recurring(connection: Connection, one: Incoming) -> set[str]:
    """Return the digests of those that recur already; what recurs at another interval is forgotten."""
    query = select(requests.c.id, requests.c.digest, requests.c.every).where(
        requests.c.digest.in_(one.digests or ()), requests.c.every.is_not(None)
    )
    found = connection.execute(query).all()
    others = [row.id for row in found if row.every != one.every]
    if others:
        connection.execute(delete(requests).where(requests.c.id.in_(others)))
    return {row.digest for row in found if row.every == one.every}


def _known(connection: Connection, one: Incoming, *, ready_only: bool = False) -> set[str]:
    """Return the digests of those of which an equal one waits."""
    digests = dict(zip(one.payloads, one.digests or (), strict=True))
    query = select(requests.c.digest).where(requests.c.digest.in_(list(digests.values())))
    if ready_only:
        query = query.where(requests.c.due_at.is_(None))
    known = set(connection.execute(query).scalars())
    if connection.execute(select(tubes.c.plain).where(tubes.c.name == one.tube)).scalar():
        ready = (requests.c.tube == one.tube, requests.c.due_at.is_(None), requests.c.digest.is_(None))
        same = select(requests.c.payload).where(*ready, requests.c.payload.in_(list(digests)))
        known.update(digests[bytes(payload)] for payload in connection.execute(same).scalars())
    return {digest for digest in known if digest is not None}


def _insert(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    if kind_of(connection) == "postgresql":
        columns = ("tube", "place", "due_at", "every", "digest", "payload")
        _INSERT_ARRAYS.run(connection, **{column: [row[column] for row in rows] for column in columns}).close()
    else:
        _INSERT.many(connection, rows)


def peek(connection: Connection, tube: str, limit: int) -> list[Kept]:
    """Return the first requests that are ready in a tube."""
    return [
        (number, bytes(payload), place) for number, payload, place in _FIRST.rows(connection, tube=tube, most=limit)
    ]


def exchange(
    connection: Connection, now: Now, tube: str, ids: Sequence[int], lease: tuple[str, str], limit: int
) -> tuple[int, list[Kept]]:
    """Remove requests by their ids; return how many there were, and the first that are left.

    Raises:
        LeaseLost: the lease, given by name and token, is not the newest.
    """
    tries, _ = leases.check(connection, *lease, tube)
    if not ids:
        return 0, peek(connection, tube, limit) if limit else []
    _TURN.run(connection, name=tube, at=now.micros).close()
    removed = _REMOVE.count(connection, tube=tube, ids=ids)
    if removed and tries:
        leases.progress(connection, lease[0])
    left = peek(connection, tube, max(1, limit))
    if not left:
        _DROP.run(connection, name=tube).close()
    return removed, left[:limit]


def length(connection: Connection, tube: str) -> int:
    """Return how many requests are ready in a tube."""
    ready = (requests.c.tube == tube, requests.c.due_at.is_(None))
    return connection.execute(select(func.count()).select_from(requests).where(*ready)).scalar_one()


def waiting(connection: Connection, prefix: str, limit: int | None) -> list[str]:
    """Return the tubes with this prefix that have requests, the one whose turn is oldest first."""
    query = select(tubes.c.name).order_by(tubes.c.turn, tubes.c.name).limit(limit)
    # The index on the turn gives the order; the prefix is all that most tables ever hold.
    return list(connection.execute(query.where(func.substr(tubes.c.name, 1, len(prefix)) == prefix)).scalars())


def next_due(connection: Connection) -> datetime | None:
    """Return when the next request is due, if one is for later."""
    return connection.execute(select(func.min(requests.c.due_at)).where(requests.c.due_at.is_not(None))).scalar()


def mature(connection: Connection, now: Now) -> int:
    """Make a page of requests ready that are due, in that order, and return how many were looked at."""
    due = (
        select(requests).where(requests.c.due_at.is_not(None), requests.c.due_at <= now.value)
        .order_by(requests.c.due_at, requests.c.id).limit(PAGE).with_for_update()
    )  # fmt: skip
    rows = connection.execute(due).all()
    once = [row.id for row in rows if row.every is None]
    if once:
        connection.execute(delete(requests).where(requests.c.id.in_(once)))
    for row in rows:
        if row.every is not None:
            due_at = micros(row.due_at)
            ahead = due_at + row.every * max(1, (now.micros - due_at) // row.every + 1)
            connection.execute(update(requests).where(requests.c.id == row.id).values(due_at=time_of(ahead)))
    # A tick adds nothing while an earlier one waits; what was deferred is added whatever else there is.
    ripe = [Incoming(r.tube, r.place, [bytes(r.payload)], [r.digest], unique=r.every is not None) for r in rows]
    _ripen(connection, now, ripe)
    return len(rows)


def _ripen(connection: Connection, now: Now, ripe: Sequence[Incoming]) -> None:
    if not ripe:
        return
    names = sorted({one.tube for one in ripe})
    _HOLD.many(connection, [{"name": name, "turn": now.micros, "plain": 0} for name in names])
    rows: list[dict[str, Any]] = []
    for one in ripe:
        known = _known(connection, one, ready_only=True) if one.unique else set()
        rows += [
            {"tube": one.tube, "place": one.place, "due_at": None, "every": None, "digest": digest, "payload": payload}
            for payload, digest in zip(one.payloads, one.digests or (), strict=True)
            if digest not in known
        ]
    _insert(connection, rows)


def withdraw(connection: Connection, tube: str, digests: Iterable[str]) -> int:
    """Forget requests of a tube that are for later; return how many there were."""
    later = (requests.c.tube == tube, requests.c.due_at.is_not(None), requests.c.digest.in_(list(digests)))
    return connection.execute(delete(requests).where(*later)).rowcount


def overview(connection: Connection, prefix: str, limit: int) -> list[Shard]:
    """Return what waits in which tube, by name."""
    ready = func.sum(case((requests.c.due_at.is_(None), 1), else_=0))
    counted = (
        select(requests.c.tube, ready, func.count(), tubes.c.turn)
        .outerjoin_from(requests, tubes, tubes.c.name == requests.c.tube)
        .where(func.substr(requests.c.tube, 1, len(prefix)) == prefix)
        .group_by(requests.c.tube, tubes.c.turn).order_by(requests.c.tube).limit(limit)
    )  # fmt: skip
    return [Shard(name, int(now), int(all_ - now), since) for name, now, all_, since in connection.execute(counted)]


_HOLD = Statement(
    lambda kind: upsert(kind, TubeRow, lambda new: {"plain": _greater(kind, tubes.c.plain, new.plain)}),
    ["name", "turn", "plain"],
)
_INSERT = Statement(
    lambda _kind: insert(RequestRow).inline(), ["tube", "place", "due_at", "every", "digest", "payload"]
)
_INSERT_ARRAYS = Statement(
    lambda _kind: text(
        "INSERT INTO requests (tube, place, due_at, every, digest, payload)"
        " SELECT tube, place, due_at, every, digest, payload FROM unnest("
        "CAST(:tube AS text[]), CAST(:place AS bigint[]), CAST(:due_at AS bigint[]), CAST(:every AS bigint[]),"
        " CAST(:digest AS text[]), CAST(:payload AS bytea[])"
        ") WITH ORDINALITY AS given (tube, place, due_at, every, digest, payload, number) ORDER BY number"
    )
)
_FIRST = Statement(
    lambda _kind: text(
        "SELECT id, payload, place FROM requests WHERE tube = :tube AND due_at IS NULL ORDER BY place, id LIMIT :most"
    )
)
_REMOVE = Statement(
    lambda kind: delete(requests).where(among(kind, requests.c.id), requests.c.tube == bindparam("tube"))
)
_TURN = Statement(lambda _kind: text("UPDATE tubes SET turn = :at WHERE name = :name"))
_DROP = Statement(lambda _kind: text("DELETE FROM tubes WHERE name = :name"))
_DROP_EMPTY = Statement(
    lambda _kind: text(
        "DELETE FROM tubes WHERE name = :name AND NOT EXISTS"
        " (SELECT 1 FROM requests WHERE tube = :tube AND due_at IS NULL)"
    )
)


def _greater(kind: str, one: Any, other: Any) -> Any:
    return (func.max if kind == "sqlite" else func.greatest)(one, other)
