"""Reads the pages that ``image.write`` made, straight from the file into memory that is used again.

SQLite takes 1.4 times as long for the same: through a cache of its own, into fresh memory. Whatever is not exactly as
``image`` makes it is left to SQLite, which also knows what is wrong with it.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from . import image
from .memory import Memory

_SIZE_OFFSET = 16
_OWN_WORDS = (slice(28, 32), slice(60, 64))
"""Where the first pages of two files may differ: in the number of pages, and in the progress."""

_PAGE_HEAD, _INT64 = struct.Struct(">BHHHB"), struct.Struct(">q")
_U16, _U32 = struct.Struct(">H"), struct.Struct(">I")
_IS_NULL, _IS_INT64, _IS_BLOB = 0, 6, 12


class Foreign(Exception):
    """The file, or this part of it, is not as ``image.write`` makes it."""


class Place(NamedTuple):
    """Where a long column stands in the file."""

    length: int
    #: Where it begins, and how much of it stands there.
    offset: int
    kept: int
    #: The first of the pages that have the rest, one after the other.
    page: int


Column = int | bytes | Place | None


class Scan:
    """The rows of a file. They are only as right as the checksums over them.

    Raises:
        Foreign: it was not made by ``image.write`` with this schema.
        OSError: it cannot be read now.
    """

    def __init__(self, handle: int, schema: Sequence[str], application: int) -> None:
        head = os.pread(handle, image.SMALL, 0)
        self._handle, self._size = handle, int.from_bytes(head[_SIZE_OFFSET : _SIZE_OFFSET + 2], "big")
        if len(head) < image.SMALL or self._size not in (image.SMALL, image.LARGE):
            raise Foreign
        self._pages, rest = divmod(os.fstat(handle).st_size, self._size)
        expected = bytearray(image.template(tuple(schema), application, self._size))
        for words, found in zip(_OWN_WORDS, (_U32.pack(self._pages), head[_OWN_WORDS[1]]), strict=True):
            expected[words] = found
        if rest or head + os.pread(handle, self._size - len(head), len(head)) != expected:
            raise Foreign

    def rows(self, table: int) -> Iterator[tuple[int, list[Column]]]:
        """Yield id and columns of each row of a table, the first or the second; text as bytes, the last by its place.

        Raises:
            Foreign, OSError: as above.
        """
        try:
            yield from self._rows(image.FIRST_ROOT + table)
        except (IndexError, struct.error):
            raise Foreign from None

    def read(self, place: Place, memory: Memory) -> memoryview:
        """Return what stands there; it is good until the memory is taken again.

        Raises:
            Foreign, OSError: as above.
        """
        step = self._size - 4
        number = -(-(place.length - place.kept) // step)
        if number > image.MOST_PARTS // 2 or (number and not 1 <= place.page <= self._pages + 1 - number):
            raise Foreign
        into = memory.take(place.length)
        rest = into[place.kept :]
        following = b"".join(map(_U32.pack, range(place.page + 1, place.page + number))) + bytes(4 * bool(number))
        links = memoryview(bytearray(len(following)))
        parts: list[memoryview] = []
        for n in range(number):
            parts += links[4 * n : 4 * n + 4], rest[n * step : (n + 1) * step]
        if os.preadv(self._handle, [into[: place.kept]], place.offset) != place.kept:
            raise Foreign
        if number and os.preadv(self._handle, parts, (place.page - 1) * self._size) != len(links) + len(rest):
            raise Foreign
        if links != following:
            raise Foreign
        return into

    def _rows(self, number: int, *, root: bool = True) -> Iterator[tuple[int, list[Column]]]:
        if not image.FIRST_ROOT <= number <= self._pages:
            raise Foreign
        start = (number - 1) * self._size
        page = os.pread(self._handle, self._size, start)
        kind, _, count, _, _ = _PAGE_HEAD.unpack_from(page)
        if kind == image.LEAF:
            for (cell,) in _U16.iter_unpack(page[8 : 8 + 2 * count]):
                yield self._row(page, cell, start)
        elif kind == image.INTERIOR and root:
            for (cell,) in _U16.iter_unpack(page[12 : 12 + 2 * count]):
                yield from self._rows(*_U32.unpack_from(page, cell), root=False)
            yield from self._rows(*_U32.unpack_from(page, 8), root=False)
        else:
            raise Foreign

    def _row(self, page: bytes, cell: int, start: int) -> tuple[int, list[Column]]:
        length, at = _varint(page, cell)
        row_id, begin = _varint(page, at)
        size, at = _varint(page, begin)
        kinds: list[int] = []
        while at < begin + size:
            kind, at = _varint(page, at)
            kinds.append(kind)
        columns: list[Column] = []
        for last, kind in enumerate(kinds, 1 - len(kinds)):
            if kind == _IS_NULL:
                columns.append(None)
            elif kind == _IS_INT64:
                columns += _INT64.unpack_from(page, at)
                at += 8
            elif kind < _IS_BLOB:
                raise Foreign
            elif last < 0:
                end = at + (kind - _IS_BLOB) // 2
                columns.append(page[at:end])
                at = end
            else:
                columns.append(self._place(page, begin, length, at, start))
        return row_id, columns

    def _place(self, page: bytes, begin: int, length: int, at: int, start: int) -> Place:
        """Return where the last column of a record stands, which fills it to its end."""
        end = begin + image.local(length, self._size)
        if not at <= end <= len(page):
            raise Foreign
        following = _U32.unpack_from(page, end)[0] if end < begin + length else 0
        return Place(begin + length - at, start + at, end - at, following)


def _varint(page: bytes, at: int) -> tuple[int, int]:
    """Return a number and where it ends."""
    value = 0
    while True:
        byte = page[at]
        value, at = value << 7 | byte & 0x7F, at + 1
        if byte < 0x80:
            return value, at
