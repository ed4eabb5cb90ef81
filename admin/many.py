"""One action on many jobs: what is meant, how many, yes or no, then chunk by chunk with a result for each."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Annotated, Any, Protocol, TypeVar

import typer

import persistq
from persistq.actions import Preview, Progress
from persistq.text import shorten

from . import output
from .progress import bar
from .window import EXIT_PARTLY, EXIT_WRONG_STATE, Window, exit_code, fail, say, window

T = TypeVar("T")

COLUMNS = ("id", "status", "queue", "task", "attempts", "priority", "consumer_id", "created_at", "item", "error")
RESULT = ("operation", "action", "matched", "changed", "refused")

All = Annotated[bool, typer.Option("--all", help="Every job that the filters match, instead of ids.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say how many, and show some.")]
Expect = Annotated[
    int | None, typer.Option(min=0, metavar="N", help="With --all: refuse unless exactly so many match.")
]


def act(
    context: typer.Context,
    verb: str,
    ids: Sequence[int] | None,
    one: Callable[["persistq.PersistentQSQLAlchemy", int], persistq.Job],
    *,
    which: persistq.JobFilter,
    everything: bool,
    yes: bool,
    dry_run: bool,
    expect: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Carry out a command that takes ids, or ``--all`` with filters."""
    seen = window(context)
    narrowed = which != persistq.JobFilter()
    if bool(ids) == everything or (ids and (narrowed or expect is not None)):
        raise typer.BadParameter("give ids; or --all, with filters such as --status and --error")
    if not dry_run:
        seen.refuse_writing()
    if everything or dry_run:
        q = seen.queue(writes=not dry_run)
        what = q.preview(verb, None if ids else which, ids=ids or None, **options)
        carry_out(seen, what, yes=yes or bool(ids), dry_run=dry_run, expect=expect, as_json=as_json)
    else:
        q = seen.queue(writes=True)
        each(seen, ids or (), lambda job_id: one(q, job_id), as_json=as_json)


class Shown(Protocol):
    """What can be shown as a row."""

    def to_dict(self) -> dict[str, Any]:
        """Return its fields as JSON values."""
        ...


def each(
    seen: Window, which: Iterable[T], do: Callable[[T], Shown], *, as_json: bool, columns: Sequence[str] = COLUMNS
) -> None:
    """Act on each one, report each refusal, and leave with a code that sums it up."""
    done: list[Shown] = []
    codes: set[int] = set()
    for one in which:
        try:
            done.append(do(one))
        except (persistq.JobNotFound, persistq.IllegalTransition) as error:
            say(f"persistq: {error}")
            codes.add(exit_code(error))
    seen.show([row.to_dict() for row in done], columns, as_json=as_json)
    if codes:
        raise typer.Exit(EXIT_PARTLY if done or len(codes) > 1 else codes.pop())


def carry_out(
    seen: Window, what: Preview, *, yes: bool, dry_run: bool = False, expect: int | None = None, as_json: bool = False
) -> None:
    """Show what was previewed, ask, do it with progress, and leave with a code that sums it up."""
    verb = what.action.verb.replace("_", "-")
    for job_id in what.missing:
        say(f"persistq: there is no job {job_id}")
    if dry_run:
        _describe(what)
        if as_json or seen.format == "json":
            samples = [job.to_dict() for job in what.samples]
            output.show_json({"action": verb, "matched": what.count, "by_queue": what.by_queue, "samples": samples})
        else:
            print(what.count)
        return
    if expect is not None and what.count != expect:
        fail(f"{what.count:,} jobs match now, where {expect:,} were expected; look again", EXIT_WRONG_STATE)
    if what.count:
        _describe(what)
        seen.confirm(f"{verb} {what.count:,} jobs in {seen.queue().dbname}?", yes=yes)
    elif what.so_far is None and not what.missing:
        say(f"persistq: no job matches; {verb} is for {' and '.join(sorted(what.action.sources))} jobs")
    result = run(seen, what, verb)
    row = {"operation": result.operation, "action": verb, "matched": what.count}
    row |= {"changed": result.changed, "refused": result.refused}
    if as_json or seen.format == "json":
        output.show_json(row)
    else:
        seen.show([row], RESULT)
    leave(what, result)


def leave(what: Preview, result: Progress) -> None:
    """Return if all that was asked for was done; else leave with the code that says so."""
    if result.refused or what.missing:
        raise typer.Exit(EXIT_PARTLY if result.changed else EXIT_WRONG_STATE)


def _describe(what: Preview) -> None:
    queues = ", ".join(f"{number:,} in {queue}" for queue, number in list(what.by_queue.items())[:8])
    say(f"persistq: {what.count:,} jobs match" + (f": {queues}" if queues else ""))
    for job in what.samples:
        say(f"  job {job.id} {job.status} {output.item_of(job)} {shorten(job.error or '', 60)}".rstrip())
    if what.count > len(what.samples):
        say(f"  and {what.count - len(what.samples):,} more")


def run(seen: Window, what: Preview, verb: str) -> Progress:
    """Do it with progress and a line for each refusal, and return what came of it; if cut off, say how to go on."""
    from persistq import bulk

    progress = what.so_far or Progress(operation=0)
    try:
        with bar(what.count, verb) as show:
            for progress in bulk.carry_out(seen.queue(), what):
                for refused in progress.refusals:
                    say(f"persistq: {refused.why}")
                show(progress.place)
    except (persistq.PersistQError, KeyboardInterrupt):
        if progress.operation:
            say(
                f"persistq: cut off after {progress.changed:,} changes; persistq audit resume {progress.operation} "
                "does the rest"
            )
        raise
    return replace(progress, refusals=())
