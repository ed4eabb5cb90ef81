"""A file system of 2 MB that is full: enqueue refuses, what was acknowledged can be finished."""

import contextlib
from pathlib import Path

import pytest

import persistq

from .yard import Yard, eventually

pytestmark = [pytest.mark.needs("root"), pytest.mark.needs("mount")]

sizes = pytest.mark.parametrize("size", [10, 20_000], ids=["short items", "long items"])
batches = pytest.mark.parametrize("batch", [1, 25], ids=["one by one", "in batches"])


@sizes
@batches
def test_everything_acknowledged_is_done_by_calls(make_yard, small_disk, size, batch):
    yard = make_yard(database=small_disk / "queue.db")
    acknowledged = _fill(yard, "x" * size, batch)
    while jobs := yard.q.dequeue_many("me", limit=1 if size > 1000 else 20):
        yard.q.complete_many(jobs)
    assert [(job.id, str(job.status)) for job in yard.jobs()] == [(id_, "done") for id_ in acknowledged]
    yard.assert_sound()


@batches
def test_everything_acknowledged_is_done_by_a_consumer(make_yard, small_disk, batch):
    yard = make_yard(database=small_disk / "queue.db")
    yard.app("@persistq.task\ndef perform(item):\n    pass\n")
    acknowledged = _fill(yard, "x" * 2000, batch)
    consumer = yard.consumer("--task", "perform", "--drain", "--concurrency", "2")
    eventually(lambda: consumer.ended() or len(consumer.lines("trying again")) >= 6, "it ends")
    assert not consumer.lines("trying again")
    assert consumer.wait() == 0
    assert [(job.id, str(job.status)) for job in yard.jobs()] == [(id_, "done") for id_ in acknowledged]
    yard.assert_sound()


def test_failures_and_releases_are_written_too(make_yard, small_disk):
    yard = make_yard(database=small_disk / "queue.db", max_attempts=1)
    acknowledged = _fill(yard, "x" * 1000, 1)
    yard.q.release(yard.q.dequeue("me"))
    for _ in acknowledged:
        yard.q.fail(yard.q.dequeue("me"), "on purpose")
    assert yard.statuses() == {"failed": len(acknowledged)}
    yard.assert_sound()


def test_enqueue_works_again_once_there_is_space(make_yard, small_disk):
    yard = make_yard(database=small_disk / "queue.db")
    acknowledged = _fill(yard, "x" * 1000, 1)
    (small_disk / "junk").unlink()
    assert yard.q.delete_jobs() == len(acknowledged)
    assert yard.q.enqueue("one more") > acknowledged[-1]
    yard.assert_sound()


def _fill(yard: Yard, item: str, batch: int) -> list[int]:
    """Enqueue until the disk is full, then take every byte that is left; return what was acknowledged."""
    acknowledged: list[int] = []
    while True:
        added = _enqueue_until_full(yard, item, batch) + _enqueue_until_full(yard, "x", 1)
        acknowledged += added
        if not _add_junk(yard.database.parent) and not added:
            break
    assert len(acknowledged) >= 25, "filled too early"
    with pytest.raises(persistq.QueueFull, match="disk"):
        yard.q.enqueue("one more")
    return acknowledged


def _enqueue_until_full(yard: Yard, item: str, batch: int) -> list[int]:
    ids: list[int] = []
    with contextlib.suppress(persistq.QueueFull):
        while True:
            ids += yard.q.enqueue_many([item] * batch)
    return ids


def _add_junk(disk: Path) -> int:
    """Return how many bytes were still to be had."""
    written = 0
    with contextlib.suppress(OSError), (disk / "junk").open("ab", buffering=0) as file:
        while True:
            written += file.write(bytes(512))
    return written


def test_a_process_that_starts_on_the_full_disk_finishes_too(make_yard, small_disk):
    """After a restart not even the files that SQLite opens beside the database have room."""
    yard = make_yard(database=small_disk / "queue.db")
    yard.app("@persistq.task\ndef perform(item):\n    pass\n")
    acknowledged = _fill(yard, "x" * 20_000, 1)
    yard.q.close()
    while _add_junk(small_disk):
        pass
    consumer = yard.consumer("--task", "perform", "--drain")
    assert consumer.wait() == 0, consumer.out
    assert [(job.id, str(job.status)) for job in yard.jobs()] == [(id_, "done") for id_ in acknowledged]
    yard.assert_sound()
