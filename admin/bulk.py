"""Commands that delete many: purge, delete-db-jobs, delete-job-files."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import persistq
from persistq import bulk, cleanup
from persistq.actions import Preview

from . import many, spans
from .filters import filtered
from .window import Json, Window, Yes, say, window


def purge(
    context: typer.Context,
    older_than: Annotated[str, typer.Option(help="Only jobs that ended longer ago, as 24h or 7d.")],
    status: Annotated[str, typer.Option("--status", "--state", help="The status they ended with.")] = "done",
    yes: Yes = False,
) -> None:
    """Delete old jobs that are over: persistq purge --older-than 7d."""
    seen, age = window(context), spans.seconds(older_than)
    ended = persistq.JobStatus.parse(status)
    what = bulk.preview_purge(seen.queue(writes=True), age, ended)
    _delete(seen, what, f"Delete {what.count:,} {ended} jobs that ended more than {older_than} ago?", yes=yes)


@filtered
def delete_db_jobs(
    context: typer.Context,
    which: persistq.JobFilter,
    force: Annotated[bool, typer.Option("--force", help="Running jobs too; their consumers lose them.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many.")] = False,
    yes: Yes = False,
) -> None:
    """Delete all job records, or those that filters match, but not of running jobs: persistq delete-db-jobs --dry-run.

    Files stay.
    """
    seen = window(context)
    q = seen.queue(writes=not dry_run)
    what = q.preview("delete", which, force=force)
    if dry_run:
        print(what.count)
        return
    running = 0 if force or which != persistq.JobFilter() else q.counts()["processing"]
    _delete(seen, what, f"Delete {what.count:,} job records from {q.dbname}?", yes=yes)
    if running:
        say(f"persistq: {running} running jobs were left; --force deletes them too")


def _delete(seen: Window, what: Preview, question: str, *, yes: bool) -> None:
    seen.confirm(question, yes=yes)
    result = many.run(seen, what, "delete")
    print(result.changed)
    many.leave(what, result)


def delete_job_files(
    context: typer.Context,
    directory: Annotated[Path, typer.Option(help="Only files below this folder.", exists=True, file_okay=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which.")] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Delete the files of jobs that are over: persistq delete-job-files --directory . --dry-run.

    Only files in QUEUE_JOB_DIR that a done, failed or cancelled job names.
    """
    seen = window(context)
    q = seen.queue(writes=not dry_run)
    if not dry_run:
        seen.confirm(f"Delete the files below {directory} whose jobs are over?", yes=yes)
    reports = [asdict(report) for report in cleanup.job_files(q, directory, dry_run=dry_run)]
    seen.show(reports, ("id", "item", "outcome"), as_json=as_json)
    if not dry_run:
        say(f"persistq: {sum(report['deleted'] for report in reports)} files were deleted")
