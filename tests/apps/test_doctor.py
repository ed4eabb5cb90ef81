"""doctor and db: what is sound, what is not, and how to put it right."""

import json
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from support.cli import invoke, ok
from support.clock import FakeClock

import persistq
from persistq.storage.schema import REVISION


def report() -> dict[str, dict[str, object]]:
    """Return the doctor's bad findings by name, checking that code, verdict and findings agree."""
    result = invoke("doctor", "--json")
    found = json.loads(result.stdout)
    bad = {check["name"]: check for check in found["checks"] if not check["ok"]}
    assert found["ok"] == (not bad)
    assert result.exit_code == (1 if bad else 0)
    return bad


def test_a_sound_system_passes(q: persistq.PersistentQSQLAlchemy) -> None:
    assert report() == {}
    assert all(line.startswith("ok ") for line in ok("doctor").splitlines())


def _pending_without_a_consumer(folder: Path, q: persistq.PersistentQSQLAlchemy) -> None:
    q.enqueue("item")


def _open_database(folder: Path, q: persistq.PersistentQSQLAlchemy) -> None:
    (folder / "queue.db").chmod(0o644)


def _open_env_file(folder: Path, q: persistq.PersistentQSQLAlchemy) -> None:
    (folder / ".env").write_text("MAX_ATTEMPTS=3\n")
    (folder / ".env").chmod(0o644)


def _open_job_folder(folder: Path, q: persistq.PersistentQSQLAlchemy) -> None:
    (folder / "jobs").mkdir(mode=0o755)


def _misspelt(folder: Path, q: persistq.PersistentQSQLAlchemy) -> None:
    (folder / ".env").write_text("QUEUE_DBFILE=queue.db\n")
    (folder / ".env").chmod(0o600)


def _short_stop(folder: Path, q: persistq.PersistentQSQLAlchemy) -> None:
    (folder / "supervisor").mkdir()
    (folder / "supervisor" / "supervisord.conf").write_text("[program:consumer]\nstopwaitsecs=10 ; seconds\n")


def _wrong_counts(folder: Path, q: persistq.PersistentQSQLAlchemy) -> None:
    q.cancel(q.enqueue("item"))
    with q.engine.connect() as connection:
        connection.exec_driver_sql("UPDATE jobs SET status = 'done'")
        connection.commit()


def _consumer(q: persistq.PersistentQSQLAlchemy, seconds_ago: float, *queues: str) -> None:
    at = q.clock.now() - timedelta(seconds=seconds_ago)
    q.beat(
        persistq.ConsumerInfo(
            id="w@h:1:a", name="w", host="h", pid=1, queues=queues, concurrency=1, running=0, started_at=at, seen_at=at
        )
    )


def _silent_consumer(folder: Path, q: persistq.PersistentQSQLAlchemy) -> None:
    _consumer(q, 60)


def _queue_without_a_consumer(folder: Path, q: persistq.PersistentQSQLAlchemy) -> None:
    _consumer(q, 0, "mail")
    q.enqueue("item", "files")
    q.enqueue("item", "paused")
    q.pause("paused")


def _quiet_consumer(folder: Path, q: persistq.PersistentQSQLAlchemy) -> None:
    _consumer(q, 0)
    q.tell_consumer("w", "quiet")
    q.enqueue("item")


def _long_wait(folder: Path, q: persistq.PersistentQSQLAlchemy) -> None:
    _consumer(q, 0)
    q.enqueue("item", run_at=q.clock.now() - timedelta(hours=2))


def _clock_set_back(folder: Path, q: persistq.PersistentQSQLAlchemy) -> None:
    _consumer(q, -60)


def _job_folder_is_a_file(folder: Path, q: persistq.PersistentQSQLAlchemy) -> None:
    (folder / "jobs").touch(0o600)


def _action_cut_off(folder: Path, q: persistq.PersistentQSQLAlchemy) -> None:
    _consumer(q, 0)
    q.enqueue_many(["a", "b"])
    clock = FakeClock(q.clock.now() - timedelta(hours=1))
    earlier = persistq.connect(folder / "queue.db", clock=clock)
    what = earlier.preview("cancel")
    earlier.advance_bulk(what, earlier.begin_bulk(what), size=1)
    earlier.close()


BAD: dict[str, tuple[Callable[[Path, persistq.PersistentQSQLAlchemy], None], str, str]] = {
    "jobs wait and nobody comes": (_pending_without_a_consumer, "consumers", "persistq up"),
    "others may read the database": (_open_database, "permissions", "chmod go="),
    "others may read .env": (_open_env_file, "permissions", "chmod go= .env"),
    "others may read the job files": (_open_job_folder, "permissions", "chmod go= jobs"),
    "a variable is misspelt": (_misspelt, "settings", "config show"),
    "supervisord kills before the grace is over": (_short_stop, "supervisor", "stopwaitsecs"),
    "a consumer has fallen silent": (_silent_consumer, "lost", "consumers prune"),
    "a queue has no consumer": (_queue_without_a_consumer, "served", "persistq consumer --queue files"),
    "every consumer was told to be quiet": (_quiet_consumer, "served", "consumers list"),
    "a job has been due for hours": (_long_wait, "waiting", "persistq explain"),
    "the clock was set back": (_clock_set_back, "clock", "time daemon"),
    "the job folder is a file": (_job_folder_is_a_file, "folder", "chown"),
    "a bulk action was cut off": (_action_cut_off, "actions", "persistq audit resume 1"),
    "somebody wrote to the tables": (_wrong_counts, "counts", ""),
}


@pytest.mark.parametrize(("spoil", "name", "fix"), BAD.values(), ids=BAD.keys())
def test_what_is_wrong_is_named_with_its_remedy(
    q: persistq.PersistentQSQLAlchemy, tmp_path: Path, spoil: Callable[..., None], name: str, fix: str
) -> None:
    spoil(tmp_path, q)
    bad = report()
    assert list(bad) == [name]
    assert fix in str(bad[name]["fix"])
    result = invoke("doctor")
    assert result.exit_code == 1
    assert any(line.startswith(f"BAD  {name}") for line in result.stdout.splitlines())


def _no_database(folder: Path) -> str:
    (folder / "letter.db").write_text("Dear database, " * 100)
    return "letter.db"


def _absent(folder: Path) -> str:
    return "nowhere/queue.db"


def _newer(folder: Path) -> str:
    persistq.connect(folder / "newer.db").counts()
    with sqlite3.connect(folder / "newer.db") as connection:
        connection.execute("UPDATE persistq_version SET version_num = '9999'")
    connection.close()
    return "newer.db"


@pytest.mark.parametrize("make", [_no_database, _absent, _newer], ids=lambda make: make.__name__.strip("_"))
def test_the_doctor_goes_on_when_the_database_is_out_of_reach(tmp_path: Path, make: Callable[[Path], str]) -> None:
    """That is when a person calls it: it has to report, not to fall over."""
    result = invoke("--db", make(tmp_path), "doctor", "--json")
    assert result.exit_code in (1, 5)
    found = json.loads(result.stdout)
    assert not found["ok"]
    assert {"database", "user"} <= {check["name"] for check in found["checks"]}


def test_db_init_makes_the_schema_once(tmp_path: Path) -> None:
    first, second, upgrade = ok("db", "init"), ok("db", "init"), ok("db", "upgrade")
    assert first == second == upgrade == f"{REVISION}\n"
    assert ok("db", "check").startswith("ok: revision " + REVISION)


def test_db_check_tells_what_is_wrong(q: persistq.PersistentQSQLAlchemy, tmp_path: Path) -> None:
    _wrong_counts(tmp_path, q)
    result = invoke("db", "check")
    assert result.exit_code == 1
    assert "the count of done in default is off by" in result.stdout
