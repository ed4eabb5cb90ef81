"""PgQueuer on asyncpg, claiming 100 at a time."""

import asyncio
import sys

import asyncpg
from common import BATCH, Handler, Work, idle_latency, item, items, main, race, repeat_async, this, workload
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries


async def connect(work: Work, *, install: bool = True) -> Queries:
    queries = Queries(AsyncpgDriver(await asyncpg.connect(work.url)))
    if install:
        await queries.install()
    return queries


def batch(texts: list[str]) -> tuple[list[str], list[bytes], list[int]]:
    return ["noop"] * len(texts), [text.encode() for text in texts], [0] * len(texts)


@workload
def enqueue(work: Work) -> dict:
    async def run() -> dict:
        queries = await connect(work)
        return await repeat_async(work, lambda n: queries.enqueue("noop", item(n).encode()))

    return asyncio.run(run())


@workload
def enqueue_many(work: Work) -> dict:
    async def run() -> dict:
        queries = await connect(work)
        return await repeat_async(work, lambda n: queries.enqueue(*batch(items(BATCH, n * BATCH))), BATCH)

    return asyncio.run(run())


@workload
def consume(work: Work) -> dict:
    async def fill() -> None:
        queries = await connect(work)
        for start in range(0, work.jobs, BATCH):
            await queries.enqueue(*batch(items(BATCH, start)))

    asyncio.run(fill())
    return race(work, this(__file__, "worker", work))


@workload
def latency(work: Work) -> dict:
    loop = asyncio.new_event_loop()
    queries = loop.run_until_complete(connect(work))
    return idle_latency(
        work,
        this(__file__, "worker", work),
        lambda sent: loop.run_until_complete(queries.enqueue("arrived", repr(sent).encode())),
    )


@workload
def worker(work: Work) -> dict:
    async def run() -> None:
        made = PgQueuer(AsyncpgDriver(await asyncpg.connect(work.url)))
        handler = Handler()

        @made.entrypoint("noop")
        async def noop(_job: object) -> None:
            handler.noop()

        @made.entrypoint("arrived")
        async def arrived(job: object) -> None:
            handler.arrived(float(job.payload))

        handler.wait()
        await made.run(batch_size=100)

    asyncio.run(run())
    return {}


if __name__ == "__main__":
    sys.exit(main())
