"""PersistentQSQLAlchemy: one public method = one transaction = one span."""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from . import codec, events
from .clock import Clock, Seconds, consumer_id, default_consumer_name
from .errors import ConfigError, DuplicateJob, PersistQError, QueueFull
from .interface import PersistentQInterface, Queues
from .model import (
    ConsumerInfo,
    Done,
    Event,
    Exchanged,
    Failed,
    Job,
    JobFilter,
    JobStatus,
    NewJob,
    Outcome,
    QueueInfo,
    Released,
    Timing,
    check_span,
)  # fmt: skip
from .operations import Operations
from .settings import Settings
from .storage import consumers, exchange, history, insert, jobs, queues, tallies, timings
from .storage.exchange import Claimant
from .storage.rows import Run, run_of, runs_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from .interface import Transaction
    from .storage.now import Now

T = TypeVar("T")


class PersistentQSQLAlchemy(Operations, PersistentQInterface):
    """The queue on an SQL database. Make one with ``persistq.connect()``; threads may share it.

    What each method promises stands in the interface.
    """

    def __init__(
        self,
        target: str | os.PathLike[str],
        settings: Settings,
        *,
        clock: Clock | None = None,
        actor: str | None = None,
        read_only: bool = False,
    ) -> None:
        super().__init__(target, settings, clock=clock, actor=actor, read_only=read_only)
        self._recovered_at = float("-inf")
        self._meter = timings.Meter()
        self._consumer: str | None = None

    @property
    def default_consumer(self) -> str:
        """The consumer id that ``get_item`` claims under."""
        self._consumer = self._consumer or consumer_id(default_consumer_name())
        return self._consumer

    def close(self) -> None:
        rest = self._meter.take_rest()
        if rest:
            with suppress(PersistQError):
                now = self.database.now()
                self._write("close", lambda conn: timings.write(conn, now, rest))
        super().close()

    # Producing

    def enqueue(
        self,
        item: str,
        queue: str = "default",
        *,
        task: str | None = None,
        priority: int = 0,
        delay: Seconds | None = None,
        run_at: datetime | None = None,
        max_attempts: int | None = None,
        timeout: Seconds | None = None,
        unique_key: str | None = None,
        on_duplicate: Literal["return", "raise"] = "return",
        connection: "Transaction | None" = None,
    ) -> int:
        new = NewJob(
            item=item, task=task, queue=queue, priority=priority, delay=delay, run_at=run_at,
            max_attempts=max_attempts, timeout=timeout, unique_key=unique_key,
        )  # fmt: skip
        run = run_of([item], new, self.settings, self.database.now())
        return self._enqueue([run], connection, on_duplicate)[0]

    def enqueue_many(
        self,
        items: Iterable[str | NewJob],
        queue: str = "default",
        *,
        connection: "Transaction | None" = None,
        **options: Any,
    ) -> list[int]:
        on_duplicate = options.pop("on_duplicate", "return")
        if isinstance(items, str):
            raise ConfigError("enqueue_many takes a list of items; enqueue takes one")
        given = list(items)
        try:
            shape = NewJob(item="", queue=queue, **options)
        except TypeError as error:
            raise ConfigError(str(error)) from None
        if not given:
            return []
        now = self.database.now()
        if shape.unique_key is None and not any(issubclass(kind, NewJob) for kind in set(map(type, given))):
            runs = [run_of(cast("list[str]", given), shape, self.settings, now)]
        else:
            new = [one if isinstance(one, NewJob) else shape.evolve(item=one) for one in given]
            runs = runs_of(new, self.settings, now)
        return self._enqueue(runs, connection, on_duplicate)

    def _enqueue(self, runs: Sequence[Run], connection: "Transaction | None", on_duplicate: str) -> list[int]:
        if on_duplicate not in ("return", "raise"):
            raise ConfigError(f"on_duplicate is 'return' or 'raise', not {on_duplicate!r:.40}")

        carried = events.carried()
        at = self.database.now() if carried else None

        def work(conn: "Connection") -> list[int]:
            found = [_insert(conn, run, on_duplicate) for run in runs]
            self._check_room(conn)
            if at is not None:
                new = [(job_id, None, carried) for ids, are_new in found if are_new for job_id in ids]
                history.record(conn, at, "enqueued", self.actor, new)
            return [job_id for ids, _ in found for job_id in ids]

        single = len(runs) == 1 and len(runs[0].items) == 1 and runs[0].unique_key is None and not carried
        return self._write(
            "enqueue", work, connection, adds_jobs=True, jobs=sum(len(run.items) for run in runs),
            one=runs[0] if single and not self.settings.queue_max_pending else None,
        )  # fmt: skip

    def _check_room(self, conn: "Connection") -> None:
        # Asked after the insert, so that a repeated unique key, which adds nothing, is never refused.
        bound = self.settings.queue_max_pending
        if bound and tallies.total(conn, None)[JobStatus.PENDING] > bound:
            raise QueueFull(f"QUEUE_MAX_PENDING allows {bound:,} pending jobs; try again later")

    # Consuming

    def dequeue(self, consumer: str, queue: Queues = None) -> Job | None:
        return next(iter(self.dequeue_many(consumer, queue, limit=1)), None)

    def dequeue_many(self, consumer: str, queue: Queues = None, *, limit: int = 100) -> list[Job]:
        self.recover_if_due()
        return list(self.exchange(consumer, limit=limit, queue=queue))

    def exchange(
        self,
        consumer: str,
        *,
        settled: Sequence[Outcome] = (),
        renew: Sequence[Job] = (),
        limit: int = 0,
        ahead: int = 0,
        queue: Queues = None,
        busy: bool | None = None,
    ) -> Exchanged:
        now = self.database.now()
        checked = [self._checked(outcome) for outcome in settled]
        turn: Callable[[Connection], tuple[Exchanged, list[Outcome]]] = partial(
            exchange.exchange,
            now=now,
            claimant=self._claimant(consumer, queue),
            settled=checked,
            renewing=renew,
            limit=limit,
            ahead=ahead,
            busy=bool(renew) if busy is None else busy,
        )
        write = partial(self._write, "exchange", settled=len(checked), renewed=len(renew))
        return self._counting(now, write, turn) if checked else write(turn)[0]

    def _counting(
        self,
        now: "Now",
        write: "Callable[[Callable[[Connection], tuple[T, list[Outcome]]]], tuple[T, list[Outcome]]]",
        work: "Callable[[Connection], tuple[T, list[Outcome]]]",
    ) -> T:
        """Return what ``write(work)`` does, and count what it ended: in the same transaction, if it is time."""
        taken = self._meter.take(self.clock.monotonic())

        def counted(conn: "Connection") -> "tuple[T, list[Outcome]]":
            result, ended = work(conn)
            if taken is not None:
                timings.write(conn, now, taken.and_of(ended, now))
            return result, ended

        try:
            result, ended = write(counted)
        except BaseException:
            if taken is not None:
                self._meter.put_back(taken)
            raise
        if taken is None:
            self._meter.gather(ended, now)
        return result

    def complete(self, job: Job, result: Any = None, *, connection: "Transaction | None" = None) -> None:
        self._settle("complete", [Done(job, result)], connection)

    def complete_many(self, jobs: Iterable[Job], *, connection: "Transaction | None" = None) -> None:
        self._settle("complete", [Done(job) for job in jobs], connection)

    def fail(
        self, job: Job, error: BaseException | str, permanent: bool = False, *, delay: Seconds | None = None
    ) -> None:
        self._settle("fail", [Failed(job, error, permanent, delay)])

    def release(self, job: Job) -> None:
        self._settle("release", [Released(job)])

    def renew(self, job: Job) -> Job:
        now = self.database.now()

        def work(conn: "Connection") -> Job:
            renewed = exchange.renew(conn, now, [job], self.settings.timeout_seconds)
            if not renewed:
                raise jobs.lease_lost(conn, job)
            return renewed[0]

        return self._write("renew", work, job=job.id)

    def _settle(self, verb: str, outcomes: Sequence[Outcome], connection: "Transaction | None" = None) -> None:
        checked = [self._checked(outcome) for outcome in outcomes]
        now = self.database.now()

        def work(conn: "Connection") -> tuple[None, list[Outcome]]:
            moves: tallies.Moves = {}
            refused, ended = exchange.settle(conn, now, checked, self._backoff, moves)
            if refused:
                raise jobs.lease_lost(conn, refused[0].job)
            tallies.add(conn, moves)
            if connection is not None:  # what the caller takes back was not done, and is not to be counted
                timings.write(conn, now, timings.Counts().and_of(ended, now))
            return None, ended

        if connection is not None:
            self._write(verb, work, connection, jobs=len(checked))
        else:
            self._counting(now, partial(self._write, verb, jobs=len(checked)), work)

    def _checked(self, outcome: Outcome) -> Outcome:
        if isinstance(outcome, Done) and outcome.result is not None:
            codec.dumps(outcome.result, max_bytes=self.settings.queue_max_item_bytes)
        if isinstance(outcome, Failed) and outcome.delay is not None:
            check_span("delay", outcome.delay)
        return outcome

    def recover(self) -> int:
        self._recovered_at = self.clock.monotonic()
        if not self.database.is_calm(self.settings.timeout_seconds):
            return 0
        taken = 0
        now = self.database.now()
        while page := self._write("recover", lambda conn: exchange.recover(conn, now, self.actor)):
            taken += page
        return taken

    def recover_if_due(self) -> int:
        """Recover unless that was done within ``QUEUE_RECOVERY_SECONDS``; return how many jobs came back."""
        return self.recover() if self.recovery_due_in() <= 0 else 0

    def recovery_due_in(self) -> float:
        """Return the seconds until this object's next recovery is due."""
        return self._recovered_at + self.settings.queue_recovery_seconds - self.clock.monotonic()

    def due_in(self, consumer: str, queue: Queues = None) -> float | None:
        claimant = self._claimant(consumer, queue)
        now = self.database.now()
        return self._read("due_in", lambda conn: exchange.due_in(conn, now, claimant))

    def unfinished(self, consumer: str, queue: Queues = None) -> bool:
        claimant = self._claimant(consumer, queue)
        return self._read("unfinished", lambda conn: exchange.unfinished(conn, claimant))

    def beat(self, info: ConsumerInfo) -> str | None:
        """Write what a consumer says of itself, and return what it has been told: ``quiet``, ``stop`` or nothing."""
        return self._write("beat", lambda conn: consumers.beat(conn, info))

    def leave(self, consumer: str) -> None:
        """Take a consumer off the list, and write what timings are still unwritten."""
        now, rest = self.database.now(), self._meter.take_rest()

        def work(conn: "Connection") -> None:
            consumers.remove(conn, consumer)
            timings.write(conn, now, rest)

        self._write("leave", work)

    # Looking

    def get_job(self, job_id: int) -> Job:
        return self._read("get_job", lambda conn: jobs.get(conn, codec.check_id(job_id)))

    def list_jobs(
        self,
        /,
        status: str | Iterable[str] | None = None,
        *,
        limit: int = 100,
        after: int = 0,
        newest: bool = False,
        before: int | None = None,
        **filters: Any,
    ) -> list[Job]:
        which = JobFilter.of(status, **filters)
        limit, after, before = codec.check_page(limit, after, before)
        return self._read(
            "list_jobs", partial(jobs.find, which=which, after=after, limit=limit, newest=newest, before=before)
        )

    def get_pending_jobs(self, /, **filters: Any) -> list[Job]:
        """Return a page of pending jobs; filters and paging are those of ``list_jobs``."""
        return self.list_jobs(JobStatus.PENDING, **filters)

    def counts(self, queue: str | None = None) -> dict[str, int]:
        return self._read("counts", lambda conn: tallies.total(conn, queue))

    def timings(self, within: Seconds = 3600) -> list[Timing]:
        now, span = self.database.now(), check_span("within", within)
        return self._read("timings", lambda conn: timings.read(conn, now, span))

    def queues(self) -> list[QueueInfo]:
        return self._read("queues", queues.overview)

    def consumers(self) -> list[ConsumerInfo]:
        return self._read("consumers", consumers.overview)

    def events(self, job_id: int) -> list[Event]:
        def work(conn: "Connection") -> list[Event]:
            jobs.get(conn, codec.check_id(job_id))
            return history.of_job(conn, job_id)

        return self._read("events", work)

    def has_live_job(self, item: str) -> bool:
        return self._read("has_live_job", lambda conn: jobs.exists_live(conn, item))

    def _claimant(self, consumer: str, queue: Queues) -> Claimant:
        names = () if queue is None else (queue,) if isinstance(queue, str) else tuple(dict.fromkeys(queue))
        for name in names:
            codec.check_name("queue", name)
        return Claimant(
            codec.check_text("a consumer", consumer, 255), names, self.settings.timeout_seconds, self._backoff
        )


def connect(
    target: str | os.PathLike[str] | Mapping[str, str] | None = None,
    *,
    settings: Settings | None = None,
    clock: Clock | None = None,
    actor: str | None = None,
    read_only: bool = False,
    **overrides: Any,
) -> PersistentQSQLAlchemy:
    """Return a queue: of the settings, or at a path, a URL, or ``{"name": "queue.db", "type": "sqlite"}``.

    The settings are read now, from the environment and ``.env``; ``overrides`` replace single ones,
    such as ``timeout_seconds=5``. Nothing is opened before the first call. ``read_only`` refuses every method
    that writes. ``actor`` is whom history and audit log name, such as ``cli:user@host``.

    Raises:
        ConfigError: a setting or the target is not usable.
    """
    if unknown := overrides.keys() - Settings.model_fields.keys():
        raise ConfigError(f"there is no setting {', '.join(sorted(unknown))}")
    settings = settings or Settings.load(**overrides)
    if isinstance(target, Mapping):
        target = _from_mapping(target)
    return PersistentQSQLAlchemy(
        settings.database if target is None else target, settings, clock=clock, actor=actor, read_only=read_only
    )


def db_connect(db_name: str, db_type: str = "sqlite") -> PersistentQSQLAlchemy:
    """Return a queue by the seed document's two words: the same as ``connect({"name": ..., "type": ...})``."""
    return connect({"name": db_name, "type": db_type})


def _from_mapping(target: Mapping[str, str]) -> str:
    if set(target) != {"name", "type"}:
        raise ConfigError('a database as a dict has two keys: {"name": "queue.db", "type": "sqlite"}')
    if target["type"] != "sqlite":
        raise ConfigError(
            f"type {target['type']!r:.40} needs a URL, as QUEUE_DB_URL has it; 'sqlite' needs a name only"
        )
    return target["name"]


def _insert(conn: "Connection", run: Run, on_duplicate: str) -> tuple[list[int], bool]:
    """Add a run; return its jobs' ids, and whether they are new."""
    if run.unique_key is None:
        return insert.insert_run(conn, run), True
    job_id, new = insert.insert_unique(conn, run)
    if not new and on_duplicate == "raise":
        raise DuplicateJob(f"job {job_id} has the key {run.unique_key!r} in queue {run.queue!r}", job_id)
    return [job_id], new
