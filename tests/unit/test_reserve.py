"""The disk space that is kept back, and what a checkpoint after a commit may not say."""

import errno
import io
import os
from pathlib import Path

import pytest
from support.jobs import MakeQueue, Queue

import persistq
from persistq import DatabaseUnavailable, QueueFull
from persistq.storage import reserve
from persistq.storage.reserve import BASE, PER_JOB, Reserve, size_for
from persistq.storage.sqlite import SQLite as Database


def kept(q: Queue) -> int:
    return Path(f"{q.dbname}-reserve").stat().st_size


@pytest.mark.parametrize("unfinished", [0, 1, 1_000, 1_024, 1_025, 500_000])
def test_every_job_that_is_not_over_has_its_share(unfinished: int) -> None:
    assert BASE + unfinished * PER_JOB <= size_for(unfinished) < BASE + unfinished * PER_JOB + (64 << 10)


def test_it_grows_with_the_jobs_that_are_not_over_and_shrinks_after_them(make_queue: MakeQueue) -> None:
    q = make_queue()
    q.enqueue_many(["x"] * 6_000)
    assert kept(q) == size_for(6_000)
    q.delete_jobs()
    q.database.tidy()
    assert kept(q) == BASE
    # Free pages are filled now, so the file does not grow; the reserve does all the same.
    q.enqueue_many(["x"] * 6_000)
    assert kept(q) == size_for(6_000)


def test_an_error_in_closing_it_is_no_error_of_the_call(make_queue: MakeQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    class Spoilt(io.FileIO):
        def close(self) -> None:
            super().close()
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(reserve, "open", lambda handle, *_, **__: Spoilt(handle, "ab"), raising=False)
    q = make_queue()
    assert q.enqueue("x") == 1
    assert kept(q) >= BASE


def test_a_disk_that_cannot_be_asked_for_its_room_adds_nothing(
    make_queue: MakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_path: object) -> os.statvfs_result:
        raise OSError(errno.EIO, "Input/output error")

    q = make_queue()
    with monkeypatch.context() as patched:
        patched.setattr(os, "statvfs", broken)
        with pytest.raises(DatabaseUnavailable, match="Input/output error"):
            q.enqueue("x")
    assert q.counts()["pending"] == 0
    assert q.enqueue("x") == 1


@pytest.mark.parametrize("call", ["truncate", "unlink"])
def test_a_reserve_that_cannot_be_given_up_is_no_error(
    make_queue: MakeQueue, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    q = make_queue()
    q.enqueue_many(["x"] * 10_000)
    q.delete_jobs()
    monkeypatch.setattr(os, call, broken)
    for act in (q.database.tidy, Reserve(Path(q.dbname)).lend, Reserve(Path(q.dbname)).give_up):
        act()
    assert q.enqueue("x") == 10_001


def test_a_refusal_by_the_bound_gives_nothing_up(make_queue: MakeQueue) -> None:
    q = make_queue(queue_max_pending=5_000)
    q.enqueue_many(["x"] * 5_000)
    before = kept(q)
    with pytest.raises(QueueFull, match="QUEUE_MAX_PENDING"):
        q.enqueue("one more")
    assert kept(q) == before == size_for(5_000)


def test_maintenance_takes_a_reserve_back_that_was_given_up(make_queue: MakeQueue) -> None:
    q = make_queue()
    q.enqueue("x")
    Reserve(Path(q.dbname)).give_up()
    q.database.tidy()
    assert kept(q) >= BASE


def test_a_checkpoint_that_fails_after_the_commit_is_no_failure_of_the_call(
    make_queue: MakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    q = make_queue()
    tried = []

    def checkpoint(_self: Database, mode: str = "PASSIVE") -> None:
        tried.append(mode)
        raise DatabaseUnavailable("disk I/O error")

    monkeypatch.setattr(Database, "checkpoint", checkpoint)
    assert len(q.enqueue_many(["x" * 1_000] * 500)) == 500
    assert tried == ["PASSIVE"]


def test_the_bell_follows_a_database_that_was_replaced(make_queue: MakeQueue, tmp_path: Path) -> None:
    q = make_queue()
    q.enqueue("x")
    bell = q.doorbell()
    bell.rung()
    other = persistq.connect(tmp_path / "other.db")
    other.enqueue("y")
    other.database.checkpoint("TRUNCATE")
    other.close()
    q.close()
    for suffix in ("-wal", "-shm"):
        Path(q.dbname + suffix).unlink(missing_ok=True)  # as a restore does: a WAL belongs to its own file only
    (tmp_path / "other.db").replace(q.dbname)
    assert [job.item for job in q.list_jobs()] == ["y"]
    bell.rung()
    assert not bell.rung()
    persistq.connect(q.dbname).enqueue("z")
    assert bell.rung()
    bell.close()
