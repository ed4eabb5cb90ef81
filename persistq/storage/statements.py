"""Statements: the SQL that has another form in another database, and the hot ones, compiled once.

Core takes several times longer to run a statement than the drivers do. What every job passes through
is therefore written in Core, compiled once for each driver and run on the driver's own cursor; its
values are what the database keeps: times in microseconds, words as text.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    Connection,
    Engine,
    Text,
    any_,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    update,
)
from sqlalchemy.sql.elements import ColumnElement

from .schema import jobs

Build = Callable[[str], Any]
"""Makes the statement for a kind of database: ``sqlite``, ``postgresql`` or ``mysql``."""

ONE = "sqlite, one id"
"""The kind for which a statement among ids is built when there is one: a plain comparison is several times faster."""

_IDS = "/*ids*/"


def kind_of(connection: Connection | Engine) -> str:
    """Return the kind of database behind a connection, ours or a caller's."""
    name = connection.dialect.name
    return "mysql" if name == "mariadb" else name


def among(kind: str, column: Column[Any]) -> ColumnElement[bool]:
    """Return ``column IN :ids`` for any number of ids in one statement that is compiled once."""
    if kind == ONE:
        return column == bindparam("ids")
    if kind == "sqlite":
        return column.in_(select(func.json_each(bindparam("ids")).table_valued("value").c.value))
    if kind == "postgresql":
        return column == any_(cast(bindparam("ids", type_=Text), ARRAY(BigInteger)))
    return column.op("IN", is_comparison=True)(literal_column(f"({_IDS})"))


def first(kind: str, query: Any, number: int) -> Any:
    """Return a query for its first rows, their number a part of the text.

    SQLite makes a new plan each time that a parameter beside LIMIT or OFFSET is bound.
    """
    return query.suffix_with(f"LIMIT {number}") if kind in ("sqlite", ONE) else query.limit(literal_column(str(number)))


def insert_of(kind: str, table: Any) -> Any:
    """Return an INSERT with what the kind of database adds to it.

    Its dialect is imported here: nobody should wait for those of databases that they do not use.
    """
    return import_module(f"sqlalchemy.dialects.{kind}").insert(table)


def upsert(kind: str, table: Any, changes: Callable[[Any], dict[str, Any]]) -> Any:
    """Return an INSERT that makes ``changes(new)`` instead where the primary key is taken."""
    insert = insert_of(kind, table)
    if kind == "mysql":
        return insert.on_duplicate_key_update(**changes(insert.inserted))
    keys = list(table.__table__.primary_key)
    return insert.on_conflict_do_update(index_elements=keys, set_=changes(insert.excluded))


class Statement:
    """A statement whose parameters are given by name."""

    def __init__(self, build: Build, columns: Sequence[str] | None = None) -> None:
        self._build = build
        #: Of an INSERT, the columns that get parameters of the same names; None is all.
        self._columns = columns
        self._compiled: dict[tuple[str, str, bool], tuple[str, Sequence[str] | None, dict[str, Any]]] = {}

    def run(self, connection: Connection, **values: Any) -> Any:
        """Return the driver's cursor after running the statement. ``ids`` is a sequence of int."""
        sql, order, constants = self._for(connection, values.get("ids"))
        if constants:
            values.update(constants)
        if "ids" in values:
            sql = _place_ids(kind_of(connection), sql, values)
        cursor = connection.connection.cursor()
        cursor.execute(sql, values if order is None else [values[name] for name in order])
        return cursor

    def rows(self, connection: Connection, **values: Any) -> list[Any]:
        """Return the rows that the statement gives."""
        cursor = self.run(connection, **values)
        found = cursor.fetchall()
        cursor.close()
        return found if type(found) is list else list(found)

    def count(self, connection: Connection, **values: Any) -> int:
        """Return how many rows the statement changed."""
        cursor = self.run(connection, **values)
        number = cursor.rowcount
        cursor.close()
        return int(number)

    def many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run the statement once for each of ``rows``."""
        sql, order, _ = self._for(connection, None)
        cursor = connection.connection.cursor()
        cursor.executemany(sql, rows if order is None else [[row[name] for name in order] for row in rows])
        cursor.close()

    def _for(self, connection: Connection, ids: Sequence[int] | None) -> Any:
        dialect = connection.dialect
        one = ids is not None and len(ids) == 1
        try:
            return self._compiled[dialect.name, dialect.driver, one]
        except KeyError:
            pass
        kind = kind_of(connection)
        compiled = self._build(ONE if one and kind == "sqlite" else kind).compile(
            dialect=dialect, column_keys=self._columns
        )
        order = list(compiled.positiontup) if compiled.positional else None
        # A dialect may turn a number of the statement into a parameter.
        constants = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
        made = self._compiled[dialect.name, dialect.driver, one] = (str(compiled), order, constants)
        return made


class Change:
    """An UPDATE of the jobs with ``ids`` that tells what it moved, whether or not the database has RETURNING."""

    def __init__(
        self,
        where: Callable[[str], Sequence[ColumnElement[bool]]],
        **values: Any,
    ) -> None:
        self._update = Statement(lambda kind: _returned(kind, update(jobs).where(*where(kind)).values(**values)))
        self._lock = Statement(lambda kind: select(jobs.c.id).where(*where(kind)).with_for_update())

    def ids(self, connection: Connection, **values: Any) -> list[int]:
        """Return the ids of the rows that were changed."""
        kind = kind_of(connection)
        if kind == "sqlite" and len(values["ids"]) == 1:
            # To be told a number costs less than to be handed a row.
            return list(values["ids"]) if self._update.count(connection, **values) else []
        if kind != "mysql":
            return [row[0] for row in self._update.rows(connection, **values)]
        # The rows are locked first, so that the two statements see the same ones.
        found = [row[0] for row in self._lock.rows(connection, **values)]
        if found:
            self._update.run(connection, **{**values, "ids": found}).close()
        return found


def _returned(kind: str, statement: Any) -> Any:
    # The number of rows says as much where there is one id; MySQL and MariaDB return none.
    return statement if kind in ("mysql", ONE) else statement.returning(jobs.c.id)


def _place_ids(kind: str, sql: str, values: dict[str, Any]) -> str:
    """Put the ids in the form that ``among`` asks for; they are numbers, so text cannot break out."""
    ids = values["ids"]
    if kind == "sqlite":
        values["ids"] = ids[0] if len(ids) == 1 else f"[{','.join(map(str, ids))}]"
        return sql
    if kind == "postgresql":  # an array as text, for the driver looks at each element of a list
        values["ids"] = f"{{{','.join(map(str, ids))}}}"
        return sql
    del values["ids"]
    return sql.replace(_IDS, ",".join(map(str, map(int, ids))) or "NULL")
