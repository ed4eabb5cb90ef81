"""What a worker does with requests, by drivers in memory and a clock that stands still."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from support.clock import FakeClock
from support.shards import Note, World, Worlds, asynchronous, bound, make_handler, numbers, said

from persistq import ConfigError, DatabaseUnavailable, LeaseLost, PermanentError, SchemaMismatch, Snooze, subscribe
from persistq.clock import SystemClock
from persistq.sharded import Handler, Lease, Message, Queue, Route, RuntimeCoordinator, Worker
from persistq.sharded.keeper import Keeper


@pytest.fixture
def world(clock: FakeClock) -> World:
    return Worlds(None, None).fresh("memory", clock)  # type: ignore[arg-type]


class Bench:
    """A queue and its workers, with what was promoted."""

    def __init__(self, world: World, clock: FakeClock, **settings: Any) -> None:
        self.world, self.clock, self.settings = world, clock, settings
        self.queue = Queue(world.storage(**settings))
        self.promoted: list[tuple[str, bytes, str]] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        subscribe(lambda name, fields: self.events.append((name, fields)))

    def worker(self, **options: Any) -> Worker:
        coordinator = self.world.coordinator(**self.settings)
        return Worker(coordinator, self.queue, **{"promote": self.promote, "clock": self.clock, **options})

    async def promote(self, tube: str, message: Message, error: BaseException) -> None:
        self.promoted.append((tube, message.payload, f"{type(error).__name__}: {error}"))

    def named(self, name: str) -> list[dict[str, Any]]:
        return [fields for kind, fields in self.events if kind == name]


@pytest.fixture
def make_bench(world: World, clock: FakeClock) -> Callable[..., Bench]:
    return lambda **settings: Bench(world, clock, **settings)


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench()


def notes(count: int, thread: int = 0) -> list[Note]:
    return [Note(thread, number) for number in range(count)]


# Order and limits


@asynchronous
async def test_each_thread_is_performed_in_order_and_each_request_once(bench: Bench) -> None:
    handler, noted = make_handler()
    await bench.queue.register(handler, *[Note(n % 3, n) for n in range(400)])
    assert sum(await asyncio.gather(*[bench.worker().loop(200) for _ in range(3)])) == 400
    for thread in range(3):
        assert numbers(noted, thread) == list(range(thread, 400, 3))


@asynchronous
async def test_a_thread_is_in_one_place_at_a_time(bench: Bench) -> None:
    at_work: list[int] = []

    async def perform(_self: Handler, *requests: Note) -> None:
        thread = requests[0].thread
        assert thread not in at_work
        at_work.append(thread)
        for _ in range(3):
            await asyncio.sleep(0)
        at_work.remove(thread)

    handler, _ = make_handler(perform=perform, batch_size=1)
    await bench.queue.register(handler, *[Note(n % 2, n, n % 5) for n in range(60)])
    assert sum(await asyncio.gather(*[bench.worker().loop(60) for _ in range(4)])) == 60
    assert not bench.named("shards.failed")


@asynchronous
async def test_declared_priorities_go_first_in_their_order_and_the_others_after_higher_first(bench: Bench) -> None:
    handler, noted = make_handler(priorities=[5, 1, 9])
    given = [0, 9, -7, 1, 100, 5, 1, 0]
    await bench.queue.register(handler, *[Note(0, number, priority) for number, priority in enumerate(given)])
    await bench.worker().loop(100)
    assert [note.priority for batch in noted for note in batch] == [5, 1, 1, 9, 100, 0, 0, -7]
    assert numbers(noted) == [5, 3, 6, 1, 4, 0, 7, 2]


@asynchronous
async def test_without_declared_ones_the_higher_priority_goes_first(bench: Bench) -> None:
    handler, noted = make_handler()
    await bench.queue.register(handler, *[Note(0, n, n % 3) for n in range(6)])
    await bench.worker().loop(100)
    assert numbers(noted) == [2, 5, 1, 4, 0, 3]


@pytest.mark.parametrize("limit", [0, 1, 3, 4, 9])
@asynchronous
async def test_the_limit_is_never_overshot(make_bench: Callable[..., Bench], limit: int) -> None:
    bench = make_bench(queue_worker_batch_size=2)
    handler, noted = make_handler()
    await bench.queue.register(handler, *notes(10))
    assert await bench.worker().loop(limit) == limit
    assert numbers(noted) == list(range(limit))
    assert await bench.queue.storage.length("Noting/0") == 10 - limit


@pytest.mark.parametrize("limit", [-1, True, 1.5, "3"])
@asynchronous
async def test_a_limit_is_a_number(bench: Bench, limit: Any) -> None:
    with pytest.raises(ConfigError):
        await bench.worker().loop(limit)


@asynchronous
async def test_it_ends_when_all_is_drained_after_waiting_for_late_requests(bench: Bench) -> None:
    handler, noted = make_handler()
    late = iter([lambda: bench.queue.register(handler, Note(0, 1)), lambda: bench.queue.register(handler, Note(5, 2))])

    async def stop(_self: Handler) -> None:
        if following := next(late, None):
            await following()

    handler.stop = stop  # type: ignore[method-assign]
    await bench.queue.register(handler, Note(0, 0))
    assert await bench.worker().loop(100) == 3
    assert numbers(noted) == [0, 1, 2]


@asynchronous
async def test_a_tube_of_a_handler_that_is_not_known_here_is_left_alone(bench: Bench) -> None:
    handler, noted = make_handler()
    for n in range(40):
        await bench.queue.storage.append(f"os.system/{n}", b'{"command": "true"}')
    await bench.queue.storage.append("no tube's name", b"1")
    await bench.queue.register(handler, Note(0, 7))
    assert await bench.worker().loop(100) == 1
    assert numbers(noted) == [7]
    assert len(await bench.queue.storage.tubes()) == 41


# The handler's life


@asynchronous
async def test_a_handler_is_created_started_used_and_stopped_for_each_tube(bench: Bench) -> None:
    told: list[Any] = []

    class Living(Handler):
        @classmethod
        async def create(cls) -> "Living":
            told.append("create")
            return cls()

        @classmethod
        async def route(cls, *requests: Note) -> list[Route]:
            return [Route(request.thread) for request in requests]

        async def start(self) -> None:
            told.append("start")

        async def handle(self, *requests: Note) -> None:
            told.append(numbers([requests]))

        async def stop(self) -> None:
            told.append("stop")

    await bench.queue.register(Living, Note(0, 1), Note(1, 2), Note(0, 3))
    await bench.worker().loop(3)
    assert told == ["create", "start", [1, 3], "stop", "create", "start", [2], "stop"]


@asynchronous
async def test_handlers_may_be_plain_functions(bench: Bench) -> None:
    noted: list[tuple[Note, ...]] = []

    class Plain(Handler):
        @classmethod
        def route(cls, *requests: Note) -> list[Route]:  # type: ignore[override]
            return [Route(request.thread) for request in requests]

        def start(self) -> None:  # type: ignore[override]
            self.started = True

        def perform(self, *requests: Note) -> None:  # type: ignore[override]
            assert self.started
            noted.append(requests)

    class Plainer(Handler):
        def handle(self, *requests: Note) -> None:  # type: ignore[override]
            noted.append(requests)

    await bench.queue.register(Plain, *notes(2))
    await bench.queue.register(Plainer, Note(0, 9))
    assert await bench.worker().loop(3) == 3
    assert numbers(noted) == [0, 1, 9]
    assert not bench.named("shards.failed")


@asynchronous
async def test_a_handler_has_to_perform_or_handle(bench: Bench) -> None:
    class Neither(Handler):
        pass

    with pytest.raises(ConfigError, match="neither perform nor handle"):
        await bench.queue.register(Neither, 1)


def test_two_classes_cannot_have_one_key() -> None:
    class Twice(Handler):
        pass

    with pytest.raises(ConfigError, match="two classes"):

        class Other(Handler, key="Twice"):
            pass

    assert Twice.key == "Twice"


@asynchronous
async def test_a_handler_that_cannot_start_blames_no_request(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(max_attempts=2)
    failures = iter([OSError("no"), OSError("no"), OSError("no"), OSError("no")])

    async def start(_self: Handler) -> None:
        if error := next(failures, None):
            raise error

    handler, noted = make_handler(start=start)
    await bench.queue.register(handler, *notes(2))
    assert await bench.worker().loop(2) == 2
    assert (len(noted), bench.promoted) == (1, [])
    assert len(bench.named("shards.failed")) == 4


@asynchronous
async def test_what_stop_raises_costs_nothing(bench: Bench) -> None:
    async def stop(_self: Handler) -> None:
        raise OSError("at the end")

    handler, noted = make_handler(stop=stop)
    await bench.queue.register(handler, *notes(2))
    assert await bench.worker().loop(5) == 2
    assert len(noted) == 1


# Errors


def raising(bad: set[int], error: Callable[[], BaseException]) -> tuple[type[Handler], list[list[int]]]:
    """Return a handler that raises at these numbers, and the list of the batches it was called with."""
    calls: list[list[int]] = []

    async def perform(_self: Handler, *requests: Note) -> None:
        calls.append(numbers([requests]))
        if bad & set(calls[-1]):
            raise error()

    return make_handler(perform=perform)[0], calls


@asynchronous
async def test_a_poison_request_is_retried_then_taken_alone_then_promoted_and_its_tube_goes_on(bench: Bench) -> None:
    handler, calls = raising({1}, lambda: ValueError("poison"))
    await bench.queue.register(handler, *notes(3))
    assert await bench.worker().loop(10) == 3
    assert calls == [[0, 1, 2], [0, 1, 2], [0], [1], [2]]
    assert bench.promoted == [("Noting/0", b'{"thread":0,"number":1,"priority":0}', "ValueError: poison")]
    assert await bench.queue.storage.tubes() == []


@pytest.mark.parametrize(
    ("most", "expected"), [(1, [[0, 1], [0], [1]]), (2, [[0, 1], [0], [1]]), (4, [[0, 1]] * 3 + [[0], [1]])]
)
@asynchronous
async def test_a_request_is_given_up_after_so_many_deliveries_and_never_unless_alone(
    make_bench: Callable[..., Bench], most: int, expected: list[list[int]]
) -> None:
    bench = make_bench(max_attempts=most)
    handler, calls = raising({1}, lambda: ValueError("poison"))
    await bench.queue.register(handler, *notes(2))
    await bench.worker().loop(10)
    assert calls == expected
    assert len(bench.promoted) == 1


@asynchronous
async def test_an_error_that_passes_costs_nothing_but_another_call(bench: Bench) -> None:
    errors = iter([OSError("a blip")])

    async def perform(_self: Handler, *requests: Note) -> None:
        noted.append(requests)
        if error := next(errors, None):
            raise error

    handler, noted = make_handler(perform=perform)
    await bench.queue.register(handler, *notes(3))
    assert await bench.worker().loop(3) == 3
    assert (len(noted), bench.promoted) == (2, [])


@asynchronous
async def test_after_a_poison_request_those_behind_it_go_in_batches_again(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(queue_worker_batch_size=2)
    handler, calls = raising({0}, lambda: ValueError("poison"))
    await bench.queue.register(handler, *notes(6))
    await bench.worker().loop(10)
    assert calls == [[0, 1], [0, 1], [0], [1], [2, 3], [4, 5]]


@asynchronous
async def test_what_fails_for_good_is_promoted_at_once_when_it_is_alone(bench: Bench) -> None:
    handler, calls = raising({1}, lambda: PermanentError("never"))
    await bench.queue.register(handler, *notes(3))
    assert await bench.worker().loop(10) == 3
    assert calls == [[0, 1, 2], [0], [1], [2]]
    ((_, _, why),) = bench.promoted
    assert why.startswith("PermanentError") and why.endswith("never")


@asynchronous
async def test_a_snooze_is_nobodys_fault(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(max_attempts=1)
    naps = iter([Snooze(0), Snooze(0), Snooze(0)])

    async def perform(_self: Handler, *requests: Note) -> None:
        if nap := next(naps, None):
            raise nap

    handler, _ = make_handler(perform=perform)
    await bench.queue.register(handler, Note(0, 0))
    assert await bench.worker().loop(1) == 1
    assert bench.promoted == []


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError(), GeneratorExit()], ids=repr)
@asynchronous
async def test_no_handler_ends_the_worker(make_bench: Callable[..., Bench], error: BaseException) -> None:
    bench = make_bench(max_attempts=1)
    handler, _ = raising({0}, lambda: error)
    await bench.queue.register(handler, *notes(2))
    assert await bench.worker().loop(2) == 2
    assert [payload for _, payload, _ in bench.promoted] == [b'{"thread":0,"number":0,"priority":0}']


@pytest.mark.parametrize(
    "payload",
    [b'{"thread":0}', b'{"thread":0,"number":1,"colour":2}', b"[0,1]", b"\xff", b"", b'{"thread":"x","number":1}'],
    ids=["missing", "added", "by place", "no UTF-8", "nothing", "another type"],
)  # fmt: skip
@asynchronous
async def test_what_does_not_fit_the_class_any_more_is_promoted_with_the_reason(bench: Bench, payload: bytes) -> None:
    handler, noted = make_handler()
    await bench.queue.register(handler, Note(0, 1))
    await bench.queue.storage.append("Noting/0", payload)
    await bench.queue.register(handler, Note(0, 2))
    assert await bench.worker().loop(3) == 3
    assert numbers(noted) == [1, 2]
    ((_, kept, why),) = bench.promoted
    assert kept == payload
    assert why.startswith("PayloadError")


@asynchronous
async def test_a_request_that_cannot_be_promoted_stays_until_it_can(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(max_attempts=1)
    handler, _calls = raising({0}, lambda: ValueError("poison"))
    outages = iter([DatabaseUnavailable("away"), RuntimeError("a defect")])

    async def promote(tube: str, message: Message, error: BaseException) -> None:
        if outage := next(outages, None):
            raise outage
        await bench.promote(tube, message, error)

    await bench.queue.register(handler, Note(0, 0))
    worker = asyncio.create_task(bench.worker(promote=promote).loop(1))
    while not worker.done():
        bench.clock.advance(1)  # the tube rests after each failure
        await asyncio.sleep(0)
    assert await worker == 1
    assert len(bench.promoted) == 1
    assert await bench.queue.storage.tubes() == []


@asynchronous
async def test_after_an_error_the_tube_rests_and_others_are_served(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(queue_backoff_seconds=600.0, queue_worker_batch_size=1)
    handler, calls = raising({0}, lambda: ValueError("poison"))
    await bench.queue.register(handler, Note(0, 0), Note(1, 1), Note(1, 2))
    assert await bench.worker().loop(2) == 2
    assert calls == [[0], [1], [2]]
    (lease,) = await bench.world.coordinator().leases()
    assert (lease.tube, lease.owner, lease.tries) == ("Noting/0", "", 1)
    assert 0 < (lease.lease_until - bench.clock.now()).total_seconds() <= 600


@asynchronous
async def test_the_tries_are_known_to_the_next_worker(bench: Bench) -> None:
    calls: list[int] = []

    async def perform(_self: Handler, *requests: Note) -> None:
        calls.append(requests[0].number)
        worker.stop()
        raise ValueError("poison")

    handler, _ = make_handler(perform=perform)
    await bench.queue.register(handler, Note(0, 0))
    for _ in range(3):
        worker = bench.worker()
        await worker.loop()
    assert calls == [0, 0, 0]
    assert len(bench.promoted) == 1


# Death


async def dies_over(bench: Bench, tube: str) -> None:
    """Let a worker bind a tube and never be heard of again."""
    await bound(bench.world.coordinator(), tube)
    bench.clock.advance(31)


@asynchronous
async def test_after_a_death_requests_go_one_by_one(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(queue_worker_batch_size=3)
    handler, noted = make_handler()
    await bench.queue.register(handler, *notes(8))
    await dies_over(bench, "Noting/0")
    await bench.worker().loop(8)
    assert [len(batch) for batch in noted] == [1, 1, 1, 3, 2]
    assert numbers(noted) == list(range(8))


@asynchronous
async def test_a_request_over_which_worker_after_worker_dies_is_promoted_unperformed(bench: Bench) -> None:
    handler, noted = make_handler()
    await bench.queue.register(handler, *notes(3))
    for _ in range(3):
        await dies_over(bench, "Noting/0")
    await bench.worker().loop(3)
    assert numbers(noted) == [1, 2]
    ((_, payload, why),) = bench.promoted
    assert b'"number":0' in payload
    assert "died" in why


# Leases


@asynchronous
async def test_the_handler_is_stopped_when_its_lease_is_lost_and_nothing_is_removed(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(queue_coordinator_lease=0.03)
    ends: list[str] = []

    async def perform(_self: Handler, *requests: Note) -> None:
        if ends:
            return
        await bench.world.coordinator().release("Noting/0")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    handler, _ = make_handler(perform=perform)
    await bench.queue.register(handler, Note(0, 0))
    assert await bench.worker().loop(1) == 1
    assert ends == ["cancelled"]
    assert len(bench.named("shards.lost")) == 1
    assert bench.promoted == []


@asynchronous
async def test_what_a_late_worker_removes_is_refused(bench: Bench) -> None:
    handler, noted = make_handler()

    async def perform(_self: Handler, *requests: Note) -> None:
        noted.append(requests)
        if len(noted) == 1:
            bench.clock.advance(31)  # it was stopped for so long
            assert await bench.worker().loop(1) == 1

    handler.perform = perform  # type: ignore[method-assign]
    await bench.queue.register(handler, *notes(3))
    assert await bench.worker().loop(2) == 2
    (refused,) = [fields["error"] for fields in bench.named("shards.lost")]
    assert isinstance(refused, LeaseLost)
    assert numbers(noted) == [0, 1, 0, 1, 2]
    assert await bench.queue.storage.tubes() == []


@asynchronous
async def test_the_lease_is_renewed_while_the_handler_runs(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(queue_coordinator_lease=0.03)
    renewed = asyncio.Event()

    async def perform(_self: Handler, *requests: Note) -> None:
        (before,) = await bench.world.coordinator().leases()
        bench.clock.advance(0.02)
        while (await bench.world.coordinator().leases())[0].lease_until <= before.lease_until:
            await asyncio.sleep(0.001)
        renewed.set()

    handler, _ = make_handler(perform=perform)
    await bench.queue.register(handler, Note(0, 0))
    assert await bench.worker().loop(1) == 1
    assert renewed.is_set()


@asynchronous
async def test_no_tube_is_held_past_the_cap(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(queue_coordinator_timeout=10.0, queue_worker_batch_size=1)

    async def perform(_self: Handler, *requests: Note) -> None:
        bench.clock.advance(6)
        noted.append(len(bench.named("shards.performed")))

    started: list[int] = []

    async def start(_self: Handler) -> None:
        started.append(len(noted))

    handler, noted = make_handler(perform=perform, start=start)
    await bench.queue.register(handler, *notes(4))
    assert await bench.worker().loop(4) == 4
    assert started == [0, 2]


# Stopping


@asynchronous
async def test_stop_finishes_the_batch_gives_the_tube_back_and_ends(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(queue_worker_batch_size=2)
    worker = bench.worker()

    async def perform(_self: Handler, *requests: Note) -> None:
        worker.stop()
        await asyncio.sleep(0)
        noted.append(requests)

    handler, noted = make_handler(perform=perform)
    await bench.queue.register(handler, *notes(6))
    assert await worker.loop() == 2
    assert worker.stopping
    assert await worker.loop() == 0
    assert await bench.world.coordinator().leases() == []
    assert said(await bench.queue.storage.peek("Noting/0", 1)) == [b'{"thread":0,"number":2,"priority":0}']


@asynchronous
async def test_a_worker_that_is_cancelled_gives_the_tube_back(bench: Bench) -> None:
    begun = asyncio.Event()

    async def perform(_self: Handler, *requests: Note) -> None:
        begun.set()
        await asyncio.Event().wait()

    handler, _ = make_handler(perform=perform)
    await bench.queue.register(handler, *notes(2))
    task = asyncio.create_task(bench.worker().loop())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await bench.world.coordinator().leases() == []
    assert await bench.queue.storage.length("Noting/0") == 2
    assert bench.promoted == []


@asynchronous
async def test_a_worker_that_is_cancelled_while_it_binds_leaves_nothing_bound(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, _ = make_handler()
    await bench.queue.register(handler, Note(0, 0))
    binding, goes_on = asyncio.Event(), asyncio.Event()
    bind = RuntimeCoordinator.bind_first

    async def slowly(self: RuntimeCoordinator, tubes: Sequence[str]) -> Lease | None:
        lease = await bind(self, tubes)
        binding.set()
        await goes_on.wait()
        return lease

    monkeypatch.setattr(RuntimeCoordinator, "bind_first", slowly)
    task = asyncio.create_task(bench.worker().loop())
    await binding.wait()
    task.cancel()
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await bench.world.coordinator().leases() == []


@asynchronous
async def test_a_storage_out_of_reach_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    handler, noted = make_handler()
    await bench.queue.register(handler, *notes(3))
    outages = iter([DatabaseUnavailable("away"), DatabaseUnavailable("away")])
    tubes = bench.queue.storage.tubes

    async def failing(limit: int | None = None) -> list[str]:
        if outage := next(outages, None):
            raise outage
        return await tubes(limit)

    monkeypatch.setattr(bench.queue.storage, "tubes", failing)
    assert await bench.worker().loop(3) == 3
    assert [fields["failures"] for fields in bench.named("shards.outage")] == [1, 2]
    assert len(noted) == 1


def test_storage_and_coordinator_are_of_one_backend(world: World) -> None:
    from persistq.sharded import RedisCoordinator

    class Client:
        execute_command = aclose = None

    with pytest.raises(ConfigError, match="take both of one backend"):
        Worker(RedisCoordinator(Client()), Queue(world.storage()))


# Fairness


@asynchronous
async def test_threads_share_a_worker_by_their_weights(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(queue_worker_batch_size=1)
    served: list[int] = []

    async def perform(_self: Handler, *requests: Note) -> None:
        bench.clock.advance(0.25)
        served.append(requests[0].thread)

    handler, _ = make_handler(perform=perform, weight=classmethod(lambda _cls, thread: 3 if thread == 7 else 1))
    await bench.queue.register(handler, *notes(500, 7), *notes(500, 1), *notes(500, 2))
    assert await bench.worker().loop(200) == 200
    assert [served.count(thread) for thread in (7, 1, 2)] == [120, 40, 40]


@asynchronous
async def test_no_end_of_requests_in_one_thread_starves_another(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(queue_worker_batch_size=1)
    served: list[int] = []

    async def perform(_self: Handler, *requests: Note) -> None:
        bench.clock.advance(0.5)
        served.append(requests[0].thread)
        await bench.queue.register(handler, Note(0, 0), Note(0, 0))  # thread 0 only grows
        if len(served) == 5:
            await bench.queue.register(handler, Note(1, 0))

    handler, _ = make_handler(perform=perform)
    await bench.queue.register(handler, Note(0, 0))
    await bench.worker().loop(12)
    assert served.index(1) <= 8


@asynchronous
async def test_tubes_go_to_those_who_are_there(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(queue_worker_batch_size=1)
    by_worker: dict[str, set[int]] = {"first": set(), "second": set()}
    served = 0

    async def perform(_self: Handler, *requests: Note) -> None:
        nonlocal served
        served += 1
        bench.clock.advance(0.3)
        task = asyncio.current_task()
        assert task is not None
        by_worker[here.get()].add(requests[0].thread)
        await asyncio.sleep(0)

    from contextvars import ContextVar

    here: ContextVar[str] = ContextVar("here")
    handler, _ = make_handler(perform=perform)
    await bench.queue.register(handler, *[Note(n % 4, n) for n in range(400)])

    async def run(name: str, limit: int) -> int:
        here.set(name)
        return await bench.worker().loop(limit)

    first = asyncio.create_task(run("first", 400))
    while served < 40:
        await asyncio.sleep(0)
    assert by_worker["second"] == set()
    assert await run("second", 60) == 60  # comes, gets a share, and goes
    assert await first == 340
    assert by_worker["second"] and by_worker["first"] == {0, 1, 2, 3}
    assert await bench.queue.storage.tubes() == []


@asynchronous
async def test_a_renewal_under_way_is_waited_for_when_the_work_is_over() -> None:
    """To cancel it would break off what a client says to its server."""
    steps: list[str] = []
    renewing, over = asyncio.Event(), asyncio.Event()

    class Slow:
        async def renew(self, lease: Lease) -> None:
            renewing.set()
            await over.wait()
            await asyncio.sleep(0)
            steps.append("renewed")

    async def work() -> None:
        await renewing.wait()
        steps.append("worked")
        over.set()

    lease = Lease("Tube/1", "name", "token", 0, seconds=0.03)
    await Keeper(Slow(), lease, SystemClock()).keep(work())  # type: ignore[arg-type]
    assert steps == ["worked", "renewed"]


@asynchronous
async def test_a_handler_that_tidies_up_after_its_lease_is_let_do_so(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(queue_coordinator_lease=0.03)
    told: list[str] = []

    async def perform(_self: Handler, *requests: Note) -> None:
        if told:
            return
        await bench.world.coordinator().release("Noting/0")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            told.append("tidy")

    async def stop(_self: Handler) -> None:
        told.append("stopped")

    handler, _ = make_handler(perform=perform, stop=stop)
    await bench.queue.register(handler, Note(0, 0))
    assert await bench.worker().loop(1) == 1
    assert told == ["tidy", "stopped", "stopped"]


@asynchronous
async def test_a_handler_that_cancels_its_own_task_ends_its_attempt_only(bench: Bench) -> None:
    async def perform(_self: Handler, *requests: Note) -> None:
        noted.append(requests)
        if len(noted) == 1:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()

    handler, noted = make_handler(perform=perform)
    await bench.queue.register(handler, Note(0, 0))
    assert await bench.worker().loop(1) == 1
    assert [fields["tries"] for fields in bench.named("shards.failed")] == [1]


ANSWERS = [None, ValueError("broken off"), PermanentError("broken off"), SystemExit(3)]
"""What a handler may make of its cancellation: to return as if nothing was, or to raise something else."""


def answering(
    answer: BaseException | None, begin: Callable[[], Awaitable[object]]
) -> tuple[type[Handler], list[list[int]]]:
    """Return a handler whose first call waits to be cancelled and answers so, and the list of its calls."""
    calls: list[list[int]] = []

    async def perform(_self: Handler, *requests: Note) -> None:
        calls.append(numbers([requests]))
        if len(calls) > 1:
            return
        await begin()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        if answer is not None:
            raise answer

    return make_handler(perform=perform)[0], calls


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: type(answer).__name__)
@asynchronous
async def test_a_worker_whose_handler_swallows_its_cancellation_ends_before_the_next_batch(
    make_bench: Callable[..., Bench], answer: BaseException | None
) -> None:
    bench = make_bench(queue_worker_batch_size=1, max_attempts=1)
    begun = asyncio.Event()

    async def begin() -> None:
        begun.set()

    async def stop(_self: Handler) -> None:
        raise OSError("at the end")

    handler, calls = answering(answer, begin)
    handler.stop = stop  # type: ignore[method-assign]
    await bench.queue.register(handler, *notes(2))
    task = asyncio.create_task(bench.worker().loop(2))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert calls == [[0]]
    assert await bench.queue.storage.length("Noting/0") == 2  # nobody knows what was done of the first
    assert bench.promoted == []
    assert [str(fields["error"]) for fields in bench.named("shards.failed")] == ["at the end"]
    assert await bench.world.coordinator().leases() == []


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: type(answer).__name__)
@asynchronous
async def test_what_a_handler_raises_at_the_loss_of_its_lease_blames_no_request(
    make_bench: Callable[..., Bench], answer: BaseException | None
) -> None:
    bench = make_bench(queue_worker_batch_size=1, max_attempts=1, queue_coordinator_lease=0.03)
    handler, calls = answering(answer, lambda: bench.world.coordinator().release("Noting/0"))
    await bench.queue.register(handler, *notes(2))
    assert await bench.worker().loop(2) == 2
    assert calls == [[0], [0], [1]]
    assert len(bench.named("shards.lost")) == 1
    assert (bench.promoted, bench.named("shards.failed")) == ([], [])


@asynchronous
async def test_a_renewal_that_fails_for_good_ends_the_handler_before_its_tube_is_given_back(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(queue_worker_batch_size=1, max_attempts=1, queue_coordinator_lease=0.03)
    steps: list[str] = []
    unbind = RuntimeCoordinator.unbind

    async def renew(_self: RuntimeCoordinator, _lease: Lease) -> None:
        raise SchemaMismatch("made by another version")

    async def unbound(self: RuntimeCoordinator, lease: Lease, **how: Any) -> None:
        steps.append("unbound")
        await unbind(self, lease, **how)

    async def perform(_self: Handler, *requests: Note) -> None:
        steps.append(f"began {requests[0].number}")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("tidy")

    async def stop(_self: Handler) -> None:
        steps.append("stopped")

    monkeypatch.setattr(RuntimeCoordinator, "renew", renew)
    monkeypatch.setattr(RuntimeCoordinator, "unbind", unbound)
    handler, _ = make_handler(perform=perform, stop=stop)
    await bench.queue.register(handler, *notes(2))
    with pytest.raises(SchemaMismatch):
        await bench.worker().loop(2)
    assert steps == ["began 0", "tidy", "stopped", "unbound"]
    assert (bench.promoted, bench.named("shards.failed")) == ([], [])
    assert await bench.queue.storage.length("Noting/0") == 2


@asynchronous
async def test_no_handler_begins_on_a_lease_that_was_lost_while_it_waited_for_late_requests(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(queue_coordinator_lease=0.03)
    told: list[Any] = []
    lost = asyncio.Event()
    renew, peek = RuntimeCoordinator.renew, bench.queue.storage.peek

    async def perform(_self: Handler, *requests: Note) -> None:
        told.append(numbers([requests]))

    async def start(_self: Handler) -> None:
        told.append("start")

    async def renewed(self: RuntimeCoordinator, lease: Lease) -> None:
        try:
            await renew(self, lease)
        except LeaseLost:
            lost.set()
            raise

    async def late(tube: object, limit: int) -> list[Message]:
        if told == ["start", [0]]:
            await bench.queue.register(handler, Note(0, 1))
            await bench.world.coordinator().release(tube)
            await lost.wait()
        return await peek(tube, limit)

    monkeypatch.setattr(RuntimeCoordinator, "renew", renewed)
    monkeypatch.setattr(bench.queue.storage, "peek", late)
    handler, _ = make_handler(perform=perform, start=start)
    await bench.queue.register(handler, Note(0, 0))
    assert await bench.worker().loop(2) == 2
    assert told == ["start", [0], "start", [1]]


@asynchronous
async def test_the_end_of_the_program_is_no_fault_of_the_requests(make_bench: Callable[..., Bench]) -> None:
    """It cancels every task at once, the one in which a handler performs before the one that waits for it."""
    bench = make_bench(max_attempts=1)
    tasks: list[asyncio.Task[Any]] = []
    begun = asyncio.Event()

    async def perform(_self: Handler, *requests: Note) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        begun.set()
        await asyncio.Event().wait()

    handler, _ = make_handler(perform=perform)
    await bench.queue.register(handler, Note(0, 0))
    tasks.append(asyncio.create_task(bench.worker().loop()))
    await begun.wait()
    for task in reversed(tasks):
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    assert bench.promoted == []
    assert bench.named("shards.failed") == []
    assert await bench.world.coordinator().leases() == []


@asynchronous
async def test_others_have_their_turn_between_two_batches(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(queue_worker_batch_size=1)
    handler, noted = make_handler()
    await bench.queue.register(handler, *notes(50))
    seen: list[int] = []

    async def look() -> None:
        while len(noted) < 50:
            seen.append(len(noted))
            await asyncio.sleep(0)

    await asyncio.gather(bench.worker().loop(50), look())
    assert set(range(1, 50)) <= set(seen)
