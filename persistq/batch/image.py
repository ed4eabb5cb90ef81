"""A new batch file in one piece: the pages of a SQLite database, put together here. ``scan`` reads them.

SQLite itself writes the same five times slower: page by page, with a journal for a file that nobody could miss yet.
Only the first write into a file is made this way. The format is that of https://www.sqlite.org/fileformat2.html;
the page with the schema is SQLite's own.
"""

import os
import sqlite3
import struct
from collections.abc import Sequence
from functools import cache

LARGE, SMALL = 32_768, 4096
"""Page sizes: a file takes three pages at least, and a block reads fastest from few."""

HEADER = 100
"""Bytes that are written last: until they are there, the file has never been anything."""

LEAF, INTERIOR = 0x0D, 0x05
_U16, _U32 = struct.Struct(">H"), struct.Struct(">I")
_PAGE_COUNT_OFFSET = 28
MOST_PARTS = 1000
"""Of one system call: IOV_MAX is 1024."""

FIRST_ROOT, _FIRST_FREE = 2, 4
"""The first pages are those of the schema and of the roots of both tables."""

Column = int | str | bytes | memoryview | None
Row = tuple[int, Sequence[Column], bool]
"""Row id, columns, and whether bytes stand for text."""


def write(handle: int, schema: Sequence[str], application: int, tables: Sequence[Sequence[Row]]) -> None:
    """Write a database with the rows of two tables into an empty file, so that a kill leaves all of it or nothing.

    Raises:
        OSError: the disk is full, or cannot be written.
    """
    body = sum(len(last) for rows in tables for _, (*_, last), _ in rows if isinstance(last, bytes | memoryview))
    size = LARGE if body > LARGE else SMALL
    pages = _Pages(size)
    roots = [pages.table(rows) for rows in tables]
    first = bytearray(template(tuple(schema), application, size))
    first[_PAGE_COUNT_OFFSET : _PAGE_COUNT_OFFSET + 4] = _U32.pack(_FIRST_FREE - 1 + pages.count)
    if os.fstat(handle).st_size:  # else not: ext4 begins to write a file that was truncated out when it is closed
        os.ftruncate(handle, 0)
    _write_all(handle, [memoryview(first)[HEADER:], *roots, *pages.parts], HEADER)
    _write_all(handle, [memoryview(first)[:HEADER]], 0)


def is_begun_only(handle: int) -> bool:
    """Return whether a kill cut the write off, so that the file has nothing that anybody was promised."""
    return not any(os.pread(handle, HEADER, 0))


class _Pages:
    """The pages after the fixed ones, in their order."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.count = 0
        #: Their content. The items are the callers' own bytes: fresh memory costs more than all else here.
        self.parts: list[bytes | memoryview] = []

    def table(self, rows: Sequence[Row]) -> bytes:
        """Return the root page of a table; what does not fit into it goes into further pages."""
        leaves: list[tuple[int, list[bytes]]] = []
        cells: list[bytes] = []
        room, last = self._size - 8, 0
        for row_id, columns, as_text in rows:
            cell = self._cell(row_id, *_record(columns, as_text))
            if len(cell) + 2 > room:
                leaves.append((last, cells))
                cells, room = [], self._size - 8
            cells.append(cell)
            room -= len(cell) + 2
            last = row_id
        if not leaves:
            return self._page(LEAF, cells)
        leaves.append((last, cells))
        numbers = [self._add(self._page(LEAF, some)) for _, some in leaves]
        keys = [_U32.pack(number) + _varint(key) for number, (key, _) in zip(numbers[:-1], leaves, strict=False)]
        return self._page(INTERIOR, keys, numbers[-1])

    def _add(self, page: bytes) -> int:
        self.parts.append(page)
        self.count += 1
        return _FIRST_FREE - 1 + self.count

    def _cell(self, row_id: int, head: bytes, tail: bytes | memoryview) -> bytes:
        """Return a row's cell, with the end of a long record in overflow pages."""
        length = len(head) + len(tail)
        begin = _varint(length) + _varint(row_id) + head
        if length <= (here := local(length, self._size)):
            return begin + tail
        step = self._size - 4
        kept = here - len(head)
        following = _FIRST_FREE + self.count
        cell = b"".join([begin, memoryview(tail)[:kept], _U32.pack(following)])
        for start in range(kept, len(tail), step):
            part = memoryview(tail)[start : start + step]
            following += 1
            self.parts += [_U32.pack(following if start + step < len(tail) else 0), part]
            if len(part) < step:
                self.parts.append(bytes(step - len(part)))
            self.count += 1
        return cell

    def _page(self, kind: int, cells: Sequence[bytes], right: int | None = None) -> bytes:
        place = self._size
        pointers = []
        for cell in cells:
            place -= len(cell)
            pointers.append(_U16.pack(place))
        head = struct.pack(">BHHHB", kind, 0, len(cells), place & 0xFFFF, 0)
        if right is not None:
            head += _U32.pack(right)
        head += b"".join(pointers)
        return b"".join([head, bytes(place - len(head)), *reversed(cells)])


def local(length: int, size: int) -> int:
    """Return how many bytes of a record stand in its leaf, for a page size; the rest is in overflow pages."""
    most, least = size - 35, (size - 12) * 32 // 255 - 23
    if length <= most:
        return length
    some = least + (length - least) % (size - 4)
    return some if some <= most else least


def _record(columns: Sequence[Column], as_text: bool) -> tuple[bytes, bytes | memoryview]:
    """Return a row's record in two pieces, of which the second is the last column as it was given."""
    types: list[bytes] = []
    parts: list[bytes | memoryview] = [b""]
    for column in columns:
        if column is None:
            types.append(b"\0")
        elif isinstance(column, int):
            types.append(b"\6")
            parts.append(column.to_bytes(8, "big", signed=True))
        else:
            data = column.encode() if isinstance(column, str) else column
            types.append(_varint(2 * len(data) + (13 if as_text or isinstance(column, str) else 12)))
            parts.append(data)
    head = b"".join(types)
    return b"".join([_varint(len(head) + 1), head, *parts[:-1]]), parts[-1]


def _varint(number: int) -> bytes:
    """Return a number below 2**56 in groups of seven bits, the highest first."""
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.append(number & 0x7F | 0x80)
    return bytes(groups[::-1])


@cache
def template(schema: tuple[str, ...], application: int, size: int) -> bytes:
    """Return the first page of an empty database as SQLite makes it."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        connection.execute(f"PRAGMA page_size = {size}")
        connection.execute(f"PRAGMA application_id = {application}")
        for statement in schema:
            connection.execute(statement)
        return connection.serialize()[:size]
    finally:
        connection.close()


def _write_all(handle: int, parts: Sequence[bytes | memoryview], offset: int) -> None:
    for start in range(0, len(parts), MOST_PARTS):
        some = parts[start : start + MOST_PARTS]
        length = sum(map(len, some))
        done = os.pwritev(handle, some, offset)
        if done < length:  # a signal came, or the disk is full: then the next call says so
            rest = memoryview(b"".join(some))[done:]
            while rest:
                number = os.pwrite(handle, rest, offset + done)
                rest, done = rest[number:], done + number
        offset += length
