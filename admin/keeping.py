"""Commands on the database as a whole: backup, restore, db info, vacuum, export, import."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

import persistq
from persistq.text import safe_text

from . import output
from .progress import bar
from .system import db
from .window import EXIT_USAGE, Json, Yes, fail, say, window


def backup(context: typer.Context, file: Annotated[Path, typer.Argument(help="A new file.")]) -> None:
    """Copy a SQLite queue to a new file while everybody goes on: persistq backup queue-backup.db.

    The copy is of one moment, checked, on disk and readable by you only when the command ends.
    """
    from persistq import upkeep

    q = window(context).queue()
    with bar(100, "backup") as show:
        jobs = upkeep.make_backup(q, file, lambda done, total: show(100 * done // max(total, 1)))
    say(f"persistq: {file} holds {jobs:,} jobs, and was checked")


def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A file that 'backup' made.")],
    force: Annotated[bool, typer.Option("--force", help="Although consumers are at work.")] = False,
    yes: Yes = False,
) -> None:
    """Put a backup in the place of all that the queue holds: persistq restore queue-backup.db --yes."""
    from persistq import upkeep

    seen = window(context)
    seen.refuse_writing()
    q = seen.queue(writes=True)
    held = f"{sum(q.counts().values()):,} jobs of" if q.database.exists() else "nothing in"
    seen.confirm(f"Replace {held} {q.dbname} by {file}?", yes=yes)
    say(f"persistq: {q.dbname} holds {upkeep.restore(q, file, force=force):,} jobs now")


@db.command("info")
def db_info(context: typer.Context, as_json: Json = False) -> None:
    """Say what the database is and how much space it takes: persistq db info."""
    from persistq import upkeep

    seen = window(context)
    found = upkeep.info(seen.queue())
    if as_json or seen.format == "json":
        output.show_json(found)
        return
    for name, value in found.items():
        print(f"{name:12} {safe_text(value)}")


@db.command("vacuum")
def db_vacuum(context: typer.Context) -> None:
    """Give the space of deleted jobs back: persistq db vacuum.

    On SQLite others wait meanwhile, and it needs as much room again as the jobs take.
    """
    from persistq import upkeep

    upkeep.vacuum(window(context).queue(writes=True))


@db.command("export")
def db_export(context: typer.Context) -> None:
    """Print every job with its history as lines of JSON: persistq db export > jobs.jsonl."""
    from persistq import upkeep

    seen = window(context)
    if seen.no_items:
        fail("an export without its items could not be imported; leave --no-items out", EXIT_USAGE)
    q = seen.queue()
    total = sum(q.counts().values())
    with bar(total, "export") as show:
        for number, line in enumerate(upkeep.export(q)):
            print(line)
            if number % 1000 == 0:
                show(min(number, total))


@db.command("import")
def db_import(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE|-", help="What 'db export' printed; - reads stdin.")],
) -> None:
    """Add an export to a queue without jobs, all or nothing, and print how many: persistq db import jobs.jsonl."""
    from persistq import upkeep

    q = window(context).queue(writes=True)
    if file == Path("-"):
        # A transaction may have to be tried again, and stdin can be read once.
        with tempfile.NamedTemporaryFile() as kept:
            shutil.copyfileobj(sys.stdin.buffer, kept)
            kept.flush()
            print(upkeep.take_in(q, lambda: _lines(Path(kept.name))))
        return
    if not file.is_file():
        raise typer.BadParameter(f"there is no file {file}")
    print(upkeep.take_in(q, lambda: _lines(file)))


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as lines:
            yield from lines
    except UnicodeDecodeError:
        raise persistq.PayloadError(f"{path} is not UTF-8; nothing was imported") from None
