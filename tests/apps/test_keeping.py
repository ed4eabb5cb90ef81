"""backup, restore, db export and import: everything that was acknowledged is there, or nothing was done."""

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from process.yard import Yard, eventually
from support.cli import invoke, ok
from support.jobs import WORKER

import persistq

STORM = """
q = persistq.connect()
while not os.path.exists("calm"):
    for job_id in q.enqueue_many(["x" * 500] * 5):
        note(job_id)
"""


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    found = Yard(tmp_path, queue_durability="process")
    yield found
    found.clean_up()


def ids_in(path: Path) -> set[int]:
    """Return the jobs of a file, read by SQLite alone."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = {row[0] for row in connection.execute("SELECT id FROM jobs")}
    connection.close()
    return found


def test_a_backup_amid_a_storm_of_writers_holds_all_that_was_acknowledged_before(yard: Yard, long: bool) -> None:
    writers = [yard.script(STORM) for _ in range(3)]
    eventually(lambda: len(yard.journal()) > (50_000 if long else 500), "jobs come")
    acknowledged = {int(line) for line in yard.journal()}
    kept = yard.folder / "kept.db"
    done = yard.run("-m", "persistq.admin.admin", "backup", str(kept))
    assert done.wait() == 0, done.err
    assert "was checked" in done.err
    assert not any(writer.ended() for writer in writers), "they went on"
    eventually(lambda: len(yard.journal()) > len(acknowledged) + 100, "and go on")
    yard.open("calm")
    assert [writer.wait() for writer in writers] == [0, 0, 0]

    assert acknowledged <= ids_in(kept)
    assert kept.stat().st_mode & 0o777 == 0o600
    assert not list(yard.folder.glob(".kept*")), "nothing is left beside it"
    later = {job.id for job in yard.jobs()} - ids_in(kept)
    assert later
    assert invoke("restore", str(kept), "--yes").exit_code == 0
    assert {job.id for job in yard.jobs()} == ids_in(kept)
    assert ok("db", "check").startswith("ok")
    yard.assert_sound()
    assert min(yard.q.enqueue_many(["next"])) > max(ids_in(kept))


def test_a_backup_never_takes_the_place_of_a_file(q: persistq.PersistentQSQLAlchemy, tmp_path: Path) -> None:
    q.enqueue("x")
    (tmp_path / "kept.db").write_text("precious")
    os.symlink("nowhere", tmp_path / "link.db")
    for name in ("kept.db", "link.db", "queue.db"):
        result = invoke("backup", name)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "choose a name that is free" in result.stderr
    assert (tmp_path / "kept.db").read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()
    assert invoke("backup", "no/such/folder.db").exit_code == 5
    assert q.counts()["pending"] == 1


def test_a_restore_brings_back_what_was_and_is_written_down(one_of_each: dict[str, int], tmp_path: Path) -> None:
    before = ok("list-jobs", "--json")
    ok("backup", "kept.db")
    ok("delete-db-jobs", "--force", "--yes")
    ok("enqueue", "other")
    held = invoke("restore", "kept.db", stdin="n\n")
    assert held.exit_code == 1
    assert "Replace 1 jobs of" in held.stderr
    ok("restore", "kept.db", "--yes")
    assert ok("list-jobs", "--json") == before
    assert json.loads(ok("audit", "list", "--limit", "1", "--json"))[0]["action"] == "restore"
    assert ok("--db", "elsewhere.db", "restore", "kept.db", "--yes") == ""
    assert ok("--db", "elsewhere.db", "list-jobs", "--json") == before
    assert (tmp_path / "elsewhere.db").stat().st_mode & 0o777 == 0o600


def _letter(path: Path) -> None:
    path.write_text("Dear database, " * 1000)


def _somebody_elses(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE jobs (title TEXT)")
    connection.close()


def _newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE persistq_version SET version_num = '9999'")
    connection.close()


def _damaged(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * (path.stat().st_size - 8192))


def _alive(path: Path) -> None:
    path.with_name(f"{path.name}-wal").write_bytes(b"x" * 100)


def _absent(path: Path) -> None:
    path.unlink()


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [(_letter, 5), (_somebody_elses, 5), (_newer, 5), (_damaged, 5), (_alive, 2), (_absent, 2), (_folder, 2)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_is_no_sound_backup_is_refused_and_nothing_changes(
    q: persistq.PersistentQSQLAlchemy, tmp_path: Path, spoil: Callable[[Path], None], code: int
) -> None:
    q.enqueue_many([f"item {n}" * 100 for n in range(100)])
    ok("backup", "kept.db")
    kept = tmp_path / "kept.db"
    if spoil is _somebody_elses:
        kept.unlink()
    spoil(kept)
    q.enqueue("later")
    result = invoke("restore", "kept.db", "--yes")
    assert (result.exit_code, result.stdout) == (code, ""), result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert q.counts()["pending"] == 101
    assert q.database.check() == []


def test_a_restore_under_living_consumers_is_refused_unless_forced(q: persistq.PersistentQSQLAlchemy) -> None:
    q.enqueue("x")
    ok("backup", "kept.db")
    now = q.clock.now()
    q.beat(
        persistq.ConsumerInfo(
            id=WORKER, name="worker", host="h", pid=1, queues=(), concurrency=1, running=0, started_at=now, seen_at=now
        )
    )
    result = invoke("restore", "kept.db", "--yes")
    assert result.exit_code == 4
    assert "worker" in result.stderr
    assert len(q.consumers()) == 1
    ok("restore", "kept.db", "--yes", "--force")
    assert q.consumers() == []


def test_an_export_can_be_piped_into_another_queue(one_of_each: dict[str, int], tmp_path: Path) -> None:
    exported = ok("db", "export")
    assert ok("--db", "other.db", "db", "import", "-", stdin=exported) == "5\n"
    (tmp_path / "jobs.jsonl").write_text(exported)
    assert ok("--db", "third.db", "db", "import", "jobs.jsonl") == "5\n"
    for name in ("other.db", "third.db"):
        assert ok("--db", name, "list-jobs", "--json") == ok("list-jobs", "--json")
        assert ok("--db", name, "db", "check").startswith("ok")
    again = invoke("--db", "third.db", "db", "import", "jobs.jsonl")
    assert (again.exit_code, again.stdout) == (2, "")
    assert invoke("db", "import", "nowhere.jsonl").exit_code == 2
    not_text = invoke("--db", "fourth.db", "db", "import", "-", stdin=exported.encode() + b"\xff\xfe\n")
    assert not_text.exit_code == 2
    assert ok("--db", "fourth.db", "list-jobs") == ""


def test_vacuum_gives_space_back(q: persistq.PersistentQSQLAlchemy) -> None:
    q.enqueue_many(["x" * 10_000] * 300)
    q.delete_jobs()
    before = json.loads(ok("db", "info", "--json"))
    assert before["free_bytes"] > 1_000_000
    ok("db", "vacuum")
    after = json.loads(ok("db", "info", "--json"))
    assert after["free_bytes"] == 0
    assert after["bytes"] < before["bytes"] - 1_000_000
    assert (after["kind"], after["jobs"], after["revision"]) == ("sqlite", 0, before["revision"])


def test_info_hides_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    result = invoke("--db", "postgresql://user:hunter2@127.0.0.1:1/name", "db", "info")
    assert result.exit_code == 5
    assert "hunter2" not in result.output


def test_a_backup_of_a_server_names_the_server_s_own_tools() -> None:
    pytest.importorskip("psycopg")
    result = invoke("--db", "postgresql://user:hunter2@127.0.0.1:1/name", "backup", "kept.db")
    assert result.exit_code == 2
    assert "pg_dump" in result.stderr
    assert not Path("kept.db").exists()
