"""What a person does to jobs: resubmit, cancel, give up, assign, release, edit, delete; one or many at a time."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, case, or_, select, update

from ..actions import Action, Preview, Progress, Refused
from ..errors import IllegalTransition
from ..model import CRASHED, Job, JobFilter, JobStatus
from ..retry import Backoff
from . import audit, history, search
from .exchange import crash, give_back
from .jobs import CHUNK, conditions, delete_ids, get, job_of, last_id, refusal, transition
from .now import Now
from .schema import jobs, micros, status_is

_FRESH = {
    "attempts": 0,
    "delayed": 0,
    "suspect": 0,
    "consumer_id": None,
    "assigned_to": None,
    "lease_until": None,
    "started_at": None,
    "finished_at": None,
    "error": None,
    "result": None,
}
_A_MOMENT = 0.001
_INSTANT = timedelta(microseconds=1)
_PAGE = 10_000
_SAMPLES = 5
_TOLD = 20
"""Refusals that the audit log keeps of one step; of the others their number."""


def act(connection: Connection, now: Now, actor: str, ids: Sequence[int], action: Action) -> list[int]:
    """Do it to those of the jobs whose status allows it; return their ids."""
    wanted = jobs.c.id.in_(ids)
    match action.verb:
        case "release":
            return [row.id for row in give_back(connection, now, actor, (wanted,), held=False)]
        case "edit":
            return _edit(connection, now, actor, ids, action)
        case "delete":
            deletable = () if action.force else (jobs.c.status != JobStatus.PROCESSING.value,)
            return delete_ids(connection, ids, *deletable)
    assert action.event is not None, f"{action.verb} is no move of the table"  # noqa: S101
    kind, detail, changes = _move(now, action)
    moved = transition(connection, action.event, wanted, held=False, **changes)
    history.record(connection, now, kind, actor, [(row.id, row.attempts, detail) for row in moved])
    history.trim(connection, moved)
    return [row.id for row in moved]


def act_on(connection: Connection, now: Now, actor: str, job_id: int, action: Action) -> Job:
    """Do it to one job, and return the job as it is then: of a deleted one, as it was.

    Raises:
        JobNotFound, IllegalTransition
    """
    before = get(connection, job_id)
    if not act(connection, now, actor, [job_id], action):
        raise IllegalTransition(_why_not(connection, job_id, action))
    scope = {**action.to_dict(), "ids": [job_id]}
    audit.record(connection, now, actor, action.verb, scope, {"matched": 1, "changed": 1}, reason=action.reason)
    return before if action.verb == "delete" else get(connection, job_id)


def update_status(connection: Connection, now: Now, actor: str, job_id: int, *, word: str, backoff: Backoff) -> Job:
    """Make the move that a status word asks for.

    To complete a job or to count it as crashed is a report of work, which the audit log has no line for.
    """
    job = get(connection, job_id)
    if word.strip().lower() == CRASHED:
        return _moved(connection, "crash", job_id, crash(connection, now, actor, job, "reported as crashed", backoff))
    match JobStatus.parse(word):
        case JobStatus.PENDING if job.status in (JobStatus.FAILED, JobStatus.CANCELLED):
            return act_on(connection, now, actor, job_id, Action(verb="resubmit"))
        case JobStatus.PENDING:
            return act_on(connection, now, actor, job_id, Action(verb="release"))
        case JobStatus.DONE:
            ended: dict[str, Any] = {"finished_at": now.value, "lease_until": None, "error": None}
            moved = transition(connection, "complete", jobs.c.id == job_id, **ended)
            history.record(connection, now, "completed", actor, [(row.id, row.attempts, {}) for row in moved])
            history.trim(connection, moved)
            return _moved(connection, "complete", job_id, moved)
        case JobStatus.FAILED:
            return act_on(connection, now, actor, job_id, Action(verb="mark_failed"))
        case JobStatus.CANCELLED:
            return act_on(connection, now, actor, job_id, Action(verb="cancel"))
    raise IllegalTransition(f"job {job_id} is {job.status}; only a consumer's claim makes a job processing")


def end_leases(connection: Connection, now: Now, consumers: Sequence[str]) -> int:
    """Let the leases of consumers that are dead end now, for the next recovery to take back; return how many."""
    held = (status_is(JobStatus.PROCESSING), jobs.c.consumer_id.in_(consumers), jobs.c.lease_until >= now.value)
    return connection.execute(update(jobs).where(*held).values(lease_until=now.after(-_A_MOMENT))).rowcount


# Many at a time


def preview(
    connection: Connection,
    now: Now,
    action: Action,
    which: JobFilter | None,
    given: Sequence[int] | None,
    unchanged_since: datetime | None = None,
) -> Preview:
    """Return what an action would be done to: the jobs of a filter, or those of the ids that were given.

    Of a filter, those that began or ended at ``unchanged_since`` or later can be left out.
    """
    cutoff = last_id(connection)
    if given is not None:
        wanted = sorted(set(given))
        rows = [row for at in range(0, len(wanted), CHUNK) for row in _marks(connection, wanted[at : at + CHUNK])]
        found = {row.id for row in rows}
        missing = tuple(job_id for job_id in wanted if job_id not in found)
        return _preview(connection, action, None, cutoff, now, rows, missing=missing)
    meant = action.meant(which or JobFilter())
    # A preview is of a moment, which its rest goes by too; this one's lies in the past.
    then = None if unchanged_since is None else Now(unchanged_since - _INSTANT)
    rows = [] if meant is None else _matching(connection, meant, 0, cutoff, then)
    return _preview(connection, action, meant, cutoff, then or now, rows)


def rest(connection: Connection, operation: int) -> Preview:
    """Return what a bulk action that was cut off has left to do, within the bounds that it had.

    Raises:
        JobNotFound: the audit log has no bulk action of that number.
        IllegalTransition: it was finished.
    """
    head, counts = audit.head_and_last(connection, operation)
    if head.finished_at is not None:
        raise IllegalTransition(f"bulk action {operation} was finished at {head.finished_at:%Y-%m-%d %H:%M:%S} UTC")
    scope = head.scope
    if "at" not in scope:
        raise IllegalTransition(f"bulk action {operation} keeps no bounds to go on within; start it anew")
    now, cursor = Now(datetime.fromisoformat(scope["at"])), counts.get("cursor", 0)
    action = Action.from_dict(head.action, scope, head.reason)
    which = JobFilter.from_dict(scope["filter"]) if "filter" in scope else None
    if which is None:
        wanted = [job_id for job_id in scope["ids"] if job_id > cursor]
        rows = [row for at in range(0, len(wanted), CHUNK) for row in _marks(connection, wanted[at : at + CHUNK], now)]
    else:
        rows = _matching(connection, which, cursor, scope["cutoff"], now)
    so_far = Progress(
        operation=operation, changed=counts.get("changed", 0), refused=counts.get("refused", 0), cursor=cursor
    )
    return _preview(connection, action, which, scope["cutoff"], now, rows, so_far=so_far)


def begin(connection: Connection, now: Now, actor: str, what: Preview) -> int:
    """Write down that a bulk action begins, and return its number."""
    scope: dict[str, Any] = {**what.action.to_dict(), "cutoff": what.cutoff, "at": what.at.isoformat()}
    scope |= {"ids": list(what.ids)} if what.which is None else {"filter": what.which.to_dict()}
    return audit.record(
        connection, now, actor, what.action.verb, scope, {"matched": what.count}, reason=what.action.reason, begins=True
    )


def advance(connection: Connection, now: Now, actor: str, what: Preview, so_far: Progress, size: int) -> Progress:
    """Do it to the next ``size`` jobs; whatever changed since the preview is left as it is."""
    part = slice(so_far.place, so_far.place + size)
    ids, fences = what.ids[part], what.fences[part]
    locked = select(jobs.c.id, jobs.c.status, jobs.c.fence, jobs.c.finished_at).where(jobs.c.id.in_(ids))
    # In the order of their ids, as everybody locks them, so that two cannot deadlock.
    rows = {row.id: row for row in connection.execute(locked.order_by(jobs.c.id).with_for_update())}
    why = {job_id: _objection(what, job_id, fence, rows.get(job_id)) for job_id, fence in zip(ids, fences, strict=True)}
    changed = act(connection, now, actor, [job_id for job_id in ids if why[job_id] is None], what.action)
    done = set(changed)
    refusals = tuple(
        Refused(id=job_id, why=why[job_id] or f"job {job_id} changed meanwhile") for job_id in ids if job_id not in done
    )
    place = so_far.place + len(ids)
    progress = replace(
        so_far,
        place=place,
        changed=so_far.changed + len(changed),
        refused=so_far.refused + len(refusals),
        cursor=ids[-1] if ids else so_far.cursor,
        changed_ids=tuple(changed),
        refusals=refusals,
        over=place >= what.count,
    )
    counts: dict[str, Any] = {"changed": progress.changed, "refused": progress.refused, "cursor": progress.cursor}
    if refusals:
        counts["why"] = [one.why for one in refusals[:_TOLD]]
    audit.go_on(connection, now, actor, so_far.operation, what.action.verb, counts, over=progress.over)
    return progress


def _objection(what: Preview, job_id: int, fence: int, row: Any) -> str | None:
    """Return why a job is to be left as it is."""
    if row is None:
        return f"job {job_id} is gone"
    ended_since = row.finished_at is not None and row.finished_at > what.at
    if row.fence != fence or ended_since or (what.which and row.status not in what.which.status):
        return f"job {job_id} changed meanwhile: it is {row.status} now"
    status = JobStatus(row.status)
    return None if status in what.action.sources else what.action.refusal(job_id, status)


_MARK = (jobs.c.id, jobs.c.fence, jobs.c.queue, jobs.c.status)


def _marks(connection: Connection, ids: Sequence[int], unchanged_since: Now | None = None) -> Sequence[Any]:
    query = select(*_MARK).where(jobs.c.id.in_(ids), *_untouched(unchanged_since))
    return connection.execute(query.order_by(jobs.c.id)).all()


def _matching(
    connection: Connection, which: JobFilter, after: int, cutoff: int, unchanged_since: Now | None = None
) -> list[Any]:
    """Return all of them, however far apart they are, by statements of which each looks at so many jobs."""
    where = [*conditions(connection, which), *_untouched(unchanged_since)]
    found: list[Any] = []
    while after < cutoff:
        end = search.reach(connection, which, after=after, before=cutoff + 1) or cutoff
        while page := connection.execute(
            select(*_MARK).where(jobs.c.id > after, jobs.c.id <= end, *where).order_by(jobs.c.id).limit(_PAGE)
        ).all():
            found += page
            after = page[-1].id
        after = end
    return found


def _untouched(since: Now | None) -> list[Any]:
    """Return the conditions that a job neither began nor ended after a moment."""
    if since is None:
        return []
    return [or_(column.is_(None), column <= since.value) for column in (jobs.c.started_at, jobs.c.finished_at)]


def _preview(
    connection: Connection,
    action: Action,
    which: JobFilter | None,
    cutoff: int,
    now: Now,
    rows: Sequence[Any],
    **more: Any,
) -> Preview:
    ids = tuple(row.id for row in rows)
    query = select(jobs).where(jobs.c.id.in_(ids[:_SAMPLES])).order_by(jobs.c.id)
    return Preview(
        action=action,
        which=which,
        cutoff=cutoff,
        at=now.value,
        ids=ids,
        fences=tuple(row.fence for row in rows),
        by_queue=_count(row.queue for row in rows),
        by_status=_count(row.status for row in rows),
        samples=tuple(job_of(row) for row in connection.execute(query)),
        **more,
    )


# One by one


def _move(now: Now, action: Action) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return the event's kind and detail, and what changes besides the status."""
    match action.verb:
        case "resubmit":
            return "resubmitted", {"reason": action.reason}, {"run_at": now.value, **_FRESH}
        case "cancel":
            return "cancelled", {"reason": action.reason}, {"finished_at": now.value, "lease_until": None}
        case "mark_failed":
            why = action.reason or "marked as failed by hand"
            return "failed", {"reason": why}, {"error": why, "finished_at": now.value, "lease_until": None}
    # Assigned. Taken from a holder, the delivery does not count, as with a release.
    counted = case((status_is(JobStatus.PROCESSING), jobs.c.attempts - 1), else_=jobs.c.attempts)
    changes = {"assigned_to": action.consumer, "consumer_id": None, "lease_until": None, "attempts": counted}
    return "assigned", {"consumer": action.consumer, "reason": action.reason}, changes


def _edit(connection: Connection, now: Now, actor: str, ids: Sequence[int], action: Action) -> list[int]:
    """Change the priority or the time of jobs that wait."""
    where = (jobs.c.id.in_(ids), status_is(JobStatus.PENDING))
    found = connection.execute(
        select(jobs.c.id, jobs.c.attempts).where(*where).order_by(jobs.c.id).with_for_update()
    ).all()
    changes: dict[str, Any] = {} if action.priority is None else {"priority": action.priority}
    if action.run_at is not None:
        changes |= {"run_at": action.run_at, "delayed": int(micros(action.run_at) > now.micros)}
    detail = {
        "priority": action.priority,
        "run_at": action.run_at and action.run_at.isoformat(),
        "reason": action.reason,
    }
    waiting = [row.id for row in found]
    connection.execute(update(jobs).where(jobs.c.id.in_(waiting)).values(fence=jobs.c.fence + 1, **changes))
    history.record(connection, now, "edited", actor, [(row.id, row.attempts, detail) for row in found])
    history.trim(connection, connection.execute(select(jobs.c.id, jobs.c.fence).where(jobs.c.id.in_(waiting))))
    return waiting


def _why_not(connection: Connection, job_id: int, action: Action) -> str:
    status = get(connection, job_id).status
    if status in action.sources:
        return f"job {job_id} changed meanwhile; look at it and try again"
    return action.refusal(job_id, status)


def _moved(connection: Connection, event: str, job_id: int, moved: list[Row[Any]]) -> Job:
    if not moved:
        raise refusal(connection, event, job_id)
    return job_of(moved[0])


def _count(words: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))
