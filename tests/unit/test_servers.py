"""What only servers have: roles, schemas made by hand, clocks of their own, locks that others hold, a network."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection
from support.databases import Databases, OnServer, each_server, upgrade
from support.jobs import OTHER, WORKER, MakeQueue, Queue, claim
from support.servers import KINDS, OWNER, Server

import persistq
from persistq import ConfigError, DatabaseUnavailable, PayloadError, PersistQError, SchemaMismatch

pytestmark = each_server


@pytest.fixture
def place(every_database: Databases, kind: str) -> tuple[Server, str]:
    """A server and the name of an empty database there, whose schema is in place."""
    database = every_database[kind]
    assert isinstance(database, OnServer)
    return database.server, database.apart().rpartition("/")[2]


@pytest.fixture
def make_queue(place: tuple[Server, str]) -> Iterator[MakeQueue]:
    """Make queues on the test's database, as the role that may only read and write rows."""
    server, name = place
    made: list[Queue] = []

    def make(user: str = "worker", **options: Any) -> Queue:
        made.append(persistq.connect(server.url(name, user), **options))
        return made[-1]

    yield make
    for q in made:
        q.close()


@pytest.fixture
def queue(make_queue: MakeQueue) -> Queue:
    return make_queue()


@pytest.fixture
def empty(every_database: Databases, kind: str, request: pytest.FixtureRequest) -> tuple[Server, str]:
    """A server and the name of a database there that has no tables."""
    database = every_database[kind]
    assert isinstance(database, OnServer)
    name = f"queue_empty_{time.monotonic_ns()}"
    database.server.create(name)
    return database.server, name


@contextmanager
def opened(server: Server, name: str, user: str = "worker", **options: Any) -> Iterator[Queue]:
    q = persistq.connect(server.url(name, user), **options)
    try:
        yield q
    finally:
        q.close()


# The schema


def test_an_empty_database_is_refused_and_stays_empty(empty: tuple[Server, str]) -> None:
    server, name = empty
    with opened(server, name) as q:
        for call in (lambda: q.enqueue("x"), q.counts, lambda: q.dequeue("me"), lambda: q.engine):
            with pytest.raises(SchemaMismatch, match="persistq db upgrade"):
                call()
        assert q.database.revision() is None
        upgrade(server, name)
        assert q.enqueue("x") == 1


def test_upgrading_again_changes_nothing(queue: Queue, make_queue: MakeQueue) -> None:
    queue.enqueue("x")
    revision = queue.database.revision()
    assert make_queue(OWNER).database.upgrade() == revision
    assert queue.counts()["pending"] == 1


def test_several_may_upgrade_at_once(empty: tuple[Server, str]) -> None:
    server, name = empty
    start = threading.Barrier(4)

    def race() -> str:
        with opened(server, name, OWNER) as q:
            start.wait()
            return q.database.upgrade()

    with ThreadPoolExecutor(4) as threads:
        revisions = [future.result() for future in [threads.submit(race) for _ in range(4)]]
    assert len(set(revisions)) == 1
    upgrade(server, name)
    with opened(server, name) as q:
        assert q.enqueue("x") == 1


def test_the_worker_s_role_may_not_upgrade_and_leaves_no_half(empty: tuple[Server, str]) -> None:
    server, name = empty
    with opened(server, name) as q:
        with pytest.raises(ConfigError, match="role"):
            q.database.upgrade()
        assert q.database.revision() is None
    upgrade(server, name)


def test_the_role_of_these_tests_can_do_no_more_than_it_should(queue: Queue) -> None:
    for statement in (
        "CREATE TABLE mine (id INT)",
        "TRUNCATE TABLE jobs",
        "DROP TABLE jobs",
        "ALTER TABLE jobs ADD x INT",
    ):
        with pytest.raises(Exception, match=r"(?i)denied|owner"), queue.engine.connect() as connection:
            connection.exec_driver_sql(statement)


@pytest.mark.parametrize("found", ["9999", "0000"])
def test_a_schema_of_another_version_is_refused(place: tuple[Server, str], queue: Queue, found: str) -> None:
    server, name = place
    server.run(f"UPDATE persistq_version SET version_num = '{found}'", database=name)
    with pytest.raises(SchemaMismatch, match=found):
        queue.enqueue("x")
    with opened(server, name, OWNER) as q, pytest.raises(SchemaMismatch):
        q.database.upgrade()
    assert server.run("SELECT count(*) FROM jobs", database=name) == [(0,)]


def test_a_schema_that_changes_under_a_worker_is_noticed(
    place: tuple[Server, str], queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, name = place
    queue.enqueue("x")
    server.run("UPDATE persistq_version SET version_num = '9999'", database=name)
    later = time.monotonic() + 3600
    monkeypatch.setattr(queue.clock, "monotonic", lambda: later)
    with pytest.raises(SchemaMismatch):
        queue.enqueue("y")


def test_the_tables_of_somebody_else_are_left_alone(empty: tuple[Server, str]) -> None:
    server, name = empty
    server.run("CREATE TABLE jobs (id INT)", database=name)
    with opened(server, name, OWNER) as q:
        for call in (lambda: q.enqueue("x"), q.database.upgrade):
            with pytest.raises(SchemaMismatch, match="of its own"):
                call()


# Reaching it


def test_every_way_to_write_the_url_reaches_the_same_queue(place: tuple[Server, str], kind: str, queue: Queue) -> None:
    server, name = place
    queue.enqueue("x")
    _, _, rest = server.url(name).partition("://")
    forms = {
        "postgresql": ["postgresql", "postgresql+psycopg"],
        "mariadb": ["mysql", "mariadb", "mysql+pymysql", "mariadb+pymysql"],
    }
    for form in forms[kind]:
        with closing(persistq.connect(f"{form}://{rest}")) as q:
            assert (q.counts()["pending"], q.dbname) == (1, name)


def test_what_cannot_be_reached_is_unavailable_and_no_password_is_told(place: tuple[Server, str]) -> None:
    server, name = place
    url = server.url(name)
    secret = url.partition("worker:")[2].partition("@")[0]
    wrong = {
        "port": server.url(name, port=1),
        "password": url.replace(secret, secret[::-1]),
        "user": url.replace("worker:", "nobody:"),
        "database": server.url("queue_nowhere"),
        "host": url.replace("127.0.0.1", "host.invalid"),
    }
    for what, target in wrong.items():
        with closing(persistq.connect(target, queue_busy_seconds=1)) as q:
            with pytest.raises(DatabaseUnavailable) as refusal:
                q.enqueue("x")
            told: BaseException | None = refusal.value
            while told is not None:
                assert secret not in str(told) and secret[::-1] not in str(told), what
                told = told.__cause__ or told.__context__
            assert secret not in repr(q.database.url) and secret not in repr(q), what


def test_without_its_driver_the_message_names_the_extra(place: tuple[Server, str], kind: str) -> None:
    module, extra = {"postgresql": ("psycopg", "postgres"), "mariadb": ("pymysql", "mariadb")}[kind]
    server, name = place
    script = f"import sys; sys.modules[{module!r}] = None; import persistq; persistq.connect({server.url(name)!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert f"ConfigError: {ConfigError.__doc__.rstrip('.')}" in done.stderr
    assert f"persistq[{extra}]" in done.stderr


def test_closing_leaves_no_connection(place: tuple[Server, str], queue: Queue) -> None:
    server, name = place
    queue.enqueue("x")
    claim(queue)
    queue.close()
    _until(lambda: _connections(server, name) == 0)


def test_a_process_that_ends_without_closing_leaves_none_either(place: tuple[Server, str]) -> None:
    server, name = place
    script = f"import persistq; q = persistq.connect({server.url(name)!r}); q.enqueue('x'); q.dequeue('me')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    _until(lambda: _connections(server, name) == 0)


def test_a_connection_that_the_server_closed_is_not_noticed(place: tuple[Server, str], queue: Queue) -> None:
    server, name = place
    for number in range(1, 4):
        queue.enqueue("x")
        assert server.end_connections(name) > 0
        _until(lambda: _connections(server, name) == 0)
        assert queue.counts()["pending"] == number


# Others at work


def test_a_table_that_somebody_has_locked_is_waited_for_so_long_and_no_longer(
    place: tuple[Server, str], make_queue: MakeQueue, kind: str
) -> None:
    server, name = place
    q = make_queue(queue_busy_seconds=1)
    q.enqueue("before")
    with closing(server.connect(name)) as locker, closing(locker.cursor()) as cursor:
        if kind == "postgresql":
            cursor.execute("BEGIN; LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        else:
            cursor.execute("SET autocommit = 0; LOCK TABLES jobs WRITE")
        for call in (lambda: q.enqueue("x"), q.list_jobs, lambda: q.dequeue("me"), lambda: q.recover()):
            began = time.monotonic()
            with pytest.raises(DatabaseUnavailable):
                call()
            assert time.monotonic() - began < 10 * q.settings.queue_busy_seconds
    q.enqueue("after")
    assert [claim(q).item for _ in range(2)] == ["before", "after"]
    assert q.tally_drift() == {}


def test_a_client_that_is_paused_amid_its_transaction_keeps_nobody_from_other_work(
    make_queue: MakeQueue,
) -> None:
    paused, other = make_queue(timeout_seconds=0.05), make_queue(queue_busy_seconds=1)
    paused.enqueue_many(["its own", "another's", "a third"])
    job = claim(paused)
    with paused.engine.connect() as connection, connection.begin() as transaction:
        paused.complete(job, connection=connection)
        time.sleep(0.06)  # until the lease is over
        with suppress(DatabaseUnavailable):
            assert other.recover() == 0
        second = claim(other, OTHER)
        assert second.item == "another's"
        other.complete(second)
        other.enqueue("new")
        assert [claim(other, OTHER).item for _ in range(2)] == ["a third", "new"]
        assert other.counts()["done"] == 1
        transaction.rollback()
    assert other.recover() == 1
    assert claim(other, OTHER).item == "its own"


def test_eight_claimants_find_every_job_once_and_none_finds_nothing_while_there_is_one(make_queue: MakeQueue) -> None:
    queues = [make_queue(queue_busy_seconds=30) for _ in range(8)]
    ids = queues[0].enqueue_many(["x"] * 400, max_attempts=1)
    start = threading.Barrier(8)

    def work(q: Queue, me: str) -> tuple[list[int], int]:
        start.wait()
        mine, early = [], 0
        while True:
            job = q.dequeue(me)
            if job is not None:
                q.complete(job)
                mine.append(job.id)
                continue
            # What is still there was there before; each of the others may be amid a claim of one.
            left = q.counts()["pending"]
            if not left:
                return mine, early
            early += left > 7

    with ThreadPoolExecutor(8) as threads:
        results = [future.result() for future in [threads.submit(work, q, f"w{n}@h:1:a") for n, q in enumerate(queues)]]
    assert sorted(job_id for mine, _ in results for job_id in mine) == ids
    assert sum(early for _, early in results) == 0
    assert queues[0].tally_drift() == {}


def test_a_server_that_isolates_transactions_more_strictly_by_default_makes_no_difference(
    kind: str, make_queue: MakeQueue, place: tuple[Server, str]
) -> None:
    with KINDS[kind]() as server:  # of its own, for the setting is the server's
        database = OnServer(server)
        target = database.apart()
        if kind == "postgresql":
            server.run("ALTER SYSTEM SET default_transaction_isolation = 'serializable'", "SELECT pg_reload_conf()")
        else:
            server.run("SET GLOBAL tx_isolation = 'SERIALIZABLE'", "SET GLOBAL innodb_snapshot_isolation = ON")
        with closing(persistq.connect(target)) as q:
            ids = q.enqueue_many(["x"] * 200)

        def work(me: str) -> list[int]:
            with closing(persistq.connect(target)) as q:
                mine: list[int] = []
                while jobs := q.dequeue_many(me, limit=3):
                    q.complete_many(jobs)
                    mine += [job.id for job in jobs]
                    q.enqueue("more", "elsewhere", unique_key=str(jobs[0].id % 5))
                return mine

        with ThreadPoolExecutor(6) as threads:
            done = [job_id for mine in threads.map(work, [f"w{n}@h:1:a" for n in range(6)]) for job_id in mine]
        assert set(ids) <= set(done)
        assert len(done) == len(set(done))
        with closing(persistq.connect(target)) as q:
            assert q.tally_drift() == {}


def test_the_same_key_from_many_threads_is_one_job(make_queue: MakeQueue) -> None:
    queues = [make_queue() for _ in range(8)]
    start = threading.Barrier(8)

    def race(q: Queue) -> set[int]:
        start.wait()
        return {q.enqueue("x", unique_key=f"k{n}") for n in range(20)}

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(race, queues))
    assert len(set.union(*answers)) == 20
    assert queues[0].counts()["pending"] == 20
    assert queues[0].tally_drift() == {}


NUMBERED = {
    # Ids of one call need not follow each other when others are drawing, and on a cluster they are steps apart.
    "mariadb": ("--innodb-autoinc-lock-mode=2", "--auto-increment-increment=3", "--auto-increment-offset=2"),
    "postgresql": (),
}


def test_the_ids_that_a_call_returns_are_those_of_its_items_also_in_a_crowd(kind: str) -> None:
    with KINDS[kind](options=NUMBERED[kind]) as server:
        target = OnServer(server).apart()
        start = threading.Barrier(6)

        def add(me: int) -> dict[int, str]:
            given: dict[int, str] = {}
            with closing(persistq.connect(target)) as q:
                start.wait()
                for round_ in range(4):
                    for many in (1, 3, 30, 400):
                        items = [f"{me} {round_} {many} {n}" for n in range(many)]
                        ids = q.enqueue_many(items)
                        assert ids == sorted(set(ids))
                        given |= dict(zip(ids, items, strict=True))
            return given

        with ThreadPoolExecutor(6) as threads:
            crowd = list(threads.map(add, range(6)))
        expected = {job_id: item for given in crowd for job_id, item in given.items()}
        assert len(expected) == sum(map(len, crowd)) == 6 * 4 * 434
        with closing(persistq.connect(target)) as q:
            assert {row["id"]: row["item"] for row in q.get_all_items()} == expected
            assert q.tally_drift() == {}


def test_the_longest_items_fit_many_at_once(queue: Queue) -> None:
    items = [letter * 262_144 for letter in "abcdefgh"] * 10
    ids = queue.enqueue_many(items)
    assert [queue.get_job(job_id).item[:1] for job_id in ids] == [item[:1] for item in items]
    assert len(queue.get_job(ids[-1]).item) == 262_144


# Time


@pytest.mark.parametrize("skew", [timedelta(hours=1), -timedelta(hours=1)], ids=["ahead", "behind"])
def test_a_host_whose_clock_is_wrong_harms_nobody(
    make_queue: MakeQueue, monkeypatch: pytest.MonkeyPatch, skew: timedelta
) -> None:
    right, wrong = make_queue(), make_queue()
    monkeypatch.setattr(wrong.clock, "now", lambda: datetime.now(UTC) + skew)
    right.enqueue("leased")
    lease = claim(right)
    assert wrong.recover() == 0
    assert wrong.dequeue(OTHER) is None
    right.renew(lease)

    now = wrong.enqueue("now")
    later = wrong.enqueue("later", delay=1800)
    assert claim(right).id == now
    assert right.dequeue(WORKER) is None
    job = right.get_job(later)
    assert abs(job.created_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert abs(job.run_at - job.created_at - timedelta(minutes=30)) < timedelta(minutes=1)
    held = claim_of(wrong, "held by the wrong one")
    assert abs(held.lease_until - datetime.now(UTC)) < timedelta(minutes=2)
    assert right.recover() == 0


def test_a_clock_that_is_set_while_it_runs_ends_no_lease(
    queue: Queue, make_queue: MakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.enqueue("x")
    job = claim(queue)
    for skew in (3600, -3600, 86_400):
        monkeypatch.setattr(queue.clock, "now", lambda skew=skew: datetime.now(UTC) + timedelta(seconds=skew))
        assert queue.recover() == 0
        queue.renew(job)
        assert make_queue().recover() == 0
    queue.complete(job)


def claim_of(q: Queue, item: str) -> persistq.Job:
    q.enqueue(item, "its-own")
    return claim(q, OTHER, queue="its-own")


# The caller's own connection


def test_a_caller_s_own_engine_may_be_joined_on_the_same_database(place: tuple[Server, str], queue: Queue) -> None:
    from sqlalchemy import create_engine

    queue.counts()
    engine = create_engine(queue.engine.url)
    with pytest.raises(PersistQError), engine.begin() as connection:
        queue.enqueue("gone", connection=connection)
        raise PersistQError
    with engine.begin() as connection:
        job_id = queue.enqueue("kept", connection=connection)
        ids = queue.enqueue_many(["a"] * 50, connection=connection)
    engine.dispose()
    assert queue.get_job(job_id).item == "kept"
    assert queue.counts()["pending"] == 51
    assert len(ids) == 50


@pytest.mark.parametrize("broken", [False, True], ids=["", "after an error"])
def test_a_callers_own_transaction_may_idle_as_long_as_it_likes(kind: str, queue: Queue, broken: bool) -> None:
    """Ours may not, for it holds rows that others wait for; both use connections of one pool."""
    asks = {
        "postgresql": "SELECT current_setting('idle_in_transaction_session_timeout')",
        "mariadb": "SELECT CAST(@@SESSION.idle_transaction_timeout AS CHAR)",
    }

    def limit(connection: Connection) -> str:
        return str(connection.exec_driver_sql(asks[kind]).scalar_one())

    def fail(connection: Connection) -> None:
        assert limit(connection) not in ("0", "")
        if broken:
            raise PayloadError("on purpose")

    with suppress(PayloadError):
        queue.database.write(fail)
    with queue.engine.connect() as connection:
        assert limit(connection) == "0"
    queue.database.close()
    with queue.engine.connect() as connection:
        assert limit(connection) == "0"


def _connections(server: Server, name: str) -> int:
    table, column = {
        "postgresql": ("pg_stat_activity", "datname"),
        "mariadb": ("information_schema.processlist", "db"),
    }[server.kind]
    ((found,),) = server.run(f"SELECT count(*) FROM {table} WHERE {column} = '{name}'")
    return int(found)


def _until(condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
