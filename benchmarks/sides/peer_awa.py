"""awa, whose core is written in Rust, with 500 workers; many jobs go in by COPY."""

import asyncio
import sys
from dataclasses import dataclass
from urllib.parse import quote

import awa
from common import BATCH, Handler, Work, item, items, main, race, repeat_async, this, workload


@dataclass
class Noop:
    text: str


def jobs(texts: list[str]) -> list[Noop]:
    return [Noop(text) for text in texts]


def address(url: str) -> str:
    """Put the socket's folder where the driver looks for it: in the place of the host."""
    place, _, folder = url.partition("?host=")
    return place.replace("@/", f"@{quote(folder, safe='')}/") if folder else url


async def connect(work: Work) -> awa.AsyncClient:
    client = awa.AsyncClient(address(work.url))
    await client.migrate()
    return client


@workload
def enqueue(work: Work) -> dict:
    async def run() -> dict:
        client = await connect(work)
        return await repeat_async(work, lambda n: client.insert(Noop(item(n)), queue="default"))

    return asyncio.run(run())


@workload
def enqueue_many(work: Work) -> dict:
    async def run() -> dict:
        client = await connect(work)
        return await repeat_async(
            work, lambda n: client.insert_many_copy(jobs(items(BATCH, n * BATCH)), queue="default"), BATCH
        )

    return asyncio.run(run())


@workload
def consume(work: Work) -> dict:
    async def fill() -> None:
        client = await connect(work)
        for start in range(0, work.jobs, BATCH):
            await client.insert_many_copy(jobs(items(BATCH, start)), queue="default")
        await client.close()

    asyncio.run(fill())
    return race(work, this(__file__, "worker", work))


@workload
def worker(work: Work) -> dict:
    async def run() -> None:
        client = awa.AsyncClient(address(work.url))
        handler = Handler()

        @client.task(Noop, queue="default")
        async def noop(_job: object) -> None:
            handler.noop()

        handler.wait()
        await client.start([("default", 500)])
        await asyncio.Event().wait()

    asyncio.run(run())
    return {}


if __name__ == "__main__":
    sys.exit(main())
