"""The tables, as queries see them and as SQLite has them.

The revisions make them. What only a server's tables have, such as MySQL's LONGTEXT, is said there alone:
said here, it would have every program import the dialects of databases that it does not use.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, cast

from sqlalchemy import (
    DDL,
    BigInteger,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Table,
    Text,
    and_,
    event,
    literal_column,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.types import TypeDecorator

from ..model import JobStatus

REVISION = "0005"
"""The Alembic revision that this version works with."""

VERSION_TABLE = "persistq_version"
"""The table in which Alembic keeps the revision."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# SQLite gives its rowid, and so AUTOINCREMENT, to INTEGER only.
_Id = BigInteger().with_variant(Integer, "sqlite")


def micros(time: datetime) -> int:
    """Return a time as the database keeps it: microseconds since 1970 UTC."""
    return (time - _EPOCH) // _MICROSECOND


def time_of(kept: int) -> datetime:
    """Return the time that the database keeps so."""
    return _EPOCH + timedelta(microseconds=kept)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time, kept as microseconds since 1970 UTC.

    An integer compares, indexes and rounds alike in every database, which time types do not.
    """

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> int | None:
        """Return the time as the database keeps it."""
        return None if value is None else micros(value)

    def process_result_value(self, value: Any, _dialect: Dialect) -> datetime | None:
        """Return the time as Python knows it."""
        return None if value is None else time_of(value)


class Base(DeclarativeBase):
    """The tables' common root."""

    type_annotation_map = {datetime: UtcDateTime, str: String(255)}  # noqa: RUF012 - SQLAlchemy's own form


def status_is(status: JobStatus) -> ColumnElement[bool]:
    """Return ``status = '...'`` with the word itself in the SQL.

    A planner takes a partial index only when it can see that the condition holds, which a bound
    parameter hides.
    """
    return JobRow.status == literal_column(f"'{status.value}'")


class Listed(ColumnElement[str]):
    """The status as lists ask for it.

    An index on the status itself would be a trap: whenever few jobs are pending, or nobody has told the
    planner how many are, it looks the better way to the next job than the index that is made for that.
    So the index is on an expression, which only lists use. It holds the jobs that are over: any other would
    be written to it by whatever adds or claims a job, and is found another way (``jobs.listed``).
    """

    type = String(10)
    inherit_cache = True


@compiles(Listed)
def _listed(_element: Listed, _compiler: Any, **_options: Any) -> str:
    return "(jobs.status || '')"


@compiles(Listed, "mysql", "mariadb")
def _listed_plainly(_element: Listed, _compiler: Any, **_options: Any) -> str:
    # Not every version has such indexes, and the claim's own begins with the status there.
    return "jobs.status"


class JobRow(Base):
    """One job."""

    __tablename__ = "jobs"

    id: Mapped[int] = mapped_column(_Id, primary_key=True, autoincrement=True)
    queue: Mapped[str] = mapped_column(String(64))
    task: Mapped[str | None] = mapped_column(String(64))
    item: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(10))
    priority: Mapped[int]
    attempts: Mapped[int] = mapped_column(server_default="0")
    max_attempts: Mapped[int]
    timeout: Mapped[float | None]
    fence: Mapped[int] = mapped_column(BigInteger, server_default="0")
    consumer_id: Mapped[str | None]
    assigned_to: Mapped[str | None]
    #: run_at lies ahead. Cleared when it is due, so that the claim's index holds due jobs only.
    delayed: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    #: The last consumer died holding the job.
    suspect: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    run_at: Mapped[datetime]
    lease_until: Mapped[datetime | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    error: Mapped[str | None] = mapped_column(Text)
    result: Mapped[str | None] = mapped_column(Text)
    unique_key: Mapped[str | None]

    # Never hand out an id twice: a stale worker would settle the new job under the old one's number.
    __table_args__: tuple[Any, ...] = ({"sqlite_autoincrement": True},)


READY = (status_is(JobStatus.PENDING), JobRow.delayed == literal_column("0"))
DELAYED = (status_is(JobStatus.PENDING), JobRow.delayed == literal_column("1"))
CRASHED = (status_is(JobStatus.PENDING), JobRow.attempts > literal_column("0"))
OVER = JobRow.finished_at.is_not(None)
"""The conditions of the partial indexes; a query has to say them in these very words."""

Index(
    "jobs_claim",
    JobRow.queue,
    JobRow.priority.desc(),
    JobRow.id,
    sqlite_where=and_(*READY),
)
Index("jobs_delayed", JobRow.run_at, sqlite_where=and_(*DELAYED))
Index("jobs_crashed", JobRow.id, sqlite_where=and_(*CRASHED))
Index("jobs_lease", JobRow.lease_until, sqlite_where=status_is(JobStatus.PROCESSING))
Index("jobs_finished", JobRow.status, JobRow.finished_at, sqlite_where=OVER)
Index("jobs_unique", JobRow.queue, JobRow.unique_key, unique=True, sqlite_where=JobRow.unique_key.is_not(None))
Index("jobs_status", literal_column("(status || '')"), JobRow.id, sqlite_where=OVER)


class EventRow(Base):
    """One line of a job's history; the happy path writes none."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(_Id, primary_key=True, autoincrement=True)
    job_id: Mapped[int] = mapped_column(_Id)
    at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String(32))
    actor: Mapped[str | None]
    attempt: Mapped[int | None]
    detail: Mapped[str] = mapped_column(Text)

    __table_args__ = (Index("events_job", "job_id", "id"),)


class TallyRow(Base):
    """By how much a queue's counts changed; their sum is how many jobs have each status.

    A database that locks rows gets a row for each transaction (``slot`` is random), for one counter
    would make every writer wait for the slowest; maintenance folds them into slot 0. SQLite, with its
    one writer, adds to slot 0 at once.
    """

    __tablename__ = "tallies"

    queue: Mapped[str] = mapped_column(String(64), primary_key=True)
    slot: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    pending: Mapped[int] = mapped_column(BigInteger)
    processing: Mapped[int] = mapped_column(BigInteger)
    done: Mapped[int] = mapped_column(BigInteger)
    failed: Mapped[int] = mapped_column(BigInteger)
    cancelled: Mapped[int] = mapped_column(BigInteger)

    __table_args__: tuple[Any, ...] = ({"sqlite_with_rowid": False},)


class TimingRow(Base):
    """How many attempts ended within a minute and how long they waited and ran, as ``timings.py`` writes it."""

    __tablename__ = "timings"

    id: Mapped[int] = mapped_column(_Id, primary_key=True, autoincrement=True)
    #: The minute's beginning.
    at: Mapped[datetime]
    #: JSON: queue, task and histograms.
    data: Mapped[str] = mapped_column(Text)

    __table_args__ = (Index("timings_at", "at", "id"),)


class QueueRow(Base):
    """What a person decided about a queue."""

    __tablename__ = "queues"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    paused_at: Mapped[datetime | None]


class ConsumerRow(Base):
    """What a consumer last said of itself; nothing depends on it."""

    __tablename__ = "consumers"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    host: Mapped[str]
    pid: Mapped[int]
    queues: Mapped[str] = mapped_column(Text)
    concurrency: Mapped[int]
    running: Mapped[int]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    #: JSON: the tasks that it can perform.
    tasks: Mapped[str | None] = mapped_column(Text)
    #: What an operator wants of it, which it reads with its next sign of life: ``quiet`` or ``stop``.
    wish: Mapped[str | None] = mapped_column(String(16))


class TubeRow(Base):
    """A tube in which requests wait; one that has been emptied has no row.

    Whoever adds requests to a tube or takes some from it holds its row until the commit, so that
    requests are seen in the order of their ids.
    """

    __tablename__ = "tubes"

    name: Mapped[str] = mapped_column(primary_key=True)
    #: Since when it has waited to be served; the longest comes first.
    turn: Mapped[datetime]
    #: Whether it may hold requests without a digest.
    plain: Mapped[int] = mapped_column(SmallInteger)

    __table_args__: tuple[Any, ...] = (Index("tubes_turn", "turn"), {"sqlite_with_rowid": False})


class RequestRow(Base):
    """One sharded request: ready in its tube, or due later."""

    __tablename__ = "requests"

    id: Mapped[int] = mapped_column(_Id, primary_key=True, autoincrement=True)
    tube: Mapped[str]
    #: Its priority's place in the tube; lower comes first.
    place: Mapped[int] = mapped_column(BigInteger)
    #: Not before this time; None is ready.
    due_at: Mapped[datetime | None]
    #: Microseconds after which it comes again, and again.
    every: Mapped[int | None] = mapped_column(BigInteger)
    #: Of tube and payload; of those that are to be found by it.
    digest: Mapped[str | None] = mapped_column(String(32))
    payload: Mapped[bytes] = mapped_column(LargeBinary)

    __table_args__: tuple[Any, ...] = ({"sqlite_autoincrement": True},)


Index("requests_ready", RequestRow.tube, RequestRow.place, RequestRow.id, sqlite_where=RequestRow.due_at.is_(None))
Index("requests_due", RequestRow.due_at, RequestRow.id, sqlite_where=RequestRow.due_at.is_not(None))
Index("requests_digest", RequestRow.digest, sqlite_where=RequestRow.digest.is_not(None))


class LeaseRow(Base):
    """Who may perform the requests of a tube, until when."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(primary_key=True)
    tube: Mapped[str]
    #: Never the same twice; empty while nobody may bind the tube.
    owner: Mapped[str]
    #: How often the request at the head was given up since one was last removed.
    tries: Mapped[int]
    bound_at: Mapped[datetime]
    lease_until: Mapped[datetime]

    __table_args__: tuple[Any, ...] = ({"sqlite_with_rowid": False},)


class AuditRow(Base):
    """One line of the audit log, which is only ever added to: triggers refuse anything else."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(_Id, primary_key=True, autoincrement=True)
    #: The line that this one goes on from; None for a decision's first, or only, line.
    operation: Mapped[int | None] = mapped_column(_Id)
    at: Mapped[datetime]
    #: ``done`` is a decision in one step; else ``begun``, then ``applied`` for each chunk, then ``finished``.
    step: Mapped[str] = mapped_column(String(16))
    #: The kind of program: cli, tui, dashboard, supervisor, maintenance, library.
    via: Mapped[str] = mapped_column(String(16))
    actor: Mapped[str]
    host: Mapped[str]
    action: Mapped[str] = mapped_column(String(32))
    reason: Mapped[str | None] = mapped_column(Text)
    #: JSON: the options, and the ids or the filter with its bounds.
    scope: Mapped[str] = mapped_column(Text)
    #: JSON: how many jobs, and in a chunk's line how far it went.
    counts: Mapped[str] = mapped_column(Text)

    __table_args__ = (Index("audit_operation", "operation", "id"), {"sqlite_autoincrement": True})


# The same text as in the revision that makes them. Without the third, REPLACE would overwrite a line.
for _name, _when in (
    ("audit_no_update", "UPDATE"),
    ("audit_no_delete", "DELETE"),
    ("audit_no_replace", "INSERT ON audit WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id)"),
):
    event.listen(
        AuditRow.__table__,
        "after_create",
        DDL(  # type: ignore[no-untyped-call]
            f"CREATE TRIGGER {_name} BEFORE {_when if ' ' in _when else f'{_when} ON audit'} "
            "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        ).execute_if(dialect="sqlite"),
    )


jobs, events, tallies, timings, queues, consumers, tubes, requests, leases, audit = (
    cast("Table", row.__table__)
    for row in (
        JobRow, EventRow, TallyRow, TimingRow, QueueRow, ConsumerRow, TubeRow, RequestRow, LeaseRow, AuditRow,
    )
)  # fmt: skip
