"""The jobs table: transition, look up, delete."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, exists, func, or_, select, union_all, update
from sqlalchemy.sql.elements import ColumnElement

from .. import codec
from ..errors import IllegalTransition, JobNotFound, LeaseLost, PersistQError
from ..model import TERMINAL, Job, JobFilter, JobStatus
from ..states import TRANSITIONS, allowed
from . import tallies
from .schema import CRASHED, DELAYED, OVER, READY, Listed, events, jobs, status_is
from .statements import kind_of
from .tallies import Moves

Condition = ColumnElement[bool]
CHUNK = 1000
"""Rows that one statement, and one transaction of a bulk deletion, touches."""
FEW = 10_000
"""Jobs that can be sorted for each page of a list: some milliseconds."""


def transition(
    connection: Connection, event: str, *where: Condition, held: bool = False, **changes: Any
) -> list[Row[Any]]:
    """Make one move of the table in ``states.py`` and return the rows that made it.

    The claim and the completion of ``exchange.py``, which every job passes, write ``status`` themselves, by
    the same table; nothing else does. ``held`` says that ``where`` compares the fence,
    as a lease's holder does; any other move raises the fence.
    """
    move = TRANSITIONS[event]
    if not held:
        changes["fence"] = jobs.c.fence + 1
    moved: list[Row[Any]] = []
    moves: Moves = {}
    for source in sorted(move.sources):
        rows = _update(connection, [status_is(source), *where], {**changes, "status": move.target.value})
        tallies.count(moves, (row.queue for row in rows), source, move.target)
        moved += rows
    tallies.add(connection, moves)
    return moved


def _update(connection: Connection, where: Sequence[Condition], changes: dict[str, Any]) -> Sequence[Row[Any]]:
    """Change the rows and return them as they are then."""
    # In this order, the status last: MySQL lets an assignment see what those before it have done.
    change = update(jobs).ordered_values(*((jobs.c[name], value) for name, value in changes.items()))
    if kind_of(connection) != "mysql":
        return connection.execute(change.where(*where).returning(jobs)).all()
    # No RETURNING: the rows are locked, changed and read back.
    ids = connection.execute(select(jobs.c.id).where(*where).with_for_update()).scalars().all()
    if not ids:
        return []
    connection.execute(change.where(jobs.c.id.in_(ids)))
    return connection.execute(select(jobs).where(jobs.c.id.in_(ids))).all()


def lease_lost(connection: Connection, job: Job) -> PersistQError:
    """Return why a lease can be neither settled nor renewed."""
    row = connection.execute(select(jobs.c.status, jobs.c.fence).where(jobs.c.id == job.id)).first()
    if row is None:
        return JobNotFound(f"id {job.id}")
    return LeaseLost(f"job {job.id} is {row.status} at fence {row.fence}; the lease had fence {job.fence}")


def refusal(connection: Connection, event: str, job_id: int) -> PersistQError:
    """Return the reason why a transition moved nothing."""
    status = get(connection, job_id).status
    if allowed(event, status):
        return IllegalTransition(f"job {job_id} changed meanwhile; look at it and try again")
    legal = ", ".join(sorted(TRANSITIONS[event].sources))
    return IllegalTransition(f"job {job_id} is {status}; '{event}' is for {legal} jobs")


def get(connection: Connection, job_id: int) -> Job:
    """Return one job.

    Raises:
        JobNotFound: no job has the id.
    """
    row = connection.execute(select(jobs).where(jobs.c.id == job_id)).first()
    if row is None:
        raise JobNotFound(f"id {job_id}")
    return job_of(row)


def find(
    connection: Connection, which: JobFilter, *, after: int, limit: int, newest: bool, before: int | None
) -> list[Job]:
    """Return a page of matching jobs by id, between ``after`` and ``before``; or the newest ones, newest first."""
    query = select(jobs).where(jobs.c.id > after, *conditions(connection, which)).limit(limit)
    if before is not None:
        query = query.where(jobs.c.id < before)
    return [job_of(row) for row in connection.execute(query.order_by(jobs.c.id.desc() if newest else jobs.c.id))]


def last_id(connection: Connection) -> int:
    """Return the newest job's id, the cut-off of a bulk action; 0 when there is no job."""
    return connection.execute(select(func.max(jobs.c.id))).scalar() or 0


def exists_live(connection: Connection, item: str) -> bool:
    """Return whether a job that is not over names the item."""
    live = (READY, DELAYED, (status_is(JobStatus.PROCESSING),))  # as the indexes have them
    return any(connection.execute(select(exists().where(*one, jobs.c.item == item))).scalar() for one in live)


def conditions(connection: Connection, which: JobFilter) -> Iterator[Condition]:
    """Yield the WHERE of a filter. Text is matched literally, percent signs and all, whatever its case."""
    if which.status:
        yield or_(*listed(connection, which.status))
    if which.crashed:
        yield and_(*CRASHED)
    for column, exact in ((jobs.c.queue, which.queue), (jobs.c.task, which.task)):
        if exact is not None:
            yield column == _searchable(exact)
    for column, part in ((jobs.c.item, which.item), (jobs.c.error, which.error)):
        if part is not None:
            yield column.icontains(_searchable(part), autoescape=True)
    if which.consumer is not None:
        consumer = _searchable(which.consumer)
        columns = (jobs.c.consumer_id, jobs.c.assigned_to)
        yield or_(*((one == consumer) | one.startswith(f"{consumer}@", autoescape=True) for one in columns))
    if which.since is not None:
        yield jobs.c.created_at >= which.since
    if which.until is not None:
        yield jobs.c.created_at < which.until


def listed(connection: Connection, statuses: Collection[JobStatus]) -> Iterator[Condition]:
    """Yield the conditions of which a job with one of the statuses meets one.

    Each has an index of its own, in the order of ids or with few entries; but where too many are pending, every job
    is asked.
    """
    over = [status.value for status in statuses if status in TERMINAL]
    if over:
        yield and_(Listed().in_(over), OVER)
    if JobStatus.PROCESSING in statuses:
        yield jobs.c.id.in_(select(jobs.c.id).where(status_is(JobStatus.PROCESSING)))
    if JobStatus.PENDING in statuses:
        if kind_of(connection) != "mysql" and are_in_line(connection, JobStatus.PENDING):
            yield jobs.c.id.in_(union_all(*(select(jobs.c.id).where(*where) for where in (READY, DELAYED))))
        else:
            yield Listed() == JobStatus.PENDING.value


def are_in_line(connection: Connection, status: JobStatus) -> bool:
    """Return whether jobs of a status are found without asking others: in order of their ids, or few to be sorted."""
    if status is not JobStatus.PENDING or kind_of(connection) == "mysql":
        return True
    return tallies.total(connection, None)[status] <= FEW


def _searchable(text: object) -> str:
    return codec.check_text("a filter", text, 1 << 20)


def delete_ids(connection: Connection, ids: Sequence[int], *where: Condition) -> list[int]:
    """Delete these jobs, where they still match, with their history; return the ids of those that did."""
    which = select(jobs.c.id, jobs.c.queue, jobs.c.status).where(jobs.c.id.in_(ids), *where)
    # In the order of their ids, as everybody locks them, so that two cannot deadlock.
    gone = connection.execute(which.order_by(jobs.c.id).with_for_update()).all()
    doomed = [row.id for row in gone]
    connection.execute(delete(jobs).where(jobs.c.id.in_(doomed)))
    connection.execute(delete(events).where(events.c.job_id.in_(doomed)))
    tallies.add(connection, Counter({key: -n for key, n in Counter((r.queue, r.status) for r in gone).items()}))
    return doomed


def delete_done(connection: Connection, *, before: datetime, size: int) -> int:
    """Delete up to ``size`` of the jobs that were done before a time, and return how many."""
    where = (status_is(JobStatus.DONE), jobs.c.finished_at < before)
    ids = connection.execute(select(jobs.c.id).where(*where).order_by(jobs.c.finished_at).limit(size)).scalars().all()
    return len(delete_ids(connection, ids, *where))


def job_of(row: Row[Any]) -> Job:
    """Return the value that a row of Core's ``select(jobs)`` stands for."""
    fields = row._asdict()
    del fields["delayed"]
    fields["status"] = JobStatus(row.status)
    fields["suspect"] = bool(row.suspect)
    fields["result"] = None if row.result is None else codec.loads(row.result)
    return Job(**fields)
