"""What both contestants of the shards' cases share."""

import asyncio
import contextlib
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

from common import Work


class Visit(NamedTuple):
    """A request as small as they come."""

    user_id: int


class Counter:
    """Counts what handlers performed, and tells when it is all."""

    def __init__(self, wanted: int) -> None:
        self.wanted, self.done = wanted, 0
        self.all = asyncio.Event()

    def add(self, number: int) -> None:
        self.done += number
        if self.done >= self.wanted:
            self.all.set()


@contextlib.asynccontextmanager
async def redis_server(work: Work) -> AsyncIterator[Any]:
    """Give a client of a private Redis that keeps everything in memory only."""
    from redis.asyncio import Redis

    program = shutil.which("redis-server")
    if program is None:
        raise RuntimeError("needs redis-server")
    path = str(Path(work.folder) / "redis")
    command = [program, "--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no", "--dir", work.folder]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603
    try:
        client = Redis(unix_socket_path=path, decode_responses=True)
        while True:
            with contextlib.suppress(Exception):
                await client.ping()
                break
            await asyncio.sleep(0.02)
        yield client
        await client.aclose()
    finally:
        server.terminate()
        server.wait(10)


async def registered(work: Work, register: Callable[..., Awaitable[object]]) -> dict[str, float]:
    """Register requests, spread over the threads, ``batch`` a call."""
    requests = [Visit(n) for n in range(work.jobs)]
    began = time.perf_counter()
    done = 0
    for at in range(0, work.jobs, work.batch):
        await register(*requests[at : at + work.batch])
        done += len(requests[at : at + work.batch])
        if time.perf_counter() > began + work.seconds:
            break
    return {"rate": done / (time.perf_counter() - began)}


async def filled(work: Work, register: Callable[..., Awaitable[object]]) -> None:
    """Register all requests, 1,000 a call."""
    for at in range(0, work.jobs, 1000):
        await register(*[Visit(n) for n in range(at, min(at + 1000, work.jobs))])


async def performed(
    work: Work, counter: Counter, register: Callable[..., Awaitable[object]], loops: Callable[[], list[Any]]
) -> dict[str, float]:
    """Let ``processes`` workers of this event loop perform all requests, or as many as they can in the time."""
    await filled(work, register)
    began = time.perf_counter()
    tasks = [asyncio.create_task(loop) for loop in loops()]
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(counter.all.wait(), work.seconds)
    seconds = time.perf_counter() - began
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=5)
    return {"rate": counter.done / seconds}
