"""The bell on a SQLite file: who commits rings it, and listening costs the file nothing."""

import os
import select
from collections import Counter
from pathlib import Path

import pytest
from support.jobs import MakeQueue, Queue

import persistq
from persistq.storage.watch import FileDoorbell


def descriptors() -> Counter[str]:
    """Return what this process has open, and how often."""
    found: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[os.readlink(entry)] += 1
        except FileNotFoundError:
            continue  # the one that lists them
    return found


def opened(before: Counter[str]) -> dict[str, int]:
    """Return what has been opened since, without what other tests' leftovers close meanwhile."""
    return {name: number for name, number in (descriptors() - before).items() if "/proc/" not in name}


def readable(descriptor: int | None) -> bool:
    assert descriptor is not None
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


@pytest.fixture
def pair(make_queue: MakeQueue) -> tuple[Queue, Queue]:
    """A queue that listens, and one that commits."""
    q, other = make_queue(), make_queue()
    q.enqueue("x")
    other.counts()
    return q, other


@pytest.fixture
def bell(pair: tuple[Queue, Queue]) -> FileDoorbell:
    """A bell that has been asked for the first time."""
    made = pair[0].database.doorbell()
    assert isinstance(made, FileDoorbell)
    assert made.fileno() is None, "nothing is opened before it is needed"
    made.rung()
    assert readable(made.fileno()) is False
    return made


def test_it_becomes_readable_when_another_connection_commits(pair: tuple[Queue, Queue], bell: FileDoorbell) -> None:
    for _ in range(3):
        pair[1].enqueue("y")
        assert readable(bell.fileno())
        assert bell.rung()
        assert not readable(bell.fileno())
        assert not bell.rung()
    bell.close()


def test_it_hears_another_process(pair: tuple[Queue, Queue], bell: FileDoorbell) -> None:
    import subprocess
    import sys

    script = "import sys, persistq; persistq.connect(sys.argv[1]).enqueue('from elsewhere')"
    subprocess.run([sys.executable, "-c", script, pair[0].dbname], check=True, timeout=60)
    assert readable(bell.fileno())
    assert bell.rung()
    bell.close()


def test_many_commits_are_one_ring(pair: tuple[Queue, Queue], bell: FileDoorbell) -> None:
    for number in range(300):
        pair[1].enqueue(str(number))
    assert readable(bell.fileno())
    assert bell.rung()
    assert not readable(bell.fileno())
    assert not bell.rung()
    bell.close()


def test_who_only_reads_or_is_refused_rings_nothing(pair: tuple[Queue, Queue], bell: FileDoorbell) -> None:
    other = pair[1]
    other.counts()
    other.list_jobs()
    with pytest.raises(persistq.JobNotFound):
        other.cancel(10_000)
    assert not readable(bell.fileno())
    assert not bell.rung()
    bell.close()


def test_the_first_question_is_answered_with_look(pair: tuple[Queue, Queue]) -> None:
    bell = pair[0].doorbell()
    assert bell.rung(), "what was committed before nobody has looked at"
    assert not bell.rung()
    bell.close()
    assert bell.rung(), "and again after it was closed"
    bell.close()


def test_the_database_is_watched_by_its_status_and_never_opened(
    pair: tuple[Queue, Queue], bell: FileDoorbell, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = pair[0].dbname
    bell.close()
    bell.rung()  # its connection, which SQLite opened and looks after
    before = descriptors()

    def refuse(path: object, *_: object, **__: object) -> None:
        raise AssertionError(f"{path} was opened")

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", refuse)
        patch.setattr("os.open", refuse)
        descriptor = bell.fileno()
    new = opened(before)
    assert new == {"anon_inode:inotify": 1}, new
    assert bell.fileno() == descriptor
    assert not [path for path in new if path.startswith(name)]
    bell.close()


def test_closing_gives_every_descriptor_back(pair: tuple[Queue, Queue]) -> None:
    q = pair[0]
    bell = q.doorbell()
    bell.rung()
    bell.fileno()
    bell.close()
    before = descriptors()
    for _ in range(20):
        assert bell.rung()
        assert bell.fileno() is not None
        bell.close()
        bell.close()
    assert opened(before) == {}
    assert bell.fileno() is None


def test_listening_and_closing_drops_no_lock(pair: tuple[Queue, Queue], bell: FileDoorbell) -> None:
    q, other = pair
    with q.engine.begin() as held:
        held.exec_driver_sql("UPDATE jobs SET priority = 1")
        bell.rung()
        bell.fileno()
        bell.close()
        impatient = persistq.connect(q.dbname, queue_busy_seconds=0)
        with pytest.raises(persistq.DatabaseUnavailable, match="lock"):
            impatient.enqueue("y")
        impatient.close()
    assert other.enqueue("z") == 2


def test_a_wal_that_is_begun_anew_is_heard_as_well(pair: tuple[Queue, Queue], bell: FileDoorbell) -> None:
    other = pair[1]
    for mode in ("RESTART", "TRUNCATE"):
        other.enqueue("y")
        other.database.checkpoint(mode)  # type: ignore[attr-defined]
        assert bell.rung()
        bell.rung()
        other.enqueue("z")
        assert readable(bell.fileno())
        assert bell.rung()
    bell.close()


def test_a_bell_that_is_older_than_the_wal_hears_it(make_queue: MakeQueue, path: Path) -> None:
    first = make_queue()
    first.enqueue("x")
    first.close()
    assert not Path(f"{path}-wal").exists(), "whoever closes last removes it"
    bell = first.doorbell()
    bell.rung()
    bell.fileno()
    other = make_queue()
    other.enqueue("y")
    assert readable(bell.fileno())
    assert bell.rung()
    bell.close()


def test_a_wal_that_was_removed_and_made_again_is_heard_after_reopening(make_queue: MakeQueue, path: Path) -> None:
    q = make_queue()
    q.enqueue("x")
    bell = q.doorbell()
    for _ in range(2):
        assert bell.rung()
        assert bell.fileno() is not None
        bell.close()
        q.close()
        other = make_queue()
        other.enqueue("y")
        assert bell.rung()
        assert not readable(bell.fileno())
        other.enqueue("z")
        assert readable(bell.fileno())
        assert bell.rung()
        other.close()
        bell.close()
        q.close()
        assert not Path(f"{path}-wal").exists()
    bell.close()


def test_a_file_that_was_replaced_is_heard_once_it_was_noticed(
    pair: tuple[Queue, Queue], bell: FileDoorbell, tmp_path: Path
) -> None:
    q, other = pair
    new = persistq.connect(tmp_path / "new.db")
    new.enqueue("new")
    new.close()
    other.close()
    q.close()
    for suffix in ("-wal", "-shm"):
        Path(q.dbname + suffix).unlink(missing_ok=True)
    (tmp_path / "new.db").replace(q.dbname)
    assert [job.item for job in q.list_jobs()] == ["new"]  # whoever asks the database notices
    before = descriptors()
    assert bell.rung()
    assert not bell.rung()
    assert not readable(bell.fileno())
    other.enqueue("newer")
    assert readable(bell.fileno())
    assert bell.rung()
    assert opened(before).get("anon_inode:inotify", 0) <= 1
    bell.close()


def test_trouble_is_a_ring_and_over_with_the_trouble(pair: tuple[Queue, Queue], bell: FileDoorbell, path: Path) -> None:
    q = pair[0]
    bell.close()
    path.rename(f"{path}.away")
    assert bell.rung()
    assert bell.rung(), "each time, for nobody can tell what was missed"
    assert bell.fileno() is None
    Path(f"{path}.away").rename(path)
    assert bell.rung()
    assert not bell.rung()
    assert q.counts()["pending"] == 1
    bell.close()


def test_without_inotify_it_is_asked_instead(pair: tuple[Queue, Queue], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("persistq.storage.watch._watch", lambda _paths: None)
    bell = pair[0].doorbell()
    bell.rung()
    assert bell.fileno() is None
    assert not bell.rung()
    pair[1].enqueue("y")
    assert bell.rung()
    bell.close()


@pytest.mark.parametrize("missing", ["inotify", "libc"])
def test_a_machine_that_has_no_inotify_has_no_descriptor(
    pair: tuple[Queue, Queue], monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    def load(_name: object, **_: object) -> object:
        if missing == "libc":
            raise OSError("no such library")
        return object()

    monkeypatch.setattr("ctypes.CDLL", load)
    bell = pair[0].doorbell()
    bell.rung()
    assert bell.fileno() is None
    bell.close()
