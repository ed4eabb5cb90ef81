"""persistq.aio: the whole queue for asyncio. ``connect()`` is not awaited, the methods are.

    import persistq.aio

    async with persistq.aio.connect() as q:
        job_id = await q.enqueue("item")

Each method is the one of the same name of ``persistq.connect()``'s queue, performed by a thread of this queue's
own. Tasks that enqueue or complete at the same moment therefore share a commit, as threads do.

When a task is cancelled while it awaits a call, the transaction ends as it would have, and the task does not
know how, as after ``OutcomeUnknown``: repeating the call is harmless in the same cases. Jobs that ``dequeue``,
``dequeue_many`` or ``exchange`` lease when nobody waits for them any more are given back. A call that has joined
a caller's transaction is a part of that, and is undone with it.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from datetime import datetime
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Self, TypeVar

from .clock import Clock, Seconds
from .errors import ConfigError, PersistQError
from .model import Job, NewJob, Released
from .queue import PersistentQSQLAlchemy
from .queue import connect as connect_sync
from .settings import Settings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

    AsyncTransaction = AsyncSession | AsyncConnection

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
Claimed = TypeVar("Claimed", bound=Job | list[Job] | None)

_THREADS = 32
"""Calls of one queue that are under way at once; more wait their turn."""


def _awaited(
    method: Callable[Concatenate[PersistentQSQLAlchemy, P], T],
) -> Callable[Concatenate["AsyncPersistentQ", P], Coroutine[Any, Any, T]]:
    """Return the method as one that is awaited while a thread performs it."""

    @_named_like(method)
    async def call(self: "AsyncPersistentQ", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.wrap_future(self._begin(partial(method, self.sync, *args, **kwargs)))

    return call


def _claiming(
    method: Callable[Concatenate[PersistentQSQLAlchemy, P], Claimed],
) -> Callable[Concatenate["AsyncPersistentQ", P], Coroutine[Any, Any, Claimed]]:
    """Return what ``_awaited`` does, for a method whose jobs would otherwise stay leased to a task that has gone."""

    @_named_like(method)
    async def call(self: "AsyncPersistentQ", /, *args: P.args, **kwargs: P.kwargs) -> Claimed:
        claim = self._begin(partial(method, self.sync, *args, **kwargs))
        try:
            return await asyncio.wrap_future(claim)
        except asyncio.CancelledError:
            give_back = partial(_give_back, self.sync)
            if claim.done():
                self._begin(partial(give_back, claim))
            else:
                claim.add_done_callback(give_back)
            raise

    return call


def _give_back(q: PersistentQSQLAlchemy, claim: "Future[Any]") -> None:
    if claim.cancelled() or claim.exception():
        return
    found = claim.result()
    jobs = [found] if isinstance(found, Job) else found
    if jobs:
        with suppress(PersistQError):  # then the leases will end by themselves
            q.exchange(str(jobs[0].consumer_id), settled=[Released(job) for job in jobs])


def _named_like(method: Callable[..., Any]) -> Callable[[F], F]:
    def named(function: F) -> F:
        wraps(method)(function)
        function.__module__, function.__qualname__ = __name__, f"AsyncPersistentQ.{method.__name__}"
        function.__doc__ = _promise(method.__name__)
        return function

    return named


def _with_promise(function: F) -> F:
    """Add to a docstring what the interface promises of the method."""
    function.__doc__ = f"{function.__doc__}\n\n        {_promise(function.__name__)}"
    return function


def _promise(name: str) -> str:
    found = (vars(base).get(name) for base in PersistentQSQLAlchemy.__mro__)
    return next((method.__doc__ for method in found if method and method.__doc__), "")  # python -OO has none


class AsyncPersistentQ:
    """A persistent queue for asyncio. Make one with ``persistq.aio.connect()``; tasks may share it, and loops too.

    What each method promises stands in ``PersistentQInterface``.
    """

    def __init__(self, sync: PersistentQSQLAlchemy) -> None:
        #: The same queue for code that is not asynchronous.
        self.sync = sync
        self._engine: AsyncEngine | None = None
        self._start()

    def _start(self) -> None:
        # An executor makes its threads when it needs them.
        self._owner = os.getpid()
        self._threads = ThreadPoolExecutor(_THREADS, "persistq-aio")
        self._aside = ThreadPoolExecutor(1, "persistq-aio-aside")

    def _begin(self, work: Callable[[], T], *, aside: bool = False) -> "Future[T]":
        if self._owner != os.getpid():
            self._start()  # the parent's threads have not come along into this forked child
        pool = self._aside if aside else self._threads
        return pool.submit(copy_context().run, work)

    async def _join(self, connection: "AsyncTransaction | None", work: Callable[..., T]) -> T:
        """Perform the work in the caller's transaction, if there is one."""
        if connection is None:
            return await asyncio.wrap_future(self._begin(work))
        run_sync: Any = getattr(connection, "run_sync", None)
        if run_sync is None:
            name = type(connection).__name__
            raise ConfigError(
                f"connection= is of type {name}; with a queue for asyncio it takes an AsyncSession or AsyncConnection, "
                "with one that persistq.connect() makes a Session or Connection"
            )
        # What the call would look up on a connection of its own, it shall find there: this is the loop's thread.
        # And apart from the others: they may all be waiting for a lock that the caller's transaction holds.
        await asyncio.wrap_future(self._begin(self.sync.prepare, aside=True))
        result: T = await run_sync(lambda own: work(connection=own))
        return result

    # Producing

    @_with_promise
    async def enqueue(
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
        connection: "AsyncTransaction | None" = None,
    ) -> int:
        """As ``PersistentQInterface.enqueue`` has it; ``connection`` is an AsyncSession or AsyncConnection."""
        work = partial(
            self.sync.enqueue, item, queue, task=task, priority=priority, delay=delay, run_at=run_at,
            max_attempts=max_attempts, timeout=timeout, unique_key=unique_key, on_duplicate=on_duplicate,
        )  # fmt: skip
        return await self._join(connection, work)

    @_with_promise
    async def enqueue_many(
        self,
        items: Iterable[str | NewJob],
        queue: str = "default",
        *,
        connection: "AsyncTransaction | None" = None,
        **options: Any,
    ) -> list[int]:
        """As ``PersistentQInterface.enqueue_many`` has it; ``connection`` is an AsyncSession or AsyncConnection."""
        given = items if isinstance(items, str) else list(items)  # a generator is the caller's, and so is its thread
        return await self._join(connection, partial(self.sync.enqueue_many, given, queue, **options))

    # Consuming

    dequeue = _claiming(PersistentQSQLAlchemy.dequeue)
    dequeue_many = _claiming(PersistentQSQLAlchemy.dequeue_many)
    exchange = _claiming(PersistentQSQLAlchemy.exchange)

    @_with_promise
    async def complete(self, job: Job, result: Any = None, *, connection: "AsyncTransaction | None" = None) -> None:
        """As ``PersistentQInterface.complete`` has it; ``connection`` is an AsyncSession or AsyncConnection."""
        await self._join(connection, partial(self.sync.complete, job, result))

    @_with_promise
    async def complete_many(self, jobs: Iterable[Job], *, connection: "AsyncTransaction | None" = None) -> None:
        """As ``PersistentQInterface.complete_many`` has it; ``connection`` is an AsyncSession or AsyncConnection."""
        await self._join(connection, partial(self.sync.complete_many, list(jobs)))

    fail = _awaited(PersistentQSQLAlchemy.fail)
    release = _awaited(PersistentQSQLAlchemy.release)
    renew = _awaited(PersistentQSQLAlchemy.renew)
    recover = _awaited(PersistentQSQLAlchemy.recover)
    recover_if_due = _awaited(PersistentQSQLAlchemy.recover_if_due)
    recovery_due_in = _awaited(PersistentQSQLAlchemy.recovery_due_in)
    due_in = _awaited(PersistentQSQLAlchemy.due_in)
    unfinished = _awaited(PersistentQSQLAlchemy.unfinished)
    beat = _awaited(PersistentQSQLAlchemy.beat)
    leave = _awaited(PersistentQSQLAlchemy.leave)
    doorbell = _awaited(PersistentQSQLAlchemy.doorbell)

    # Looking

    get_job = _awaited(PersistentQSQLAlchemy.get_job)
    list_jobs = _awaited(PersistentQSQLAlchemy.list_jobs)
    get_pending_jobs = _awaited(PersistentQSQLAlchemy.get_pending_jobs)
    counts = _awaited(PersistentQSQLAlchemy.counts)
    queues = _awaited(PersistentQSQLAlchemy.queues)
    consumers = _awaited(PersistentQSQLAlchemy.consumers)
    events = _awaited(PersistentQSQLAlchemy.events)
    has_live_job = _awaited(PersistentQSQLAlchemy.has_live_job)
    timings = _awaited(PersistentQSQLAlchemy.timings)
    search = _awaited(PersistentQSQLAlchemy.search)
    throughput = _awaited(PersistentQSQLAlchemy.throughput)
    arrivals = _awaited(PersistentQSQLAlchemy.arrivals)
    tally_drift = _awaited(PersistentQSQLAlchemy.tally_drift)

    # Deciding

    resubmit = _awaited(PersistentQSQLAlchemy.resubmit)
    cancel = _awaited(PersistentQSQLAlchemy.cancel)
    mark_failed = _awaited(PersistentQSQLAlchemy.mark_failed)
    assign_job = _awaited(PersistentQSQLAlchemy.assign_job)
    release_job = _awaited(PersistentQSQLAlchemy.release_job)
    edit_job = _awaited(PersistentQSQLAlchemy.edit_job)
    delete_job = _awaited(PersistentQSQLAlchemy.delete_job)
    update_status = _awaited(PersistentQSQLAlchemy.update_status)
    preview = _awaited(PersistentQSQLAlchemy.preview)
    preview_rest = _awaited(PersistentQSQLAlchemy.preview_rest)
    begin_bulk = _awaited(PersistentQSQLAlchemy.begin_bulk)
    advance_bulk = _awaited(PersistentQSQLAlchemy.advance_bulk)
    delete_jobs = _awaited(PersistentQSQLAlchemy.delete_jobs)
    purge = _awaited(PersistentQSQLAlchemy.purge)
    pause = _awaited(PersistentQSQLAlchemy.pause)
    resume = _awaited(PersistentQSQLAlchemy.resume)
    retire = _awaited(PersistentQSQLAlchemy.retire)
    bury = _awaited(PersistentQSQLAlchemy.bury)
    note = _awaited(PersistentQSQLAlchemy.note)
    tell_consumer = _awaited(PersistentQSQLAlchemy.tell_consumer)
    audit = _awaited(PersistentQSQLAlchemy.audit)
    explain = _awaited(PersistentQSQLAlchemy.explain)
    errors = _awaited(PersistentQSQLAlchemy.errors)
    prune_consumers = _awaited(PersistentQSQLAlchemy.prune_consumers)
    mend_tallies = _awaited(PersistentQSQLAlchemy.mend_tallies)
    fold_timings = _awaited(PersistentQSQLAlchemy.fold_timings)

    # The names of the seed documents

    put_item = _awaited(PersistentQSQLAlchemy.put_item)
    get_item = _awaited(PersistentQSQLAlchemy.get_item)
    get_all_items = _awaited(PersistentQSQLAlchemy.get_all_items)
    update_q = _awaited(PersistentQSQLAlchemy.update_q)

    # The database

    prepare = _awaited(PersistentQSQLAlchemy.prepare)

    async def engine(self) -> "AsyncEngine":
        """Return an AsyncEngine, for AsyncSessions whose transaction a job is to join; the schema is there.

        Another one will do, except on SQLite: see ``PersistentQInterface.enqueue``.

        Raises:
            ConfigError: the driver for it is not installed.
        """
        await self.prepare()
        self._engine = self.sync.database.async_engine
        return self._engine

    async def close(self) -> None:
        """Wait for the calls that are under way, then close the pooled connections. The object may be used again."""
        threads = self._threads, self._aside
        self._start()
        await asyncio.to_thread(_close, self.sync, threads)
        if self._engine is not None:
            await self._engine.dispose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def default_consumer(self) -> str:
        """The consumer id that ``get_item`` claims under."""
        return self.sync.default_consumer

    @property
    def settings(self) -> Settings:
        """The settings as they were when the queue was made."""
        return self.sync.settings

    @property
    def dbtype(self) -> str:
        """The kind of database, such as ``sqlite``."""
        return self.sync.dbtype

    @property
    def dbname(self) -> str:
        """The database's name: on SQLite the file's path."""
        return self.sync.dbname


def _close(q: PersistentQSQLAlchemy, threads: Iterable[ThreadPoolExecutor]) -> None:
    for pool in threads:
        pool.shutdown()
    q.close()


def connect(
    target: str | os.PathLike[str] | Mapping[str, str] | None = None,
    *,
    settings: Settings | None = None,
    clock: Clock | None = None,
    actor: str | None = None,
    read_only: bool = False,
    **overrides: Any,
) -> AsyncPersistentQ:
    """Return a queue for asyncio. It takes what ``persistq.connect`` takes, and is not awaited.

    Raises:
        ConfigError: a setting or the target is not usable.
    """
    q = connect_sync(target, settings=settings, clock=clock, actor=actor, read_only=read_only, **overrides)
    return AsyncPersistentQ(q)
