"""Commands on jobs: list, show, explain, enqueue, and what an operator does to one or to many."""

import sys
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from typing import Annotated, Any

import typer

import persistq
from persistq.codec import LARGEST_ID
from persistq.text import safe_text, shorten

from . import complete, many, output, spans
from .filters import filtered
from .many import COLUMNS, All, DryRun, Expect
from .watching import Watch, again
from .window import Json, Yes, say, window

Id = Annotated[int, typer.Argument(metavar="ID", help="A job's id.", autocompletion=complete.jobs)]
Ids = Annotated[list[int] | None, typer.Argument(metavar="ID", help="Job ids.", autocompletion=complete.jobs)]
Reason = Annotated[str | None, typer.Option(help="Why; kept in the job's history and in the audit log.")]


@filtered
def list_jobs(
    context: typer.Context,
    which: persistq.JobFilter,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=100_000, help="At most so many.")] = 100,
    after: Annotated[
        int,
        typer.Option(
            metavar="ID", min=0, max=LARGEST_ID, show_default=False, help="Only ids past this, the next page."
        ),
    ] = 0,
    newest: Annotated[bool, typer.Option("--newest", help="The newest jobs, newest first.")] = False,
    before: Annotated[
        int | None,
        typer.Option(metavar="ID", min=0, max=LARGEST_ID, help="Only ids below this, the next page with --newest."),
    ] = None,
    search_for: Annotated[
        str, typer.Option(metavar="SPAN", help="What no index finds: look further for so long, as 30s.")
    ] = "0",
    watch: Watch = None,
    as_json: Json = False,
) -> None:
    """List jobs by id: persistq list-jobs --status failed --since 24h.

    An index finds jobs by status. By anything else 50,000 jobs of the status are looked through, or more with
    --search-for; if some are left, the last line says where to go on.
    """
    seen, lasting = window(context), spans.seconds(search_for)
    q = seen.queue()
    option = "--newest --before" if newest else "--after"

    def look() -> None:
        found = q.search(which, limit=limit, after=after, newest=newest, before=before, lasting=lasting)
        seen.show([job.to_dict() for job in found.jobs], COLUMNS, as_json=as_json)
        if found.more:
            say(f"More jobs match; the next page: {option} {found.edge}")
        elif found.edge is not None:
            say(f"Looked no further than job {found.edge}; to go on: {option} {found.edge}, or --search-for 1m")

    again(look, watch)


def show_job(context: typer.Context, job_id: Id, as_json: Json = False) -> None:
    """Show one job with its history: persistq show-job 42."""
    seen = window(context)
    q = seen.queue()
    job, events = q.get_job(job_id), [event.to_dict() for event in q.events(job_id)]
    if as_json or seen.format == "json":
        output.show_json({**job.to_dict(), "events": events})
        return
    for name, value in output.veiled(job.to_dict()).items():
        if value is not None:
            print(f"{name:13} {safe_text(value)}")
    for event in events:
        print(
            f"\n{event['at']}  {safe_text(event['kind'])}  by {safe_text(event['actor'])}  attempt {event['attempt']}"
        )
        for name, value in output.veiled(event["detail"]).items():
            for line in str(value).splitlines():
                print(f"    {safe_text(name)}: {safe_text(line)}" if name != "traceback" else f"    {safe_text(line)}")


def explain(context: typer.Context, job_id: Id, as_json: Json = False) -> None:
    """Say why a job does not run, and what to do: persistq explain 42."""
    seen = window(context)
    found = seen.queue().explain(job_id)
    if as_json or seen.format == "json":
        output.show_json(found.to_dict())
        return
    for line in found.lines():
        print(safe_text(line))


def enqueue(
    context: typer.Context,
    item: Annotated[str, typer.Argument(metavar="ITEM|-", help="The item; - reads one from each line of stdin.")],
    queue: Annotated[str, typer.Option(help="The queue.", autocompletion=complete.queues)] = "default",
    task: Annotated[
        str | None,
        typer.Option(help="Task that performs it; the item is its arguments as JSON.", autocompletion=complete.tasks),
    ] = None,
    priority: Annotated[int, typer.Option(help="Higher comes first.")] = 0,
    delay: Annotated[str | None, typer.Option(help="Not before, as 30s.")] = None,
    max_attempts: Annotated[int | None, typer.Option(min=1, help="Deliveries before it waits for a person.")] = None,
    timeout: Annotated[str | None, typer.Option(help="One attempt may take, as 5m.")] = None,
    key: Annotated[str | None, typer.Option(help="Unique key; a repeat prints the first job's id.")] = None,
) -> None:
    """Add a job, or one for each line of stdin, and print the ids: persistq enqueue /data/a.csv --queue mail."""
    q = window(context).queue(writes=True)
    options: dict[str, Any] = {
        "queue": queue, "task": task, "priority": priority, "max_attempts": max_attempts, "unique_key": key,
        "delay": timedelta(seconds=spans.seconds(delay)) if delay else None,
        "timeout": timedelta(seconds=spans.seconds(timeout)) if timeout else None,
    }  # fmt: skip
    if item != "-":
        print(q.enqueue(item, **options))
        return
    if key is not None:
        raise typer.BadParameter("one key cannot be that of many jobs", param_hint="--key")
    lines = _lines()
    while chunk := list(islice(lines, 1000)):
        for job_id in q.enqueue_many(chunk, **options):
            print(job_id)


@filtered
def cancel(
    context: typer.Context,
    which: persistq.JobFilter,
    ids: Ids = None,
    everything: All = False,
    reason: Reason = None,
    dry_run: DryRun = False,
    expect: Expect = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Call pending or running jobs off: persistq cancel 41 42; persistq cancel --all --queue mail."""
    many.act(
        context, "cancel", ids, lambda q, job_id: q.cancel(job_id, reason), which=which, everything=everything,
        yes=yes, dry_run=dry_run, expect=expect, as_json=as_json, reason=reason,
    )  # fmt: skip


@filtered
def resubmit(
    context: typer.Context,
    which: persistq.JobFilter,
    ids: Ids = None,
    everything: All = False,
    force: Annotated[bool, typer.Option("--force", help="Also jobs that are done.")] = False,
    reason: Reason = None,
    dry_run: DryRun = False,
    expect: Expect = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Give failed or cancelled jobs a new budget of attempts: persistq resubmit 42.

    With --all it means failed jobs, unless --status says otherwise: resubmit --all --error TimeoutError.
    """
    many.act(
        context, "resubmit", ids, lambda q, job_id: q.resubmit(job_id, force=force, reason=reason), which=which,
        everything=everything, yes=yes, dry_run=dry_run, expect=expect, as_json=as_json, reason=reason, force=force,
    )  # fmt: skip


@filtered
def mark_failed(
    context: typer.Context,
    which: persistq.JobFilter,
    ids: Ids = None,
    everything: All = False,
    reason: Reason = None,
    dry_run: DryRun = False,
    expect: Expect = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Give pending or running jobs up: persistq mark-failed 42 --reason 'bad address'."""
    many.act(
        context, "mark_failed", ids, lambda q, job_id: q.mark_failed(job_id, reason), which=which,
        everything=everything, yes=yes, dry_run=dry_run, expect=expect, as_json=as_json, reason=reason,
    )  # fmt: skip


@filtered
def release(
    context: typer.Context,
    which: persistq.JobFilter,
    ids: Ids = None,
    everything: All = False,
    reason: Reason = None,
    dry_run: DryRun = False,
    expect: Expect = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Take running jobs back from their consumers, which are refused from then on: persistq release 42."""
    many.act(
        context, "release", ids, lambda q, job_id: q.release_job(job_id, reason), which=which,
        everything=everything, yes=yes, dry_run=dry_run, expect=expect, as_json=as_json, reason=reason,
    )  # fmt: skip


@filtered
def edit_job(
    context: typer.Context,
    which: persistq.JobFilter,
    ids: Ids = None,
    everything: All = False,
    priority: Annotated[int | None, typer.Option(help="Higher comes first.")] = None,
    run_at: Annotated[str | None, typer.Option(metavar="WHEN", help="now, a span ahead as 2h, or a date.")] = None,
    reason: Reason = None,
    dry_run: DryRun = False,
    expect: Expect = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Change when waiting jobs run, and in which order: persistq edit-job 42 --priority 5 --run-at now."""
    changes: dict[str, Any] = {"priority": priority, "run_at": spans.ahead(run_at) if run_at else None}
    if priority is None and run_at is None:
        raise typer.BadParameter("give --priority or --run-at")
    many.act(
        context, "edit", ids, lambda q, job_id: q.edit_job(job_id, **changes, reason=reason), which=which,
        everything=everything, yes=yes, dry_run=dry_run, expect=expect, as_json=as_json, reason=reason, **changes,
    )  # fmt: skip


@filtered
def delete_job(
    context: typer.Context,
    which: persistq.JobFilter,
    ids: Ids = None,
    everything: All = False,
    force: Annotated[bool, typer.Option("--force", help="Running jobs too; their consumers lose them.")] = False,
    reason: Reason = None,
    dry_run: DryRun = False,
    expect: Expect = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Delete jobs with their history, and print what they were: persistq delete-job 42 --yes."""
    if ids and not dry_run:
        seen = window(context)
        seen.refuse_writing()
        seen.confirm(f"Delete {len(ids)} jobs with their history?", yes=yes)
    many.act(
        context, "delete", ids, lambda q, job_id: q.delete_job(job_id, force=force, reason=reason), which=which,
        everything=everything, yes=yes, dry_run=dry_run, expect=expect, as_json=as_json, reason=reason, force=force,
    )  # fmt: skip


@filtered
def assign_job(
    context: typer.Context,
    which: persistq.JobFilter,
    job_id: Annotated[
        int | None, typer.Argument(metavar="[ID]", help="A job's id.", autocompletion=complete.jobs)
    ] = None,
    consumer_name: Annotated[
        str | None,
        typer.Argument(metavar="[CONSUMER]", help="A consumer's name or id.", autocompletion=complete.consumers),
    ] = None,
    everything: All = False,
    to: Annotated[
        str | None, typer.Option("--to", help="With --all: the consumer.", autocompletion=complete.consumers)
    ] = None,
    reason: Reason = None,
    dry_run: DryRun = False,
    expect: Expect = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Reserve a job for one consumer: persistq assign-job 42 consumer_00.

    Or many: assign-job --all --queue mail --to consumer_00.
    """
    wanted = to if everything else consumer_name
    if wanted is None or (everything and job_id is not None) or (to is not None and not everything):
        raise typer.BadParameter("give ID and CONSUMER; or --all with --to CONSUMER")
    many.act(
        context, "assign", None if job_id is None else [job_id],
        lambda q, one: q.assign_job(one, wanted, reason), which=which, everything=everything,
        yes=yes, dry_run=dry_run, expect=expect, as_json=as_json, reason=reason, consumer=wanted,
    )  # fmt: skip
    if not any(wanted in (info.id, info.name) for info in window(context).queue().consumers()):
        say(f"persistq: no consumer {shorten(wanted, 80)} is on the list now; the job waits until it comes")


def _lines() -> Iterator[str]:
    for number, raw in enumerate(sys.stdin.buffer, 1):
        try:
            line = raw.rstrip(b"\r\n").decode()
        except UnicodeDecodeError:
            raise persistq.PayloadError(
                f"line {number} of stdin is not UTF-8; the lines before it may be enqueued"
            ) from None
        if line:
            yield line
