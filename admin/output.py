"""Rows to stdout: a table for a person, plain lines for a pipe, or the format that was asked for."""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from persistq import Job, spans
from persistq.clock import SystemClock
from persistq.text import HIDDEN, safe_text, shorten, spreadsheet_cell

Row = Mapping[str, Any]
_NEVER_CUT = 2  # the first columns: id and status
_GAP = 2
_LEGIBLE = 12  # characters of a cell that tell something
_FIRST_TO_GO = ("priority", "created_at", "task", "consumer_id", "queue", "attempts", "error")


_HIDDEN = ("item", "result", "request")
_hides_items = False

_width: int | None = None
"""Columns of the terminal that a captured table is for, while it is captured."""


def show(rows: Sequence[Row], columns: Sequence[str], chosen: str | None) -> None:
    """Print rows. Unless chosen, a terminal gets a table and a pipe gets TSV, uncut and without a header."""
    form = chosen or ("table" if _width or sys.stdout.isatty() else "tsv")
    _WRITERS[form](veiled(rows), columns)


def hide_items(hidden: bool) -> None:
    """Show no item and no result from now on, or show them again."""
    global _hides_items
    _hides_items = hidden


def item_of(job: Job) -> str:
    """Return a job's item as far as it may be shown, in one line."""
    return HIDDEN if _hides_items else shorten(job.item, 60)


def veiled(value: Any) -> Any:
    """Return a value that is to be printed, without what is to be hidden."""
    if not _hides_items:
        return value
    if isinstance(value, Mapping):
        return {name: None if name in _HIDDEN else veiled(part) for name, part in value.items()}
    return [veiled(part) for part in value] if isinstance(value, list | tuple) else value


@contextmanager
def on_terminal(width: int) -> Iterator[None]:
    """Let what is shown within be as on a terminal of that width, although it goes elsewhere first."""
    global _width
    _width = width
    try:
        yield
    finally:
        _width = None


def show_json(value: Any) -> None:
    """Print one JSON document, which a terminal can show as it is: every control is escaped."""
    print(json.dumps(veiled(value), indent=2, ensure_ascii=True, default=str))


def ago(when: datetime | str | None) -> str:
    """Return how long ago a time was, in its largest unit."""
    if when is None:
        return ""
    return spans.ago(datetime.fromisoformat(when) if isinstance(when, str) else when, SystemClock().now())


def _table(rows: Sequence[Row], columns: Sequence[str]) -> None:
    # Rich takes longer to import than a listing takes to print, so only a terminal pays for it.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    console = Console(no_color=plain, highlight=False, width=_width)
    # Text, not str: Rich would read markup such as [red] or [link=...] in the data.
    cells = {
        column: [Text(column.removesuffix("_at").removesuffix("_id"), style="" if plain else "bold")]
        + [Text(shorten(_short(column, row.get(column)), 200)) for row in rows]
        for column in columns
    }
    widths = _fitting({column: max(text.cell_len for text in texts) for column, texts in cells.items()}, console.width)
    table = Table.grid(padding=(0, _GAP, 0, 0))
    for _ in widths:
        table.add_column(no_wrap=True)
    for number in range(len(rows) + 1):
        for column, width in widths.items():
            cells[column][number].truncate(width, overflow="ellipsis")
        table.add_row(*(cells[column][number] for column in widths))
    console.print(table)


def _fitting(widths: dict[str, int], room: int) -> dict[str, int]:
    """Return the columns to show, each with its width.

    On a narrow terminal those that say least go, then the widest give way; the first never do.
    """
    for column in _FIRST_TO_GO:
        if sum(_GAP + min(_LEGIBLE, width) for width in widths.values()) <= room:
            break
        widths.pop(column, None)
    flexible = list(widths)[_NEVER_CUT:]
    while flexible and sum(_GAP + width for width in widths.values()) > room:
        widest = max(flexible, key=lambda column: widths[column])
        if widths[widest] <= 1:
            break
        widths[widest] -= 1
    return widths


def _short(column: str, value: Any) -> str:
    return ago(value) if column.endswith("_at") else _cell(value)


def _json(rows: Sequence[Row], _columns: Sequence[str]) -> None:
    show_json(list(rows))


def _jsonl(rows: Sequence[Row], _columns: Sequence[str]) -> None:
    for row in rows:
        print(json.dumps(row, ensure_ascii=True, default=str))


def _csv(rows: Sequence[Row], columns: Sequence[str]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_harmless(row.get(column)) for column in columns])


def _tsv(rows: Sequence[Row], columns: Sequence[str]) -> None:
    for row in rows:
        print("\t".join(safe_text(_cell(row.get(column))) for column in columns))


def _ids(rows: Sequence[Row], columns: Sequence[str]) -> None:
    for row in rows:
        print(safe_text(row.get("id", row.get(columns[0]))))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _harmless(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula; numbers stay numbers."""
    if not isinstance(value, str):
        return "" if value is None else _cell(value)
    return spreadsheet_cell(value)


_WRITERS: dict[str, Callable[[Sequence[Row], Sequence[str]], None]] = {
    "table": _table,
    "json": _json,
    "jsonl": _jsonl,
    "csv": _csv,
    "tsv": _tsv,
    "ids": _ids,
}
