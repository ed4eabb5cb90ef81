"""A batch file: what is shown of it, how far it was consumed, what a kill left of it, and what errors mean."""

import os
import re
import shutil
import sqlite3
import zlib
from contextlib import closing

import pytest
from support.batches import drain, fill, names

from persistq import DatabaseUnavailable, batch
from persistq.batch import file, image
from persistq.batch.file import Batch, Block, Ledger
from persistq.batch.spool import Damaged
from persistq.errors import DiskFull

ITEMS = ["text", {"a": [1, None]}, 7, 1.5, True, "ü\ud800", b"\0\xff", 1 << 70]
SHOWN = ['"text"', '{"a": [1, null]}', "7", "1.5", "true", '"\\u00fc\\ud800"', '"00ff"', "1180591620717411303424"]


@pytest.fixture
def made(tmp_path):
    """Makes a batch file outside any spool: ``made([(form, data, count)])``; its path and a handle that may write."""
    handles = []

    def make(packed, complete=True):
        path = tmp_path / f"batch {len(handles)}?#%.db"  # which a URL would have to quote
        handles.append(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        file.create(handles[-1], packed, complete=complete)
        return str(path), handles[-1]

    yield make
    for handle in handles:
        os.close(handle)


def blocks_of(*texts):
    return [("json", text.encode(), text.count(",") + 1) for text in texts]


def opened(path, handle=None, **options):
    """Return what a reader sees: the items of each block."""
    with closing(Batch(path, handle, **options)) as found:
        return [found.read(block) for block in found.blocks]


def ledger_in(path, **options):
    with closing(Batch(path, **options)) as found:
        return file.ledger_of(found.blocks)


# Showing


def test_each_item_is_shown_as_json_under_its_number(tmp_path):
    fill(tmp_path, [*ITEMS, "plain", [1], *range(6)], block_items=8)
    which = names(tmp_path)[0]
    texts = [*SHOWN, '"plain"', "[1]", *map(str, range(6))]
    whole = [(number, text.replace(": ", ":") if number > 7 else text) for number, text in enumerate(texts)]
    assert batch.show(tmp_path, "q", which) == whole
    for first, limit in ((0, 3), (3, 10), (8, 1), (9, 2), (13, 5), (14, 1), (0, 0), (2, -1), (0, 8), (8, 6)):
        assert batch.show(tmp_path, "q", which, first, limit) == whole[first : first + max(0, limit)], (first, limit)


def test_items_of_json_are_shown_without_being_loaded(tmp_path):
    fill(tmp_path, ["a", {"b": 1}, ["ü"], "\x00"])
    assert batch.show(tmp_path, "q", names(tmp_path)[0], 1, 2) == [(1, '{"b":1}'), (2, '["ü"]')]


def test_a_lone_surrogate_keeps_no_item_from_being_shown(tmp_path):
    fill(tmp_path, ["\ud800", "plain"])
    assert batch.show(tmp_path, "q", names(tmp_path)[0]) == [(0, '"\ufffd\ufffd\ufffd"'), (1, '"plain"')]


def test_an_old_file_is_read_in_blocks_of_a_thousand(tmp_path):
    (tmp_path / "q").mkdir(mode=0o700)
    path = tmp_path / "q" / "ready_1700000001_0b5a8f2e-7d54-4b5e-9a53-6a1d7c2f7e10.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE logs (log_data json)")
        connection.executemany("INSERT INTO logs VALUES (?)", [(f'"{n}"',) for n in range(2001)])
    found = Batch(str(path))
    assert [(block.id, block.first, block.number) for block in found.blocks] == [
        (1, 0, 1000), (2, 1000, 1000), (3, 2000, 1)
    ]  # fmt: skip
    assert (found.items, found.complete, found.progress) == (2001, True, 0)
    found.close()
    assert batch.show(tmp_path, "q", path.name, 1999, 5) == [(1999, '"1999"'), (2000, '"2000"')]
    assert drain(tmp_path) == [str(n) for n in range(2001)]


OLD = "CREATE TABLE logs (log_data json)"


@pytest.mark.parametrize(
    "schema",
    [
        "CREATE TABLE other (a)", "CREATE VIEW logs AS SELECT 1 AS log_data", f"{OLD}; CREATE TABLE other (a)",
        f"{OLD}; CREATE TRIGGER sly AFTER INSERT ON logs BEGIN DELETE FROM logs; END",
    ],
)  # fmt: skip
def test_a_file_of_other_tables_is_no_batch(tmp_path, schema):
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.executescript(schema)
    with pytest.raises(Damaged, match=r"^its tables are not those of a batch$"):
        Batch(str(tmp_path / "other.db"))


# Blocks


def test_a_block_knows_its_place_and_its_sum(made):
    path, _ = made(blocks_of("[1,2]", '["three"]'))
    found = Batch(path)
    one, two = found.blocks
    found.close()
    sums = [zlib.crc32(b"[1,2]", zlib.crc32(b"1 0 2 json")), zlib.crc32(b'["three"]', zlib.crc32(b"2 2 1 json"))]
    assert (one, two) == (Block(1, 0, 2, "json", sums[0]), Block(2, 2, 1, "json", sums[1]))
    assert one.check(b"[1,2]")
    assert not one.check(b"[1,3]")
    assert not two.check(b"[1,2]")
    ledger = Ledger(2, 3, zlib.crc32(b"%d" % sums[1], zlib.crc32(b"%d" % sums[0])))
    assert file.ledger_of([one, two]) == ledger
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT * FROM footer").fetchall() == [ledger]
    connection.close()


def test_what_is_appended_is_as_what_was_there_from_the_beginning(made):
    whole, _ = made([*blocks_of("[1,2]", "[3]"), ("json+zstd", b"\0\xff", 4)])
    path, _ = made(blocks_of("[1,2]"), complete=False)
    ledger = file.append(path, ledger_in(path, unfinished=True), (), complete=False, careful=False)
    ledger = file.append(path, ledger, blocks_of("[3]"), complete=False, careful=True)
    with pytest.raises(Damaged, match=r"it has no footer, so it was never completed"):
        opened(path)
    ledger = file.append(path, ledger, [("json+zstd", b"\0\xff", 4)], complete=True, careful=False)
    assert (ledger.blocks, ledger.items) == (3, 7)
    for table in ("block", "footer"):
        rows = []
        for one in (whole, path):
            connection = sqlite3.connect(one)
            connection.text_factory = bytes
            rows.append(connection.execute(f"SELECT *, typeof({'items' if table == 'block' else 'crc'}) FROM {table}"))
            rows[-1] = rows[-1].fetchall()
            connection.close()
        assert rows[0] == rows[1]


def test_what_was_written_in_one_piece_is_read_without_sqlite(made, monkeypatch):
    path, handle = made(blocks_of("[1,2]", "[3]"))
    monkeypatch.setattr(sqlite3, "connect", failing(sqlite3.SQLITE_NOMEM))
    assert opened(path, handle) == [[1, 2], [3]]


def test_a_text_that_was_changed_in_place_is_damage(made):
    path, handle = made(blocks_of("[1,2]", '["three"]'))
    with open(path, "rb") as written:
        os.pwrite(handle, b"tree!", written.read().index(b"three"))
    with pytest.raises(Damaged, match=r"^block 2 is not what was written$"):
        opened(path, handle)


@pytest.mark.parametrize(("first", "count", "in_footer"), [(7, 1, True), (1, 0, False), (1, 0, True), (0, 1, True)])
def test_a_block_out_of_place_is_damage_even_if_the_footer_fits(made, first, count, in_footer):
    path, handle = made([])
    good = Ledger().next_block("json", b"[1]", 1)
    odd = Ledger(1, first).next_block("json", b"[2]", count)
    rows = [(block.id, (None, *block[1:], data), True) for block, data in ((good, b"[1]"), (odd, b"[2]"))]
    footer = file.ledger_of([good, odd] if in_footer else [good])
    image.write(handle, (file.BLOCK_TABLE, file.FOOTER_TABLE), file.APPLICATION, (rows, [(1, footer, False)]))
    with pytest.raises(Damaged, match=r"^block 2 is missing or not where it was$"):
        opened(path, handle)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("UPDATE block SET items = CAST('[9,9]' AS TEXT) WHERE id = 1", "block 1 is not what was written"),
        ("UPDATE block SET count = 3 WHERE id = 1", "block 2 is missing or not where it was"),
        ("UPDATE block SET crc = 'x' WHERE id = 2", "block 2 is missing or not where it was"),
        ("UPDATE block SET count = 0 WHERE id = 2", "block 2 is missing or not where it was"),
        ("DELETE FROM block WHERE id = 1", "block 1 is missing or not where it was"),
        ("UPDATE footer SET items = 2", "its footer does not fit its blocks"),
        ("DELETE FROM footer", "it has no footer, so it was never completed"),
        ("CREATE TABLE more (a)", "its tables are not those of a batch"),
        ("PRAGMA application_id = 1", "it does not say that it is a batch"),
        ("PRAGMA user_version = 1028", "its progress is not within it"),  # 4 of 3
        ("PRAGMA user_version = 257", None),  # 1 of 3
        ("PRAGMA user_version = 771", None),  # 3 of 3
        ("PRAGMA user_version = 258", "its progress is not what was written"),
        ("PRAGMA user_version = -1", "its progress is not what was written"),
    ],
)
def test_the_damage_is_named(made, spoil, reason):
    path, handle = made(blocks_of("[1,2]", "[3]"))
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(spoil)
    connection.close()
    for own in (None, handle):
        if reason is None:
            assert opened(path, own) == [[1, 2], [3]]
        else:
            with pytest.raises(Damaged, match=f"^{reason}$"):
                opened(path, own)


@pytest.mark.parametrize("value", ["7", "7.5", "NULL", "X'FF'", "'text'"])
@pytest.mark.parametrize("column", ["first", "count", "form", "crc", "items"])
def test_a_value_of_a_kind_that_the_column_never_keeps_is_damage(made, column, value):
    """Whoever puts a file together byte by byte is not bound to the types that its schema speaks of."""
    path, _ = made(blocks_of("[1]"))
    for statement in (
        "UPDATE sqlite_schema SET sql = replace(replace(sql, 'INTEGER NOT NULL', 'BLOB'), 'TEXT NOT NULL', 'BLOB')",
        f"UPDATE block SET {column} = {value}",
        f"UPDATE sqlite_schema SET sql = '{file.BLOCK_TABLE}' WHERE name = 'block'",
        f"UPDATE sqlite_schema SET sql = '{file.FOOTER_TABLE}' WHERE name = 'footer'",
    ):
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA writable_schema = ON")
            connection.execute(statement)
    with pytest.raises(Damaged):
        opened(path)


@pytest.mark.parametrize("form", ["json", "exact"])
def test_a_block_of_another_number_of_items_is_damage(made, form):
    path, _ = made([(form, b"[1,2]" if form == "json" else b"[[1],[2]]", 3)])
    with pytest.raises(Damaged, match=r"^block 1 has 2 items, not 3$"):
        opened(path)


# Progress


def test_progress_is_kept_in_the_documented_place(made):
    path, handle = made(blocks_of(str([1] * 600)))
    for number in (1, 254, 255, 256, 600):
        file.write_progress(handle, number)
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA user_version").fetchone() == (number * 256 + number % 255,)
        connection.close()
        with closing(Batch(path, handle)) as mine, closing(Batch(path)) as looked_at:
            assert mine.progress == number == looked_at.progress
            mine.save(number - 1)
            assert mine.progress == number - 1
            looked_at.save(17)  # whoever only looks changes nothing
            assert mine.progress == number - 1


def test_progress_has_room_for_the_largest_batch(made):
    path, handle = made([("json", b"[1]", file.MAX_ITEMS)])
    file.write_progress(handle, file.MAX_ITEMS)
    for own in (None, handle):
        with closing(Batch(path, own)) as found:
            assert (found.items, found.progress) == (file.MAX_ITEMS, file.MAX_ITEMS)


def test_progress_that_cannot_be_kept_is_told_with_the_file_s_name(made):
    path, _ = made(blocks_of("[1]"))
    with open(path, "rb") as read_only, closing(Batch(path, read_only.fileno())) as found:
        with pytest.raises(DatabaseUnavailable, match=re.escape(path)):
            found.save(1)
        assert found.progress == 0


def test_a_file_too_short_for_a_progress_is_damage(made):
    _, handle = made(blocks_of("[1]"))
    os.truncate(handle, 63)
    with pytest.raises(Damaged, match=r"^it ends before its progress$"):
        file.read_progress(handle)


# What a kill left


def salvaged(made, packed, spoil=None, **options):
    path, handle = made(packed, complete=False)
    if spoil:
        connection = sqlite3.connect(path)
        with connection:
            connection.execute(spoil)
        connection.close()
    return path, file.salvage(path, handle)


def test_what_was_committed_is_completed(made):
    path, ledger = salvaged(made, blocks_of("[1,2]", "[3]"))
    with closing(Batch(path)) as found:
        assert (found.items, len(found.blocks), found.complete) == (3, 2, True)
    assert ledger == ledger_in(path)
    assert opened(path) == [[1, 2], [3]]


def test_of_very_many_blocks_none_is_lost(made, long):
    number = (1 << 20) + 2 if long else 2000
    path, handle = made([("json", b"[1]", 1)] * number, complete=False)
    assert file.salvage(path, handle).items == number
    for own in (None, handle):
        with closing(Batch(path, own)) as found:
            assert found.items == number


def test_what_is_complete_is_left_as_it_is(made):
    path, handle = made(blocks_of("[1,2]"))
    with open(path, "rb") as before:
        data = before.read()
    assert file.salvage(path, handle) == ledger_in(path)
    with open(path, "rb") as after:
        assert after.read() == data


def test_nothing_committed_is_nothing(made, tmp_path):
    assert salvaged(made, [])[1] is None
    empty = tmp_path / "empty.db"
    sqlite3.connect(empty).close()
    handle = os.open(empty, os.O_RDWR | os.O_CREAT)
    assert file.salvage(str(empty), handle) is None
    os.pwrite(handle, sqlite3_header(tmp_path), 0)  # a database without a table
    assert file.salvage(str(empty), handle) is None
    os.close(handle)


def sqlite3_header(tmp_path):
    path = tmp_path / "vacant.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("CREATE TABLE gone (a)")
    connection.execute("DROP TABLE gone")
    connection.execute("VACUUM")
    connection.close()
    return path.read_bytes()


def test_what_was_committed_but_changed_is_damage(made):
    with pytest.raises(Damaged, match="block 2 is not what was written"):
        salvaged(made, blocks_of("[1,2]", "[3]"), "UPDATE block SET items = CAST('[4]' AS TEXT) WHERE id = 2")


def test_a_transaction_that_a_kill_cut_off_is_undone(made, tmp_path):
    path, _ = made(blocks_of("[1,2]"), complete=False)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA cache_size = 2")  # so that it writes before it commits
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("INSERT INTO block VALUES (?, 2, 1, 'json', 0, ?)", [(n, "x" * 9000) for n in range(2, 30)])
    torn = str(tmp_path / "torn.db")
    shutil.copyfile(path, torn)
    shutil.copyfile(f"{path}-journal", f"{torn}-journal")
    connection.close()
    assert os.path.getsize(torn) > 50_000
    handle = os.open(torn, os.O_RDWR)
    ledger = file.salvage(torn, handle)
    os.close(handle)
    assert (ledger.blocks, ledger.items) == (1, 2)
    assert opened(torn) == [[1, 2]]
    assert not os.path.exists(f"{torn}-journal")


# What SQLite says


def sqlite_error(code):
    error = sqlite3.OperationalError("SQLite's words")
    if code is not None:
        error.sqlite_errorcode = code
    return error


def failing(code):
    def fail(*_args, **_options):
        raise sqlite_error(code)

    return fail


@pytest.mark.parametrize(
    ("code", "room", "error"),
    [
        (sqlite3.SQLITE_FULL, True, DiskFull),
        (sqlite3.SQLITE_IOERR_WRITE, True, DatabaseUnavailable),
        (sqlite3.SQLITE_IOERR_WRITE, False, DiskFull),
        (sqlite3.SQLITE_CANTOPEN, True, DatabaseUnavailable),
        (sqlite3.SQLITE_CANTOPEN_ISDIR, False, DiskFull),
        (sqlite3.SQLITE_BUSY, False, DatabaseUnavailable),
        (sqlite3.SQLITE_CORRUPT, False, DatabaseUnavailable),
    ],
)
def test_an_error_of_a_write_says_what_it_means(made, monkeypatch, code, room, error):
    path, _ = made(blocks_of("[1]"), complete=False)
    monkeypatch.setattr(file, "is_full", lambda where: where == path and not room)
    monkeypatch.setattr(sqlite3, "connect", failing(code))
    with pytest.raises((DiskFull, DatabaseUnavailable)) as refusal:
        file.append(path, Ledger(), (), complete=True, careful=False)
    assert type(refusal.value) is error
    words = "; free some space, then repeat the call" if error is DiskFull else ": SQLite's words"
    assert f"{path}{words}" in str(refusal.value)


@pytest.mark.parametrize(
    ("code", "passes"),
    [
        (sqlite3.SQLITE_BUSY, True), (sqlite3.SQLITE_LOCKED, True), (sqlite3.SQLITE_NOMEM, True),
        (sqlite3.SQLITE_IOERR_READ, True), (sqlite3.SQLITE_CANTOPEN, True),
        (sqlite3.SQLITE_CORRUPT, False), (sqlite3.SQLITE_NOTADB, False), (0, False), (None, False),
    ],
)  # fmt: skip
def test_an_error_of_a_read_tells_the_machine_s_trouble_from_damage(made, monkeypatch, code, passes):
    path, handle = made(blocks_of("[1]"))
    monkeypatch.setattr(sqlite3, "connect", failing(code))
    for read in (lambda: Batch(path), lambda: file.salvage(path, handle)):
        with pytest.raises(DatabaseUnavailable if passes else Damaged) as refusal:
            read()
        assert (f"{path}: SQLite's words" if passes else "SQLite says: SQLite's words") in str(refusal.value)


def test_a_file_is_opened_to_be_read_and_trusts_nothing_in_it(made):
    path, _ = made(blocks_of("[1]"))
    found = Batch(path)
    asked = {
        name: found._connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("trusted_schema", "cell_size_check", "query_only")
    }
    assert asked == {"trusted_schema": 0, "cell_size_check": 1, "query_only": 1}
    assert found._connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) == file.blocks.MAX_BLOCK_BYTES
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        found._connection.execute("PRAGMA query_only = OFF").execute("DELETE FROM block")
    found.close()


def test_a_spoilt_file_leaves_nothing_open(made):
    path, handle = made(blocks_of("[1]"), complete=False)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(Damaged):
            Batch(path)
    file.salvage(path, handle)
    file.append(path, Ledger(), (), complete=False, careful=True)
    assert len(os.listdir("/proc/self/fd")) == before
