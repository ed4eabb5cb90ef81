"""persistq.aio: the same queue, awaited."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from functools import wraps
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session
from support.clock import FakeClock
from support.databases import Databases
from support.jobs import WORKER, Queue
from support.transactions import OTHER_DRIVERS, by_driver

import persistq
import persistq.aio
from persistq import ConfigError, Done, JobNotFound, LeaseLost, NewJob, PayloadError, aio, task
from persistq.aio import AsyncPersistentQ


class GatedClock(FakeClock):
    """A clock that a call asks for the time, and by which it can be held up on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self._open = threading.Event()
        self._open.set()

    def now(self) -> datetime:
        if not self._open.is_set():
            self.reached.set()
            self._open.wait()
        return super().now()

    def shut(self) -> None:
        self.reached.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()


def looped(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in an event loop, in which its queue is closed as well."""

    async def closed(q: AsyncPersistentQ | None, **fixtures: Any) -> None:
        if q is None:
            await test(**fixtures)
        else:
            async with q:
                await test(q=q, **fixtures)

    @wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(closed(fixtures.pop("q", None), **fixtures))

    return run


@pytest.fixture
def gate() -> GatedClock:
    return GatedClock()


@pytest.fixture
def q(target: str, gate: GatedClock) -> AsyncPersistentQ:
    return aio.connect(target, clock=gate, actor="tester@here", queue_durability="process")


async def abandon(call: Coroutine[Any, Any, Any], gate: GatedClock) -> None:
    """Cancel the task that awaits a call when a thread has begun with it."""
    gate.shut()
    waiting = asyncio.create_task(call)
    await asyncio.to_thread(gate.reached.wait)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.open()


@looped
async def test_a_job_s_life(q: AsyncPersistentQ) -> None:
    job_id = await q.enqueue("x", "mail", priority=3)
    job = await q.dequeue(WORKER, "mail")
    assert job is not None and (job.id, job.item, job.priority) == (job_id, "x", 3)
    await q.complete(await q.renew(job), {"ok": True})
    assert (await q.get_job(job_id)).result == {"ok": True}
    assert await q.dequeue(WORKER) is None
    assert await q.counts() == {"pending": 0, "processing": 0, "done": 1, "failed": 0, "cancelled": 0}
    assert await q.tally_drift() == {}


@looped
async def test_the_wheel_of_a_worker(q: AsyncPersistentQ) -> None:
    ids = await q.enqueue_many(["a", NewJob(item="b"), "c"])
    first, second = await q.dequeue_many(WORKER, limit=2)
    turn = await q.exchange(WORKER, settled=[Done(first)], renew=[second], limit=5, busy=False)
    assert ([job.id for job in turn], [job.id for job in turn.renewed], turn.lost) == ([ids[2]], [ids[1]], [])
    await q.complete_many(iter([second, *turn]))
    assert not await q.unfinished(WORKER)


@looped
async def test_what_people_decide(q: AsyncPersistentQ, gate: GatedClock) -> None:
    first, second = await q.enqueue_many(["a", "b"])
    await q.pause("default")
    assert await q.dequeue(WORKER) is None
    await q.resume("default")
    assert (await q.cancel(first, "no need")).status == "cancelled"
    assert (await q.resubmit(first)).status == "pending"
    assert (await q.mark_failed(second)).status == "failed"
    assert [job.id for job in await q.list_jobs("failed")] == [second]
    assert [job.id for job in await q.get_pending_jobs()] == [first]
    assert [event.kind for event in await q.events(first)] == ["cancelled", "resubmitted"]
    assert await q.dequeue(WORKER) is not None
    gate.advance(q.settings.timeout_seconds + 1)
    assert await q.recover() == 1
    gate.advance(60)
    assert await q.purge(older_than=30, status="failed") == 1
    assert await q.delete_jobs() == 1


@looped
async def test_the_names_of_the_seed_documents(q: AsyncPersistentQ) -> None:
    first = await q.put_item("x")
    assert await q.get_item() == (first, "x")
    assert (await q.get_job(first)).consumer_id == q.default_consumer
    assert (await q.update_q(first, "DONE")).status == "done"
    assert [row["id"] for row in await q.get_all_items()] == [first]
    assert await q.get_item() == (None, None)


@looped
async def test_every_option_goes_along(q: AsyncPersistentQ) -> None:
    await q.enqueue(
        "x", "mail", task="send", priority=-3, run_at=datetime(2030, 1, 1, tzinfo=UTC), max_attempts=7, timeout=1.5,
        unique_key="k",
    )  # fmt: skip
    assert await q.enqueue("x", "mail", unique_key="k") == 1
    with pytest.raises(persistq.DuplicateJob):
        await q.enqueue("x", "mail", unique_key="k", on_duplicate="raise")
    assert (await q.enqueue("x", delay=60)) > 1
    first, second = await q.list_jobs()
    assert (first.queue, first.task, first.priority, first.max_attempts) == ("mail", "send", -3, 7)
    assert (first.timeout, first.unique_key, first.run_at.year) == (1.5, "k", 2030)
    assert (second.run_at - second.created_at).total_seconds() == 60


@looped
async def test_refusals_reach_the_one_who_awaits(q: AsyncPersistentQ) -> None:
    with pytest.raises(JobNotFound):
        await q.get_job(1)
    with pytest.raises(ConfigError):
        await q.enqueue("x", "no such name!")
    with pytest.raises(ConfigError, match="takes a list"):
        await q.enqueue_many("abc")
    with pytest.raises(PayloadError):
        await q.enqueue("x\0")
    await q.enqueue("x")
    job = await q.dequeue(WORKER)
    assert job is not None
    await q.cancel(job.id)
    with pytest.raises(LeaseLost):
        await q.complete(job)


@looped
async def test_many_tasks_at_once(q: AsyncPersistentQ) -> None:
    ids = await asyncio.gather(*(q.enqueue(f"item {n}") for n in range(200)))
    assert len(set(ids)) == 200
    claimed = await asyncio.gather(*(q.dequeue_many(f"c{n}", limit=10) for n in range(40)))
    held = [job for jobs in claimed for job in jobs]
    assert len({job.id for job in held}) == len(held)
    held += await q.dequeue_many(WORKER, limit=200)  # where rows are locked, one may have passed another's by
    await asyncio.gather(*map(q.complete, held))
    assert sorted(job.id for job in held) == sorted(ids)
    assert await q.counts("default") == {"pending": 0, "processing": 0, "done": 200, "failed": 0, "cancelled": 0}
    assert await q.tally_drift() == {}


def test_one_queue_in_several_loops_and_after_closing(target: str) -> None:
    async def use() -> int:
        async with q:
            return await q.enqueue("x")

    q = aio.connect(target, queue_durability="process")
    assert asyncio.run(use()) < asyncio.run(use())


@looped
async def test_it_is_the_same_queue_for_code_that_is_not_asynchronous(q: AsyncPersistentQ) -> None:
    job_id = q.sync.enqueue("x")
    assert await q.get_job(job_id) == q.sync.get_job(job_id)


@looped
async def test_a_task_is_enqueued_on_it(q: AsyncPersistentQ) -> None:
    @task(queue="mail")
    async def send(user_id: int) -> None: ...

    job = await q.get_job(await send.enqueue(q, user_id=3))
    assert (job.task, job.queue, job.item) == ("send", "mail", '{"user_id":3}')
    with pytest.raises(PayloadError):
        await send.enqueue(q, user_id="three")  # type: ignore[arg-type]


# Cancellation


@looped
async def test_an_abandoned_call_ends_as_it_would_have(q: AsyncPersistentQ, gate: GatedClock) -> None:
    await q.counts()
    await abandon(q.enqueue_many(["a", "b"]), gate)
    await q.close()
    assert [job.item for job in await q.list_jobs()] == ["a", "b"]
    assert await q.tally_drift() == {}


@looped
async def test_a_call_that_was_abandoned_before_its_turn_is_not_made(
    target: str, gate: GatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aio, "_THREADS", 1)
    async with aio.connect(target, clock=gate, queue_durability="process") as q:
        await q.counts()
        gate.shut()
        first = asyncio.create_task(q.enqueue("first"))
        await asyncio.to_thread(gate.reached.wait)
        second = asyncio.create_task(q.enqueue("second"))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        await asyncio.sleep(0)
        gate.open()
        await first
        await q.enqueue("third")
        assert [job.item for job in await q.list_jobs()] == ["first", "third"]


@pytest.mark.parametrize(
    "claim",
    [
        lambda q: q.dequeue(WORKER),
        lambda q: q.dequeue_many(WORKER, limit=2),
        lambda q: q.exchange(WORKER, limit=2),
    ],
    ids=["dequeue", "dequeue_many", "exchange"],
)
@looped
async def test_jobs_leased_to_a_task_that_has_gone_are_given_back(
    q: AsyncPersistentQ, gate: GatedClock, claim: Callable[[AsyncPersistentQ], Coroutine[Any, Any, Any]]
) -> None:
    await q.enqueue_many(["a", "b"])
    await abandon(claim(q), gate)
    await q.close()
    assert [(job.item, job.status, job.attempts) for job in await q.list_jobs()] == [
        ("a", "pending", 0), ("b", "pending", 0),
    ]  # fmt: skip
    assert [event.kind for event in await q.events(1)] == ["released"]
    await abandon(q.dequeue(WORKER, "empty"), gate)


@looped
async def test_they_are_given_back_when_the_answer_was_on_its_way(
    target: str, gate: GatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aio, "_THREADS", 1)
    async with aio.connect(target, clock=gate, queue_durability="process") as q:
        await q.enqueue("x")
        call = q.dequeue(WORKER)
        call.send(None)  # it has begun, and nobody lets this loop see that it ends
        await q.counts()  # the one thread is through with it
        with pytest.raises(asyncio.CancelledError):
            call.throw(asyncio.CancelledError())
        assert [(job.status, job.attempts) for job in await q.list_jobs()] == [("pending", 0)]


# The caller's transaction. What holds in all of its shapes is in test_transactions.


@looped
async def test_sessions_of_several_tasks_at_once(q: AsyncPersistentQ) -> None:
    sessions = async_sessionmaker(await q.engine())

    async def handle(number: int) -> None:
        async with sessions.begin() as session:
            await q.enqueue(f"item {number}", connection=session)
            if number % 3 == 0:
                await session.rollback()

    await asyncio.gather(*map(handle, range(12)))
    assert sorted(job.item for job in await q.list_jobs()) == sorted(f"item {n}" for n in range(12) if n % 3)
    assert await q.tally_drift() == {}


@looped
async def test_a_cancelled_task_takes_its_transaction_along(q: AsyncPersistentQ) -> None:
    await q.counts()
    enqueued, never = asyncio.Event(), asyncio.Event()

    async def handle() -> None:
        async with AsyncSession(await q.engine()) as session, session.begin():
            await q.enqueue("x", connection=session)
            enqueued.set()
            await never.wait()

    handling = asyncio.create_task(handle())
    await enqueued.wait()
    handling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handling
    assert await q.list_jobs() == []


@looped
async def test_a_transaction_goes_on_while_others_wait_for_its_lock(q: AsyncPersistentQ) -> None:
    async with AsyncSession(await q.engine()) as session:
        await q.enqueue("first", connection=session)
        others = [asyncio.create_task(q.enqueue("other")) for _ in range(2 * aio._THREADS)]
        await asyncio.sleep(0)  # now they are all at it, as far as there are threads
        await q.enqueue("second", connection=session)
        await session.commit()
        await asyncio.gather(*others)
    assert len(await q.list_jobs()) == 2 + len(others)


@looped
async def test_a_session_for_threads_is_refused(q: AsyncPersistentQ) -> None:
    await q.enqueue("x")
    job = await q.dequeue(WORKER)
    assert job is not None
    with Session(q.sync.engine) as session:
        calls: list[Awaitable[Any]] = [
            q.enqueue("x", connection=session),  # type: ignore[arg-type]
            q.enqueue_many(["x"], connection=session),  # type: ignore[arg-type]
            q.complete(job, connection=session),  # type: ignore[arg-type]
            q.complete_many([job], connection=session),  # type: ignore[arg-type]
        ]
        for call in calls:
            with pytest.raises(ConfigError, match=r"of type Session; .* AsyncSession or AsyncConnection"):
                await call
    assert len(await q.list_jobs()) == 1


@looped
async def test_a_session_for_asyncio_is_refused_by_a_queue_for_threads(q: AsyncPersistentQ) -> None:
    engine = await q.engine()
    async with AsyncSession(engine) as session, engine.connect() as connection:
        with pytest.raises(ConfigError, match=r"of type AsyncSession, .* persistq\.aio\.connect\(\)"):
            q.sync.enqueue("x", connection=session)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="of type AsyncConnection, "):
            q.sync.enqueue("x", connection=connection)  # type: ignore[arg-type]
    assert await q.list_jobs() == []


@looped
async def test_a_queue_for_threads_joins_within_run_sync(q: AsyncPersistentQ) -> None:
    async with AsyncSession(await q.engine()) as session:
        await session.run_sync(lambda own: q.sync.enqueue("x", connection=own))
        await session.commit()
    assert [job.item for job in await q.list_jobs()] == ["x"]


@pytest.mark.parametrize(("kind", "driver"), OTHER_DRIVERS, indirect=["kind"])
def test_other_drivers_for_asyncio(kind: str, driver: str, every_database: Databases) -> None:
    pytest.importorskip(driver)
    queue: Queue = persistq.connect(every_database[kind].fresh())
    with by_driver(queue, driver) as own:
        ids = own.enqueue_many([f"item {n}" for n in range(30)])
        assert own.enqueue("x", unique_key="k", delay=5, timeout=1.5) == own.enqueue("x", unique_key="k")
        with pytest.raises(ZeroDivisionError), own.savepoint():
            own.enqueue("dropped")
            raise ZeroDivisionError
    jobs = queue.dequeue_many(WORKER)
    assert [job.id for job in jobs] == ids
    with by_driver(queue, driver) as own:
        own.complete(jobs[0], {"ok": 1})
        own.complete_many(jobs[1:20])
        own.commit()
        own.complete_many(jobs[20:])
        own.rollback()
    queue.cancel(jobs[-1].id)
    with by_driver(queue, driver) as own, pytest.raises(LeaseLost):
        own.complete_many(jobs[20:])
    assert queue.counts() == {"pending": 1, "processing": 9, "done": 20, "failed": 0, "cancelled": 1}
    assert queue.tally_drift() == {}
    queue.close()
