"""A batch file: a SQLite file with a row for each block of items, and one row that says that it is complete.

``PRAGMA user_version`` is how far it has been consumed: the number of items times 256, plus the number modulo 255,
so that no single bit can change it unseen. It is written in place, four bytes at their documented offset, by whoever
owns the file: that is one system call, needs no journal, and a batch at work therefore never has a sidecar.
"""

import json
import os
import re
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple
from urllib.parse import quote

from ..errors import DatabaseUnavailable, DiskFull, PersistQError
from . import blocks, image
from .memory import Memory
from .scan import Foreign, Place, Scan
from .spool import Damaged, is_full, translating

try:
    from zlib_ng.zlib_ng import crc32
except ImportError:
    from zlib import crc32

MAX_ITEMS = (1 << 23) - 1
"""Items of one batch: what the progress has room for."""

APPLICATION = 0x70716231
BLOCK_TABLE = (
    "CREATE TABLE block (id INTEGER PRIMARY KEY, first INTEGER NOT NULL, count INTEGER NOT NULL, form TEXT NOT NULL, "
    "crc INTEGER NOT NULL, items TEXT NOT NULL)"
)
FOOTER_TABLE = "CREATE TABLE footer (blocks INTEGER NOT NULL, items INTEGER NOT NULL, crc INTEGER NOT NULL)"

_INSERT = {
    False: "INSERT INTO block VALUES (?, ?, ?, ?, ?, CAST(? AS TEXT))",
    True: "INSERT INTO block VALUES (?, ?, ?, ?, ?, ?)",  # compressed
}
_OLD_TABLE = re.compile(rb'CREATE TABLE (?:IF NOT EXISTS )?"?logs"? ?\( ?"?log_data"? json ?\)', re.IGNORECASE)
_OLD_BLOCK = 1000
_PROGRESS_OFFSET, _PROGRESS = 60, struct.Struct(">I")
_BUSY, _LOCKED, _NOMEM, _IOERR, _FULL, _CANTOPEN = 5, 6, 7, 10, 13, 14
_NO_DAMAGE = {_BUSY, _LOCKED, _NOMEM, _IOERR, _CANTOPEN}


Packed = tuple[str, bytes | memoryview, int]
"""The form and the text of a block, and how many items it has."""


class Block(NamedTuple):
    """Where a block stands in its batch."""

    id: int
    #: Number of its first item, from 0.
    first: int
    #: How many items it has.
    number: int
    form: str
    crc: int

    def check(self, data: bytes | memoryview) -> bool:
        """Return whether this is what was written."""
        return self.crc == _crc(self.id, self.first, self.number, self.form, data)


class Ledger(NamedTuple):
    """What the footer will say of the blocks so far."""

    blocks: int = 0
    items: int = 0
    crc: int = 0

    def next_block(self, form: str, data: bytes | memoryview, count: int) -> Block:
        """Return the block that comes after these."""
        number = self.blocks + 1
        return Block(number, self.items, count, form, _crc(number, self.items, count, form, data))

    def add(self, block: Block) -> "Ledger":
        """Return it with one block more."""
        return Ledger(block.id, block.first + block.number, crc32(b"%d" % block.crc, self.crc))


def create(handle: int, packed: Sequence[Packed], *, complete: bool) -> Ledger:
    """Write the first blocks into an empty file, and the footer if these are all.

    Raises:
        OSError: the file is still nothing, and may be written again.
    """
    ledger = Ledger()
    rows: list[image.Row] = []
    for form, data, count in packed:
        block = ledger.next_block(form, data, count)
        rows.append((block.id, (None, *block[1:], data), "+" not in form))
        ledger = ledger.add(block)
    footer: list[image.Row] = [(1, ledger, False)] if complete else []
    image.write(handle, (BLOCK_TABLE, FOOTER_TABLE), APPLICATION, (rows, footer))
    return ledger


def append(path: str, so_far: Ledger, packed: Sequence[Packed], *, complete: bool, careful: bool) -> Ledger:
    """Write blocks behind those that are there, in one transaction; the caller owns the file.

    ``complete`` writes the footer as well. ``careful`` has SQLite make every step durable in its order: needed when
    the file holds what a power cut must not spoil. Without it, whoever needs it durable syncs the file afterwards.

    Raises:
        DiskFull, DatabaseUnavailable: nothing was written.
    """
    with _translating(path):
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            connection.execute(f"PRAGMA synchronous = {'EXTRA' if careful else 'OFF'}")
            connection.execute("BEGIN IMMEDIATE")
            for form, data, count in packed:
                block = so_far.next_block(form, data, count)
                connection.execute(_INSERT["+" in form], (*block, data))
                so_far = so_far.add(block)
            if complete:
                connection.execute("INSERT INTO footer VALUES (?, ?, ?)", so_far)
            connection.execute("COMMIT")
        finally:
            connection.close()
    return so_far


class Batch:
    """The read side of a batch file. It changes nothing but, where the caller owns the file, the progress.

    Raises:
        Damaged: this is no complete batch as it was written.
    """

    def __init__(
        self, path: str, handle: int | None = None, memory: Memory | None = None, *, unfinished: bool = False
    ) -> None:
        #: Where the file is; whoever renames it while it is open has to say so here.
        self.path = path
        self._handle, self._memory = handle, memory or Memory()
        #: Whether it has its footer; without one it is read only if ``unfinished`` was asked for.
        self.complete = True
        self._opened: sqlite3.Connection | None = None
        self._old = False
        #: How to read blocks without SQLite, and where each of them stands.
        self._scan: Scan | None = None
        self._places: list[Place] = []
        try:
            with _judging(path):
                if not self._read_image():
                    self._read_schema(unfinished)
                self._check_progress()
        except BaseException:
            self.close()
            raise

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._opened is None:
            self._opened = _open(self.path)
        return self._opened

    def _read_image(self) -> bool:
        """Read where the blocks stand without SQLite; return False where it has to look itself."""
        if self._handle is None:
            return False
        try:
            scan = Scan(self._handle, (BLOCK_TABLE, FOOTER_TABLE), APPLICATION)
            self.blocks, self._places = _scanned_blocks(scan)
            footer = [tuple(columns) for _, columns in islice(scan.rows(1), 2)]
        except Foreign:
            return False
        if footer != [ledger_of(self.blocks)]:
            return False
        self.items = sum(block.number for block in self.blocks)
        self._scan = scan
        return True

    def _read_schema(self, unfinished: bool) -> None:
        found = self._connection.execute("SELECT type, name, sql FROM sqlite_schema LIMIT 3").fetchall()
        tables = [sql for kind, _, sql in found if kind == b"table"]
        self._old = len(found) == 1 and bool(tables) and bool(_OLD_TABLE.fullmatch(tables[0]))
        if self._old:
            self.blocks, self.items = self._old_blocks()
        else:
            if len(found) != 2 or tables != [BLOCK_TABLE.encode(), FOOTER_TABLE.encode()]:
                raise Damaged("its tables are not those of a batch")
            if self._pragma("application_id") != APPLICATION:
                raise Damaged("it does not say that it is a batch")
            self.blocks = self._read_blocks()
            self.items = sum(block.number for block in self.blocks)
            self._check_footer(unfinished)

    def _check_progress(self) -> None:
        if self.items > MAX_ITEMS:
            raise Damaged(f"it has {self.items} items, and its progress has room for {MAX_ITEMS}")
        if not 0 <= self.progress <= self.items:
            raise Damaged("its progress is not within it")

    @property
    def progress(self) -> int:
        """How many items have been consumed.

        Raises:
            Damaged: the number is not one that was written.
        """
        return _progress(self._pragma("user_version")) if self._handle is None else read_progress(self._handle)

    def save(self, number: int) -> None:
        """Keep in the file that so many items have been consumed; the caller owns it."""
        if self._handle is not None:
            with translating(self.path):
                write_progress(self._handle, number)

    def read(self, block: Block) -> list[Any]:
        """Return a block's items.

        Raises:
            Damaged: they are not what was written.
        """
        with _judging(self.path):
            if self._old:
                return self._read_old(block)
            if (data := self._scanned(block)) is not None:
                return self._items(block, data)
            row = self._connection.execute("SELECT items FROM block WHERE id = ?", (block.id,)).fetchone()
            if row is None or not isinstance(row[0], bytes) or not block.check(row[0]):
                raise Damaged(f"block {block.id} is not what was written")
            return self._items(block, row[0])

    def _items(self, block: Block, data: bytes | memoryview) -> list[Any]:
        items = blocks.decode(block.form, data)
        if len(items) != block.number:
            raise Damaged(f"block {block.id} has {len(items)} items, not {block.number}")
        return items

    def _scanned(self, block: Block) -> memoryview | None:
        """Return a block's text if it can be read without SQLite and is what was written."""
        if self._scan is None:
            return None
        try:
            data = self._scan.read(self._places[block.id - 1], self._memory)
        except Foreign:
            return None
        return data if block.check(data) else None

    def shown(self, first: int, limit: int) -> Iterator[tuple[int, str]]:
        """Yield number and JSON text of items for a person, without loading any of them as a value."""
        for block in self.blocks:
            if block.first + block.number <= first or limit <= 0:
                continue
            skip = max(0, first - block.first)
            texts = self._texts(block)[skip : skip + limit]
            yield from enumerate(texts, block.first + skip)
            limit -= len(texts)

    def close(self) -> None:
        """Close the file; whose it is does not change."""
        if self._opened is not None:
            self._opened.close()

    def _texts(self, block: Block) -> list[str]:
        if block.form != "json":
            return [_text_of(item) for item in self.read(block)]
        self.read(block)  # checks it
        rows = self._connection.execute(
            "SELECT json_quote(value) FROM block, json_each(items) WHERE block.id = ? ORDER BY key", (block.id,)
        ).fetchall()
        return [row[0].decode("utf-8", "replace") for row in rows]

    def _read_blocks(self) -> list[Block]:
        found: list[Block] = []
        expected = 0
        # One block more than may be tells as much as a hostile file that is read to its end.
        rows = self._connection.execute(
            "SELECT id, first, count, form, crc FROM block ORDER BY id LIMIT ?", (MAX_ITEMS + 1,)
        )
        for number, (row, first, count, form, crc) in enumerate(rows, 1):
            block = Block(row, first, count, _word(form), crc)
            if (row, first) != (number, expected) or not _is_sane(block):
                raise Damaged(f"block {number} is missing or not where it was")
            found.append(block)
            expected += count
        return found

    def _check_footer(self, unfinished: bool) -> None:
        footer = self._connection.execute("SELECT blocks, items, crc FROM footer LIMIT 2").fetchall()
        self.complete = bool(footer)
        if not self.complete and not unfinished:
            raise Damaged("it has no footer, so it was never completed")
        if footer and footer != [tuple(ledger_of(self.blocks))]:
            raise Damaged("its footer does not fit its blocks")

    def _old_blocks(self) -> tuple[list[Block], int]:
        (number,) = self._connection.execute("SELECT count(*) FROM logs").fetchone()
        starts = range(0, number, _OLD_BLOCK)
        return [
            Block(place, first, min(_OLD_BLOCK, number - first), "old", 0) for place, first in enumerate(starts, 1)
        ], number

    def _read_old(self, block: Block) -> list[Any]:
        rows = self._connection.execute(
            "SELECT log_data FROM logs ORDER BY rowid LIMIT ? OFFSET ?", (block.number, block.first)
        ).fetchall()
        # The column makes numbers of what looks like one; everything else is JSON text.
        return [blocks.decode("json", b"[%b]" % row[0])[0] if isinstance(row[0], bytes) else row[0] for row in rows]

    def _pragma(self, name: str) -> int:
        return int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])


def salvage(path: str, handle: int) -> Ledger | None:
    """Let SQLite undo a transaction that a kill cut off, and return what is committed; the caller owns the file.

    Returns None when nothing is, and a complete batch's ledger with its footer in place.

    Raises:
        Damaged: what is there is not what was written.
    """
    if image.is_begun_only(handle):
        return None
    with _judging(path):
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA synchronous = EXTRA")
            # Only a lock for writing has the remains of a transaction undone and their file removed.
            connection.execute("BEGIN IMMEDIATE")
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            connection.execute("ROLLBACK")
        finally:
            connection.close()
    if not tables:
        return None
    batch = Batch(path, unfinished=True)
    try:
        ledger = ledger_of(batch.blocks)
        if not batch.complete:
            for block in batch.blocks:
                batch.read(block)
    finally:
        batch.close()
    if ledger.blocks and not batch.complete:
        append(path, ledger, (), complete=True, careful=True)
    return ledger if ledger.items else None


def ledger_of(found: Sequence[Block]) -> Ledger:
    """Return what the footer has to say of these blocks."""
    ledger = Ledger()
    for block in found:
        ledger = ledger.add(block)
    return ledger


def write_progress(handle: int, number: int) -> None:
    """Write in place that so many items have been consumed."""
    os.pwrite(handle, _PROGRESS.pack(number << 8 | number % 255), _PROGRESS_OFFSET)


def read_progress(handle: int) -> int:
    """Return how many items of a file have been consumed.

    Raises:
        Damaged: the number is not one that was written.
    """
    data = os.pread(handle, _PROGRESS.size, _PROGRESS_OFFSET)
    if len(data) < _PROGRESS.size:
        raise Damaged("it ends before its progress")
    return _progress(*_PROGRESS.unpack(data))


def _progress(word: int) -> int:
    number = word >> 8
    if not 0 <= number <= MAX_ITEMS or number % 255 != word & 255:
        raise Damaged("its progress is not what was written")
    return number


def _open(path: str) -> sqlite3.Connection:
    """Open a file that may hold anything, to read it and nothing else."""
    # immutable: it has one owner, so that there is neither a lock to be taken nor a journal to be looked for.
    connection = sqlite3.connect(f"file:{quote(path)}?mode=ro&immutable=1", uri=True)
    connection.text_factory = bytes
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, blocks.MAX_BLOCK_BYTES)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA query_only = ON")
    return connection


@contextmanager
def _judging(path: str) -> Iterator[None]:
    """Tell a file that is not what was written from a machine that cannot read now."""
    try:
        with translating(path):
            yield
    except blocks.Undecodable as error:
        raise Damaged(str(error)) from error
    except (sqlite3.Error, ValueError, OverflowError) as error:
        if _code(error) in _NO_DAMAGE:
            raise DatabaseUnavailable(f"{path}: {error}") from error
        raise Damaged(f"SQLite says: {error}") from error


@contextmanager
def _translating(path: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _translated(error, path) from error


def _translated(error: sqlite3.Error, path: str) -> PersistQError:
    code = _code(error)
    # Where it opens its files, SQLite calls a full disk an I/O error.
    if code == _FULL or (code in (_IOERR, _CANTOPEN) and is_full(path)):
        return DiskFull(f"{path}; free some space, then repeat the call")
    return DatabaseUnavailable(f"{path}: {error}")


def _code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _crc(number: int, first: int, count: int, form: str, data: bytes | memoryview) -> int:
    return crc32(data, crc32(f"{number} {first} {count} {form}".encode()))


def _text_of(item: Any) -> str:
    return json.dumps(item.hex() if isinstance(item, bytes) else item)


def _word(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _is_sane(block: Block) -> bool:
    """Return whether a block's row has numbers where numbers were written."""
    numbers = isinstance(block.number, int) and isinstance(block.crc, int)
    return numbers and 1 <= block.number <= MAX_ITEMS


def _scanned_blocks(scan: Scan) -> tuple[list[Block], list[Place]]:
    """Return all blocks of a file and where each stands.

    Raises:
        Foreign: one of them is missing, or not where it was.
    """
    found: list[Block] = []
    places: list[Place] = []
    expected = 0
    for number, (row, columns) in enumerate(scan.rows(0), 1):
        match columns:
            case [None, int(first), int(count), bytes(form), int(crc), Place() as place] if (row, first) == (
                number,
                expected,
            ) and 1 <= count <= MAX_ITEMS:
                found.append(Block(number, first, count, _word(form), crc))
                places.append(place)
                expected += count
            case _:
                raise Foreign
    return found, places
