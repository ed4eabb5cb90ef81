"""Files that are not as they were written: put aside and reported, never delivered altered, and the others go on."""

import errno
import fcntl
import logging
import os
import random
import shutil
import sqlite3
from pathlib import Path

import pytest
from support.batches import drain, fill, names, only

import persistq
from persistq import batch
from persistq.batch import BatchReader, file, image, scan
from persistq.batch.spool import Damaged

ENDLESS_VIEW = (
    "DROP TABLE block; CREATE VIEW block AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) "
    "SELECT id, 0 AS first, 1 AS count, 'json' AS form, 0 AS crc, '[1]' AS items FROM n"
)
ITEMS = [f"item {n} " + "x" * (n % 50) for n in range(120)]


@pytest.fixture
def sound(tmp_path):
    """A sound batch of several blocks, as a file outside any spool."""
    fill(tmp_path / "made", ITEMS, block_items=40)
    path = tmp_path / "sound.db"
    shutil.move(only(tmp_path / "made"), path)
    return path


def plant(tmp_path, path, spool="spool"):
    """Put a file into a spool, before a sound batch."""
    target = tmp_path / spool / "q" / "ready_1700000000000000000_00000000.db"
    target.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    shutil.copyfile(path, target)
    target.chmod(0o600)
    fill(tmp_path / spool, ["good"])
    return target


def assert_put_aside(tmp_path, delivered=0):
    got = drain(tmp_path / "spool")
    assert got == [*ITEMS[:delivered], "good"]
    assert len(names(tmp_path / "spool", "invalid_")) == len(names(tmp_path / "spool")) == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not SQLite at all" * 1000),
        lambda path: os.truncate(path, path.stat().st_size // 2),
        lambda path: os.truncate(path, path.stat().st_size - 100),
        lambda path: os.truncate(path, 4096),
        lambda path: os.truncate(path, 50),
    ],
    ids=["empty", "text", "half", "end", "page", "header"],
)
def test_what_is_no_whole_file_is_put_aside(tmp_path, sound, spoil, caplog):
    spoil(sound)
    plant(tmp_path, sound)
    with caplog.at_level(logging.ERROR):
        got = drain(tmp_path / "spool")
    assert got[-1] == "good"
    assert got[:-1] == ITEMS[: len(got) - 1]  # blocks before the damage are as they were written
    assert len(names(tmp_path / "spool", "invalid_")) == len(names(tmp_path / "spool")) == 1
    assert "put aside" in caplog.text


@pytest.mark.parametrize(
    "statement",
    [
        ENDLESS_VIEW,
        "CREATE TRIGGER sly AFTER INSERT ON block BEGIN DELETE FROM block; END",
        "CREATE TABLE other (a)",
        "CREATE INDEX sly ON block (count)",
        "DROP TABLE block; CREATE TABLE block (id, first, count, form, crc, items)",
        "DROP TABLE footer",
        "DELETE FROM footer",
        "INSERT INTO footer SELECT * FROM footer",
        "UPDATE footer SET items = items + 1",
        "UPDATE footer SET crc = 'crc'",
        "DELETE FROM block WHERE id = 2",
        "UPDATE block SET id = 7 WHERE id = 2",
        "UPDATE block SET count = 'many' WHERE id = 1",
        "UPDATE block SET first = NULL WHERE id = 1; SELECT 1",
        "UPDATE block SET count = -1 WHERE id = 1",
        "INSERT INTO block SELECT 4, 120, count, form, crc, items FROM block WHERE id = 1",
        "PRAGMA application_id = 7",
        "PRAGMA user_version = 300",
        "PRAGMA user_version = -1",
        "PRAGMA user_version = 53123",
    ],
)
def test_a_hostile_file_is_put_aside_before_anything_is_delivered(tmp_path, sound, statement):
    connection = sqlite3.connect(sound)
    try:
        connection.executescript(statement)
    except sqlite3.IntegrityError:
        connection.executescript("PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = 'CREATE TABLE x (y)'")
    connection.commit()
    connection.close()
    plant(tmp_path, sound)
    assert_put_aside(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        "items = replace(items, 'item', 'Item')",
        "items = '[]'",
        "items = 7",
        "items = zeroblob(100000000)",
        "form = 'exact'",
        "form = 'pickle'",
        "form = 'json+zstd'",
        "crc = crc + 1",
    ],
)
def test_a_block_that_was_changed_is_never_delivered(tmp_path, sound, change):
    connection = sqlite3.connect(sound)
    connection.execute(f"UPDATE block SET {change} WHERE id = 2")
    connection.commit()
    connection.close()
    plant(tmp_path, sound)
    got = drain(tmp_path / "spool")
    assert got in ([*ITEMS[:40], "good"], ["good"])
    assert len(names(tmp_path / "spool", "invalid_")) == 1


def test_a_checksum_that_fits_does_not_make_a_block_sound(tmp_path, sound):
    """Whoever can compute the sum still cannot make a reader run or fail at anything."""
    for form, text in (("json", "[1,2"), ("exact", "[1]"), ("exact", '["?"]'), ("json", "{}"), ("json+zstd", "junk"),
                       ("json", "[" * 100_000)):  # fmt: skip
        (tmp_path / "crafted.db").unlink(missing_ok=True)
        handle = os.open(tmp_path / "crafted.db", os.O_RDWR | os.O_CREAT)
        ledger = file.create(handle, [(form, text.encode(), 1)], complete=True)
        os.close(handle)
        assert ledger.items == 1
        plant(tmp_path, tmp_path / "crafted.db", form + str(len(text)))
        assert drain(tmp_path / (form + str(len(text)))) == ["good"]


def test_a_batch_of_more_items_than_its_progress_has_room_for_is_not_read(tmp_path):
    with (tmp_path / "crafted.db").open("w+b") as opened:
        file.create(opened.fileno(), [("json", b"[1]", file.MAX_ITEMS), ("json", b"[1]", 1)], complete=True)
        with pytest.raises(Damaged, match="items"):
            file.Batch(opened.name, opened.fileno())
        with pytest.raises(Damaged, match="items"):
            file.Batch(opened.name)


def test_of_a_footer_without_end_no_more_is_read_than_says_so(tmp_path, monkeypatch):
    rows = []

    def counting(pages, table):
        for row in all_rows(pages, table):
            rows.append(row)
            yield row

    all_rows = scan.Scan.rows
    monkeypatch.setattr(scan.Scan, "rows", counting)
    with (tmp_path / "crafted.db").open("w+b") as opened:
        footer = [(number, file.Ledger(), False) for number in range(1, 1000)]
        schema = (file.BLOCK_TABLE, file.FOOTER_TABLE)
        image.write(opened.fileno(), schema, file.APPLICATION, ([], footer))
        with pytest.raises(Damaged, match="footer"):
            file.Batch(opened.name, opened.fileno())
    assert len(rows) == 2


def test_one_flipped_bit_anywhere_alters_no_item(tmp_path, sound, long):
    """Wherever it is, either nobody can notice or the rest of the batch is put aside."""
    data = sound.read_bytes()
    chance = random.Random(3)
    # Every bit of the header, where each byte means something, and others at random.
    places = [*range(100 * 8), *(chance.randrange(len(data) * 8) for _ in range(20_000 if long else 300))]
    noticed = 0
    for place in places:
        spoiled = bytearray(data)
        spoiled[place // 8] ^= 1 << place % 8
        sound.write_bytes(spoiled)
        got, damaged = read_all(sound)
        assert got == ITEMS[: len(got)], place
        assert damaged or len(got) == len(ITEMS), place
        noticed += damaged
    assert noticed > 100


def read_all(path: Path):
    """Return what a reader would hand out of a file, and whether it would put it aside then."""
    handle = os.open(path, os.O_RDWR)
    got: list = []
    found = None
    try:
        found = file.Batch(str(path), handle)
        assert found.progress == 0
        for block in found.blocks:
            got += found.read(block)
    except Damaged:
        return got, True
    finally:
        if found:
            found.close()
        os.close(handle)
    return got, False


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "hard link"])
def test_what_is_no_plain_file_is_put_aside(tmp_path, kind):
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    path = tmp_path / "spool" / "q" / "ready_1700000000000000000_00000000.db"
    path.parent.mkdir(parents=True, mode=0o700)
    {"link": lambda: path.symlink_to(victim), "fifo": lambda: os.mkfifo(path), "folder": path.mkdir,
     "hard link": lambda: path.hardlink_to(victim)}[kind]()  # fmt: skip
    fill(tmp_path / "spool", ["good"])
    assert drain(tmp_path / "spool") == ["good"]
    assert len(names(tmp_path / "spool", "invalid_")) == 1
    assert victim.read_text() == "untouched"


def test_equal_names_replace_nothing(tmp_path, sound):
    """A batch is never renamed onto another, whoever gave them the same name."""
    path = plant(tmp_path, sound)
    taken = path.with_name(path.name.replace("ready_", "unload_").replace(".db", "_7.db"))
    shutil.copyfile(sound, taken)
    os.chmod(taken, 0o600)
    holder = os.open(taken, os.O_RDWR)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with BatchReader(tmp_path / "spool", "q", owner=7) as reader:
        assert list(reader) == ["good"]
    os.close(holder)
    assert len(names(tmp_path / "spool", "invalid_")) == 1
    assert drain(tmp_path / "spool") == ITEMS
    for _ in range(2):
        plant(tmp_path, sound).write_bytes(b"")
        drain(tmp_path / "spool")
    assert len(names(tmp_path / "spool", "invalid_")) == 3


def test_recovery_puts_a_damaged_batch_of_a_dead_producer_aside(tmp_path, sound):
    plant(tmp_path, sound).rename(tmp_path / "spool" / "q" / "loading_1700000000000000000_00000000.db")
    path = only(tmp_path / "spool", "loading_")
    path.write_bytes(path.read_bytes()[:-5000] + b"\1" * 5000)
    found = batch.recover(tmp_path / "spool", "q")
    assert (found.ready, list(found.invalid)) == (0, names(tmp_path / "spool", "invalid_"))
    assert drain(tmp_path / "spool") == ["good"]


def test_a_disk_that_cannot_be_read_now_puts_nothing_aside(tmp_path, sound, monkeypatch):
    path = plant(tmp_path, sound)

    def fails(*_args):
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
        raise error

    def fails_below(*_args):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def read_with(place, name, replacement):
        with monkeypatch.context() as broken, BatchReader(tmp_path / "spool", "q") as reader:
            broken.setattr(place, name, replacement)
            with pytest.raises(persistq.DatabaseUnavailable, match=str(tmp_path / "spool" / "q" / "unload_")):
                reader.get()
        assert not names(tmp_path / "spool", "invalid_")

    read_with(scan.os, "pread", fails_below)
    read_with(scan.os, "preadv", fails_below)
    connection = sqlite3.connect(path)
    connection.execute("VACUUM")  # so that SQLite has to read it
    connection.close()
    read_with(file, "_open", fails)
    assert drain(tmp_path / "spool") == [*ITEMS, "good"]
