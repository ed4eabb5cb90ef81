"""Window: what the global options say, and the queue they point at."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NoReturn

import typer

import persistq
from persistq.text import safe_text

from . import output

EXIT_FAILED, EXIT_USAGE, EXIT_NOT_FOUND, EXIT_WRONG_STATE, EXIT_DATABASE, EXIT_PARTLY = 1, 2, 3, 4, 5, 6


@dataclass
class Window:
    """One call of the command line."""

    db: str | None = None
    read_only: bool = False
    no_input: bool = False
    format: str | None = None
    verbose: bool = False
    #: Of rows, only these fields, in this order; empty means what the command shows by itself.
    fields: tuple[str, ...] = ()
    no_items: bool = False
    _queue: "persistq.PersistentQSQLAlchemy | None" = field(default=None, repr=False)

    def queue(self, *, writes: bool = False) -> "persistq.PersistentQSQLAlchemy":
        """Return the queue; a command that writes says so, and is refused in a read-only window."""
        if writes:
            self.refuse_writing()
        if self._queue is None:
            actor = f"cli:{persistq.default_actor()}"
            self._queue = persistq.connect(self.db, actor=actor, read_only=self.read_only)
            if self.read_only and not self._queue.database.exists():
                fail(f"there is no database {self._queue.dbname}, and a read-only window makes none", EXIT_DATABASE)
        return self._queue

    def show(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool = False) -> None:
        """Print rows in the form that was asked for."""
        if self.fields:
            if rows and (unknown := set(self.fields) - rows[0].keys()):
                known = ", ".join(rows[0])
                fail(f"there is no field {safe_text(', '.join(sorted(unknown)))}; there are {known}", EXIT_USAGE)
            rows = [{name: row[name] for name in self.fields} for row in rows]
            columns = self.fields
        output.show(rows, columns, "json" if as_json else self.format)

    def refuse_writing(self) -> None:
        """Return unless this window is read-only."""
        if self.read_only:
            fail("this window is read-only", EXIT_WRONG_STATE)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Return when the person agrees; otherwise end the program with nothing done."""
        if yes:
            return
        if self.no_input:
            fail("this asks for confirmation; pass --yes to go ahead without", EXIT_USAGE)
        print(safe_text(question), "[y/N]: ", sep=" ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline()
        if not answer.endswith("\n"):
            print(file=sys.stderr)  # the end of the input leaves the cursor on the question's line
        if answer.strip().lower() not in ("y", "yes"):
            fail("nothing was done; pass --yes to go ahead without being asked", EXIT_FAILED)


def window(context: typer.Context) -> Window:
    """Return the call's window."""
    found = context.find_object(Window)
    return found if found is not None else Window()


def say(text: str) -> None:
    """Tell the person something; stdout is for data."""
    for line in text.split("\n"):
        print(safe_text(line), file=sys.stderr)


def choose_database(db: str) -> None:
    """Let the programs that are started from here use this database, whatever the settings say."""
    is_url = "://" in db
    # An empty value means the default, and stands in the way of the one in .env.
    os.environ["QUEUE_DB_URL"] = db if is_url else ""
    if not is_url:
        os.environ["QUEUE_DB_FILE"] = os.path.abspath(db)  # noqa: PTH100 - ".." stays what the person meant by it


def fail(text: str, code: int) -> NoReturn:
    """Say why and end with an exit code."""
    say(f"persistq: {text}")
    raise typer.Exit(code)


def exit_code(error: persistq.PersistQError) -> int:
    """Return the exit code that an error means."""
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return code
    return EXIT_FAILED


_CODES: dict[type[persistq.PersistQError], int] = {
    persistq.ConfigError: EXIT_USAGE,
    persistq.PayloadError: EXIT_USAGE,
    persistq.UnknownStatus: EXIT_USAGE,
    persistq.JobNotFound: EXIT_NOT_FOUND,
    persistq.IllegalTransition: EXIT_WRONG_STATE,
    persistq.LeaseLost: EXIT_WRONG_STATE,
    persistq.ReadOnly: EXIT_WRONG_STATE,
    persistq.DuplicateJob: EXIT_WRONG_STATE,
    persistq.DatabaseUnavailable: EXIT_DATABASE,
    persistq.SchemaMismatch: EXIT_DATABASE,
    persistq.QueueFull: EXIT_DATABASE,
    persistq.OutcomeUnknown: EXIT_DATABASE,
}

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
