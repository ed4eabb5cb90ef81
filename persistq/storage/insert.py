"""New jobs: one, or many by the fastest road that each database has."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, insert, literal_column, select, text

from .. import codec
from . import tallies
from .rows import Run
from .schema import jobs
from .statements import Statement, insert_of, kind_of

_SHARED = ("queue", "task", "priority", "max_attempts", "timeout", "delayed", "run_at", "created_at")
_PENDING: Any = literal_column("'pending'")
_MYSQL_ROWS, _MYSQL_CHARS = 1_000, 500_000
_COPY_FROM = 20
"""Jobs from which on COPY, which takes three trips to the server instead of one for each job, is faster."""


def insert_run(connection: Connection, run: Run) -> list[int]:
    """Insert jobs without a unique key and return their ids in the same order."""
    kind = kind_of(connection)
    if kind == "postgresql" and len(run.items) == 1:
        # The count goes along in the same statement, so that the whole call is one trip and one transaction.
        row = {**run.shared, "item": run.items[0], "slot": random.randint(1, tallies.LARGEST_SLOT)}
        return [int(_ONE_COUNTED.rows(connection, **row)[0][0])]
    if len(run.items) == 1:
        ids = [_insert_one(connection, run)]
    elif kind == "sqlite":
        ids = _insert_json(connection, run)
    elif kind == "postgresql":
        ids = _insert_by_copy(connection, run) if _can_copy(connection, run) else _insert_array(connection, run)
    else:
        ids = [job_id for items in _portions(run.items) for job_id in _insert_rows(connection, run, items)]
    tallies.add(connection, {(run.queue, "pending"): len(ids)})
    return ids


def insert_ones(connection: Connection, runs: Sequence[Run]) -> list[int]:
    """Insert the one job of each run, none with a unique key, into SQLite, and return their ids in the same order."""
    _ONE.many(connection, [{**run.shared, "item": run.items[0]} for run in runs])
    ((last,),) = _LAST.rows(connection)
    tallies.add(connection, Counter((run.queue, "pending") for run in runs))
    return _ids_until(last, len(runs))


def insert_unique(connection: Connection, run: Run) -> tuple[int, bool]:
    """Insert a job with a unique key; return the id that has the key, and whether it is new."""
    row = {**run.shared, "item": run.items[0], "unique_key": run.unique_key}
    while True:
        if kind_of(connection) == "mysql":
            cursor = _UNIQUE.run(connection, **row)
            made = cursor.lastrowid if cursor.rowcount else None
            cursor.close()
        else:
            made = next((found[0] for found in _UNIQUE.rows(connection, **row)), None)
        if made is not None:
            tallies.add(connection, {(run.queue, "pending"): 1})
            return int(made), True
        found = _BY_KEY.rows(connection, of_queue=run.queue, key=run.unique_key)
        if found:  # else it was deleted in between: the key is free again
            return int(found[0][0]), False


def _one(kind: str) -> Any:
    statement = insert(jobs).values(status=_PENDING)
    return statement.returning(jobs.c.id) if kind == "postgresql" else statement.inline()


def _unique(kind: str) -> Any:
    if kind == "mysql":
        # IGNORE would also bend values that do not fit; these have been checked.
        return insert(jobs).values(status=_PENDING).prefix_with("IGNORE").inline()
    return insert_of(kind, jobs).values(status=_PENDING).on_conflict_do_nothing().returning(jobs.c.id)


def _locked(kind: str, query: Any) -> Any:
    return query.with_for_update(read=True) if kind == "mysql" else query


_ONE = Statement(_one, [*_SHARED, "item"])
_UNIQUE = Statement(_unique, [*_SHARED, "item", "unique_key"])
# A locking read sees what was committed after a caller's snapshot was taken, which the refusal has just proved to be.
_BY_KEY = Statement(
    lambda kind: _locked(
        kind,
        select(jobs.c.id).where(jobs.c.queue == bindparam("of_queue"), jobs.c.unique_key == bindparam("key")),
    )
)
_ONE_COUNTED = Statement(
    lambda _kind: text(
        "WITH counted AS (INSERT INTO tallies (queue, slot, pending, processing, done, failed, cancelled)"
        " VALUES (:queue, :slot, 1, 0, 0, 0, 0))"
        " INSERT INTO jobs (status, item, queue, task, priority, max_attempts, timeout, delayed, run_at, created_at)"
        " VALUES ('pending', :item, :queue, :task, :priority, :max_attempts, :timeout, :delayed, :run_at, :created_at)"
        " RETURNING id"
    )
)


def _insert_one(connection: Connection, run: Run) -> int:
    cursor = _ONE.run(connection, **run.shared, item=run.items[0])
    made = cursor.lastrowid
    cursor.close()
    return int(made)


_LAST = Statement(lambda _kind: text("SELECT last_insert_rowid()"))
# One statement over a JSON array: the rows are made inside SQLite, twice as fast as a call for each from Python.
_JSON = Statement(
    lambda _kind: text(
        "INSERT INTO jobs (status, item, queue, task, priority, max_attempts, timeout, delayed, run_at, created_at)"
        " SELECT 'pending', value, :queue, :task, :priority, :max_attempts, :timeout, :delayed, :run_at, :created_at"
        " FROM json_each(:items)"
    )
)


def _insert_json(connection: Connection, run: Run) -> list[int]:
    cursor = _JSON.run(connection, **run.shared, items=codec.dumps_texts(run.items))
    last = cursor.lastrowid
    cursor.close()
    return _ids_until(last, len(run.items))


def _ids_until(last: int, number: int) -> list[int]:
    """Return the last ids of SQLite: the one writer there is gets them without gaps."""
    return list(range(last - number + 1, last + 1))


_ARRAY = Statement(
    lambda _kind: text(
        "INSERT INTO jobs (status, item, queue, task, priority, max_attempts, timeout, delayed, run_at, created_at)"
        " SELECT 'pending', item, CAST(:queue AS varchar), CAST(:task AS varchar), CAST(:priority AS integer),"
        " CAST(:max_attempts AS integer), CAST(:timeout AS double precision), CAST(:delayed AS smallint),"
        " CAST(:run_at AS bigint), CAST(:created_at AS bigint)"
        " FROM unnest(CAST(:items AS text[])) WITH ORDINALITY AS given (item, place) ORDER BY place RETURNING id"
    )
)


def _insert_array(connection: Connection, run: Run) -> list[int]:
    return sorted(int(row[0]) for row in _ARRAY.rows(connection, **run.shared, items=run.items))


def _can_copy(connection: Connection, run: Run) -> bool:
    return connection.dialect.driver == "psycopg" and not connection.dialect.is_async and len(run.items) >= _COPY_FROM


def _insert_by_copy(connection: Connection, run: Run) -> list[int]:
    """Load the rows as text; their ids are drawn before, for COPY returns none."""
    driver: Any = connection.connection.dbapi_connection
    drawn = driver.execute("SELECT nextval('jobs_id_seq') FROM generate_series(1, %s)", (len(run.items),)).fetchall()
    ids = [int(row[0]) for row in drawn]
    rest = "".join(f"\t{_copied(run.shared[name])}" for name in _SHARED) + "\tpending\n"
    with (
        driver.cursor() as cursor,
        cursor.copy(f"COPY jobs (id, item, {', '.join(_SHARED)}, status) FROM STDIN") as copy,
    ):
        copy.write("".join([f"{job_id}\t{_copied(item)}{rest}" for job_id, item in zip(ids, run.items, strict=True)]))
    return ids


def _copied(value: Any) -> str:
    """Return a value in COPY's text form."""
    if value is None:
        return "\\N"
    if not isinstance(value, str):
        return repr(value)
    return value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _insert_rows(connection: Connection, run: Run, items: Sequence[str]) -> Iterable[int]:
    """Insert several rows by one INSERT, whose ids InnoDB draws together."""
    columns = (*_SHARED, "item")
    place = ", ".join(["%s"] * len(columns))
    shared = [run.shared[name] for name in _SHARED]
    cursor: Any = connection.connection.cursor()
    cursor.execute("SELECT @@auto_increment_increment")
    step = cursor.fetchone()[0]
    rows = ", ".join([f"({place}, 'pending')"] * len(items))
    cursor.execute(
        f"INSERT INTO jobs ({', '.join(f'`{name}`' for name in columns)}, status) VALUES {rows}",  # noqa: S608
        [value for item in items for value in (*shared, item)],
    )
    first = int(cursor.lastrowid)
    cursor.close()
    return range(first, first + step * len(items), step)


def _portions(items: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the items in portions that a server's max_allowed_packet has room for."""
    portion: list[str] = []
    chars = 0
    for item in items:
        if portion and (len(portion) == _MYSQL_ROWS or chars + len(item) > _MYSQL_CHARS):
            yield portion
            portion, chars = [], 0
        portion.append(item)
        chars += len(item)
    yield portion
