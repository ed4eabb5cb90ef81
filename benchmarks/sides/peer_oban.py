"""Oban for Python, 50 jobs at once."""

import asyncio
import sys

from common import BATCH, Handler, Work, item, items, main, race, repeat_async, this, workload
from oban import Oban
from oban import worker as as_worker
from oban.schema import install

_handler: "Handler | None" = None


@as_worker(queue="default")
class Noop:
    async def process(self, _job: object) -> None:
        _handler.noop()


def jobs(texts: list[str]) -> list[object]:
    return [Noop.new({"text": text}) for text in texts]


@workload
def enqueue(work: Work) -> dict:
    async def run() -> dict:
        pool = await Oban.create_pool(work.url)
        await install(pool)
        async with Oban(pool=pool) as oban:
            return await repeat_async(work, lambda n: oban.enqueue(Noop.new({"text": item(n)})))

    return asyncio.run(run())


@workload
def enqueue_many(work: Work) -> dict:
    async def run() -> dict:
        pool = await Oban.create_pool(work.url)
        await install(pool)
        async with Oban(pool=pool) as oban:
            return await repeat_async(work, lambda n: oban.enqueue_many(jobs(items(BATCH, n * BATCH))), BATCH)

    return asyncio.run(run())


@workload
def consume(work: Work) -> dict:
    async def fill() -> None:
        pool = await Oban.create_pool(work.url)
        await install(pool)
        async with Oban(pool=pool) as oban:
            for start in range(0, work.jobs, BATCH):
                await oban.enqueue_many(jobs(items(BATCH, start)))
        await pool.close()

    asyncio.run(fill())
    return race(work, this(__file__, "worker", work))


@workload
def worker(work: Work) -> dict:
    global _handler
    _handler = handler = Handler()

    async def run() -> None:
        pool = await Oban.create_pool(work.url)
        handler.wait()
        async with Oban(pool=pool, queues={"default": 50}):
            await asyncio.Event().wait()

    asyncio.run(run())
    return {}


if __name__ == "__main__":
    sys.exit(main())
