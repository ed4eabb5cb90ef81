"""Commands on the window itself: when it looks, what is taken along, typing a command, leaving."""

import csv
import io
import os
from datetime import datetime
from typing import Any

import persistq
from persistq.text import spreadsheet_cell

from . import completion
from .pane import TablePane
from .poller import LEAST_SECONDS
from .registry import Given, command
from .session import Prompt, Session
from .views.job import JobPane

_WIDEST_SPREADSHEET = 32_000

# Refreshing


@command("refresh", "look now", "r", hint="refresh")
def refresh(s: Session, _given: Given) -> None:
    """Look now."""
    s.poller.wake()


@command("freeze", "look no more until p or r", "p", typed=False, hint="freeze")
def freeze(s: Session, _given: Given) -> None:
    """Let nothing move, or let it move again."""
    s.poller.frozen = not s.poller.frozen
    s.poller.wake()


@command("slower", "look less often", "+", typed=False)
def slower(s: Session, _given: Given) -> None:
    """Look less often."""
    _pace(s, 1)


@command("faster", "look more often, once a second at most", "-", typed=False)
def faster(s: Session, _given: Given) -> None:
    """Look more often."""
    _pace(s, -1)


def _pace(s: Session, by: int) -> None:
    s.poller.interval = max(LEAST_SECONDS, s.poller.interval + by)
    s.say(f"every {s.poller.interval:g} s")
    s.poller.wake()


# Taking something along


@command("copy", "the id to the terminal's clipboard", "y", typed=False)
def copy(s: Session, _given: Given) -> None:
    """Send the id under the cursor to the clipboard."""
    pane = s.pane
    found: Any = pane.id if isinstance(pane, JobPane) else None
    if isinstance(pane, TablePane) and pane.current:
        found = getattr(pane.current.thing, "id", None)
    if found is None:
        s.say("there is no id here")
        return
    s.copy(str(found))
    s.say(f"id {found}")


@command("save", "this page as a CSV file in the current folder", "w", typed=False)
def save(s: Session, _given: Given) -> None:
    """Write the page's rows into a new file."""
    names, rows = s.pane.columns_and_rows()
    if not rows:
        s.say("there are no rows here")
        return
    path = f"persistq-{s.current}-{s.q.clock.now():%Y%m%d-%H%M%S}.csv"
    s.do("saving", lambda _busy: _write(path, names, rows), lambda _done: s.say(f"{len(rows):,} rows are in {path}"))


def _write(path: str, names: list[str], rows: list[list[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_plain(value) for value in row] for row in rows)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text.getvalue())
    except OSError as error:
        raise persistq.PersistQError(f"{path} cannot be written: {error.strerror}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return spreadsheet_cell(value[:_WIDEST_SPREADSHEET]) if isinstance(value, str) else value


# Typing and leaving


@command("command", "type a command, with the command line's own names", ":", typed=False, hint="command")
def command_line(s: Session, _given: Given) -> None:
    """Ask for a command."""
    type_command(s, "")


def type_command(s: Session, text: str) -> None:
    """Let a command be typed that begins with a text."""
    s.prompt = Prompt(":", s.obey, text, completion.Commands(read_only=s.read_only), "command")
    completion.learn(s)


@command("quit", "leave", "q", "c-c", hint="quit")
def leave(s: Session, _given: Given) -> None:
    """Leave."""
    s.leave(0)
