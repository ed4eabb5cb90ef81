"""Workers on every driver: order, takeover, and requests that become jobs."""

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.clock import FakeClock
from support.databases import Databases
from support.shards import EVERY_DRIVER, Note, World, Worlds, asynchronous, make_handler, numbers

import persistq
from persistq import subscribe, tasks
from persistq.sharded import Handler, Message, Promoter, Queue, Worker, promotion


@pytest.fixture(params=EVERY_DRIVER)
def world(request: pytest.FixtureRequest, every_database: Databases, stores: Any, clock: FakeClock) -> World:
    return Worlds(every_database, stores).fresh(request.param, clock)


@asynchronous
async def test_three_workers_perform_each_thread_in_order_and_each_request_once(world: World) -> None:
    handler, noted = make_handler()
    await Queue(world.storage()).register(handler, *[Note(n % 5, n, n % 2) for n in range(200)])
    workers = [Worker(world.coordinator(), Queue(world.storage()), clock=world.clock) for _ in range(3)]
    assert sum(await asyncio.gather(*[worker.loop(200) for worker in workers])) == 200
    assert sorted(numbers(noted)) == list(range(200))
    for thread in range(5):
        mine = [note for batch in noted for note in batch if note.thread == thread]
        assert mine == sorted(mine, key=lambda note: (-note.priority, note.number))


@asynchronous
async def test_a_worker_that_was_stopped_too_long_removes_nothing(world: World) -> None:
    refused: list[str] = []
    subscribe(lambda name, fields: refused.append(fields["tube"]) if name == "shards.lost" else None)

    async def perform(_self: Handler, *requests: Note) -> None:
        noted.append(requests)
        if len(noted) == 1:
            await world.let_pass(31)
            await Worker(world.coordinator(), Queue(world.storage()), clock=world.clock).loop(2)

    handler, noted = make_handler(perform=perform)
    await Queue(world.storage()).register(handler, *[Note(0, n) for n in range(6)])
    assert await Worker(world.coordinator(), Queue(world.storage()), clock=world.clock).loop(4) == 4
    assert refused == ["Noting/0"]
    assert list(dict.fromkeys(numbers(noted))) == list(range(6))
    assert await world.storage().tubes() == []


@asynchronous
async def test_a_request_that_fails_for_good_becomes_a_job_once_and_can_be_sent_back(
    world: World, tmp_path: Path, clock: FakeClock
) -> None:
    target = world.target if "://" in world.target and not world.target.startswith("redis") else tmp_path / "queue.db"
    q = persistq.connect(target, clock=clock)
    poison = {3}

    async def perform(_self: Handler, *requests: Note) -> None:
        if poison & set(numbers([requests])):
            raise ValueError("poison")
        noted.append(requests)

    handler, noted = make_handler(perform=perform, priorities=[9])
    storage = world.storage(max_attempts=1)
    await Queue(storage).register(handler, *[Note(0, n, 9) for n in range(5)])
    worker = Worker(world.coordinator(max_attempts=1), Queue(storage), promote=Promoter(q), clock=clock)
    assert await worker.loop(5) == 5
    assert numbers(noted) == [0, 1, 2, 4]
    (job,) = q.list_jobs()
    assert (job.status, job.queue, job.task, job.error) == ("failed", "shards", "send_to_tube", "ValueError: poison")
    assert json.loads(job.item) == {
        "handler": "Noting", "thread": 0, "priority": 9, "request": {"thread": 0, "number": 3, "priority": 9},
    }  # fmt: skip
    assert q.tally_drift() == {}
    (event,) = q.events(job.id)
    assert event.kind == "promoted"
    assert "poison" in event.detail["traceback"]

    poison.clear()
    q.resubmit(job.id)
    (again,) = q.dequeue_many("consumer-1")

    @asynccontextmanager
    async def opened() -> Any:
        other = World(world.kind, world.target, clock)
        yield world.storage() if world.kind == "memory" else other.storage()
        await other.close()

    promotion.register_task(opened)
    result = await asyncio.to_thread(tasks.find(again.task or "").call, again)
    assert result == {"tube": "Noting/0"}
    await Worker(world.coordinator(), Queue(storage), clock=clock).loop(1)
    assert numbers(noted) == [0, 1, 2, 4, 3]
    q.close()


@pytest.mark.parametrize("payload", [b"\xff\0", b"", b"[" * 70 + b"]" * 70, b'{"a":1,"a":2}', b"9" * 400_000],
                         ids=["bytes", "nothing", "deep", "twice", "huge"])  # fmt: skip
@asynchronous
async def test_whatever_a_request_says_it_becomes_one_job(tmp_path: Path, payload: bytes) -> None:
    q = persistq.connect(tmp_path / "queue.db")
    promote = Promoter(q)
    error = ValueError("\ud800 no UTF-8 \0")
    first = await promote("Gone/tenant 7", Message(5, payload, 3), error)
    assert await promote("Gone/tenant 7", Message(5, payload, 3), error) == first
    assert await promote("Gone/tenant 7", Message(6, payload, 3), error) != first
    assert await promote("Gone/tenant 8", Message(5, payload, 3), error) != first
    job = q.get_job(first)
    assert job.status == "failed"
    from persistq.sharded.requests import unreadable

    told = json.loads(job.item)
    assert (told["handler"], told["thread"]) == ("Gone", "tenant 7")
    assert unreadable(told["request"]) == payload
    q.close()
