"""What only SQLite has: its file, its pragmas, its locks, its forks."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from support.clock import FakeClock
from support.jobs import OTHER, WORKER, MakeQueue, Queue, claim

import persistq
from persistq import ConfigError, DatabaseUnavailable
from persistq.sharded import SQLAlchemyCoordinator
from persistq.storage.sqlite_connections import FIXED_SQLITE, sqlite_module, wal_is_sound


def run(script: str, *arguments: object) -> str:
    """Run a script in a process of its own and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


# Where a queue may live


@pytest.mark.parametrize(
    "target", [":memory:", "", "sqlite://", "sqlite:///:memory:", "sqlite:///", "sqlite:///file:x?mode=memory&uri=true"]
)
def test_a_queue_in_memory_is_refused(target: str) -> None:
    with pytest.raises(ConfigError, match="memory"):
        persistq.connect(target)


@pytest.mark.parametrize("target", ["oracle://h/db", "foo://x", "redis://h", "mssql+pyodbc://u:S3NT1NEL@h/db"])
def test_an_unknown_database_is_refused(target: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        persistq.connect(target)
    assert "S3NT1NEL" not in str(refusal.value)


@pytest.mark.parametrize(
    "target",
    [
        "://me:S3NT1NEL@h/db", "post gres://me:S3NT1NEL@h/db", "oracle://me:S3NT1NEL@h:port/db",
        "oracle://me:p@h:S3NT1NEL@h/db", "oracle://me:x@h:S3NT1NEL/db", "sqlite://me:S3NT1NEL@h/", "1://S3NT1NEL",
    ],
)  # fmt: skip
def test_a_bad_url_is_refused_and_never_repeated(target: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        persistq.connect(target)
    told = "".join(map(str, (refusal.value, refusal.value.__cause__)))
    assert "S3NT1NEL" not in told


@pytest.mark.parametrize("form", ["{}", "sqlite:///{}", "sqlite+pysqlite:///{}"])
def test_a_path_and_a_url_reach_the_same_file(path: Path, form: str) -> None:
    persistq.connect(path).enqueue("x")
    q = persistq.connect(form.format(path))
    assert (q.counts()["pending"], q.dbtype) == (1, "sqlite")


def test_a_dict_names_a_file(tmp_path: Path) -> None:
    q = persistq.persistentQ({"name": "queue.db", "type": "sqlite"})
    q.enqueue("x")
    assert (q.dbname, q.dbtype) == ("queue.db", "sqlite")
    assert (tmp_path / "queue.db").exists()


def test_the_settings_name_a_file_and_nothing_is_opened_before_it_is_needed(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("QUEUE_DB_FILE=other.db\n")
    q = persistq.connect()
    assert not (tmp_path / "other.db").exists()
    q.counts()
    assert (tmp_path / "other.db").exists()


def test_a_relative_path_is_that_of_the_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    q = persistq.connect("queue.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    q.enqueue("x")
    assert (tmp_path / "queue.db").exists()


@pytest.mark.parametrize("kind", ["a folder", "no database", "below a file"])
def test_what_is_no_database_is_named(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    if kind == "a folder":
        place.mkdir()
    else:
        place.write_bytes(b"not a database, and long enough to be looked at" * 100)
    with pytest.raises(DatabaseUnavailable):
        persistq.connect(place / "q.db" if kind == "below a file" else place).counts()


# The file's safety


def test_everything_made_is_private_whatever_the_umask(tmp_path: Path) -> None:
    with umask(0), ExitStack() as stack:
        path = tmp_path / "place" / "queue.db"
        path.parent.mkdir()
        q = persistq.connect(path)
        stack.callback(q.close)
        q.enqueue("x")
        q.complete(claim(q))
        stack.enter_context(q.engine.connect())
        modes = {file.name: oct(stat.S_IMODE(file.stat().st_mode)) for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(("queue.db", "queue.db-wal", "queue.db-shm", "queue.db-reserve"), "0o600")


def test_a_folder_that_is_not_there_is_an_outage_and_not_made(tmp_path: Path) -> None:
    q = persistq.connect(tmp_path / "unmounted" / "queue.db")
    with pytest.raises(DatabaseUnavailable, match="unmounted"):
        q.enqueue("x")
    assert not (tmp_path / "unmounted").exists()
    (tmp_path / "unmounted").mkdir()
    assert q.enqueue("x") == 1


@pytest.mark.parametrize(("durability", "synchronous"), [("power", 2), ("process", 1)])
def test_every_pooled_connection_keeps_the_promise(make_queue: MakeQueue, durability: str, synchronous: int) -> None:
    assert wal_is_sound(), "this test needs the SQLite that the package brings"
    q = make_queue(queue_durability=durability, queue_busy_seconds=3)
    q.enqueue("x")
    expected = {
        "journal_mode": "wal", "synchronous": synchronous, "busy_timeout": 3000, "mmap_size": 0, "trusted_schema": 0,
        "cell_size_check": 1,
    }  # fmt: skip
    with ExitStack() as stack:
        raw = [q.engine.raw_connection() for _ in range(7)]
        for connection in raw:
            stack.callback(connection.close)
        assert len({id(connection.dbapi_connection) for connection in raw}) == 7
        for connection in raw:
            cursor = connection.cursor()
            assert {name: cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in expected} == expected
    assert q.database.pragmas()["synchronous"] == synchronous


def test_the_sqlite_in_use_is_one_that_keeps_a_wal_whole() -> None:
    assert sqlite_module().sqlite_version_info >= FIXED_SQLITE


def test_an_old_sqlite_is_used_without_a_wal_and_says_so(
    make_queue: MakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("persistq.storage.sqlite_connections.FIXED_SQLITE", (99, 0, 0))
    with pytest.warns(RuntimeWarning, match="pysqlite3"):
        q = make_queue()
    q.enqueue("x")
    pragmas = q.database.pragmas()
    assert (pragmas["journal_mode"], pragmas["synchronous"]) == ("delete", 3)


def test_writers_take_the_lock_first_and_readers_take_none(queue: Queue) -> None:
    queue.enqueue("x")
    other = sqlite_module().connect(queue.dbname, timeout=0, isolation_level=None)
    with queue.engine.begin():
        with pytest.raises(sqlite_module().OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        assert queue.counts()["pending"] == 1
    other.execute("BEGIN IMMEDIATE")
    other.close()


def test_a_look_for_a_free_tube_waits_for_no_writer(make_queue: MakeQueue, clock: FakeClock) -> None:
    q = make_queue(queue_busy_seconds=0.2)
    coordinator = SQLAlchemyCoordinator(q)
    assert asyncio.run(coordinator.bind_first(["H/0"]))
    rests = asyncio.run(coordinator.bind_first(["H/1"]))
    assert rests
    asyncio.run(coordinator.unbind(rests, pause=20))
    with q.engine.begin():  # which takes the lock
        assert asyncio.run(coordinator.bind_first(["H/0", "H/1"])) is None
        clock.jump(-10)
        assert asyncio.run(coordinator.bind_first(["H/0", "H/1"])) is None


@pytest.mark.parametrize("fresh", [True, False], ids=["at the first call", "later"])
def test_a_lock_that_stays_is_an_outage_and_then_over(make_queue: MakeQueue, fresh: bool) -> None:
    make_queue().enqueue("x")
    q = make_queue(queue_busy_seconds=0.05)
    if not fresh:
        q.counts()
    other = sqlite_module().connect(q.dbname, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    for act in (lambda: q.enqueue("y"), lambda: q.dequeue(WORKER), lambda: q.cancel(1)):
        with pytest.raises(DatabaseUnavailable, match="lock"):
            act()
    other.execute("ROLLBACK")
    other.close()
    q.enqueue("y")
    assert q.counts()["pending"] == 2


def test_a_database_that_is_deleted_while_open_is_missed(queue: Queue, path: Path) -> None:
    queue.enqueue("x")
    path.unlink()
    for act in (queue.counts, lambda: queue.enqueue("y"), lambda: queue.dequeue(WORKER)):
        with pytest.raises(DatabaseUnavailable, match="gone"):
            act()
    assert not path.exists()


def test_a_database_that_is_replaced_while_open_is_noticed(queue: Queue, path: Path, tmp_path: Path) -> None:
    queue.enqueue("old")
    other = persistq.connect(tmp_path / "other.db")
    other.enqueue_many(["new", "newer"])
    other.close()
    for leftover in (f"{path}-wal", f"{path}-shm"):
        os.unlink(leftover)
    os.replace(tmp_path / "other.db", path)
    assert [job.item for job in queue.list_jobs()] == ["new", "newer"]
    queue.enqueue("newest")
    assert run("import persistq, sys; print(persistq.connect(sys.argv[1]).counts()['pending'])", path) == "3\n"


def test_a_database_that_comes_back_is_used_again(queue: Queue, path: Path) -> None:
    queue.enqueue("x")
    queue.close()
    path.rename(f"{path}.away")
    with pytest.raises(DatabaseUnavailable):
        queue.counts()
    Path(f"{path}.away").rename(path)
    assert queue.counts()["pending"] == 1


# Locks: opening and closing the file by any other way drops them all

PROBE = """
    import fcntl, sys
    with open(sys.argv[1], "r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 510, 0x40000002)
        except OSError:
            print("locked")
        else:
            print("free")
"""


def test_no_call_drops_the_locks_of_the_live_file(make_queue: MakeQueue, path: Path) -> None:
    q = make_queue(queue_busy_seconds=0.05)
    q.enqueue_many(["a", "b"])
    with q.engine.begin() as held:
        held.execute(text("UPDATE jobs SET priority = 1"))
        for look in (
            q.database.check, q.database.pragmas, q.database.revision, q.database.checkpoint, q.tally_drift, q.counts,
            q.queues, q.consumers, q.list_jobs, q.get_all_items, q.settings.sources, q.doorbell().rung,
        ):  # fmt: skip
            look()
        other = make_queue()
        assert other.counts()["pending"] == 2
        other.close()
        with pytest.raises(DatabaseUnavailable):
            q.enqueue("c")
        assert run(PROBE, path) == "locked\n"
        refused = run(
            "import sys\nfrom persistq.storage.sqlite_connections import sqlite_module\n"
            "try: sqlite_module().connect(sys.argv[1], timeout=0, isolation_level=None).execute('BEGIN IMMEDIATE')\n"
            "except Exception as error: print(error)",
            path,
        )
        assert "locked" in refused


def test_the_probe_notices_an_open_and_close(queue: Queue, path: Path) -> None:
    queue.enqueue("x")
    with queue.engine.begin():
        assert run(PROBE, path) == "locked\n"
        path.open("rb").close()
        assert run(PROBE, path) == "free\n"


# Processes

CHILD = """
    import os, sys, traceback
    import persistq
    q = persistq.connect(sys.argv[1])
    q.enqueue("before")
    with q.engine.connect():
        pass
    for turn in range(5):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                q.enqueue(f"child {turn}")
                assert q.database.check() == []
                code = 0
            except Exception:
                traceback.print_exc()
            finally:
                os._exit(code)
        q.enqueue(f"parent {turn}")
        assert os.waitpid(child, 0)[1] == 0
        q.enqueue(f"after {turn}")
    assert q.database.check() == []
    assert q.tally_drift() == {}
    print(q.counts()["pending"])
"""


def test_a_forked_child_opens_its_own_connection_and_the_parent_goes_on(path: Path) -> None:
    assert run(CHILD, path) == "16\n"


TOGETHER = """
    import os, sys, traceback
    import persistq
    from persistq.storage import migrate  # what every process would import anyway
    import alembic.command, alembic.config, alembic.script
    for turn in range(8):
        path = f"{sys.argv[1]}-{turn}"
        ready, go = os.pipe()
        children = []
        for number in range(4):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    os.close(go)
                    os.read(ready, 1)
                    persistq.connect(path).enqueue(str(number))
                    code = 0
                except Exception:
                    traceback.print_exc()
                finally:
                    os._exit(code)
            children.append(child)
        os.close(ready)
        os.close(go)
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
        print(persistq.connect(path).counts()["pending"])
"""


def test_processes_may_make_the_database_at_once(path: Path) -> None:
    assert run(TOGETHER, path) == "4\n" * 8


def test_the_first_call_may_join_a_transaction_of_a_new_database(queue: Queue) -> None:
    with Session(queue.engine) as session, session.begin():
        queue.enqueue("x", connection=session)
    assert queue.counts()["pending"] == 1


def test_another_copy_of_sqlite_in_the_process_is_warned_of(queue: Queue, path: Path) -> None:
    if sqlite_module() is sqlite3:
        pytest.skip("Python's own SQLite is in use, so there is no other copy")
    queue.counts()
    foreign = create_engine(f"sqlite:///{path}")
    with pytest.warns(RuntimeWarning, match="engine"), foreign.begin() as connection:
        queue.enqueue("x", connection=connection)
    foreign.dispose()
    with warnings.catch_warnings(), queue.engine.begin() as connection:
        warnings.simplefilter("error")
        queue.enqueue("y", connection=connection)


def test_the_doorbell_rings_for_others_commits_only_once_each(make_queue: MakeQueue) -> None:
    q, other = make_queue(), make_queue()
    q.enqueue("x")
    bell = q.doorbell()
    bell.rung()
    assert not bell.rung()
    other.counts()
    assert not bell.rung()
    other.enqueue("y")
    assert bell.rung()
    assert not bell.rung()
    bell.close()


def test_threads_may_share_a_queue(queue: Queue) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: queue.enqueue(str(number)), range(80)))
        taken = list(pool.map(lambda number: claim(queue, f"c{number}").id, range(80)))
    assert sorted(taken) == list(range(1, 81))
    assert queue.tally_drift() == {}


# The clock: leases end by this machine's


@pytest.mark.parametrize("jump", [3600, -3600, 86_400])
def test_recovery_holds_back_for_one_lease_after_the_clock_was_set(queue: Queue, clock: FakeClock, jump: float) -> None:
    queue.enqueue("x")
    job = claim(queue)
    clock.jump(jump)
    assert queue.recover() == 0
    clock.advance(30)
    assert queue.recover() == 0
    assert queue.get_job(1).status == "processing"
    queue.renew(job)
    clock.advance(59)
    assert queue.recover() == 0
    clock.advance(2)
    assert queue.recover() == 1


def test_a_dead_consumer_s_job_comes_back_although_the_clock_was_set(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue("x")
    claim(queue)
    clock.jump(3600)
    assert queue.recover() == 0
    clock.advance(60)
    assert queue.recover() == 1


def test_claiming_holds_back_as_well(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue("x")
    claim(queue)
    clock.jump(3600)
    assert queue.dequeue(OTHER) is None


# The seed's ways to name a file


@pytest.mark.parametrize(
    "target", [{"name": "q.db"}, {"type": "sqlite"}, {}, {"name": "q.db", "type": "oracle"}, {"x": 1}], ids=str
)
def test_a_dict_that_names_no_database_is_refused(target: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        persistq.persistentQ(target)


def test_the_diagram_s_db_connect_opens_the_same_queue() -> None:
    persistq.connect("queue.db").put_item("x")
    assert persistq.db_connect("queue.db", "sqlite").get_item() == (1, "x")
    with pytest.raises(ConfigError):
        persistq.db_connect("queue.db", "oracle")
