"""The power cut amid jobs: rows, job files and their stamps, on a file system that is shut down and mounted again."""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from support.batch_children import Child
from support.databases import Databases

import persistq
from persistq import PersistQError, jobfiles

from .test_batch_power import Disk
from .yard import integrity

pytestmark = pytest.mark.needs("root", "mkfs.ext4", "losetup")

Tell = Callable[[int], None]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path)
    yield made
    made.umount()


@pytest.fixture(scope="module")
def empty(every_database: Databases) -> str:
    """The path of a database without jobs, to be copied."""
    return every_database["sqlite"].fresh()


def rows(root: Path, durability: str) -> Callable[[Tell], None]:
    """Return what a process does: it enqueues jobs and finishes every third, and tells 2 * id, or 2 * id + 1."""

    def act(tell: Tell) -> None:
        q = persistq.connect(root / "queue.db", queue_durability=durability)
        while True:
            for _ in range(2):
                tell(2 * q.enqueue("item"))
            for job_id in q.enqueue_many(["item"] * 3):
                tell(2 * job_id)
            (job,) = q.exchange("me", limit=1)
            q.complete(job, "result")
            tell(2 * job.id + 1)

    return act


def files(root: Path, durability: str) -> Callable[[Tell], None]:
    """Return the same for jobs that name a file, which is stamped before its job is done."""

    def act(tell: Tell) -> None:
        q = persistq.connect(root / "queue.db", queue_durability=durability)
        while True:
            path = jobfiles.create(root / "jobs", "text\n")
            tell(2 * q.enqueue(str(path)))
            if path.name[-5] < "m":
                (job,) = q.exchange("me", limit=1)
                jobfiles.append_line(root / "jobs", job.item, f"stamp {job.id}", f"{job.id}")
                q.complete(job)
                tell(2 * job.id + 1)

    return act


def cut(disk: Disk, empty: str, root: Path, act: Callable[[Tell], None], heard: int) -> list[int]:
    """Cut the power after so many acknowledgements, and return them. One that comes later may be a lie."""
    shutil.rmtree(root, ignore_errors=True)  # what an earlier turn left there
    root.mkdir(mode=0o700)
    shutil.copy(empty, root / "queue.db")
    for path in (root / "queue.db", root, disk.place):
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)

    def quietly(tell: Tell) -> None:
        with suppress(PersistQError, OSError):  # as the disk goes away
            act(tell)

    child = Child(quietly)
    told = [child.hear() for _ in range(heard)]
    disk.cut()
    child.kill()
    disk.umount()
    disk.mount()
    assert None not in told, "it ended by itself"
    return [number for number in told if number is not None]


@pytest.mark.parametrize(("act", "cuts"), [(rows, 12), (files, 12)])
def test_what_was_acknowledged_survives_every_cut(disk, empty, long, act, cuts):
    chance = random.Random(7)
    for turn in range(500 if long else cuts):
        root = disk.place / str(turn % 50)
        told = cut(disk, empty, root, act(root, "power"), chance.randrange(1, 40))
        with closing(persistq.connect(root / "queue.db")) as q:
            found = {job.id: job for job in q.list_jobs(limit=1000)}
            assert integrity(q) == ["ok"], turn
            assert q.tally_drift() == {}, turn
        assert {number // 2 for number in told} <= found.keys(), turn
        assert all(found[number // 2].status == "done" for number in told if number % 2), turn
        assert list(found) == list(range(1, len(found) + 1)), turn
        if act is files:
            assert_whole(found)


def assert_whole(found: dict[int, persistq.Job]) -> None:
    """Fail unless the file of each job is there, with its text, and its stamp once the job is done."""
    for job in found.values():
        text = Path(job.item).read_text()
        assert text in ("text\n", f"text\nstamp {job.id}\n")
        assert job.status != "done" or "stamp" in text


def test_with_process_durability_a_cut_takes_the_newest_only(disk, empty, long):
    chance = random.Random(8)
    lost = 0
    for turn in range(100 if long else 10):
        root = disk.place / str(turn % 50)
        told = cut(disk, empty, root, rows(root, "process"), chance.randrange(30, 120))
        with closing(persistq.connect(root / "queue.db", queue_durability="process")) as q:
            found = [job.id for job in q.list_jobs(limit=1000)]
            assert integrity(q) == ["ok"], turn
            assert q.tally_drift() == {}, turn
        assert found == list(range(1, len(found) + 1)), turn
        lost += len({number // 2 for number in told} - set(found))
    assert lost, "no cut took anything: the disk was not cut at all"
