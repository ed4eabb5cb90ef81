"""Migrations: the revisions end at the schema that the code works with, and nothing else is touched."""

import re
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import SAWarning
from support.clock import FakeClock
from support.databases import Databases, each_server, every_kind
from support.jobs import WORKER, MakeQueue, Queue
from support.servers import OWNER

import persistq
from persistq import SchemaMismatch
from persistq.errors import SchemaMissing
from persistq.storage import schema, server, sqlite


def revisions() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", "persistq.storage:migrations")
    config.set_main_option("path_separator", "os")
    return ScriptDirectory.from_config(config)


def definitions(engine: Engine) -> dict[str, str]:
    """Return each table's and index's SQL, without what does not matter."""
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")).all()
    return {
        row.name: re.sub(r"[\s\"]+", "", row.sql).lower()
        for row in rows
        if row.name not in ("persistq_version", "sqlite_sequence")
    }


def test_there_is_one_head_and_the_code_works_with_it() -> None:
    assert revisions().get_heads() == [schema.REVISION]


def test_the_first_call_makes_the_schema(queue: Queue) -> None:
    assert queue.database.revision() is None
    queue.counts()
    assert queue.database.revision() == schema.REVISION


def test_alembic_finds_no_drift_between_revisions_and_models(queue: Queue) -> None:
    queue.counts()
    with warnings.catch_warnings(), queue.engine.connect() as connection:
        warnings.filterwarnings("ignore", "Skipped unsupported reflection of expression-based index", SAWarning)
        warnings.filterwarnings("ignore", "autogenerate skipping metadata-specified expression-based index")
        context = MigrationContext.configure(connection, opts={"version_table": schema.VERSION_TABLE})
        assert compare_metadata(context, schema.Base.metadata) == []


def test_revisions_make_the_very_tables_and_indexes_of_the_models(queue: Queue, tmp_path: Path) -> None:
    queue.counts()
    modelled = create_engine(f"sqlite:///{tmp_path / 'models.db'}")
    schema.Base.metadata.create_all(modelled)
    assert definitions(queue.engine) == definitions(modelled)
    modelled.dispose()


def test_upgrading_again_changes_nothing(queue: Queue) -> None:
    job_id = queue.enqueue("x")
    assert queue.database.upgrade() == schema.REVISION
    assert queue.database.upgrade() == schema.REVISION
    assert queue.get_job(job_id).item == "x"


def test_upgrading_an_empty_database_makes_it(queue: Queue) -> None:
    assert queue.database.upgrade() == schema.REVISION
    assert queue.counts()["pending"] == 0


def test_a_newer_schema_is_refused_and_left_alone(make_queue: MakeQueue) -> None:
    older = make_queue()
    older.enqueue("x")
    with older.engine.begin() as connection:
        connection.execute(text("UPDATE persistq_version SET version_num = '9999'"))
    q = make_queue()
    for act in (q.counts, lambda: q.enqueue("y"), lambda: q.dequeue("c"), q.database.upgrade):
        with pytest.raises(SchemaMismatch, match="9999"):
            act()
    with older.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM jobs")).scalar() == 1


def test_another_program_s_jobs_table_is_refused_and_left_alone(path: Path, make_queue: MakeQueue) -> None:
    foreign = sqlite3.connect(path)
    foreign.execute("CREATE TABLE jobs (job_id TEXT PRIMARY KEY, job_data TEXT)")
    foreign.execute("INSERT INTO jobs VALUES ('1', 'theirs')")
    foreign.commit()
    foreign.close()
    q = make_queue()
    for act in (q.counts, lambda: q.enqueue("y"), q.database.upgrade):
        with pytest.raises(SchemaMismatch, match="jobs"):
            act()
    with q.database.engine.connect() as connection:
        assert connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars().all() == [
            "jobs"
        ]


def test_an_app_s_own_tables_may_stand_beside_ours(path: Path, make_queue: MakeQueue) -> None:
    theirs = sqlite3.connect(path)
    theirs.execute("CREATE TABLE users (id INTEGER PRIMARY KEY)")
    theirs.commit()
    theirs.close()
    q = make_queue()
    q.enqueue("x")
    assert q.counts()["pending"] == 1


def test_a_schema_that_lost_a_table_is_named(queue: Queue) -> None:
    queue.enqueue("x")
    with queue.engine.begin() as connection:
        connection.execute(text("DROP TABLE events"))
    with pytest.raises(SchemaMismatch, match="events"):
        queue.events(1)


# Whoever finds another schema than its own says so, and what to do


class Place:
    """A database of any kind that is this test's own, with the right to change its schema."""

    def __init__(self, databases: Databases, kind: str, clock: FakeClock) -> None:
        self._clock = clock
        self._made: list[Queue] = []
        self.target = databases[kind].apart()
        self.owned = self.target.replace("worker:", f"{OWNER}:")

    def connect(self) -> Queue:
        """Return a queue as a worker has it, who may not change the schema of a server."""
        self._made.append(persistq.connect(self.target, clock=self._clock))
        return self._made[-1]

    def alter(self, sql: str) -> None:
        """Change the schema as another process would."""
        engine = persistq.connect(self.owned).database.engine
        with engine.begin() as connection:
            connection.execute(text(sql))
        engine.dispose()

    def set_revision(self, revision: str) -> None:
        self.alter(f"UPDATE persistq_version SET version_num = '{revision}'")

    def close(self) -> None:
        for q in self._made:
            q.close()


@pytest.fixture
def place(every_database: Databases, kind: str, clock: FakeClock) -> Iterator[Place]:
    """A database of the kind that the test is about."""
    found = Place(every_database, kind, clock)
    yield found
    found.close()


ACTS: list[Callable[[Queue], Any]] = [
    lambda q: q.counts(),
    lambda q: q.enqueue("y"),
    lambda q: q.enqueue_many(["y", "z"]),
    lambda q: q.dequeue(WORKER),
    lambda q: q.list_jobs(),
    lambda q: q.cancel(1),
    lambda q: q.engine,
    lambda q: q.prepare(),
]


@each_server
@pytest.mark.parametrize(
    ("revision", "advice"), [("0000", "persistq db upgrade"), ("9999", "update persistq")], ids=["older", "newer"]
)
def test_a_worker_on_a_server_refuses_another_schema_and_says_what_to_do(
    place: Place, revision: str, advice: str
) -> None:
    place.set_revision(revision)
    q = place.connect()
    for act in ACTS:
        with pytest.raises(SchemaMismatch, match=rf"(?s){revision}.*{schema.REVISION}.*{advice}"):
            act(q)
    place.set_revision(schema.REVISION)
    assert q.enqueue("x") == 1


_numbers = count()


@each_server
def test_a_worker_on_a_server_without_a_schema_makes_none_and_says_who_does(
    every_database: Databases, kind: str, clock: FakeClock
) -> None:
    on = every_database[kind].server  # type: ignore[attr-defined]
    name = f"queue_bare_{next(_numbers)}"
    on.create(name)
    q = persistq.connect(on.url(name), clock=clock)
    for act in ACTS:
        with pytest.raises(SchemaMissing, match="persistq db upgrade"):
            act(q)
    assert q.database.revision() is None
    owner = persistq.connect(on.url(name, OWNER))
    assert owner.database.upgrade() == schema.REVISION
    owner.close()
    on.permit(name)
    assert q.enqueue("x") == 1
    q.close()


@every_kind
@pytest.mark.parametrize("act", ACTS[:5])
def test_a_running_process_notices_a_newer_schema(place: Place, clock: FakeClock, act: Callable[[Queue], Any]) -> None:
    seconds = server._SCHEMA_LOOK_SECONDS
    assert seconds == sqlite._SCHEMA_LOOK_SECONDS
    q = place.connect()
    q.enqueue("x")
    place.set_revision("9999")
    clock.advance(seconds - 0.001)
    act(q)  # it looked a moment ago
    clock.advance(0.001)
    for _ in range(3):
        with pytest.raises(SchemaMismatch, match=r"(?s)9999.*update persistq"):
            act(q)
        with pytest.raises(SchemaMismatch, match="9999"):
            q.counts()
        clock.advance(1)
    place.set_revision(schema.REVISION)
    assert q.counts()["pending"] >= 0


@every_kind
def test_a_look_at_the_schema_is_made_only_now_and_then(
    place: Place, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from persistq.storage import migrate

    looks: list[float] = []
    current = migrate.current
    monkeypatch.setattr(
        migrate, "current", lambda connection: (looks.append(clock.monotonic()), current(connection))[1]
    )
    q = place.connect()
    for _ in range(300):
        q.counts()
        clock.advance(0.125)
    assert looks == [1000.0 + turn * server._SCHEMA_LOOK_SECONDS for turn in range(8)]


def test_a_newer_schema_is_noticed_although_the_wall_clock_stands_still(
    make_queue: MakeQueue, clock: FakeClock
) -> None:
    q = make_queue()
    q.enqueue("x")
    with make_queue().engine.begin() as connection:
        connection.execute(text("UPDATE persistq_version SET version_num = '9999'"))
    clock.advance(5)
    clock.jump(-5)
    with pytest.raises(SchemaMismatch, match="9999"):
        q.enqueue("y")
