"""The folder of a queue's batches: whose it is, who owns what in it, and what it says when it cannot be used."""

import errno
import fcntl
import os
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.batches import drain, fill, names

import persistq
from persistq.batch import BatchName, BatchReader, BatchStatus, BatchWriter, spool
from persistq.batch.spool import Damaged, Spool
from persistq.errors import DiskFull

NAME = BatchName.parse("ready_1700000000000000000_00000001.db")


@pytest.fixture
def place(tmp_path):
    """A spool of its own."""
    return Spool(tmp_path / "spool", "q")


def put(place, text, data=b""):
    path = place.folder / text
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def open_files():
    return len(os.listdir("/proc/self/fd"))


# Where


def test_a_spool_stays_where_it_was_when_the_process_goes_elsewhere(tmp_path, monkeypatch):
    place = Spool("relative", "q")
    monkeypatch.chdir("/")
    assert (place.root, place.queue, place.folder) == (tmp_path / "relative", "q", tmp_path / "relative" / "q")
    assert place.path(NAME) == f"{place.folder}/{NAME.text}"


@pytest.mark.parametrize("queue", [".", "..", "a/b"])
def test_a_name_that_leads_elsewhere_is_refused_by_name(tmp_path, queue):
    with pytest.raises(persistq.ConfigError, match=rf"\ba queue (cannot be called|is named).*'{queue}'"):
        Spool(tmp_path, queue)


def test_a_root_that_others_may_write_to_has_to_be_sticky(tmp_path):
    root = tmp_path / "shared"
    root.mkdir()
    for mode in (0o777, 0o770, 0o707):
        root.chmod(mode)
        with pytest.raises(persistq.ConfigError, match=rf"{root} is not this user's alone; chmod go-w it"):
            Spool(root, "q")
    for mode in (0o1777, 0o755, 0o711):
        root.chmod(mode)
        Spool(root, "q")
    (tmp_path / "link").symlink_to(root)
    Spool(tmp_path / "link", "q")


def test_a_queue_s_folder_is_never_shared(tmp_path):
    folder = Spool(tmp_path, "q").folder
    folder.chmod(0o755)  # whoever reads changes nothing
    Spool(tmp_path, "q")
    folder.chmod(0o1777)
    with pytest.raises(persistq.ConfigError, match=r"q is not this user's alone"):
        Spool(tmp_path, "q")


def test_a_network_is_no_place_unless_told_and_the_refusal_says_what_is(tmp_path, monkeypatch):
    monkeypatch.setattr(spool, "is_network", lambda folder: folder == tmp_path / "q")
    with pytest.raises(persistq.ConfigError, match=r"use a local disk, and ledger mode to reach other machines$"):
        Spool(tmp_path, "q")
    Spool(tmp_path, "q", allow_network=True)


@pytest.mark.needs("root")
def test_another_user_s_root_will_do_and_another_user_s_folder_will_not(tmp_path):
    root = tmp_path / "theirs"
    folder = Spool(root, "q").folder
    os.chown(root, 1, 1)
    Spool(root, "q")
    os.chown(folder, 1, 1)
    with pytest.raises(persistq.ConfigError, match="not this user's alone"):
        Spool(root, "q")


def test_a_file_where_a_folder_should_be_is_an_outage_with_its_reason(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(persistq.DatabaseUnavailable, match=r"file/q: Not a directory"):
        Spool(tmp_path / "file", "q")


# What is in it


def test_names_are_those_of_batches(place):
    for text in (NAME.text, "notes.txt", f"{NAME.text}-journal", "ready_1_x.db"):
        put(place, text)
    assert list(place.names()) == [NAME]
    assert place.strays() == []
    assert (place.count(BatchStatus.READY), place.count(BatchStatus.INVALID)) == (1, 0)


def test_strays_are_what_sqlite_left_of_files_that_are_gone(place):
    for text in (NAME.text, f"{NAME.text}-wal", "b.db-shm", "a.db-journal", "a.db-journals", "c.db-shm-shm"):
        put(place, text)
    assert place.strays() == ["a.db-journal", "b.db-shm", "c.db-shm-shm"]


def test_a_folder_has_changed_until_it_has_been_quiet(place):
    assert place.changed()
    assert place.changed()  # it is as young as the clock's tick, in which more may have come
    os.utime(place.folder, (1, 1))
    assert place.changed()
    assert not place.changed()
    assert not place.changed()
    place.look_again()
    assert place.changed()
    assert not place.changed()
    os.utime(place.folder, (2, 2))
    assert place.changed()
    assert not place.changed()


def test_a_folder_that_was_removed_is_an_outage(place):
    place.folder.rmdir()
    for look in (place.changed, place.strays, lambda: list(place.names()), place.exclusively().__enter__):
        with pytest.raises(persistq.DatabaseUnavailable, match=rf"{place.folder}: No such file"):
            look()


# Owners


def test_one_owns_a_batch_at_a_time_and_an_end_of_it_is_seen_at_once(place):
    assert place.own(NAME) is None
    assert not place.is_owned(NAME)
    put(place, NAME.text)
    assert not place.is_owned(NAME)
    mine = place.own(NAME)
    assert mine is not None
    assert place.is_owned(NAME)
    before = open_files()
    assert place.own(NAME) is None
    assert place.is_owned(NAME)
    assert open_files() == before
    os.close(mine)
    assert not place.is_owned(NAME)


def test_a_look_at_the_owner_is_no_ownership(place):
    """Two that look at once must not take each other for the owner."""
    put(place, NAME.text)
    with ExitStack() as others:
        other = os.open(place.path(NAME), os.O_RDONLY)
        others.callback(os.close, other)
        fcntl.flock(other, fcntl.LOCK_SH)
        assert not place.is_owned(NAME)


def test_a_new_file_is_owned_private_and_never_one_that_is_there(place):
    old = os.umask(0)
    try:
        handle = place.create(NAME)
    finally:
        os.umask(old)
    assert handle is not None
    assert place.is_owned(NAME)
    assert os.fstat(handle).st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        place.create(NAME)
    os.close(handle)


def test_a_batch_that_is_renamed_while_it_is_opened_is_not_owned(place, monkeypatch):
    path = put(place, NAME.text)
    system_lock = fcntl.flock

    def late(handle, how):
        path.rename(place.folder / "elsewhere")
        system_lock(handle, how)

    before = open_files()
    with monkeypatch.context() as slow:
        slow.setattr(fcntl, "flock", late)
        assert place.own(NAME) is None
    assert open_files() == before


def test_a_batch_that_is_replaced_while_it_is_opened_is_not_owned(place, monkeypatch):
    put(place, NAME.text)
    system_lock = fcntl.flock

    def late(handle, how):
        put(place, "new").rename(place.path(NAME))
        system_lock(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    assert place.own(NAME) is None


def test_what_can_be_no_batch_is_never_owned_and_keeps_no_file_open(place):
    path = put(place, NAME.text)
    before = open_files()
    os.truncate(path, 1 << 30)
    handle = place.own(NAME)
    assert handle is not None
    os.close(handle)
    os.truncate(path, (1 << 30) + 1)
    with pytest.raises(Damaged, match="larger than 1,073,741,824 bytes"):
        place.own(NAME)
    os.truncate(path, 0)
    (place.folder / "second").hardlink_to(path)
    with pytest.raises(Damaged, match=r"^it has a second name \(a hard link\)$"):
        place.own(NAME)
    path.rename(place.folder / "other")
    path.symlink_to("second")
    with open(place.folder / "second", "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert not place.is_owned(NAME)
    with pytest.raises(Damaged, match=r"^not a plain file$"):
        place.own(NAME)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(Damaged, match=r"^not a plain file$"):
        place.own(NAME)
    assert not place.is_owned(NAME)
    assert open_files() == before


@pytest.mark.needs("root")
def test_another_user_s_file_is_put_aside(place):
    os.chown(put(place, NAME.text), 1, 1)
    with pytest.raises(Damaged, match=r"^it belongs to another user$"):
        place.own(NAME)


def test_one_producer_at_a_time_finishes_a_batch(place, monkeypatch):
    other = Spool(place.root, "q")
    monkeypatch.setattr(spool, "_PATIENCE", 0.05)
    before = open_files()
    with place.exclusively():
        with pytest.raises(persistq.QueueFull, match=rf"another producer keeps {place.folder} to itself"):
            other.exclusively().__enter__()
        assert open_files() == before + 1
    with other.exclusively():
        pass
    assert open_files() == before


# Names that change


def test_a_batch_is_never_renamed_onto_another(place):
    put(place, NAME.text, b"one")
    aside = NAME.become(BatchStatus.INVALID)
    put(place, aside.text, b"other")
    with pytest.raises(FileExistsError, match=r"\] there is a batch of this name already:") as refusal:
        place.rename(NAME, aside)
    assert (refusal.value.errno, refusal.value.filename) == (errno.EEXIST, place.path(aside))
    (place.folder / aside.text).unlink()
    (place.folder / aside.text).symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        place.rename(NAME, aside)


def test_each_file_that_is_put_aside_has_a_name_of_its_own_with_its_sidecars(place):
    found = []
    for number in range(3):
        put(place, NAME.text, b"%d" % number)
        put(place, f"{NAME.text}-journal", b"journal %d" % number)
        found.append(place.quarantine(NAME).text)
    assert found == [f"invalid_1700000000000000000_00000001{end}.db" for end in ("", ".1", ".2")]
    assert sorted(os.listdir(place.folder)) == sorted(found + [f"{text}-journal" for text in found])
    assert [(place.folder / text).read_bytes() for text in found] == [b"0", b"1", b"2"]
    assert [(place.folder / f"{text}-journal").read_bytes() for text in found] == [b"journal %d" % n for n in range(3)]


# What the file system says


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_as_one(tmp_path, monkeypatch, code):
    def refuse(*_args):
        raise OSError(code, os.strerror(code))

    fill(tmp_path, ["kept"])
    with BatchWriter(tmp_path, "q") as writer:
        writer.add("later")
        with monkeypatch.context() as full:
            full.setattr(os, "pwritev", refuse)
            with pytest.raises(DiskFull, match=r"q.*; free some space, then repeat the call"):
                writer.flush()
    assert drain(tmp_path) == ["kept", "later"]


@pytest.mark.parametrize(("blocks", "full"), [(15, True), (16, False), (1000, False)])
def test_a_disk_without_room_for_sqlite_s_own_files_is_full(tmp_path, monkeypatch, blocks, full):
    looked = []

    class Disk:
        f_bavail, f_frsize = blocks, 4096

    monkeypatch.setattr(os, "statvfs", lambda path: looked.append(Path(path)) or Disk)
    assert spool.is_full(str(tmp_path / "some.db")) is full
    assert looked == [tmp_path]


def test_a_disk_that_cannot_be_asked_is_not_called_full(tmp_path):
    assert spool.is_full(str(tmp_path / "gone" / "some.db")) is False


def test_an_error_without_words_is_told_as_it_is(place, monkeypatch):
    def refuse(*_args):
        raise OSError("no words")

    with BatchReader(place.root, "q") as reader:
        monkeypatch.setattr(os, "scandir", refuse)
        with pytest.raises(persistq.DatabaseUnavailable, match=rf"{place.folder}: no words"):
            reader.get()
    assert names(place.root) == []
