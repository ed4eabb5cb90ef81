"""Drivers of shards to run a suite on, and handlers that tell what they did."""

import asyncio
from collections.abc import Awaitable, Callable
from copy import copy
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, NamedTuple, ParamSpec

import pytest

import persistq
from persistq.settings import Settings
from persistq.sharded import (
    Coordinator,
    Handler,
    Lease,
    Message,
    Queue,
    RedisCoordinator,
    RedisStorage,
    Route,
    RuntimeCoordinator,
    RuntimeStorage,
    ShardSettings,
    SQLAlchemyCoordinator,
    SQLAlchemyStorage,
    Storage,
    Worker,
    memory,
)
from support.clock import FakeClock
from support.databases import EVERY_KIND, Databases
from support.shard_servers import STORES

P = ParamSpec("P")

EVERY_DRIVER = ["memory", *EVERY_KIND, *(pytest.param(kind, marks=pytest.mark.needs(kind)) for kind in STORES)]
"""The kinds of drivers, as the params of a fixture."""

QUICK = {
    "queue_coordinator_delay": 0.0, "queue_worker_empty_pause": 0.0, "queue_worker_empty_limit": 2,
    "queue_backoff_seconds": 0.0,
}  # fmt: skip
"""Settings that let nobody wait; what a test is about, it sets itself."""


def quick(**changes: Any) -> ShardSettings:
    """Return settings that let nobody wait."""
    return ShardSettings(Settings.load(None, **{**QUICK, **changes}))


def clocked_client(clock: FakeClock, url: str, **options: Any) -> Any:
    """Return a client of a Redis server whose scripts go by the test's clock: time passes only when it says so."""
    import redis.asyncio
    from redis.exceptions import NoScriptError

    class Clocked(redis.asyncio.Redis):
        async def execute_command(self, command: str, *arguments: Any, **more: Any) -> Any:
            if command == "EVALSHA":
                raise NoScriptError  # the text is another at each moment
            if command == "EVAL":
                seconds, micros = divmod(round(clock.monotonic() * 1_000_000) + _EPOCH, 1_000_000)
                now = f"{{'{seconds}', '{micros}'}}"
                arguments = (arguments[0].replace("redis.call('TIME')", now), *arguments[1:])
            return await super().execute_command(command, *arguments, **more)

    return Clocked.from_url(url, **options)


_EPOCH = 1_700_000_000_000_000


class World:
    """One place for requests and leases, which its storages and coordinators share as other processes would."""

    def __init__(self, kind: str, target: str, clock: FakeClock) -> None:
        self.kind = kind
        self.target = target
        self.clock = clock
        self.settings = quick()
        self._made: list[Any] = []
        self._runtime = RuntimeStorage(settings=self.settings, clock=clock)

    def storage(self, **changes: Any) -> Storage:
        """Return a storage of this world."""
        own = quick(**changes) if changes else self.settings
        if self.kind == "memory":
            again = copy(self._runtime)  # the same requests, seen by other settings
            again.settings = own
            return again
        if self.kind in STORES:
            return RedisStorage(self.client(), settings=own)
        return self._keep(SQLAlchemyStorage(self._queue(), settings=own))

    def coordinator(self, **changes: Any) -> Coordinator:
        """Return a coordinator of this world."""
        own = quick(**changes) if changes else self.settings
        if self.kind == "memory":
            return RuntimeCoordinator(settings=own, clock=self.clock)
        if self.kind in STORES:
            return RedisCoordinator(self.client(), settings=own)
        return self._keep(SQLAlchemyCoordinator(self._queue(), settings=own))

    def client(self, **options: Any) -> Any:
        """Return a new client of the Redis server."""
        patient = {"socket_timeout": 60, "socket_connect_timeout": 60}  # a busy machine is not what tests are about
        return self._keep(clocked_client(self.clock, self.target, **patient | options))

    def _queue(self) -> Any:
        q = persistq.connect(self.target, clock=self.clock, queue_durability="process")
        self._made.append(q)
        return q

    def _keep(self, made: Any) -> Any:
        self._made.append(made)
        return made

    async def let_pass(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)
        for made in self._made:
            if isinstance(made, SQLAlchemyStorage):
                made.look_again()

    async def close(self) -> None:
        while self._made:
            made = self._made.pop()
            if hasattr(made, "aclose"):
                await made.aclose()
            elif iscoroutinefunction(made.close):
                await made.close()
            else:
                made.close()


class Worlds:
    """Worlds of each kind for a test run."""

    def __init__(self, every_database: Databases, servers: Callable[[str], Any]) -> None:
        self._databases = every_database
        self._servers = servers

    def fresh(self, kind: str, clock: FakeClock) -> World:
        """Return an empty world."""
        if kind == "memory":
            memory._locks.forget()  # they are the process's, and another test's clock was another one
            return World(kind, "", clock)
        if kind in STORES:
            server = self._servers(kind)
            client = server.connect()
            client.flushall()
            client.close()
            return World(kind, server.url("0"), clock)
        return World(kind, self._databases[kind].fresh(), clock)


def asynchronous(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Make a test of a coroutine function; the worlds that it was given are closed on its event loop."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def whole() -> None:
            try:
                async with asyncio.timeout(60):
                    await test(*args, **kwargs)
            finally:
                for value in kwargs.values():
                    if isinstance(value, World):
                        await value.close()

        asyncio.run(whole())

    return run


def said(messages: list[Message]) -> list[bytes]:
    """Return what the messages say."""
    return [message.payload for message in messages]


async def bound(coordinator: Coordinator, tube: str) -> Lease:
    """Return a lease of a tube that has to be free."""
    lease = await coordinator.bind(tube)
    assert lease is not None, f"{tube} is held"
    return lease


class Note(NamedTuple):
    """A request that says which it is."""

    thread: int
    number: int
    priority: int = 0


def make_handler(**members: Any) -> tuple[type[Handler], list[Any]]:
    """Return a handler, registered as Noting, and the list in which it notes what it was called with."""
    noted: list[Any] = []

    class Noting(Handler):
        @classmethod
        async def route(cls, *requests: Note) -> list[Route]:
            return [Route(request.thread, request.priority) for request in requests]

        async def perform(self, *requests: Note) -> None:
            noted.append(requests)

    for name, member in members.items():
        setattr(Noting, name, member)
    return Noting, noted


def numbers(noted: list[tuple[Note, ...]], thread: int | None = None) -> list[int]:
    """Return the numbers of the requests in the order in which they were performed."""
    return [note.number for batch in noted for note in batch if thread in (None, note.thread)]


__all__ = ["EVERY_DRIVER", "Note", "Queue", "Worker", "World", "Worlds", "asynchronous", "bound", "make_handler",
           "numbers", "quick", "said"]  # fmt: skip
