"""Statements that are compiled once: any number of ids, and nothing but numbers in SQL text."""

import sqlite3
from typing import Any

import pytest
from sqlalchemy import bindparam, create_mock_engine, select, update
from sqlalchemy.dialects import mysql, postgresql, sqlite
from support.jobs import Queue

from persistq.storage import statements
from persistq.storage.schema import jobs
from persistq.storage.statements import ONE, Change, Statement, among, first, kind_of, upsert

DIALECTS = {"sqlite": sqlite.dialect, ONE: sqlite.dialect, "postgresql": postgresql.dialect, "mysql": mysql.dialect}
NUMBERS = [[], [1], [3, 1, 2], list(range(5_000)), [2**62]]


class FakeConnection:
    """Takes down what reaches a driver."""

    def __init__(self, kind: str) -> None:
        self.dialect: Any = DIALECTS[kind]()
        self.dialect.driver = self.dialect.driver or "none"
        self.ran: list[tuple[str, Any]] = []
        self.connection = self
        self.rowcount = 0

    def cursor(self) -> "FakeConnection":
        return self

    def execute(self, sql: str, values: Any) -> None:
        self.ran.append((sql, values))

    def fetchall(self) -> tuple[Any, ...]:
        return ()

    def close(self) -> None:
        pass


def sql_of(kind: str, statement: Any) -> str:
    return " ".join(str(statement.compile(dialect=DIALECTS[kind]())).split())


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("sqlite", "jobs.id IN (SELECT value FROM json_each(?) AS anon_1)"),
        (ONE, "jobs.id = ?"),
        ("postgresql", "jobs.id = ANY (CAST(%(ids)s::VARCHAR AS BIGINT[]))"),
        ("mysql", "jobs.id IN (/*ids*/)"),
    ],
)
def test_each_kind_has_its_form_for_many_ids(kind: str, expected: str) -> None:
    made = sql_of(kind, select(jobs.c.id).where(among(kind, jobs.c.id))).partition("WHERE ")[2]
    assert made.replace("anon_1.value", "value") == expected


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mysql"])
@pytest.mark.parametrize("ids", NUMBERS, ids=lambda ids: f"{len(ids)} ids")
def test_any_number_of_ids_is_one_statement(kind: str, ids: list[int]) -> None:
    statement = Statement(
        lambda kind: update(jobs).where(among(kind, jobs.c.id), jobs.c.fence == bindparam("held")).values(error="x")
    )
    connection: Any = FakeConnection(kind)
    statement.run(connection, ids=ids, held=7)
    ((sql, values),) = connection.ran
    given = list(values.values() if isinstance(values, dict) else values)
    assert 7 in given
    assert "/*ids*/" not in sql
    if kind == "mysql":
        assert f"IN ({','.join(map(str, ids)) or 'NULL'})" in sql
        assert ids not in given
    elif kind == "postgresql":
        assert f"{{{','.join(map(str, ids))}}}" in given
    else:
        assert (ids[0] if len(ids) == 1 else str(ids).replace(" ", "")) in given


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", "mysql"])
def test_a_statement_is_compiled_once_for_each_form(kind: str) -> None:
    built: list[str] = []

    def build(kind: str) -> Any:
        built.append(kind)
        return select(jobs.c.id).where(among(kind, jobs.c.id))

    statement, connection = Statement(build), FakeConnection(kind)
    for ids in ([], [1], [1, 2], [2], list(range(50)), [3]):
        assert statement.rows(connection, ids=ids) == []  # type: ignore[arg-type]
    assert len(built) == 2
    assert set(built) == ({"sqlite", ONE} if kind == "sqlite" else {kind})


HOSTILE = ["1) OR (1=1", "0; DROP TABLE jobs", "1,2", "NULL", "", None, "/*ids*/", "1 -- ", b"1;", [1], 1j]


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
def test_only_numbers_reach_the_text_of_mysql(value: Any) -> None:
    for ids in ([value], [1, value]):
        with pytest.raises((TypeError, ValueError)):
            statements._place_ids("mysql", "SELECT 1 WHERE id IN (/*ids*/)", {"ids": ids})


def test_what_is_made_a_number_on_the_way_is_written_as_one() -> None:
    values: dict[str, Any] = {"ids": [True, 2, " 3 ", 4.9, -5], "other": "/*ids*/"}
    assert statements._place_ids("mysql", "(/*ids*/)", values) == "(1,2,3,4,-5)"
    assert values == {"other": "/*ids*/"}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("value", [*HOSTILE[:6], 7], ids=repr)
def test_elsewhere_no_id_reaches_the_text_at_all(kind: str, value: Any) -> None:
    for ids in ([value], [1, value], []):
        values = {"ids": ids}
        assert statements._place_ids(kind, "id IN (?)", values) == "id IN (?)"


def test_sqlite_takes_each_form(queue: Queue) -> None:
    queue.enqueue_many(["x"] * 2_000)
    find = Statement(lambda kind: select(jobs.c.id).where(among(kind, jobs.c.id)).order_by(jobs.c.id))
    with queue.engine.connect() as connection:
        for ids in ([], [7], [1_999, 3, 3, 9_999], list(range(1, 2_001))):
            found = [row[0] for row in find.rows(connection, ids=ids)]
            assert found == sorted({one for one in ids if one <= 2_000})


def test_a_change_tells_what_it_moved(queue: Queue) -> None:
    queue.enqueue_many(["a", "b", "c"])
    raised = Change(
        lambda kind: [among(kind, jobs.c.id), jobs.c.priority < bindparam("most")], priority=bindparam("to")
    )
    with queue.engine.begin() as connection:
        assert raised.ids(connection, ids=[2], most=5, to=5) == [2]
        assert raised.ids(connection, ids=[2], most=5, to=6) == []
        assert sorted(raised.ids(connection, ids=[1, 2, 3, 9], most=5, to=7)) == [1, 3]
        assert raised.ids(connection, ids=[], most=99, to=9) == []
    assert [job.priority for job in queue.list_jobs()] == [7, 5, 7]


@pytest.mark.parametrize("kind", DIALECTS)
def test_the_number_of_rows_is_part_of_the_text(kind: str) -> None:
    made = sql_of(kind, first(kind, select(jobs.c.id).order_by(jobs.c.id), 16))
    assert made.endswith("LIMIT 16")


@pytest.mark.parametrize(
    ("kind", "expected"), [("sqlite", "ON CONFLICT"), ("postgresql", "ON CONFLICT"), ("mysql", "ON DUPLICATE KEY")]
)
def test_each_kind_has_its_way_to_change_a_row_that_is_there(kind: str, expected: str) -> None:
    from persistq.storage.schema import QueueRow

    made = sql_of(kind, upsert(kind, QueueRow, lambda new: {"paused_at": new.paused_at}))
    assert expected in made


@pytest.mark.parametrize(
    ("url", "kind"),
    [("sqlite://", "sqlite"), ("postgresql+psycopg://", "postgresql"), ("mysql+pymysql://", "mysql")],
)
def test_a_kind_is_known_by_its_dialect(url: str, kind: str) -> None:
    engine: Any = create_mock_engine(url, lambda *_: None)
    assert kind_of(engine) == kind
    engine.dialect.name = {"mysql": "mariadb"}.get(kind, kind)
    assert kind_of(engine) == kind


def test_the_ids_of_sqlite_are_json_whatever_their_number() -> None:
    values: dict[str, Any] = {"ids": [1, 2**62]}
    statements._place_ids("sqlite", "", values)
    with sqlite3.connect(":memory:") as connection:
        rows = connection.execute("SELECT value FROM json_each(?)", (values["ids"],)).fetchall()
    connection.close()
    assert rows == [(1,), (2**62,)]
