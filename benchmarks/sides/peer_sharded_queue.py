"""sharded-queue 0.2, in memory and on Redis; ``state`` says whether it waits on empty tubes as by default."""

import asyncio
import sys
from typing import Any

import shards_common
from common import Work, main, workload
from sharded_queue import Handler, Queue, Route, Worker
from sharded_queue.drivers import RedisLock, RedisStorage, RuntimeLock, RuntimeStorage
from sharded_queue.settings import LockSettings, StorageSettings, WorkerSettings
from shards_common import Counter, Visit

BENCH: dict[str, Any] = {"threads": 3, "counter": None}


class VisitHandler(Handler):
    @classmethod
    async def route(cls, *requests: Visit) -> list[Route]:
        threads = BENCH["threads"]
        return [Route(thread=request.user_id % threads) for request in requests]

    async def handle(self, *requests: Visit) -> None:
        BENCH["counter"].add(len(requests))


VisitHandler.__module__ = "peer_sharded_queue"
sys.modules["peer_sharded_queue"] = sys.modules["__main__"]


def settings(work: Work) -> WorkerSettings:
    found = WorkerSettings()
    found.batch_size = 128
    if work.state == "tuned":
        found.empty_limit, found.empty_pause = 1, 0
    return found


async def compared(work: Work, what: str, storage: Any, lock: Any) -> dict:
    BENCH["threads"] = work.threads
    BENCH["counter"] = counter = Counter(work.jobs)
    queue = Queue(storage)

    async def register(*requests: Visit) -> None:
        await queue.register(VisitHandler, *requests)

    if what == "register":
        return await shards_common.registered(work, register)
    return await shards_common.performed(
        work, counter, register,
        lambda: [Worker(lock, queue, settings=settings(work)).loop() for _ in range(work.processes)],
    )  # fmt: skip


async def on_redis(work: Work, what: str) -> dict:
    async with shards_common.redis_server(work) as client:
        return await compared(work, what, RedisStorage(client, StorageSettings()), RedisLock(client, LockSettings()))


@workload
def register(work: Work) -> dict:
    return asyncio.run(compared(work, "register", RuntimeStorage(), RuntimeLock()))


@workload
def perform(work: Work) -> dict:
    return asyncio.run(compared(work, "perform", RuntimeStorage(), RuntimeLock()))


@workload
def redis_register(work: Work) -> dict:
    return asyncio.run(on_redis(work, "register"))


@workload
def redis_perform(work: Work) -> dict:
    return asyncio.run(on_redis(work, "perform"))


if __name__ == "__main__":
    sys.exit(main())
