"""Commands on consumers: list, show, quiet, resume, stop, prune."""

from typing import Annotated, Any

import typer

import persistq
from persistq.clock import SystemClock

from . import complete, output, spans
from .jobs import Reason
from .many import COLUMNS as JOB_COLUMNS
from .watching import Watch, again
from .window import EXIT_NOT_FOUND, Json, Yes, fail, say, window

app = typer.Typer(no_args_is_help=True, help="Look at consumers, quiet and stop them.", rich_markup_mode=None)

Name = Annotated[
    str, typer.Argument(metavar="CONSUMER", help="A consumer's name or id.", autocompletion=complete.consumers)
]
COLUMNS = ("name", "state", "running", "concurrency", "queues", "host", "pid", "seen_at", "id")


@app.command("list")
def list_consumers(context: typer.Context, watch: Watch = None, as_json: Json = False) -> None:
    """List the consumers with what they last said: persistq consumers list."""
    seen = window(context)
    q = seen.queue()
    again(lambda: seen.show([_row(info) for info in q.consumers()], COLUMNS, as_json=as_json), watch)


@app.command("show")
def show(
    context: typer.Context,
    consumer: Name,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many jobs of each.")] = 100,
    as_json: Json = False,
) -> None:
    """Show consumers of a name or id, each with the jobs that it holds: persistq consumers show consumer_00."""
    seen = window(context)
    q = seen.queue()
    rows = [_row(info) for info in q.consumers() if consumer in (info.id, info.name)]
    if not rows:
        fail(f"there is no consumer {consumer}; 'persistq consumers list' shows them", EXIT_NOT_FOUND)
    found = {row["id"]: q.search(persistq.JobFilter.of("processing", consumer=row["id"]), limit=limit) for row in rows}
    held = {consumer_id: [job.to_dict() for job in page.jobs] for consumer_id, page in found.items()}
    if any(page.edge is not None for page in found.values()):
        say("More jobs are held; a larger --limit shows them")
    if as_json or seen.format == "json":
        output.show_json([{**row, "jobs": held[row["id"]]} for row in rows])
        return
    seen.show(rows, COLUMNS)
    for row in rows:
        if held[row["id"]]:
            output.show(held[row["id"]], JOB_COLUMNS, seen.format)


@app.command("quiet")
def quiet(context: typer.Context, consumer: Name, reason: Reason = None) -> None:
    """Let consumers finish what they have and claim no more: persistq consumers quiet consumer_00."""
    _tell(context, consumer, "quiet", reason)


@app.command("resume")
def resume(context: typer.Context, consumer: Name, reason: Reason = None) -> None:
    """Let consumers claim again: persistq consumers resume consumer_00."""
    _tell(context, consumer, None, reason)


@app.command("stop")
def stop(context: typer.Context, consumer: Name, reason: Reason = None) -> None:
    """Let consumers finish and end; a supervisor starts them anew: persistq consumers stop consumer_00."""
    _tell(context, consumer, "stop", reason)


@app.command("prune")
def prune(
    context: typer.Context,
    older_than: Annotated[str, typer.Option(help="Not seen for so long, as 10m.")] = "1h",
    yes: Yes = False,
) -> None:
    """Take the lost ones off the list, and print how many: persistq consumers prune --older-than 10m."""
    seen, age = window(context), spans.seconds(older_than)
    q = seen.queue(writes=True)
    seen.confirm(f"Forget the consumers that have not been seen for {older_than}?", yes=yes)
    print(q.prune_consumers(age))


def _tell(context: typer.Context, consumer: str, wish: str | None, reason: str | None) -> None:
    for told in window(context).queue(writes=True).tell_consumer(consumer, wish, reason):
        print(told)
    say("persistq: they read it with their next sign of life, within seconds")


def _row(info: persistq.ConsumerInfo) -> dict[str, Any]:
    state = "lost" if not info.is_alive(SystemClock().now()) else info.wish or "alive"
    return {**info.to_dict(), "state": state, "queues": ",".join(info.queues) or "all"}
