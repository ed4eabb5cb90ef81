"""Commands on queues: list, show, pause, resume, drain."""

import time
from typing import Annotated

import typer

import persistq

from . import complete, spans
from .jobs import Reason
from .progress import bar
from .watching import Watch, again
from .window import EXIT_FAILED, EXIT_NOT_FOUND, Json, fail, say, window

app = typer.Typer(no_args_is_help=True, help="Look at queues, pause and drain them.", rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue.", autocompletion=complete.queues)]
COLUMNS = ("name", "paused", *persistq.JobStatus, "waiting_since")
_LOOK_SECONDS = 0.2


@app.command("list")
def list_queues(context: typer.Context, watch: Watch = None, as_json: Json = False) -> None:
    """List every queue that ever held a job or was paused: persistq queues list."""
    seen = window(context)
    q = seen.queue()
    again(lambda: seen.show([_row(info) for info in q.queues()], COLUMNS, as_json=as_json), watch)


@app.command("show")
def show(context: typer.Context, queue: Name, as_json: Json = False) -> None:
    """Show one queue: persistq queues show mail."""
    seen = window(context)
    found = [info for info in seen.queue().queues() if info.name == queue]
    if not found:
        fail(f"there is no queue {queue}; 'persistq queues list' shows them", EXIT_NOT_FOUND)
    seen.show([_row(found[0])], COLUMNS, as_json=as_json)


@app.command("pause")
def pause(context: typer.Context, queue: Name, reason: Reason = None) -> None:
    """Let nobody claim from a queue; what runs goes on: persistq queues pause mail --reason deploying."""
    window(context).queue(writes=True).pause(queue, reason)
    say(f"persistq: queue {queue} is paused; persistq queues resume {queue} ends that")


@app.command("resume")
def resume(context: typer.Context, queue: Name, reason: Reason = None) -> None:
    """End a pause: persistq queues resume mail."""
    window(context).queue(writes=True).resume(queue, reason)
    say(f"persistq: queue {queue} is open")


@app.command("drain")
def drain(
    context: typer.Context,
    queue: Name,
    timeout: Annotated[str, typer.Option(help="Wait so long at most, as 5m.")] = "1h",
    reason: Reason = None,
) -> None:
    """Pause a queue and wait until nothing of it runs: persistq queues drain mail --timeout 5m."""
    q = window(context).queue(writes=True)
    end = q.clock.monotonic() + spans.seconds(timeout)
    q.pause(queue, reason)
    running = at_first = q.counts(queue)["processing"]
    with bar(at_first, "drain") as show_progress:
        while running and q.clock.monotonic() < end:
            show_progress(max(0, at_first - running))
            time.sleep(_LOOK_SECONDS)
            running = q.counts(queue)["processing"]
    if running:
        fail(f"{running:,} jobs of queue {queue} still run; it stays paused", EXIT_FAILED)
    say(f"persistq: nothing of queue {queue} runs, and it stays paused; persistq queues resume {queue} ends that")


def _row(info: persistq.QueueInfo) -> dict[str, object]:
    row = info.to_dict()
    return {**row, **row.pop("counts")}
