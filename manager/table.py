"""Table: rows with a cursor that follows its row's key, marks, and columns that give way on a narrow terminal."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .widgets import GAP, Line, fit, join

_SIGN = {True: "*", False: " "}


def _as_it_is(value: Any, _now: datetime) -> Any:
    return value


@dataclass(frozen=True)
class Column:
    """One column. Elastic ones share what the others leave: at least their width, while others can yield."""

    name: str
    #: Cells at most; a column whose values need less takes less.
    width: int
    right: bool = False
    elastic: bool = False
    #: Which goes first when there is no room: the highest; 0 never goes.
    yields: int = 0
    #: What is drawn of a value, now.
    show: Callable[[Any, datetime], Any] = _as_it_is
    style: Callable[[Any], str] = lambda _value: ""


@dataclass(frozen=True)
class Row:
    """One row: its key, which never changes, a value for each column, and what it is about."""

    key: Hashable
    values: tuple[Any, ...]
    thing: Any
    style: str = ""


class Table:
    """Rows, where the cursor is, and which are marked."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)
        self.rows: list[Row] = []
        self.marks: set[Hashable] = set()
        self._cursor: Hashable = None
        self._index = 0
        self._top = 0
        #: Rows that were visible when last drawn: a page.
        self.page = 1
        self._wanted: list[int] = []

    @property
    def current(self) -> Row | None:
        """The row under the cursor."""
        return self.rows[self._index] if self.rows else None

    def replace(self, rows: Sequence[Row]) -> None:
        """Take new rows. The cursor stays with its key, and on a scrolled table that row where it is on the screen."""
        before = self._index
        self.rows = list(rows)
        self._measure()
        place = next((at for at, row in enumerate(self.rows) if row.key == self._cursor), None)
        self._put(before if place is None else place)
        if self._top:
            self._top = max(0, self._top + self._index - before)

    def refresh(self, rows: Sequence[Row]) -> int:
        """Take new values for the rows that there are, none of which moves; return how many others there would be."""
        found = {row.key: row for row in rows}
        new = len(found.keys() - {row.key for row in self.rows})
        self.rows = [found.get(row.key, row) for row in self.rows]
        self._measure()
        return new

    def move(self, by: int) -> None:
        """Move the cursor by so many rows, as far as there are any."""
        self._put(self._index + by)

    def to(self, index: int) -> None:
        """Move the cursor to a row; -1 is the last."""
        self._put(index if index >= 0 else len(self.rows) + index)

    def go(self, key: Hashable) -> None:
        """Let the cursor be on the row of this key as soon as there is one."""
        self._cursor = key
        place = next((at for at, row in enumerate(self.rows) if row.key == key), None)
        if place is not None:
            self._put(place)

    def toggle(self) -> None:
        """Mark the row under the cursor, or take its mark away, and move on."""
        if self.current:
            self.marks ^= {self.current.key}
            self.move(1)

    def lines(self, width: int, height: int, now: datetime, *, all_marked: bool = False) -> list[Line]:
        """Return the heading and the rows that can be seen."""
        widths = _fitting(self.columns, self._wanted or [one.width for one in self.columns], width - 1)
        heading: list[tuple[str, str]] = [("class:heading", " ")]
        for place, wide in widths.items():
            column = self.columns[place]
            heading += [("class:heading", fit(column.name, wide, right=column.right)), ("class:heading", " " * GAP)]
        self.page = max(1, height - 1)
        self._top = max(0, min(self._top, self._index, len(self.rows) - 1))
        self._top = max(self._top, self._index - self.page + 1)
        shown = self.rows[self._top : self._top + self.page]
        return [join(heading, width)] + [
            self._line(row, widths, width, now, marked=all_marked or row.key in self.marks) for row in shown
        ]

    def _line(self, row: Row, widths: dict[int, int], width: int, now: datetime, *, marked: bool) -> Line:
        under = "class:cursor" if row is self.current else ""
        parts = [(f"{under} class:mark", _SIGN[marked])]
        for place, wide in widths.items():
            column, value = self.columns[place], row.values[place]
            text = fit(None if value is None else column.show(value, now), wide, right=column.right)
            parts += [(f"{row.style} {column.style(value)} {under}", text), (under, " " * GAP)]
        line = join(parts, width)
        line[-1] = (under, line[-1][1])
        return line

    def _measure(self) -> None:
        """Find how wide each column has to be for the values that there are."""
        self._wanted = [
            column.width
            if column.show is not _as_it_is
            else max([len(column.name), *(len(str(row.values[at] or "")) for row in self.rows)])
            for at, column in enumerate(self.columns)
        ]

    def _put(self, index: int) -> None:
        self._index = max(0, min(index, len(self.rows) - 1))
        if self.rows:
            self._cursor = self.rows[self._index].key


def _fitting(columns: Sequence[Column], wanted: Sequence[int], room: int) -> dict[int, int]:
    """Return the places of the columns to draw, each with its width; what nobody wants is left to the last one."""
    widths = {at: min(column.width, wanted[at]) for at, column in enumerate(columns)}
    while sum(widths.values()) + GAP * len(widths) > room:
        yielding = max(widths, key=lambda at: columns[at].yields)
        if not columns[yielding].yields:
            break
        del widths[yielding]
    spare = room - sum(widths.values()) - GAP * len(widths)
    elastic = [at for at in widths if columns[at].elastic]
    for number, at in enumerate(sorted(elastic, key=lambda at: wanted[at])):
        share = spare // (len(elastic) - number)
        more = min(share, wanted[at] - widths[at]) if share > 0 else max(share, 1 - widths[at])
        widths[at] += more
        spare -= more
    return widths
