"""Panes: what a screen wants to see, and how it draws what was seen."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar

from .poller import Look, Seen
from .table import Column, Row, Table
from .widgets import Line, fit, join


class Pane(ABC):
    """One screen's body."""

    #: The word for it, its title, and the key that shows it.
    name: ClassVar[str]
    title: ClassVar[str]
    key: ClassVar[str]
    #: Which screen Enter leads to; empty for none.
    opens: ClassVar[str] = ""

    def __init__(self) -> None:
        #: What was last seen here; None before the first time.
        self.seen: Seen | None = None
        #: Whether nothing may move now.
        self.held = False
        #: Whether items and results are not to be shown.
        self.hides_items = False

    @abstractmethod
    def look(self) -> Look:
        """Return what the poller is to look at."""

    @abstractmethod
    def take(self, seen: Seen) -> None:
        """Take what was seen."""

    @abstractmethod
    def draw(self, width: int, height: int, now: datetime) -> list[Line]:
        """Return at most ``height`` lines."""

    @abstractmethod
    def move(self, by: int) -> None:
        """Move down by so many rows or lines."""

    @abstractmethod
    def to(self, index: int) -> None:
        """Move to a row or line; -1 is the last."""

    @property
    @abstractmethod
    def page(self) -> int:
        """Rows or lines on one page."""

    def hold(self, held: bool) -> None:
        """Let nothing move, or let it move again."""
        self.held = held

    def columns_and_rows(self) -> tuple[list[str], list[list[Any]]]:
        """Return what ``w`` saves: the names of the columns, and the values."""
        return [], []


class TextPane(Pane):
    """A pane of lines that scroll."""

    def __init__(self) -> None:
        super().__init__()
        self._top = 0
        self._height = 1
        self._lines: list[Line] = []

    @abstractmethod
    def build(self, seen: Seen, width: int, now: datetime) -> list[Line]:
        """Return every line."""

    def take(self, seen: Seen) -> None:
        """Take what was seen."""
        if not self.held or self.seen is None or self.seen.look != seen.look:
            self.seen = seen

    def draw(self, width: int, height: int, now: datetime) -> list[Line]:
        """Return the lines that can be seen."""
        self._height = height
        if self.seen is None:
            return [join([("class:dim", " looking …")], width)]
        self._lines = self.build(self.seen, width, now)
        self._top = max(0, min(self._top, len(self._lines) - height))
        return self._lines[self._top : self._top + height]

    def move(self, by: int) -> None:
        """Scroll."""
        self._top = max(0, min(self._top + by, len(self._lines) - self._height))

    def to(self, index: int) -> None:
        """Scroll to the first or the last line."""
        self._top = 0
        self.move(index if index >= 0 else len(self._lines))

    @property
    def page(self) -> int:
        """Lines on one page."""
        return self._height


class TablePane(Pane):
    """A pane of rows with a cursor."""

    columns: ClassVar[Sequence[Column]]

    def __init__(self) -> None:
        super().__init__()
        self.table = Table(self.columns)
        #: Part of a cell that a row must have to be shown.
        self.needle = ""
        self.sort: str | None = None
        self.reverse = False
        #: Rows that there would be, were they not held.
        self.new = 0

    @abstractmethod
    def rows(self, data: Any) -> list[Row]:
        """Return the rows of what was seen."""

    def heading(self) -> str:
        """Return what the line above the table says."""
        return f"filter: {self.needle}" if self.needle else ""

    @property
    def current(self) -> Row | None:
        """The row under the cursor."""
        return self.table.current

    def take(self, seen: Seen) -> None:
        """Take what was seen; while nothing may move, only values change."""
        fresh = self.seen is None or self.seen.look != seen.look
        self.seen = seen
        if self.held and not fresh:
            self.new = self.table.refresh(self._arranged(seen.data))
        else:
            self.arrange()

    def hold(self, held: bool) -> None:
        """Let no row move, or let them again."""
        if self.held and not held:
            self.held = False
            self.arrange()
        self.held = held

    def arrange(self) -> None:
        """Show the rows as filter and order have them now."""
        self.new = 0
        if self.seen is not None:
            self.table.replace(self._arranged(self.seen.data))

    def _arranged(self, data: Any) -> list[Row]:
        rows = self.rows(data)
        if self.needle:
            part = self.needle.casefold()
            rows = [row for row in rows if any(part in str(value).casefold() for value in row.values)]
        names = [column.name for column in self.columns]
        if self.sort in names:
            place = names.index(self.sort)
            rows.sort(key=lambda row: _rank(row.values[place]), reverse=self.reverse)
        return rows

    def draw(self, width: int, height: int, now: datetime) -> list[Line]:
        """Return the heading and the rows that can be seen."""
        if self.seen is None:
            return [join([("class:dim", " looking …")], width)]
        parts = [("class:name", fit(self.title, len(self.title) + 1))]
        words = [self.heading()]
        if self.sort:
            words.append(f"by {self.sort}{' reversed' if self.reverse else ''}")
        if self.table.marks:
            words.append(f"{len(self.table.marks):,} marked")
        if self.new:
            words.append(f"{self.new:,} new wait")
        text = "  ".join(filter(None, words))
        lines = [join([*parts, ("", fit(text, width))], width)]
        lines += self.table.lines(width, height - 1, now, all_marked=self.all_marked)
        if not self.table.rows:
            lines.append(join([("class:dim", f" {self.empty()}")], width))
        return lines[:height]

    @property
    def all_marked(self) -> bool:
        """Whether everything that matches is marked, on this page or not."""
        return False

    def empty(self) -> str:
        """Return what is said instead of rows."""
        return "nothing matches" if self.needle else "nothing here"

    def move(self, by: int) -> None:
        """Move the cursor."""
        self.table.move(by)

    def to(self, index: int) -> None:
        """Move the cursor to a row."""
        self.table.to(index)

    @property
    def page(self) -> int:
        """Rows on one page of the screen."""
        return self.table.page

    def columns_and_rows(self) -> tuple[list[str], list[list[Any]]]:
        """Return what ``w`` saves."""
        return [column.name for column in self.columns], [list(row.values) for row in self.table.rows]


def _rank(value: Any) -> tuple[int, Any]:
    """Return what values of a column are compared by: numbers, then times, then words, nothing last."""
    if value is None:
        return 3, 0
    if isinstance(value, int | float):
        return 0, value
    return (1, value) if isinstance(value, datetime) else (2, str(value))
