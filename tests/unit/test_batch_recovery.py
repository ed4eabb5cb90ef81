"""Recovery: what dead owners left is made ready, what is damaged is put aside, and both are told."""

import fcntl
import logging
import os
import shutil
from pathlib import Path

import pytest
from support.batches import drain, fill, names, only

import persistq
from persistq import batch, events
from persistq.batch import BatchName, BatchWriter, Recovered
from persistq.batch.spool import Spool

MADE = 1_700_000_000 * 10**9


@pytest.fixture
def root(tmp_path):
    """The spool's root, in which nobody lives."""
    path = tmp_path / "spool"
    (path / "q").mkdir(mode=0o700, parents=True)
    return path


@pytest.fixture
def told():
    """What observers are told."""
    seen = []
    events.subscribe(lambda name, fields: seen.append((name, fields)))
    return seen


@pytest.fixture
def leave(tmp_path, root):
    """Leaves a file as a dead owner would: ``leave("loading", 1, ["flushed", "items"])``."""

    def leave(status, number=0, items=(), owner=""):
        path = root / "q" / f"{status}_{MADE + number}_{number:08d}{owner}.db"
        path.touch(mode=0o600)
        if items:
            place = tmp_path / f"{status} {number}"
            with BatchWriter(place, "q", block_items=2) as writer:
                writer.add_many(items)
                writer.flush()
                shutil.copyfile(only(place), path)
            if status != "loading":
                shutil.copyfile(only(place), path)
        return path

    return leave


def test_a_dead_producer_s_and_a_dead_consumer_s_batches_are_ready_again(root, leave, told):
    leave("loading", 1, ["a", "b", "c"])
    leave("unload", 2, ["d", "e"], owner="_7")
    leave("loading", 3)
    found = batch.recover(root, "q")
    assert found == Recovered(ready=2, empty=1)
    assert found.to_dict() == {"ready": 2, "empty": 1, "invalid": {}, "alive": 0}
    assert names(root) == [f"ready_{MADE + 1}_00000001.db", f"ready_{MADE + 2}_00000002+1@0.db"]
    assert ("batch.recovered", {"queue": "q", "ready": 2, "invalid": 0}) in told
    assert drain(root) == ["a", "b", "c", "d", "e"]


def test_a_recovery_that_changes_nothing_of_worth_tells_nothing(root, leave, told):
    assert batch.recover(root, "q") == Recovered()
    leave("loading")
    told.clear()
    assert batch.recover(root, "q") == Recovered(empty=1)
    assert batch.recover(root, "q") == Recovered()
    assert [name for name, _ in told if name.startswith("batch.")] == []
    assert names(root) == []


def test_several_of_each_kind_are_counted_and_the_living_are_let_alone(root, leave, told):
    for number in (1, 2):
        leave("loading", number, ["a"])
        leave("loading", 10 + number)
        leave("loading", 20 + number).write_bytes(b"junk" * 3000)
    held = [os.open(leave(status, 30, owner=owner), os.O_RDWR) for status, owner in (("loading", ""), ("unload", "_7"))]
    for handle in held:
        fcntl.flock(handle, fcntl.LOCK_EX)
    before = names(root, "unload_") + [name for name in names(root, "loading_") if "00000030" in name]
    found = batch.recover(root, "q")
    for handle in held:
        os.close(handle)
    assert (found.ready, found.empty, len(found.invalid), found.alive) == (2, 2, 2, 2)
    assert sorted(found.invalid) == names(root, "invalid_")
    assert set(names(root)) == {*names(root, "ready_"), *names(root, "invalid_"), *before}
    assert ("batch.recovered", {"queue": "q", "ready": 2, "invalid": 2}) in told


def test_why_a_batch_was_put_aside_is_told(root, leave, told, caplog):
    path = leave("loading", 1, ["x" * 10_000])
    path.write_bytes(path.read_bytes()[:5000])
    with caplog.at_level(logging.ERROR):
        found = batch.recover(root, "q")
    ((aside, reason),) = found.invalid.items()
    assert found.ready == 0
    assert only(root, "invalid_").name == aside
    assert reason in ("SQLite says: database disk image is malformed", "SQLite says: file is not a database")
    assert ("batch.invalid", {"path": str(root / "q" / aside), "reason": reason}) in told
    assert caplog.messages == [f"{path} is put aside as {aside}: {reason}"]


def test_what_sqlite_has_left_beside_a_batch_goes_aside_with_it(root, leave):
    path = leave("loading", 1, ["a", "b"])
    Path(f"{path}-shm").touch()
    found = batch.recover(root, "q")
    ((aside, reason),) = found.invalid.items()
    assert reason == "SQLite has left a journal that it could not apply"
    assert names(root) == [aside, f"{aside}-shm"]


def test_a_batch_whose_name_is_taken_goes_aside_and_the_others_are_recovered(root, leave):
    leave("unload", 1, ["twin"], owner="_7")
    leave("ready", 1, ["kept"])
    leave("unload", 2, ["other"])
    found = batch.recover(root, "q")
    ((aside, reason),) = found.invalid.items()
    assert (found.ready, reason) == (1, "another batch of the same name is ready")
    assert names(root, "invalid_") == [aside]
    assert drain(root) == ["kept", "other"]


def test_a_batch_that_may_not_be_opened_is_told_and_the_others_are_recovered(root, leave, monkeypatch, caplog):
    closed = leave("loading", 1, ["closed"])
    leave("loading", 2, ["other"])
    system_open = os.open

    def refuse(path, *arguments, **options):
        if path == str(closed):
            raise PermissionError(13, "Permission denied")
        return system_open(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    with caplog.at_level(logging.WARNING):
        assert batch.recover(root, "q") == Recovered(ready=1)
    assert caplog.messages == [f"{closed.name} was not recovered: [Errno 13] Permission denied"]


def test_what_sqlite_left_beside_a_file_that_is_gone_is_removed(root, leave):
    leave("ready", 1, ["kept"])
    for name in (f"ready_{MADE + 1}_00000001.db-journal", f"ready_{MADE + 2}_00000002.db-journal", "notes.txt-wal"):
        (root / "q" / name).touch()
    batch.recover(root, "q")
    assert names(root) == [f"ready_{MADE + 1}_00000001.db", f"ready_{MADE + 1}_00000001.db-journal"]


def test_what_another_was_quicker_at_is_no_trouble(root, leave, monkeypatch):
    """Several may recover at once: what one of them has seen may be gone when its turn comes."""
    gone = leave("loading", 1)
    monkeypatch.setattr(Spool, "names", lambda _: iter([BatchName.parse(gone.name)]))
    monkeypatch.setattr(Spool, "strays", lambda _: ["gone.db-journal"])
    gone.unlink()
    assert batch.recover(root, "q") == Recovered()


@pytest.mark.parametrize(
    ("what", "call", "place"),
    [
        ("sound", "rename", ""), ("damaged", "rename", ""), ("sound", "fsync", "/loading_"),
        ("empty", "unlink", "/loading_"), ("stray", "unlink", ""),
    ],
)  # fmt: skip
def test_a_disk_that_fails_is_told_with_the_place(root, leave, monkeypatch, what, call, place):
    path = leave("loading", 1, ["a"] if what == "sound" else [])
    if what == "damaged":
        path.write_bytes(b"junk" * 3000)
    if what == "stray":
        path.rename(f"{path}-journal")

    def fail(*_args, **_options):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, call, fail)
        with pytest.raises(persistq.DatabaseUnavailable, match=rf"{root}/q{place}.*: Input/output error"):
            batch.recover(root, "q")
    assert names(root)
    batch.recover(root, "q")
    assert names(root, "loading_") == []


def test_a_folder_that_cannot_be_made_durable_is_told(root, leave, monkeypatch):
    def fail(folder):
        raise OSError(5, "Input/output error")

    leave("loading", 1)
    monkeypatch.setattr("persistq.batch.spool.sync_folder", fail)
    with pytest.raises(persistq.DatabaseUnavailable, match=rf"{root}/q: Input/output error"):
        batch.recover(root, "q")


@pytest.mark.parametrize(
    ("options", "times"), [({}, 1), ({"durability": "power"}, 1), ({"durability": "process"}, 0)], ids=str
)
@pytest.mark.parametrize("left", ["ready", "empty", "invalid"])
def test_the_new_names_are_made_durable_unless_told(root, leave, monkeypatch, options, times, left):
    path = leave("loading", 1, ["a"] if left == "ready" else [])
    if left == "invalid":
        path.write_bytes(b"junk" * 3000)
    synced = []
    monkeypatch.setattr("persistq.batch.spool.sync_folder", synced.append)
    batch.recover(root, "q", **options)
    batch.recover(root, "q", **options)
    assert synced == [root / "q"] * times


def test_recovery_on_a_network_file_system_is_refused_unless_told(root, monkeypatch):
    monkeypatch.setattr("persistq.batch.spool.is_network", lambda folder: True)
    with pytest.raises(persistq.ConfigError, match="network"):
        batch.recover(root, "q")
    assert batch.recover(root, "q", allow_network=True) == Recovered()


def test_the_queue_is_called_default_unless_told(tmp_path):
    fill(tmp_path, ["a"], "default")
    (tmp_path / "default" / f"loading_{MADE}_00000001.db").touch(mode=0o600)
    assert batch.recover(tmp_path) == Recovered(empty=1)
    assert batch.counts(tmp_path)["ready"] == {"all": 1}


def test_queues_are_the_folders_below_the_root(tmp_path):
    assert batch.queues(tmp_path / "not there") == []
    for name in ("b", "a"):
        fill(tmp_path, [1], name)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "file").touch()
    assert batch.queues(tmp_path) == ["a", "b"]
    with pytest.raises(persistq.PersistQError, match=r"file: Not a directory"):
        batch.queues(tmp_path / "file")
