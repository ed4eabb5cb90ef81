"""Workers of shards as processes: stopped past their lease, killed, told to stop, and fed poison."""

import asyncio
import json
import random
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from support.databases import EVERY_KIND
from support.shard_servers import STORES

from persistq.sharded import Handler, Queue, Route
from persistq.sharded.serve import Drivers, opened

from .yard import Process, Yard, eventually

T = TypeVar("T")

EVERY_STORE = [*EVERY_KIND, *(pytest.param(kind, marks=pytest.mark.needs(kind)) for kind in STORES)]
every_store = pytest.mark.parametrize("kind", EVERY_STORE, indirect=True)

APP = """
import asyncio
from typing import NamedTuple

from persistq.sharded import Handler, Route


class Step(NamedTuple):
    thread: int
    number: int
    deed: str = ""


class Stepping(Handler):
    @classmethod
    async def route(cls, *requests: Step) -> list[Route]:
        return [Route(request.thread) for request in requests]

    async def perform(self, *requests: Step) -> None:
        for request in requests:
            if request.deed == "wait" and not os.path.exists("gate"):
                note("begun", request.thread, request.number, os.getpid())
                while not os.path.exists("gate"):
                    await asyncio.sleep(0.005)
            if request.deed == "die":
                note("dying", request.thread, request.number, os.getpid())
                os._exit(9)
            if request.deed == "raise" and not os.path.exists("mended"):
                raise ValueError("poison")
            note("did", request.thread, request.number, os.getpid())
"""

Step = tuple[int, int, str]

SHORT_LEASE = {
    "queue_coordinator_lease": 0.2, "queue_coordinator_delay": 0.05, "queue_worker_empty_pause": 0.01,
    "queue_worker_empty_limit": 5, "queue_worker_batch_size": 2, "max_attempts": 10,
}  # fmt: skip


@pytest.fixture
def make_shards(
    make_yard: Callable[..., Yard], tmp_path: Path, kind: str, stores: Callable[[str], Any]
) -> Callable[..., Yard]:
    """Make yards whose workers serve the shards of a handler that notes what it does."""

    def make(**settings: Any) -> Yard:
        settings = SHORT_LEASE | settings
        if kind in STORES:
            server = stores(kind)
            client = server.connect()
            client.flushall()
            client.close()
            settings |= {"target": str(tmp_path / "queue.db"), "queue_shards_url": server.url("0")}
        yard = make_yard(**settings)
        yard.app(APP)
        yard.q.counts()
        return yard

    return make


class Stepping(Handler):
    @classmethod
    async def route(cls, *requests: dict[str, Any]) -> list[Route]:
        return [Route(request["thread"]) for request in requests]

    @classmethod
    def request_cls(cls) -> Any:
        return Any

    async def perform(self, *requests: Any) -> None:
        raise AssertionError("this process performs nothing")


def within(yard: Yard, what: Callable[[Drivers], Coroutine[Any, Any, T]]) -> T:
    """Do something with the yard's drivers."""

    async def run() -> T:
        async with opened(yard.q) as drivers:
            return await what(drivers)

    return asyncio.run(run())


def register(yard: Yard, *steps: Step) -> None:
    requests = [{"thread": thread, "number": number, "deed": deed} for thread, number, deed in steps]
    assert within(yard, lambda drivers: Queue(drivers.storage).register(Stepping, *requests)) == len(steps)


def worker(yard: Yard, *arguments: str, **settings: Any) -> Process:
    return yard.run("-m", "persistq.consumer.consumer", "--shards", "app", *arguments, **settings)


def command(yard: Yard, *arguments: str) -> str:
    process = yard.run("-m", "persistq.admin.admin", *arguments)
    assert process.wait() == 0, process.err
    return process.out


def noted(yard: Yard, word: str) -> list[tuple[int, int, int]]:
    """Return thread, number and process of what was noted under a word."""
    found = [line.split() for line in yard.journal()]
    return [(int(thread), int(number), int(pid)) for kind, thread, number, pid in found if kind == word]


def done(yard: Yard, thread: int = 0) -> list[int]:
    """Return the requests of a thread that were performed, in the order in which each was for the first time."""
    return list(dict.fromkeys(number for one, number, _ in noted(yard, "did") if one == thread))


def assert_all_done_in_order(yard: Yard, threads: int, count: int) -> None:
    """Fail unless each request was performed, for the first time after all that stand before it in its thread."""
    for thread in range(threads):
        assert done(yard, thread) == list(range(count))


@every_store
def test_a_worker_stopped_past_its_lease_loses_the_tube_and_removes_nothing(
    make_shards: Callable[..., Yard], long: bool
) -> None:
    count = 500 if long else 20
    yard = make_shards()
    register(yard, *[(thread, n, "wait" if n == 0 else "") for n in range(count) for thread in range(2)])
    first = worker(yard, "--drain", "--concurrency", "2")
    eventually(lambda: len(noted(yard, "begun")) == 2, "both threads have begun")
    first.stop()
    second = worker(yard, "--drain", "--concurrency", "2")
    eventually(lambda: len({pid for _, _, pid in noted(yard, "begun")}) == 2, "the second worker has taken over")
    yard.open("gate")
    eventually(lambda: len(noted(yard, "did")) >= 2 * count, "the second worker did all of it")
    assert {pid for _, _, pid in noted(yard, "did")} == {second.pid}
    first.send(signal.SIGCONT)
    assert (first.wait(), second.wait()) == (0, 0)
    assert len(first.lines("is no longer ours")) == 2
    assert within(yard, lambda drivers: drivers.storage.tubes()) == []
    assert within(yard, lambda drivers: drivers.coordinator().leases()) == []
    assert_all_done_in_order(yard, 2, count)
    assert yard.q.counts()["failed"] == 0


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("redis", marks=pytest.mark.needs("redis"))], indirect=True)
def test_nothing_is_lost_and_each_thread_keeps_its_order_while_workers_are_killed(
    make_shards: Callable[..., Yard], long: bool
) -> None:
    threads, count, size, kills = (64, 2000, 4, 40) if long else (8, 60, 2, 3)
    # A death costs the request at the head a try; a storm of them must not make it a job.
    yard = make_shards(queue_worker_batch_size=16 if long else 4, max_attempts=1000)
    register(yard, *[(thread, n, "") for n in range(count) for thread in range(threads)])
    chosen = random.Random(7)
    alive = [worker(yard, "--drain") for _ in range(size)]
    for kill in range(kills):
        wanted = threads * count * (kill + 1) // (kills + 2)
        eventually(lambda wanted=wanted: len(noted(yard, "did")) >= wanted, f"{wanted} are done")  # type: ignore[misc]
        victim = alive.pop(chosen.randrange(len(alive)))
        victim.kill()
        alive.append(worker(yard, "--drain"))
    assert [one.wait() for one in alive] == [0] * size
    assert within(yard, lambda drivers: drivers.storage.tubes()) == []
    assert_all_done_in_order(yard, threads, count)
    assert yard.q.counts()["failed"] == 0


@every_store
def test_a_killed_workers_tube_is_taken_over_when_the_lease_has_run_out(
    make_shards: Callable[..., Yard], long: bool
) -> None:
    if not long:
        pytest.skip("a matter of seconds, and the storm kills as well: with --long")
    yard = make_shards(queue_coordinator_lease=2.0)
    register(yard, (0, 0, "wait"), (0, 1, ""))
    first = worker(yard)
    eventually(lambda: noted(yard, "begun"), "the first has begun")
    second = worker(yard, "--drain")
    eventually(second.listens, "the second looks for work")
    first.kill()
    died = time.monotonic()
    yard.open("gate")
    eventually(lambda: noted(yard, "did"), "the second has taken over")
    assert time.monotonic() - died <= 2.0 + 1.0
    assert second.wait() == 0
    assert done(yard) == [0, 1]


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("redis", marks=pytest.mark.needs("redis"))], indirect=True)
def test_a_poison_request_becomes_a_job_that_runs_when_it_is_sent_back(make_shards: Callable[..., Yard]) -> None:
    yard = make_shards(max_attempts=3)
    register(yard, (0, 0, ""), (0, 1, "raise"), (0, 2, ""))
    assert worker(yard, "--drain").wait() == 0
    assert done(yard) == [0, 2]
    (shown,) = json.loads(command(yard, "list-jobs", "--queue", "shards", "--status", "failed", "--json"))
    job = yard.q.get_job(shown["id"])
    assert (shown["queue"], shown["error"]) == ("shards", "ValueError: poison")
    assert '"number":1' in shown["item"]
    assert [event.kind for event in yard.q.events(job.id)] == ["promoted"]
    yard.open("mended")
    command(yard, "resubmit", str(job.id))
    assert yard.run("-m", "persistq.consumer.consumer", "--drain").wait() == 0
    assert yard.q.get_job(job.id).result == {"tube": "Stepping/0"}
    assert worker(yard, "--drain").wait() == 0
    assert done(yard) == [0, 2, 1]


def test_a_request_that_kills_its_worker_becomes_a_job_and_its_neighbours_are_performed(
    make_shards: Callable[..., Yard],
) -> None:
    yard = make_shards(max_attempts=3, queue_worker_batch_size=4)
    register(yard, *[(0, n, "die" if n == 2 else "") for n in range(6)])
    for _ in range(10):
        if worker(yard, "--drain").wait() == 0:
            break
    assert done(yard) == [0, 1, 3, 4, 5]
    assert len(noted(yard, "dying")) <= 4
    (job,) = yard.q.list_jobs("failed")
    assert '"number":2' in job.item


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_lets_the_batch_finish_and_gives_the_tube_back(
    make_shards: Callable[..., Yard], number: signal.Signals
) -> None:
    yard = make_shards()
    register(yard, (0, 0, "wait"), (0, 1, ""), (0, 2, ""))
    process = worker(yard)
    eventually(lambda: noted(yard, "begun"), "it has begun")
    process.send(number)
    eventually(lambda: process.lines("stopping"), "it knows")
    yard.open("gate")
    assert process.wait() == 0
    assert [one for _, one, _ in noted(yard, "did")] == [0, 1]
    assert within(yard, lambda drivers: drivers.coordinator().leases()) == []
    assert within(yard, lambda drivers: drivers.storage.length("Stepping/0")) == 1


def test_what_is_not_finished_within_the_grace_is_given_back(make_shards: Callable[..., Yard]) -> None:
    yard = make_shards(queue_grace_seconds=0.1)
    register(yard, (0, 0, "wait"))
    process = worker(yard)
    eventually(lambda: noted(yard, "begun"), "it has begun")
    process.send(signal.SIGTERM)
    assert process.wait() == 75
    assert within(yard, lambda drivers: drivers.coordinator().leases()) == []
    assert within(yard, lambda drivers: drivers.storage.length("Stepping/0")) == 1


SCRIPT = """
import asyncio
import app
from persistq.sharded import Queue, SQLAlchemyCoordinator, SQLAlchemyStorage, Worker

async def main():
    storage = SQLAlchemyStorage()
    done = await asyncio.gather(*[Worker(SQLAlchemyCoordinator(storage), Queue(storage)).loop() for _ in range(2)])
    print("done", sum(done))

asyncio.run(main())
"""


def test_a_program_of_ones_own_heeds_sigterm_as_well(make_shards: Callable[..., Yard]) -> None:
    yard = make_shards()
    register(yard, (0, 0, "wait"), (0, 1, ""), (0, 2, ""))
    process = yard.script(SCRIPT)
    eventually(lambda: noted(yard, "begun"), "it has begun")
    process.send(signal.SIGTERM)
    yard.open("gate")
    assert process.wait() == 0
    assert process.lines("done 2")
    assert within(yard, lambda drivers: drivers.coordinator().leases()) == []


def test_without_a_handler_there_is_nothing_to_serve(make_shards: Callable[..., Yard]) -> None:
    yard = make_shards()
    (yard.folder / "empty.py").write_text("")
    process = yard.run("-m", "persistq.consumer.consumer", "--shards", "empty")
    assert process.wait() == 78
    assert "no handler is registered" in process.err
    missing = yard.run("-m", "persistq.consumer.consumer", "--shards", "no_such_module")
    assert missing.wait() == 78


def test_a_server_that_evicts_is_refused(make_yard: Callable[..., Yard], tmp_path: Path) -> None:
    evicting = STORES["valkey"] if STORES["valkey"].exists() else STORES["redis"]
    if not evicting.exists():
        pytest.skip("needs redis")
    with evicting(options=("maxmemory 64mb", "maxmemory-policy allkeys-lru")) as server:
        yard = make_yard(queue_shards_url=server.url("0"))
        yard.app(APP)
        process = worker(yard)
        assert process.wait() == 78
        assert "noeviction" in process.err
