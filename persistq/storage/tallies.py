"""Counts that never scan: each transaction that moves a job keeps them."""

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, text

from ..model import TERMINAL, JobStatus
from .schema import TallyRow, jobs, tallies
from .statements import Statement, kind_of, upsert

Moves = dict[tuple[str, str], int]
"""By how much the number of jobs changes, by queue and status."""

FOLDED = 0
"""The slot of the sum."""

PAGE = 5_000
_NONE = dict.fromkeys(map(str, JobStatus), 0)
_COLUMNS = [tallies.c[status.value] for status in JobStatus]
LARGEST_SLOT = (1 << 62) - 1


def _sum(kind: str) -> Any:
    return upsert(kind, TallyRow, lambda new: {column.name: column + new[column.name] for column in _COLUMNS})


_FOLD = Statement(_sum)
# SQLite has one writer at a time, so that nobody waits for a counter; elsewhere each transaction has its own row.
_ADD = Statement(lambda kind: _sum(kind) if kind == "sqlite" else insert(tallies))


def add(connection: Connection, moves: Mapping[tuple[str, str], int]) -> None:
    """Add to the counts of (queue, status)."""
    by_queue: dict[str, dict[str, int]] = {}
    for (queue, status), change in moves.items():
        if change:
            by_queue.setdefault(queue, {})[status] = change
    for queue, counts in by_queue.items():
        slot = FOLDED if kind_of(connection) == "sqlite" else random.randint(1, LARGEST_SLOT)
        _ADD.run(connection, **{"queue": queue, "slot": slot, **_NONE, **counts}).close()


def count(moves: Moves, queues: Iterable[str], source: str, target: str) -> None:
    """Add to ``moves`` that one job of each named queue leaves one status for another."""
    for queue, number in Counter(queues).items():
        moves[queue, source] = moves.get((queue, source), 0) - number
        moves[queue, target] = moves.get((queue, target), 0) + number


def by_queue(connection: Connection) -> dict[str, dict[str, int]]:
    """Return the counts of every queue that ever held a job."""
    query = select(tallies.c.queue, *map(func.sum, _COLUMNS)).group_by(tallies.c.queue).order_by(tallies.c.queue)
    words = list(map(str, JobStatus))
    return {row[0]: dict(zip(words, map(int, row[1:]), strict=True)) for row in connection.execute(query)}


def total(connection: Connection, queue: str | None) -> dict[str, int]:
    """Return the counts of one queue, or of all."""
    query = select(*map(func.sum, _COLUMNS))
    if queue is not None:
        query = query.where(tallies.c.queue == queue)
    return dict(zip(map(str, JobStatus), (int(number or 0) for number in connection.execute(query).one()), strict=True))


def unfinished(connection: Connection) -> int:
    """Return how many jobs are not over."""
    return int(_UNFINISHED.rows(connection)[0][0] or 0)


_UNFINISHED = Statement(
    lambda _kind: select(func.sum(sum(tallies.c[status.value] for status in JobStatus if status not in TERMINAL)))
)


def fold(connection: Connection) -> int:
    """Add up to a page of single changes to the sums; return how many there were."""
    rows = connection.execute(
        select(tallies).where(tallies.c.slot != FOLDED).limit(PAGE).with_for_update(skip_locked=True)
    ).all()
    if not rows:
        return 0
    sums: dict[str, list[int]] = {}
    slots: dict[str, list[int]] = {}
    for queue, slot, *counts in rows:
        sums[queue] = [a + b for a, b in zip(sums.get(queue, [0] * len(counts)), counts, strict=True)]
        slots.setdefault(queue, []).append(slot)
    # In one order always, so that two who fold at once cannot deadlock.
    for queue, counts in sorted(sums.items()):
        _forget(connection, queue, slots[queue])
        _FOLD.run(connection, queue=queue, slot=FOLDED, **dict(zip(map(str, JobStatus), counts, strict=True))).close()
    return len(rows)


def _forget(connection: Connection, queue: str, slots: Sequence[int]) -> None:
    if kind_of(connection) == "mysql":
        connection.execute(_FORGET_ONE_BY_ONE, {"of_queue": queue, "slots": json.dumps(slots)})
    else:
        connection.execute(delete(tallies).where(tallies.c.queue == queue, tallies.c.slot.in_(slots)))


# By a plain IN, InnoDB may scan the table, and waits then for each row that others have not committed yet.
_FORGET_ONE_BY_ONE = text(
    "DELETE tallies FROM JSON_TABLE(:slots, '$[*]' COLUMNS (slot BIGINT PATH '$')) AS folded"
    " STRAIGHT_JOIN tallies ON tallies.queue = :of_queue AND tallies.slot = folded.slot"
)


def drift(connection: Connection) -> Moves:
    """Return by how much the counts are off, found by counting every row; empty when they are right."""
    actual = Counter(
        {
            (queue, status): number
            for queue, status, number in connection.execute(
                select(jobs.c.queue, jobs.c.status, func.count()).group_by(jobs.c.queue, jobs.c.status)
            )
        }
    )
    for queue, counts in by_queue(connection).items():
        actual.subtract({(queue, status): number for status, number in counts.items()})
    return {key: change for key, change in actual.items() if change}
