"""Export and import: every job with its history as lines of JSON, from any kind of database to any other."""

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Connection, Float, Integer, SmallInteger, Table, insert, select, text

from ..errors import ConfigError, PayloadError
from . import tallies
from .jobs import CHUNK, last_id
from .schema import REVISION, UtcDateTime, events, jobs, micros, queues, time_of
from .statements import kind_of

_NUMBERS = (Integer, BigInteger, SmallInteger)
_SEQUENCES = ("jobs", "events")


def header() -> str:
    """Return the first line of an export."""
    return json.dumps({"persistq": REVISION})


def page(connection: Connection, after: int) -> tuple[list[str], int]:
    """Return the lines of the next jobs, and the last one's id; no lines when there are none."""
    rows = connection.execute(select(jobs).where(jobs.c.id > after).order_by(jobs.c.id).limit(CHUNK)).all()
    ids = [row.id for row in rows]
    history: dict[int, list[dict[str, Any]]] = {}
    query = select(events).where(events.c.job_id.in_(ids)).order_by(events.c.id)
    for row in connection.execute(query) if ids else ():
        line = _line_of(row._asdict())
        del line["id"], line["job_id"]
        history.setdefault(row.job_id, []).append(line)
    lines = [json.dumps({"job": _line_of(row._asdict()), "events": history.get(row.id, [])}) for row in rows]
    return lines, ids[-1] if ids else after


def paused(connection: Connection) -> list[str]:
    """Return a line for each paused queue."""
    rows = connection.execute(select(queues).where(queues.c.paused_at.is_not(None)).order_by(queues.c.name))
    return [json.dumps({"queue": _line_of(row._asdict())}) for row in rows]


def take_in(connection: Connection, lines: Iterable[str]) -> int:
    """Add what an export holds to a database without jobs; return how many jobs there were.

    Raises:
        ConfigError: the database holds jobs already.
        PayloadError: a line is no line of an export.
    """
    if last_id(connection):
        raise ConfigError("the database holds jobs; import into an empty one, for the ids stay what they are")
    added, batch = 0, []
    for number, found in _parsed(lines):
        if "queue" in found:
            connection.execute(insert(queues).values(_row(queues, found["queue"], number)))
            continue
        batch.append((number, found))
        if len(batch) == CHUNK:
            added += _add(connection, batch)
            batch = []
    added += _add(connection, batch)
    tallies.add(connection, tallies.drift(connection))
    if kind_of(connection) == "postgresql":
        for table in _SEQUENCES:
            sequence = f"pg_get_serial_sequence('{table}', 'id')"
            connection.execute(
                text(f"SELECT setval({sequence}, GREATEST(1, (SELECT COALESCE(max(id), 1) FROM {table})))")  # noqa: S608
            )
    return added


def _add(connection: Connection, batch: list[tuple[int, dict[str, Any]]]) -> int:
    rows = [_row(jobs, found["job"], number) for number, found in batch]
    history = [
        _row(events, {**event, "job_id": row["id"]}, number, without=("id",))
        for (number, found), row in zip(batch, rows, strict=True)
        for event in found.get("events", ())
    ]
    if rows:
        connection.execute(insert(jobs), rows)
    if history:
        connection.execute(insert(events), history)
    return len(rows)


def _parsed(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    version = None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            raise _refused(number) from None
        if version is None:
            version = found.get("persistq") if isinstance(found, dict) else None
            if not isinstance(version, str) or version > REVISION:
                raise PayloadError(f"line {number} does not begin an export that this version can read")
            continue
        if not isinstance(found, dict) or not isinstance(found.get("job", found.get("queue")), dict):
            raise _refused(number)
        yield number, found


def _row(table: Table, line: dict[str, Any], number: int, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a line's values as the table's columns take them; every column has to be there, and no other."""
    columns = {column.name: column for column in table.columns if column.name not in without}
    if line.keys() != columns.keys():
        raise _refused(number)
    row: dict[str, Any] = {}
    for name, value in line.items():
        kind, nullable = columns[name].type, columns[name].nullable
        wanted: type | tuple[type, ...] = str
        if isinstance(kind, (UtcDateTime, *_NUMBERS)):
            wanted = int
        elif isinstance(kind, Float):
            wanted = (int, float)
        if isinstance(value, bool) or not (isinstance(value, wanted) or (value is None and nullable)):
            raise _refused(number)
        row[name] = time_of(value) if isinstance(kind, UtcDateTime) and isinstance(value, int) else value
    return row


def _line_of(row: dict[str, Any]) -> dict[str, Any]:
    return {name: micros(value) if isinstance(value, datetime) else value for name, value in row.items()}


def _refused(number: int) -> PayloadError:
    return PayloadError(f"line {number} is no line of an export; nothing was imported")
