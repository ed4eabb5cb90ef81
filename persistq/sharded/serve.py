"""The drivers that the settings choose, and workers as a process."""

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, describe
from ..events import subscribe
from .handler import handlers
from .options import ShardSettings, settings
from .ports import Coordinator, Storage
from .promotion import Promoter
from .queue import Queue
from .worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..queue import PersistentQSQLAlchemy

EXIT_OK, EXIT_CUT_OFF = 0, 75
"""75 is EX_TEMPFAIL: handlers had to be left behind when the grace was over; what they did not finish comes again."""

_MOST = 1 << 62
_log = logging.getLogger("persistq.shards")


class Drivers:
    """Storage and coordinators where QUEUE_SHARDS_URL says, by default the queue's own database."""

    def __init__(self, q: "PersistentQSQLAlchemy", own: ShardSettings | None = None) -> None:
        self._settings = own or settings
        self._client: Any = None
        url = q.settings.queue_shards_url
        self.storage: Storage
        if url is None:
            from .sqlalchemy import SQLAlchemyStorage

            self.storage = SQLAlchemyStorage(q, settings=self._settings)
        else:
            from .redis import RedisStorage

            self._client = _client(url)
            self.storage = RedisStorage(self._client, settings=self._settings)

    def coordinator(self) -> Coordinator:
        """Return a new coordinator."""
        if self._client is None:
            from .sqlalchemy import SQLAlchemyCoordinator

            return SQLAlchemyCoordinator(self.storage, settings=self._settings)
        from .redis import RedisCoordinator

        return RedisCoordinator(self._client, settings=self._settings)

    async def close(self) -> None:
        """Close what was opened here; the queue stays open."""
        await self.storage.close()
        if self._client is not None:
            await self._client.aclose()


@asynccontextmanager
async def opened(q: "PersistentQSQLAlchemy") -> "AsyncIterator[Drivers]":
    """Give the drivers that the settings choose, for the length of the block."""
    drivers = Drivers(q)
    try:
        yield drivers
    finally:
        await drivers.close()


def serve(q: "PersistentQSQLAlchemy", *, workers: int, name: str, drain: bool) -> int:
    """Perform requests by so many workers until told to stop, or until all is drained; return the exit code.

    SIGTERM or SIGINT lets the running batches finish within QUEUE_GRACE_SECONDS; a second one ends the grace.
    """
    if not handlers():
        raise ConfigError("no handler is registered; name the modules that define them with --shards")
    unsubscribe = subscribe(_tell)
    try:
        return asyncio.run(_serve(q, workers, name, drain))
    finally:
        unsubscribe()


async def _serve(q: "PersistentQSQLAlchemy", count: int, name: str, drain: bool) -> int:
    async with opened(q) as drivers:
        workers = []
        for _ in range(count):
            coordinator = drivers.coordinator()
            coordinator.holder = name
            workers.append(Worker(coordinator, Queue(drivers.storage), promote=Promoter(q)))
        tasks = [asyncio.create_task(worker.loop(_MOST if drain else None)) for worker in workers]
        _stop_on_signal(workers, tasks, q.settings.queue_grace_seconds)
        await asyncio.wait(tasks)
    if any(task.cancelled() for task in tasks):
        return EXIT_CUT_OFF
    done = sum(task.result() for task in tasks)
    _log.info("%d requests have left their tubes", done)
    return EXIT_OK


def _stop_on_signal(workers: Sequence[Worker], tasks: Sequence["asyncio.Task[int]"], grace: float) -> None:
    loop = asyncio.get_running_loop()
    told: list[bool] = []

    def end() -> None:
        for task in tasks:
            task.cancel()

    def heed() -> None:
        for worker in workers:
            worker.stop()
        if told:
            end()
        else:
            _log.info("stopping: running batches have %g s to finish", grace)
            loop.call_later(grace, end)
        told.append(True)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, heed)


def _client(url: str) -> Any:
    try:
        from redis.asyncio import Redis
    except ImportError:
        raise ConfigError("QUEUE_SHARDS_URL needs the redis client; pip install 'persistq[redis]'") from None
    try:
        # A peer that vanished without a word is noticed: no script takes that long.
        return Redis.from_url(
            url, socket_timeout=10, socket_connect_timeout=5, socket_keepalive=True, health_check_interval=15
        )
    except ValueError:
        # The client's own words would repeat the URL, which may hold a password.
        raise ConfigError("QUEUE_SHARDS_URL cannot be read; it looks like redis://:password@host:6379/0") from None


def _tell(event: str, fields: dict[str, Any]) -> None:
    if line := _LINES.get(event):
        level, text = line(fields)
        _log.log(level, "%s", text)


_LINES: dict[str, Callable[[dict[str, Any]], tuple[int, str]]] = {
    "shards.failed": lambda f: (
        logging.WARNING,
        f"tube {f['tube']}: {f['requests']} requests failed (try {f['tries']}), {describe(f['error'])[0]}",
    ),
    "shards.promoted": lambda f: (
        logging.WARNING,
        f"tube {f['tube']}: request {f['request']} failed for good and is a job now, {describe(f['error'])[0]}",
    ),
    "shards.lost": lambda f: (logging.WARNING, f"tube {f['tube']} is no longer ours: {f['error']}"),
    "shards.outage": lambda f: (logging.ERROR, f"{f['error']} (failure {f['failures']}; trying again)"),
}
