"""A caller's own transaction in each of SQLAlchemy's four shapes, behind one face."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar

from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from persistq import Job, NewJob
from persistq.aio import AsyncPersistentQ
from support.jobs import Queue

T = TypeVar("T")

OTHER_DRIVERS = [("postgresql", "asyncpg"), ("mariadb", "asyncmy")]
"""Drivers for asyncio besides those that ``engine()`` uses, with the kinds of database that they are for."""


class Own:
    """The caller's transaction. What is done by its methods is done in it."""

    def __init__(self, q: Any, own: Any, wait: Callable[[Any], Any] = lambda result: result) -> None:
        self._q = q
        self._own = own
        self._wait = wait

    def enqueue(self, item: str, **options: Any) -> int:
        return int(self._wait(self._q.enqueue(item, connection=self._own, **options)))

    def enqueue_many(self, items: list[str | NewJob], **options: Any) -> list[int]:
        return list(self._wait(self._q.enqueue_many(items, connection=self._own, **options)))

    def complete(self, job: Job, result: Any = None) -> None:
        self._wait(self._q.complete(job, result, connection=self._own))

    def complete_many(self, jobs: list[Job]) -> None:
        self._wait(self._q.complete_many(jobs, connection=self._own))

    def jobs(self) -> int:
        """Return how many jobs the transaction itself sees."""
        return int(self._wait(self._own.execute(text("SELECT count(*) FROM jobs"))).scalar_one())

    def commit(self) -> None:
        self._wait(self._own.commit())

    def rollback(self) -> None:
        self._wait(self._own.rollback())

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Give a savepoint that ends with the block, and is rolled back by whatever is raised there."""
        nested = self._wait(self._own.begin_nested())
        try:
            yield
        except BaseException:
            self._wait(nested.rollback())
            raise
        self._wait(nested.commit())


Transaction = Callable[[Queue], AbstractContextManager[Own]]
"""Opens the caller's transaction: it is committed at the end of the block, unless that raises."""


@contextmanager
def connection(q: Queue) -> Iterator[Own]:
    with q.engine.connect() as conn:
        yield from _ended(Own(q, conn))


@contextmanager
def session(q: Queue) -> Iterator[Own]:
    with Session(q.engine) as own:
        yield from _ended(Own(q, own))


@contextmanager
def async_connection(q: Queue) -> Iterator[Own]:
    with _looped(q, AsyncEngine.connect) as own:
        yield from _ended(own)


@contextmanager
def async_session(q: Queue) -> Iterator[Own]:
    with _looped(q, AsyncSession) as own:
        yield from _ended(own)


TRANSACTIONS: dict[str, Transaction] = {
    "Connection": connection, "Session": session, "AsyncConnection": async_connection, "AsyncSession": async_session,
}  # fmt: skip


@contextmanager
def by_driver(q: Queue, driver: str) -> Iterator[Own]:
    """Give the transaction of an AsyncSession whose connections another driver makes."""
    url = q.database.url
    engine = create_async_engine(make_url(url).set(drivername=f"{url.get_backend_name()}+{driver}"))
    with _looped(q, AsyncSession, engine) as own:
        yield from _ended(own)


def _ended(own: Own) -> Iterator[Own]:
    try:
        yield own
    except BaseException:
        own.rollback()
        raise
    own.commit()


@contextmanager
def _looped(
    q: Queue, open_on: Callable[[AsyncEngine], AsyncConnection | AsyncSession], engine: AsyncEngine | None = None
) -> Iterator[Own]:
    """Run an event loop for single calls: what is opened in it stays open between them."""
    with ExitStack() as at_end:
        runner = at_end.enter_context(asyncio.Runner())

        def wait(result: Awaitable[T]) -> T:
            async def awaited() -> T:
                return await result

            return runner.run(awaited())

        aq = AsyncPersistentQ(q)
        at_end.callback(lambda: wait(aq.close()))
        engine = engine or wait(aq.engine())
        at_end.callback(lambda: wait(engine.dispose()))
        own = open_on(engine)
        if isinstance(own, AsyncConnection):
            wait(own)
        at_end.callback(lambda: wait(own.close()))
        yield Own(aq, own, wait)
