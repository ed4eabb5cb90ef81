"""Commands on batch files: list, show, recover, replay, quarantine, delete."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

import persistq
from persistq import batch, beyond
from persistq.batch import manage
from persistq.text import safe_text

from . import many
from .jobs import Reason
from .window import Json, Window, Yes, say, window

COLUMNS = ("file", "status", "queue", "items", "consumed", "deaths", "live", "owner", "bytes", "created_at", "damage")

app = typer.Typer(no_args_is_help=True, help="Look at batch files, and set them right.", rich_markup_mode=None)

Queue = Annotated[str, typer.Option(help="The queue.")]
Which = Annotated[str, typer.Argument(metavar="FILE", help="A batch's file name or id.")]
Spool = Annotated[str | None, typer.Option("--spool", metavar="FOLDER", help="Instead of QUEUE_SPOOL_DIR.")]


@app.command("list")
def list_batches(
    context: typer.Context,
    queue: Annotated[str | None, typer.Option(help="Only this queue.")] = None,
    status: Annotated[str | None, typer.Option(help="loading, ready, unload or invalid.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 100,
    spool: Spool = None,
    as_json: Json = False,
) -> None:
    """List batches, oldest first: persistq batches list --status invalid."""
    found = batch.listing(_folder(spool), queue, status, limit + 1)
    window(context).show([info.to_dict() for info in found[:limit]], COLUMNS, as_json=as_json)
    if len(found) > limit:
        say("More batches match; a larger --limit shows them")


@app.command("show")
def show(
    context: typer.Context,
    which: Which,
    queue: Queue = "default",
    first: Annotated[int, typer.Option("--from", min=0, help="Number of the first item.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 100,
    spool: Spool = None,
    as_json: Json = False,
) -> None:
    """Print the items of a batch as JSON, with their numbers: persistq batches show FILE."""
    rows = [{"number": number, "item": text} for number, text in batch.show(_folder(spool), queue, which, first, limit)]
    window(context).show(rows, ("number", "item"), as_json=as_json)


@app.command("recover")
def recover(
    context: typer.Context,
    queue: Annotated[str | None, typer.Option(help="Only this queue.")] = None,
    spool: Spool = None,
    as_json: Json = False,
) -> None:
    """Make ready what dead processes left; the living are not touched: persistq batches recover."""
    q = window(context).queue(writes=True)
    done = beyond.recover_batches(q, [queue] if queue else None, root=spool)
    rows = [{"queue": name, **found.to_dict()} for name, found in done.items()]
    window(context).show(rows, ("queue", "ready", "empty", "alive", "invalid"), as_json=as_json)


@app.command("replay")
def replay(
    context: typer.Context,
    which: Which,
    queue: Queue = "default",
    from_start: Annotated[bool, typer.Option("--from-start", help="Also what was consumed of it already.")] = False,
    spool: Spool = None,
) -> None:
    """Make a batch that was put aside ready again, if it is sound: persistq batches replay FILE."""
    q = window(context).queue(writes=True)
    print(safe_text(beyond.replay_batch(q, queue, which, from_start=from_start, root=spool)))


@app.command("quarantine")
def quarantine(context: typer.Context, which: Which, queue: Queue = "default", spool: Spool = None) -> None:
    """Put a ready batch aside until it is replayed: persistq batches quarantine FILE."""
    print(safe_text(beyond.put_batch_aside(window(context).queue(writes=True), queue, which, root=spool)))


@app.command("delete")
def delete(
    context: typer.Context,
    which: Annotated[list[str], typer.Argument(metavar="FILE...", help="Batches' file names or ids.")],
    queue: Queue = "default",
    reason: Reason = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what they are.")] = False,
    spool: Spool = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Delete batches that are ready or were put aside, and print what they were: persistq batches delete FILE.

    Their items are lost. Which there are: persistq batches list --status invalid.
    """
    seen = window(context)

    def look(one: str) -> batch.BatchInfo:
        return manage.to_delete(_folder(spool), queue, one)

    if dry_run:
        many.each(seen, which, look, as_json=as_json, columns=COLUMNS)
        return
    q = seen.queue(writes=True)
    if not yes:
        _ask(seen, queue, which, look)
    many.each(
        seen, which, lambda one: beyond.delete_batch(q, queue, one, root=spool, reason=reason),
        as_json=as_json, columns=COLUMNS,
    )  # fmt: skip


def _ask(seen: Window, queue: str, which: Sequence[str], look: Callable[[str], batch.BatchInfo]) -> None:
    """Show what would be lost and ask, unless there is nothing of it."""
    found: list[batch.BatchInfo] = []
    for one in which:
        with suppress(persistq.JobNotFound, persistq.IllegalTransition):  # told when its turn comes
            found.append(look(one))
    for info in found:
        say(f"  {info.file}: {_contents(info)}")
    if found:
        seen.confirm(f"Delete {len(found):,} batches of queue {queue} with what is in them?", yes=False)


def _contents(info: batch.BatchInfo) -> str:
    if info.items is None or info.consumed is None:
        return f"damaged, {info.bytes:,} bytes"
    return f"{info.items - info.consumed:,} of {info.items:,} items not consumed"


def _folder(spool: str | None) -> Path:
    return Path(spool or persistq.Settings.load().queue_spool_dir)
