"""``--shards``: a consumer that performs sharded requests instead of jobs."""

import argparse
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import persistq
from persistq import tasks
from persistq.sharded import Storage, promotion

_log = logging.getLogger("persistq.consumer")


def consume(q: persistq.PersistentQSQLAlchemy, options: argparse.Namespace) -> int:
    """Perform requests until told to stop and return the exit code. One that fails for good becomes a failed job."""
    from persistq.sharded import handler, serve

    for module in options.shards:
        tasks.load(module)
    _log.info("%s serves the shards of %s", options.name, ", ".join(handler.handlers()) or "no handler")
    code = serve.serve(q, workers=options.concurrency, name=options.name, drain=options.drain)
    _log.info("%s leaves with exit code %d", options.name, code)
    return code


def register(q: persistq.PersistentQSQLAlchemy) -> None:
    """Register the task by which a request that became a job goes back to its tube."""

    @asynccontextmanager
    async def storage() -> AsyncIterator[Storage]:
        from persistq.sharded import serve

        async with serve.opened(q) as drivers:
            yield drivers.storage

    promotion.register_task(storage)
