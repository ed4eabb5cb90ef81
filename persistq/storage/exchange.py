"""The wheel of a worker: settle what is finished, renew what is running, claim what fits."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from operator import itemgetter
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, bindparam, exists, literal_column, null, or_, select, update
from sqlalchemy.sql.elements import ColumnElement

from .. import codec
from ..clock import name_of, seconds
from ..errors import DatabaseUnavailable, JobNotFound, describe
from ..model import Done, Exchanged, Failed, Job, JobStatus, Outcome, Released
from ..retry import Backoff, gives_up
from . import history, tallies
from .jobs import CHUNK, Condition, get, transition
from .now import Now
from .rows import jobs_of
from .schema import DELAYED, READY, jobs, queues, status_is
from .statements import Change, Statement, among, first, kind_of
from .tallies import Moves

T = TypeVar("T")
_PAGE = 500
_PROMOTED = 10_000
"""Delayed jobs that one claim makes ready; were more due at once, the rest would wait for the next claim."""
_PENDING, _PROCESSING, _DONE = JobStatus.PENDING.value, JobStatus.PROCESSING.value, JobStatus.DONE.value


@dataclass(frozen=True, slots=True)
class Claimant:
    """Who exchanges, on which terms."""

    consumer: str
    #: Queues to claim from; empty means all.
    queues: tuple[str, ...]
    #: Seconds a lease lasts.
    lease: float
    backoff: Backoff

    @property
    def may_claim(self) -> Condition:
        """The condition that a job is not reserved for somebody else."""
        return or_(jobs.c.assigned_to.is_(None), jobs.c.assigned_to.in_([self.consumer, name_of(self.consumer)]))


def exchange(
    connection: Connection,
    now: Now,
    claimant: Claimant,
    *,
    settled: Sequence[Outcome],
    renewing: Sequence[Job],
    limit: int,
    ahead: int,
    busy: bool,
) -> tuple[Exchanged, list[Outcome]]:
    """Settle, renew and claim; return as well which outcomes were written by this very call.

    ``busy`` says that the consumer performs something, so it gets no suspect. ``ahead`` says how many of
    ``limit`` will have to wait in the consumer before they begin.
    """
    if any(job.suspect for job in renewing):
        limit = 0
    moves: Moves = {}
    refused, ended = settle(connection, now, settled, claimant.backoff, moves)
    renewed = renew(connection, now, renewing, claimant.lease)
    claimed = claim(connection, now, claimant, limit, moves, ahead=ahead, busy=busy) if limit > 0 else []
    # Once for all that this call moved: every job that is finished and replaced by another would count twice.
    tallies.add(connection, moves)
    kept = {job.id for job in renewed}
    lost = [*(outcome.job for outcome in refused), *(job for job in renewing if job.id not in kept)]
    return Exchanged(claimed, renewed=renewed, lost=lost), ended


def settle(
    connection: Connection,
    now: Now,
    outcomes: Sequence[Outcome],
    backoff: Backoff,
    moves: Moves,
) -> tuple[list[Outcome], list[Outcome]]:
    """Write the outcomes; return those whose lease is no longer held, and those that this call wrote.

    Writing one again changes nothing, and it is neither. What it does to the counts of processing and
    done jobs is added to ``moves``.
    """
    done = [outcome for outcome in outcomes if isinstance(outcome, Done)]
    moved = _complete(connection, now, done, moves)
    for outcome in outcomes:
        if isinstance(outcome, Done):
            continue
        job = outcome.job
        held = (jobs.c.id == job.id, jobs.c.fence == job.fence)
        if isinstance(outcome, Failed):
            rows = _crash(connection, now, held, outcome, backoff)
        else:
            rows = give_back(connection, now, job.consumer_id, held, held=True, outcome=outcome)
        moved |= {(row.id, row.fence) for row in rows}
    if len(moved) == len(outcomes):
        return [], list(outcomes)
    unmoved = [outcome for outcome in outcomes if (outcome.job.id, outcome.job.fence) not in moved]
    written = [outcome for outcome in outcomes if (outcome.job.id, outcome.job.fence) in moved]
    return [outcome for outcome in unmoved if not _stands(connection, outcome)], written


def renew(connection: Connection, now: Now, held: Sequence[Job], lease: float) -> list[Job]:
    """Return those of the jobs whose lease is still held, each with a new one."""
    kept: set[int] = set()
    for fence, group in _by_fence(held, lambda job: job).items():
        kept.update(_RENEW.ids(connection, ids=list(group), held=fence, until=now.micros_after(lease)))
    until = now.after(lease)
    return [replace(job, lease_until=until) for job in held if job.id in kept]


def claim(
    connection: Connection, now: Now, claimant: Claimant, limit: int, moves: Moves, *, ahead: int, busy: bool
) -> list[Job]:
    """Return up to ``limit`` jobs, leased: higher priority first, then older first."""
    names = _open_names(connection, now, claimant)
    found = _first_in_line(connection, claimant, names, min(limit, CHUNK))
    chosen = found[: _how_many(found, at_once=limit - ahead, busy=busy)]
    if not chosen:
        return []
    ids = [row[0] for row in chosen]
    until = now.micros_after(claimant.lease)
    # They are locked, or nobody else may write at all, so that they are now what they were when they were read.
    if _CLAIM.count(connection, ids=ids, holder=claimant.consumer, now=now.micros, until=until) != len(ids):
        raise DatabaseUnavailable("jobs that this transaction has locked were changed by another; try again")
    claimed = jobs_of(
        chosen, _CLAIMED, status=_PROCESSING, consumer_id=claimant.consumer, started_at=now.micros, lease_until=until
    )
    tallies.count(moves, [job.queue for job in claimed], _PENDING, _PROCESSING)
    return claimed


def due_in(connection: Connection, now: Now, claimant: Claimant) -> float | None:
    """Return the seconds until a claim may find something: 0 when it would now, None when nothing waits."""
    names = claimant.queues or _ready_names(connection, now)[0]
    who = {"holder": claimant.consumer, "name": name_of(claimant.consumer)}
    if any(_LOOK.rows(connection, of_queue=name, **who) for name in names):
        return 0.0
    first = next((row[0] for row in _NEXT.rows(connection)), None)
    return None if first is None else max(0.0, (first - now.micros) / 1_000_000)


def recover(connection: Connection, now: Now, actor: str | None) -> int:
    """Take back one page of jobs whose lease has expired; return how many.

    They are suspects: whatever killed their consumer may have been one of them.
    """
    expired = (status_is(JobStatus.PROCESSING), jobs.c.lease_until < now.value)
    page = select(jobs).where(*expired).order_by(jobs.c.lease_until).limit(_PAGE)
    rows = connection.execute(page.with_for_update(skip_locked=True)).all()
    taken = 0
    for event in ("fail", "crash"):
        ids = [row.id for row in rows if gives_up(row.attempts, row.max_attempts) == (event == "fail")]
        if not ids:
            continue
        # The condition is asked again: where rows are not locked, a lease may have been renewed since.
        holders = {row.id: row.consumer_id for row in rows}
        ended = _ended(now) if event == "fail" else _again(now, 0, suspect=1)
        moved = transition(connection, event, jobs.c.id.in_(ids), *expired, error=_LOST, **ended)
        lines = [(row.id, row.attempts, {"error": _LOST, "consumer": holders[row.id]}) for row in moved]
        history.record(connection, now, "crashed", actor, lines)
        if event == "fail":
            _record_spent(connection, now, actor, moved)
        history.trim(connection, moved)
        taken += len(moved)
    return taken


_LOST = "the lease expired: the consumer died, was paused, or lost the database"


def unfinished(connection: Connection, claimant: Claimant) -> bool:
    """Return whether a drain still has to wait: for a due job, a retry, or one that is being performed."""
    served = [jobs.c.queue.in_(claimant.queues)] if claimant.queues else []
    mine = [*served, claimant.may_claim, ~_IS_PAUSED]
    due = exists().where(*READY, *mine)
    retries = exists().where(*DELAYED, jobs.c.attempts > 0, *mine)
    runs = exists().where(status_is(JobStatus.PROCESSING), *served)
    return bool(connection.execute(select(or_(due, retries, runs))).scalar())


def give_back(
    connection: Connection,
    now: Now,
    actor: str | None,
    where: Sequence[Condition],
    *,
    held: bool,
    outcome: Released | None = None,
) -> list[Row[Any]]:
    """Release: the delivery does not count, and the job is pending again, at once or when the outcome says."""
    delay = seconds(outcome.delay or 0) if outcome else 0.0
    again = _again(now, delay, suspect=jobs.c.suspect)
    moved = transition(connection, "release", *where, held=held, attempts=jobs.c.attempts - 1, **again)
    kind = (outcome.reason if outcome else None) or "released"
    detail = {"back_in": round(delay, 3)} if delay else {}
    history.record(connection, now, codec.storable(kind, 32), actor, [(row.id, row.attempts, detail) for row in moved])
    history.trim(connection, moved)
    return moved


def crash(
    connection: Connection, now: Now, actor: str | None, job: Job, error: str, backoff: Backoff
) -> list[Row[Any]]:
    """Count a running job as crashed on somebody's word, whoever holds it."""
    return _crash(connection, now, (jobs.c.id == job.id,), Failed(job, error), backoff, actor=actor, held=False)


def _crash(
    connection: Connection,
    now: Now,
    where: Sequence[Condition],
    outcome: Failed,
    backoff: Backoff,
    *,
    actor: str | None = None,
    held: bool = True,
) -> list[Row[Any]]:
    job = outcome.job
    line, trace = describe(outcome.error)
    line, trace = codec.storable(line), codec.storable(trace) if trace else None
    over = gives_up(job.attempts, job.max_attempts, permanent=outcome.permanent)
    delay = backoff.delay(job.attempts) if outcome.delay is None else seconds(outcome.delay)
    ended = _ended(now) if over else _again(now, delay, suspect=0)
    moved = transition(connection, "fail" if over else "crash", *where, held=held, error=line, **ended)
    actor = actor or job.consumer_id
    detail = {"error": line, "traceback": trace, "retry_in": None if over else round(delay, 3)}
    history.record(connection, now, "crashed", actor, [(row.id, row.attempts, detail) for row in moved])
    if over and outcome.permanent:
        history.record(
            connection, now, "failed", actor, [(r.id, r.attempts, {"reason": "permanent error"}) for r in moved]
        )
    elif over:
        _record_spent(connection, now, actor, moved)
    history.trim(connection, moved)
    return moved


def _record_spent(connection: Connection, now: Now, actor: str | None, moved: Sequence[Row[Any]]) -> None:
    lines = [(row.id, row.attempts, {"reason": f"{row.attempts} of {row.max_attempts} attempts"}) for row in moved]
    history.record(connection, now, "failed", actor, lines)


def _complete(connection: Connection, now: Now, outcomes: Sequence[Done], moves: Moves) -> set[tuple[int, int]]:
    """Complete all in one statement for each fence, which mostly means in one."""
    done: list[Done] = []
    for fence, group in _by_fence(outcomes, lambda outcome: outcome.job).items():
        done += [group[job_id] for job_id in _COMPLETE.ids(connection, ids=list(group), held=fence, now=now.micros)]
    tallies.count(moves, (one.job.queue for one in done), _PROCESSING, _DONE)
    results = [{"job": one.job.id, "value": codec.dumps(one.result)} for one in done if one.result is not None]
    if results:
        _KEEP.many(connection, results)
    for one in done:
        if one.dropped:
            line = (one.job.id, one.job.attempts, {"reason": one.dropped})
            history.record(connection, now, "result_dropped", one.job.consumer_id, [line])
            history.trim(connection, [one.job])
    return {(one.job.id, one.job.fence) for one in done}


def _by_fence(values: Iterable[T], job_of: Callable[[T], Job]) -> dict[int, dict[int, T]]:
    """Return the values by their job's fence and id, ids in order, so that two with the same fence cannot deadlock."""
    found: dict[int, dict[int, T]] = {}
    for value in values:
        job = job_of(value)
        found.setdefault(job.fence, {})[job.id] = value
    return {fence: dict(sorted(group.items(), key=_ID)) for fence, group in found.items()}


def _ended(now: Now) -> dict[str, Any]:
    return {"finished_at": now.value, "lease_until": None}


def _again(now: Now, delay: float, *, suspect: Any) -> dict[str, Any]:
    return {
        "run_at": now.after(delay),
        "delayed": int(delay > 0),
        "suspect": suspect,
        "lease_until": None,
        "consumer_id": None,
    }


def _stands(connection: Connection, outcome: Outcome) -> bool:
    """Return whether this very lease was settled so before, by a call whose reply was lost.

    Any move but the holder's own raises the fence, so an unchanged fence tells who made it.
    """
    try:
        found = get(connection, outcome.job.id)
    except JobNotFound:
        return False
    return found.fence == outcome.job.fence and found.status in _SETTLED[type(outcome)]


_SETTLED = {
    Done: {JobStatus.DONE},
    Failed: {JobStatus.FAILED, JobStatus.PENDING},
    Released: {JobStatus.PENDING},
}


def _open_names(connection: Connection, now: Now, claimant: Claimant) -> Sequence[str]:
    """Make ready what has become due; return the queues that may have something for the claimant."""
    if claimant.queues:
        _promote(connection, now)
        return claimant.queues
    names, due = _ready_names(connection, now)
    if due:
        _promote(connection, now)
        names, _ = _ready_names(connection, now)
    return names


def _ready_names(connection: Connection, now: Now) -> tuple[list[str], bool]:
    """Return the queues that have ready jobs, and whether a delayed job is due: one question, for each is a trip."""
    if kind_of(connection) != "mysql":
        rows = _NAMES.rows(connection, now=now.micros)
        return [name for (name,) in rows if name is not None], any(name is None for (name,) in rows)
    # There a subquery that depends on another row reads all that are pending, so each step is a statement.
    ((name, last, due),) = _ENDS.rows(connection, now=now.micros)
    names = []
    while name is not None:  # what others claim meanwhile may end the walk early
        names.append(name)
        name = _AFTER.rows(connection, name=name)[0][0] if name < last else None
    return names, bool(due)


def _promote(connection: Connection, now: Now) -> None:
    """Make ready what has become due."""
    due = [row[0] for row in _DUE.rows(connection, now=now.micros)]
    if due:
        _PROMOTE.run(connection, ids=due).close()


def _first_in_line(
    connection: Connection, claimant: Claimant, names: Sequence[str], limit: int
) -> Sequence[Sequence[Any]]:
    """Return the jobs next in line as ``_CLAIMED`` has them, locked where others could claim them too.

    Queue by queue, for only then does an index give them in order. Of one queue they are read at once, of several
    only what decides which of them to read.
    """
    if len(names) == 1:
        return _in_line(connection, claimant, names[0], limit, all_of_it=True)
    found = [row for name in names for row in _in_line(connection, claimant, name, limit, all_of_it=False)]
    found.sort(key=lambda row: (-row[1], row[0]))
    ids = [row[0] for row in found[:limit]]
    rows = {row[0]: row for row in _READ.rows(connection, ids=ids)} if ids else {}
    return [rows[job_id] for job_id in ids]


def _in_line(
    connection: Connection, claimant: Claimant, name: str, limit: int, *, all_of_it: bool
) -> Sequence[Sequence[Any]]:
    values = {"of_queue": name, "holder": claimant.consumer, "name": name_of(claimant.consumer)}
    if kind_of(connection) != "sqlite":
        return _line_of(None, all_of_it).rows(connection, **values, most=limit)
    # A few numbers will do, for each is a statement of its own; and what is not fetched is not even read.
    cursor = _line_of(1 << (limit - 1).bit_length(), all_of_it).run(connection, **values)
    found: Sequence[Sequence[Any]] = cursor.fetchmany(limit)
    cursor.close()
    return found


def _how_many(rows: Sequence[Sequence[Any]], *, at_once: int, busy: bool) -> int:
    """Return how many to take: a suspect alone and by an idle consumer only, never overtaken by its juniors.

    Beyond those that begin ``at_once``, none that has had an attempt or has only one: should the consumer
    die, whatever it holds has spent one, and those would be given up without having had their chances.
    """
    for number, (_id, _priority, suspect, attempts, max_attempts, *_) in enumerate(rows):
        if suspect:
            return number or int(not busy)
        if number >= at_once and (attempts > 1 or max_attempts == 1):
            return number
    return len(rows)


_ONE: Any = literal_column("1")
_ID = itemgetter(0)
_IS_PAUSED = exists().where(queues.c.name == jobs.c.queue, queues.c.paused_at.is_not(None))


def _still(kind: str, status: JobStatus) -> ColumnElement[bool]:
    """Return that jobs which are found by their ids have the status.

    Not in the words of a partial index: PostgreSQL would rather go through the one of all that run, which is short
    for the living and, until the next vacuum, long with those that have run.
    """
    return literal_column(f"(jobs.status || '') = '{status.value}'") if kind == "postgresql" else status_is(status)


def _held(kind: str) -> list[ColumnElement[bool]]:
    return [among(kind, jobs.c.id), jobs.c.fence == bindparam("held"), _still(kind, JobStatus.PROCESSING)]


_COMPLETE = Change(
    _held,
    status=literal_column(f"'{_DONE}'"),
    finished_at=bindparam("now"),
    lease_until=null(),
    error=null(),
    result=null(),
)
_RENEW = Change(_held, lease_until=bindparam("until"))
_KEEP = Statement(lambda _kind: update(jobs).where(jobs.c.id == bindparam("job")).values(result=bindparam("value")))
# What decides comes first; the rest of a job that has just been claimed is known.
_CLAIMED = (
    "id", "priority", "suspect", "attempts", "max_attempts",
    "queue", "task", "item", "timeout", "fence", "assigned_to", "run_at", "created_at", "error", "unique_key",
)  # fmt: skip
_DECISIVE = 5
_AS_CLAIMED = [jobs.c[name] + _ONE if name in ("attempts", "fence") else jobs.c[name] for name in _CLAIMED]
_CLAIM = Statement(
    lambda kind: (
        update(jobs)
        .where(among(kind, jobs.c.id), _still(kind, JobStatus.PENDING))
        .values(
            status=literal_column(f"'{_PROCESSING}'"),
            attempts=jobs.c.attempts + _ONE,
            fence=jobs.c.fence + _ONE,
            consumer_id=bindparam("holder"),
            started_at=bindparam("now"),
            lease_until=bindparam("until"),
        )
    )
)
_READ = Statement(lambda kind: select(*_AS_CLAIMED).where(among(kind, jobs.c.id)))


def _line(columns: Sequence[Any]) -> Any:
    """Return the query for what a claimant may take from one queue, in order."""
    mine = or_(jobs.c.assigned_to.is_(None), jobs.c.assigned_to.in_([bindparam("holder"), bindparam("name")]))
    paused = exists().where(queues.c.name == bindparam("of_queue"), queues.c.paused_at.is_not(None))
    query = select(*columns).where(*READY, jobs.c.queue == bindparam("of_queue"), mine, ~paused)
    return query.order_by(jobs.c.priority.desc(), jobs.c.id)


@cache
def _line_of(number: int | None, all_of_it: bool) -> Statement:
    columns = _AS_CLAIMED if all_of_it else _AS_CLAIMED[:_DECISIVE]
    if number is not None:
        return Statement(lambda kind: first(kind, _line(columns), number))
    # Rows that another claim has locked are passed over, not waited for.
    return Statement(lambda _kind: _line(columns).limit(bindparam("most")).with_for_update(skip_locked=True))


_LOOK = Statement(lambda kind: first(kind, _line([jobs.c.id]), 1))


def _due(kind: str) -> Any:
    due = select(jobs.c.id).where(*DELAYED, jobs.c.run_at <= bindparam("now")).order_by(jobs.c.run_at)
    return first(kind, due.with_for_update(skip_locked=True), _PROMOTED)


_DUE = Statement(_due)
_PROMOTE = Statement(
    lambda kind: update(jobs).where(among(kind, jobs.c.id), *DELAYED).values(delayed=literal_column("0"))
)
_NEXT = Statement(lambda kind: first(kind, select(jobs.c.run_at).where(*DELAYED).order_by(jobs.c.run_at), 1))


def _names(kind: str) -> Any:
    """Return the query for the queues that have ready jobs, one step into the index for each; and a row without
    a name when a delayed job is due.
    """
    start = select(_next_name(kind).label("name")).cte("names", recursive=True)
    step = select(_next_name(kind, jobs.c.queue > start.c.name)).where(start.c.name.is_not(None))
    every = start.union_all(step)
    return select(every.c.name).where(every.c.name.is_not(None)).union_all(select(null()).where(_IS_DUE))


def _next_name(kind: str, *where: Condition, backwards: bool = False) -> Any:
    order = jobs.c.queue.desc() if backwards else jobs.c.queue
    return first(kind, select(jobs.c.queue).where(*READY, *where).order_by(order), 1).scalar_subquery()


_IS_DUE = exists().where(*DELAYED, jobs.c.run_at <= bindparam("now"))
_NAMES = Statement(_names)
_ENDS = Statement(lambda kind: select(_next_name(kind), _next_name(kind, backwards=True), _IS_DUE))
_AFTER = Statement(lambda kind: select(_next_name(kind, jobs.c.queue > bindparam("name"))))
