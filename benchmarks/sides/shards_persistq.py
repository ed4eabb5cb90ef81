"""persistq's shards on every driver."""

import asyncio
import sys
import time
from contextlib import closing
from functools import partial
from typing import Any

import shards_common
from common import Work, main, workload
from shards_common import Counter, Visit

import persistq
from persistq.sharded import (
    Handler,
    Queue,
    RedisCoordinator,
    RedisStorage,
    Route,
    RuntimeCoordinator,
    RuntimeStorage,
    SQLAlchemyCoordinator,
    SQLAlchemyStorage,
    Worker,
    settings,
)

BENCH: dict[str, Any] = {"threads": 3, "counter": None}


class VisitHandler(Handler):
    @classmethod
    async def route(cls, *requests: Visit) -> list[Route]:
        threads = BENCH["threads"]
        return [Route(thread=request.user_id % threads) for request in requests]

    async def perform(self, *requests: Visit) -> None:
        BENCH["counter"].add(len(requests))


async def compared(work: Work, what: str, storage: Any, coordinator: Any) -> dict:
    BENCH["threads"] = work.threads
    BENCH["counter"] = counter = Counter(work.jobs)
    if work.state == "tuned":
        settings.worker_empty_limit, settings.worker_empty_pause = 1, 0.0
    queue = Queue(storage)

    register = partial(queue.register, VisitHandler)
    if what == "register":
        return await shards_common.registered(work, register)
    return await shards_common.performed(
        work, counter, register, lambda: [Worker(coordinator(), queue).loop() for _ in range(work.processes)]
    )


async def on_redis(work: Work, what: str) -> dict:
    async with shards_common.redis_server(work) as client:
        return await compared(work, what, RedisStorage(client), lambda: RedisCoordinator(client))


async def on_sql(work: Work, what: str) -> dict:
    with closing(persistq.connect(work.url or str(work.path / "queue.db"), queue_durability=work.durability)) as q:
        if work.url:
            q.database.upgrade()
        storage = SQLAlchemyStorage(q)
        return await compared(work, what, storage, lambda: SQLAlchemyCoordinator(storage))


async def on_raw_sql(work: Work) -> dict:
    """The bare statements of a removal and the next look, in a transaction each, on the drivers' own cursors."""
    BENCH["threads"] = work.threads
    with closing(persistq.connect(work.url or str(work.path / "queue.db"), queue_durability=work.durability)) as q:
        if work.url:
            q.database.upgrade()
        await shards_common.filled(work, partial(Queue(SQLAlchemyStorage(q)).register, VisitHandler))
        return raw_drain(work, q)


def raw_drain(work: Work, q: Any) -> dict:
    mark = "%s" if work.url else "?"
    look = (
        f"SELECT id, payload FROM requests WHERE tube = {mark} AND due_at IS NULL "  # noqa: S608
        f"ORDER BY place, id LIMIT {mark}"
    )
    with q.engine.connect() as connection:
        raw = connection.connection.dbapi_connection
        cursor, done, began = raw.cursor(), 0, time.perf_counter()
        for thread in range(work.threads):
            wanted = (f"tube_VisitHandler/{thread}", 128)
            cursor.execute(look, wanted)
            while rows := cursor.fetchall():
                if not work.url:
                    cursor.execute("BEGIN IMMEDIATE")
                ids = ",".join(str(row[0]) for row in rows)
                cursor.execute(f"DELETE FROM requests WHERE id IN ({ids})")  # noqa: S608
                done += len(rows)
                cursor.execute(look, wanted)
                raw.commit()
        return {"rate": done / (time.perf_counter() - began)}


async def finding(work: Work) -> dict:
    """How often a worker can look for work among so many tubes of which ten are busy."""
    with closing(persistq.connect(work.url or str(work.path / "queue.db"), queue_durability=work.durability)) as q:
        if work.url:
            q.database.upgrade()
        storage = SQLAlchemyStorage(q)
        coordinator = SQLAlchemyCoordinator(storage)
        return {"rate": await _looks(work, storage, coordinator)}


async def _looks(work: Work, storage: Any, coordinator: Any) -> float:
    BENCH["threads"] = work.threads
    queue = Queue(storage)
    names = [f"VisitHandler/{n}" for n in range(work.threads)]
    for at in range(0, work.threads, 1000):
        await queue.register(VisitHandler, *[Visit(n) for n in range(at, min(at + 1000, work.threads))])
    for name in names[10:]:
        lease = await coordinator.bind(name)
        await storage.remove(name, [one.id for one in await storage.peek(name, 10)], lease)
        await coordinator.unbind(lease)
    worker = Worker(coordinator, queue)
    looks, began = 0, time.perf_counter()
    while time.perf_counter() < began + work.seconds / 2:
        lease = await worker._bind()
        await coordinator.unbind(lease)
        looks += 1
    return looks / (time.perf_counter() - began)


async def finding_on_redis(work: Work) -> dict:
    async with shards_common.redis_server(work) as client:
        return {"rate": await _looks(work, RedisStorage(client), RedisCoordinator(client))}


async def finding_in_memory(work: Work) -> dict:
    return {"rate": await _looks(work, RuntimeStorage(), RuntimeCoordinator())}


@workload
def register(work: Work) -> dict:
    return asyncio.run(compared(work, "register", RuntimeStorage(), RuntimeCoordinator))


@workload
def perform(work: Work) -> dict:
    return asyncio.run(compared(work, "perform", RuntimeStorage(), RuntimeCoordinator))


@workload
def redis_register(work: Work) -> dict:
    return asyncio.run(on_redis(work, "register"))


@workload
def redis_perform(work: Work) -> dict:
    return asyncio.run(on_redis(work, "perform"))


@workload
def sql_register(work: Work) -> dict:
    return asyncio.run(on_sql(work, "register"))


@workload
def sql_perform(work: Work) -> dict:
    return asyncio.run(on_sql(work, "perform"))


@workload
def raw_perform(work: Work) -> dict:
    return asyncio.run(on_raw_sql(work))


@workload
def sql_finding(work: Work) -> dict:
    return asyncio.run(finding(work))


@workload
def redis_finding(work: Work) -> dict:
    return asyncio.run(finding_on_redis(work))


@workload
def memory_finding(work: Work) -> dict:
    return asyncio.run(finding_in_memory(work))


if __name__ == "__main__":
    sys.exit(main())
