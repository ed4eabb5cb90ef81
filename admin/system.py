"""Commands on the installation: stats, doctor, config, db."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

import persistq
from persistq.operations import MOST_FAILURES
from persistq.text import safe_text

from . import complete, output, spans
from .filters import filtered
from .watching import Watch, again
from .window import EXIT_FAILED, Json, Window, say, window

config = typer.Typer(no_args_is_help=True, help="Look at the settings.", rich_markup_mode=None)
db = typer.Typer(no_args_is_help=True, help="Make, update or check the database.", rich_markup_mode=None)


def stats(
    context: typer.Context,
    queue: Annotated[str | None, typer.Option(help="Only this queue.", autocompletion=complete.queues)] = None,
    within: Annotated[str, typer.Option("--within", "--since", help="Attempts that ended within, as 24h.")] = "1h",
    watch: Watch = None,
    as_json: Json = False,
) -> None:
    """Count jobs by status, and tell how fast they go, by queue and task: persistq stats --within 24h.

    wait is from being due to the start, run from the start to the end of an attempt, in seconds.
    """
    seen, span = window(context), spans.seconds(within)
    q = seen.queue()
    again(lambda: _stats(seen, q, queue, span, as_json=as_json), watch)


def _stats(seen: Window, q: "persistq.PersistentQSQLAlchemy", queue: str | None, span: float, *, as_json: bool) -> None:
    queues = [info.to_dict() for info in q.queues() if queue in (None, info.name)]
    timings = [timing.to_dict() for timing in q.timings(span) if queue in (None, timing.queue)]
    if as_json or seen.format == "json":
        output.show_json({"counts": q.counts(queue), "queues": queues, "timings": timings})
        return
    total = {"name": "all", "paused": None, "counts": q.counts(queue), "waiting_since": None}
    rows = [
        {"queue": row["name"], **row["counts"], "paused": row["paused"]} for row in ([] if queue else [total]) + queues
    ]
    seen.show(rows, ("queue", *q.counts(), "paused"))
    if timings:
        print()
        speeds = [_speed(timing) for timing in timings]
        output.show(speeds, tuple(speeds[0]), seen.format)


def _speed(timing: dict[str, Any]) -> dict[str, Any]:
    row = {name: timing[name] for name in ("queue", "task", "done", "failed")}
    row["per_minute"] = round(60 * timing["per_second"], 1)
    return row | {
        f"{kind}_{share}": float(f"{timing[kind].get(share, 0):.3g}")
        for kind in ("wait", "run")
        for share in ("p50", "p95", "p99")
    }


@filtered
def errors(
    context: typer.Context,
    which: persistq.JobFilter,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many groups.")] = 50,
    as_json: Json = False,
) -> None:
    """Group failed jobs by error, queue and task, the most frequent first: persistq errors --since 24h."""
    seen = window(context)
    groups, more = seen.queue().errors(which)
    columns = ("count", "error", "message", "queue", "task", "newest_id", "newest_at")
    seen.show([group.to_dict() for group in groups[:limit]], columns, as_json=as_json)
    if more:
        say(f"persistq: only the newest {MOST_FAILURES:,} failures were looked at; filters narrow them")


def run_doctor(context: typer.Context, as_json: Json = False) -> None:
    """Check everything that decides whether jobs are safe and move: persistq doctor."""
    from persistq import doctor

    seen = window(context)
    checks = doctor.examine(seen.queue())
    sound = all(check.ok for check in checks)
    if as_json or seen.format == "json":
        output.show_json({"ok": sound, "checks": [check._asdict() for check in checks]})
    else:
        for check in checks:
            print(f"{'ok  ' if check.ok else 'BAD '} {check.name:12} {check.detail}")
            if not check.ok:
                print(f"     {'':12} -> {check.fix}")
    if not sound:
        raise typer.Exit(EXIT_FAILED)


@config.command("show")
def config_show(context: typer.Context, as_json: Json = False) -> None:
    """Show every variable, its value and where it comes from: persistq config show."""
    seen = window(context)
    rows = [setting._asdict() for setting in persistq.Settings.load().sources()]
    seen.show(rows, ("name", "value", "source"), as_json=as_json)


@db.command("upgrade")
def db_upgrade(context: typer.Context, as_json: Json = False) -> None:
    """Make the schema, or bring it to this version, and print its revision: persistq db upgrade."""
    seen = window(context)
    revision = seen.queue(writes=True).database.upgrade()
    if as_json or seen.format == "json":
        output.show_json({"revision": revision})
    else:
        print(revision)


@db.command("init")
def db_init(context: typer.Context, as_json: Json = False) -> None:
    """Make the schema: the same as db upgrade: persistq db init."""
    db_upgrade(context, as_json)


@db.command("history")
def db_history(context: typer.Context, as_json: Json = False) -> None:
    """List the schema's revisions and which of them the database has: persistq db history."""
    seen = window(context)
    rows = [asdict(revision) for revision in seen.queue().database.history()]
    seen.show(rows, ("revision", "description", "applied"), as_json=as_json)


@db.command("check")
def db_check(
    context: typer.Context,
    fix: Annotated[bool, typer.Option("--fix", help="Set wrong counts right.")] = False,
    as_json: Json = False,
) -> None:
    """Check the schema, the file and the counts: persistq db check."""
    seen = window(context)
    q = seen.queue(writes=fix)
    if fix:
        q.mend_tallies()
    found = q.database.check()
    found += [f"the count of {status} in {queue} is off by {by}" for (queue, status), by in q.tally_drift().items()]
    if as_json or seen.format == "json":
        output.show_json({"ok": not found, "revision": q.database.revision(), "found": found})
    else:
        for line in found or [f"ok: revision {q.database.revision()}"]:
            print(safe_text(line))
    if found:
        raise typer.Exit(EXIT_FAILED)
