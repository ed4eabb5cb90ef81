"""Files put together here are sound to SQLite, whatever is in them."""

import os
import random
import sqlite3

import pytest

from persistq.batch import file, image, scan
from persistq.batch.memory import MOST, Memory

SCHEMA = (file.BLOCK_TABLE, file.FOOTER_TABLE)


def scanned(path):
    """Return form, data and count of every block as they are read without SQLite."""
    handle = os.open(path, os.O_RDONLY)
    memory = Memory()
    pages = scan.Scan(handle, SCHEMA, file.APPLICATION)
    found = [(form, bytes(pages.read(place, memory)), count) for _, (_, _, count, form, _, place) in pages.rows(0)]
    os.close(handle)
    return found


def made(path, packed, complete=True):
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    file.create(handle, packed, complete=complete)
    os.close(handle)
    connection = sqlite3.connect(path)
    connection.text_factory = bytes
    return connection


def edges(size):
    """Return lengths about which a row's place changes, for a page size."""
    usable = size
    most, least = usable - 35, (usable - 12) * 32 // 255 - 23
    return [
        most,
        least,
        usable - 4,
        usable,
        most + usable - 4,
        least + usable - 4,
        least + 2 * (usable - 4),
        most + least,
    ]


@pytest.mark.parametrize("size", [image.SMALL, image.LARGE])
def test_rows_of_every_length_about_every_edge(tmp_path, size):
    for edge in edges(size):
        for by in (*range(-60, 8), 30):
            filler = [] if size == image.SMALL else [("json", b"f" * (image.LARGE + 1), 1)]
            if size == image.SMALL and edge + by > image.LARGE:
                continue
            packed = [("json", b"x" * max(0, edge + by), 3), *filler, ("json+zstd", b"\0\xff" * 40, 2)]
            path = tmp_path / "one.db"
            path.unlink(missing_ok=True)
            connection = made(path, packed)
            assert connection.execute("PRAGMA integrity_check").fetchall() == [(b"ok",)], (edge, by)
            assert connection.execute("SELECT form, items, count FROM block ORDER BY id").fetchall() == [
                (form.encode(), data, count) for form, data, count in packed
            ]
            assert scanned(path) == [(form.encode(), data, count) for form, data, count in packed], (edge, by)
            connection.close()


@pytest.mark.parametrize(
    ("number", "length"), [(1, 0), (200, 40), (5000, 30), (40, 60_000), (12, 70_000), (300, 30_000)]
)
def test_many_blocks(tmp_path, number, length):
    packed = [("json", b"%d" % n + b"y" * length, 1) for n in range(number)]
    connection = made(tmp_path / "many.db", packed)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [(b"ok",)]
    assert connection.execute("SELECT id, first, items, typeof(items) FROM block ORDER BY id").fetchall() == [
        (n + 1, n, data, b"text") for n, (_, data, _) in enumerate(packed)
    ]
    assert connection.execute("SELECT items FROM block WHERE id = ?", (number,)).fetchall() == [(packed[-1][1],)]
    assert scanned(tmp_path / "many.db") == [(b"json", data, 1) for _, data, _ in packed]
    assert connection.execute("SELECT blocks, items FROM footer").fetchall() == [(number, number)]
    connection.close()


@pytest.mark.parametrize("length", [10, 100_000])
def test_sqlite_goes_on_where_it_ends(tmp_path, length):
    path = str(tmp_path / "on.db")
    packed = [("json", b"z" * length, 1)] * 3
    connection = made(path, packed, complete=False)
    assert connection.execute("SELECT count(*) FROM footer").fetchone() == (0,)
    connection.close()
    ledger = file.Ledger()
    for form, data, count in packed:
        ledger = ledger.add(ledger.next_block(form, data, count))
    for turn in range(20):
        ledger = file.append(path, ledger, packed, complete=turn == 19, careful=False)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("SELECT count(*), sum(length(items)) FROM block").fetchone() == (63, 63 * length)
    connection.close()


def test_what_is_not_as_it_was_made_is_left_to_sqlite(tmp_path):
    """A reader that is led astray by pages would read the same rows for ever, or all of the memory there is."""
    path = tmp_path / "spoiled.db"
    packed = [("json", b"%d" % n * 30_000, 1) for n in range(9)]
    made(path, packed).close()
    sound = path.read_bytes()
    assert len(scanned(path)) == 9
    chance = random.Random(7)
    foreign = 0
    for turn in range(400):
        data = bytearray(sound)
        page = chance.choice([0, 1, 2, 3, 4]) * image.LARGE
        for _ in range(chance.randrange(1, 4)):
            data[page + chance.randrange(100 if turn % 2 else image.LARGE)] = chance.randrange(256)
        path.write_bytes(data[: chance.choice([len(data), len(data), len(data) - image.LARGE, page + 50])])
        try:
            assert len(scanned(path)) < 100_000
        except scan.Foreign:
            foreign += 1
    assert foreign > 100


def test_memory_is_used_again_once_it_knows_how_much_is_wanted():
    memory = Memory()
    assert memory.keep(b"first") == b"first"
    memory.clear()
    one, other = memory.keep(b"one"), memory.keep(b"two")
    assert (bytes(one), bytes(other)) == (b"one", b"two")
    assert isinstance(one, memoryview)
    large = bytes(MOST + 1)
    assert memory.keep(large) is large
    memory.clear()
    assert bytes(memory.keep(b"three")) == b"three"


def test_until_its_header_is_written_a_file_is_nothing(tmp_path):
    handle = os.open(tmp_path / "begun.db", os.O_RDWR | os.O_CREAT, 0o600)
    assert image.is_begun_only(handle)
    os.pwrite(handle, b"body", image.HEADER)
    assert image.is_begun_only(handle)
    file.create(handle, [("json", b"[1]", 1)], complete=True)
    assert not image.is_begun_only(handle)
    os.close(handle)
