"""Commands on shards: list, show, release."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from persistq import beyond
from persistq.text import safe_text

from .window import EXIT_NOT_FOUND, Json, Yes, fail, window

if TYPE_CHECKING:
    from persistq.sharded.serve import Drivers

COLUMNS = ("tube", "state", "ready", "later", "owner", "tries", "waiting_at", "bound_at", "lease_until")

app = typer.Typer(no_args_is_help=True, help="Look at sharded requests.", rich_markup_mode=None)

Which = Annotated[str, typer.Argument(metavar="TUBE", help="handler/thread, as list shows it.")]


@app.command("list")
def list_shards(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 1000,
    as_json: Json = False,
) -> None:
    """List the tubes, what waits in them and who holds them: persistq shards list."""
    seen = window(context)
    seen.show([shard.to_dict() for shard in beyond.shards(seen.queue(), limit)], COLUMNS, as_json=as_json)


@app.command("show")
def show(
    context: typer.Context,
    which: Which,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 100,
    as_json: Json = False,
) -> None:
    """Print the first requests of a tube, in the order in which they will be performed: persistq shards show Mail/7."""
    seen = window(context)
    rows = beyond.by_drivers(seen.queue(), lambda drivers: _requests(drivers, which, limit))
    seen.show(rows, ("id", "place", "request"), as_json=as_json)


@app.command("release")
def release(context: typer.Context, which: Which, yes: Yes = False) -> None:
    """Take a tube from its holder, or end its rest, so that another worker may have it: persistq shards release Mail/7.

    What the holder has begun may be performed again; what it removes from then on is refused.
    """
    seen = window(context)
    q = seen.queue(writes=True)
    seen.confirm(f"Take {which} from whoever holds it?", yes=yes)
    if not beyond.release_tube(q, which):
        fail(f"nobody holds {which}, and it does not rest", EXIT_NOT_FOUND)
    print(safe_text(which))


async def _requests(drivers: "Drivers", tube: str, limit: int) -> list[dict[str, Any]]:
    from persistq.sharded.requests import readable

    found = await drivers.storage.peek(tube, limit)
    return [{"id": one.id, "place": one.place, "request": readable(one.payload)} for one in found]
