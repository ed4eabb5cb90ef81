"""Procrastinate with psycopg, 30 jobs at once."""

import asyncio
import sys

import procrastinate
from common import BATCH, Handler, Work, item, items, main, race, repeat, this, workload


def tasks(app: procrastinate.App, handler: "Handler | None" = None) -> procrastinate.tasks.Task:
    @app.task(name="noop")
    async def noop(text: str) -> None:  # noqa: ARG001
        handler.noop()

    return noop


def producer(work: Work) -> procrastinate.App:
    app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=work.url))
    app.open()
    app.schema_manager.apply_schema()
    return app


@workload
def enqueue(work: Work) -> dict:
    noop = tasks(app := producer(work))
    try:
        return repeat(work, lambda n: noop.defer(text=item(n)))
    finally:
        app.close()


@workload
def enqueue_many(work: Work) -> dict:
    noop = tasks(app := producer(work))
    try:
        return repeat(work, lambda n: noop.batch_defer(*({"text": text} for text in items(BATCH, n * BATCH))), BATCH)
    finally:
        app.close()


@workload
def consume(work: Work) -> dict:
    noop = tasks(app := producer(work))
    for start in range(0, work.jobs, BATCH):
        noop.batch_defer(*({"text": text} for text in items(BATCH, start)))
    app.close()
    return race(work, this(__file__, "worker", work))


@workload
def worker(work: Work) -> dict:
    async def run() -> None:
        app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=work.url, max_size=40))
        handler = Handler()
        tasks(app, handler)
        async with app.open_async():
            handler.wait()
            await app.run_worker_async(concurrency=30, install_signal_handlers=False)

    asyncio.run(run())
    return {}


if __name__ == "__main__":
    sys.exit(main())
