"""Commands on the audit log: list, show, and going on with what was cut off."""

from typing import Annotated, Any

import typer

from persistq.actions import AuditEntry
from persistq.text import safe_text

from . import output, spans
from .many import carry_out
from .window import EXIT_NOT_FOUND, Json, Yes, fail, window

app = typer.Typer(no_args_is_help=True, help="Read what was decided, by whom.", rich_markup_mode=None)

COLUMNS = ("id", "at", "actor", "via", "host", "action", "matched", "changed", "refused", "finished_at", "reason",
           "scope")  # fmt: skip
Number = Annotated[int, typer.Argument(min=1, metavar="NUMBER", help="The entry's number.")]


@app.command("list")
def list_entries(
    context: typer.Context,
    actor: Annotated[str | None, typer.Option(help="Part of who it was.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this action, such as resubmit.")] = None,
    since: Annotated[str | None, typer.Option(help="Within, as 24h, or since a date.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 50,
    before: Annotated[int | None, typer.Option(min=1, help="Only numbers below this, for the next page.")] = None,
    as_json: Json = False,
) -> None:
    """List decisions, newest first: persistq audit list --since 24h."""
    seen = window(context)
    found = seen.queue().audit(
        limit=limit, before=before, actor=actor, action=action, since=spans.moment(since) if since else None
    )
    if as_json or seen.format == "json":
        output.show_json([entry.to_dict() for entry in found])
        return
    seen.show([_row(entry) for entry in found], COLUMNS)


@app.command("show")
def show(context: typer.Context, number: Number, as_json: Json = False) -> None:
    """Show one decision with everything that was written down: persistq audit show 17."""
    seen = window(context)
    found = seen.queue().audit(limit=1, before=number + 1)
    if not found or found[0].id != number:
        fail(f"the audit log has no entry {number}", EXIT_NOT_FOUND)
    if as_json or seen.format == "json":
        output.show_json(found[0].to_dict())
        return
    for name, value in _row(found[0]).items():
        if value is not None:
            print(f"{name:12} {safe_text(value)}")


@app.command("resume")
def resume(context: typer.Context, number: Number, yes: Yes = False, as_json: Json = False) -> None:
    """Finish a bulk action that was cut off, within the bounds of its own preview: persistq audit resume 17."""
    seen = window(context)
    carry_out(seen, seen.queue(writes=True).preview_rest(number), yes=yes, as_json=as_json)


def _row(entry: AuditEntry) -> dict[str, Any]:
    row = entry.to_dict()
    counts = row.pop("counts")
    return {**row, **{name: counts.get(name) for name in ("matched", "changed", "refused")}}
