"""The loop over a source made of plain lists: what it claims, settles, gives back and survives."""

import asyncio
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from support.clock import FakeClock

from persistq import DatabaseUnavailable, OutcomeUnknown, QueueFull, subscribe
from persistq.tasks import Cancellation
from persistq.worker import Loop, Threads, Turn
from persistq.worker.executors import Running
from persistq.worker.wakeup import Wakeup

Handler = Callable[[Cancellation], object]


class Work:
    """A piece of work: what performing it does, and how long it may take."""

    def __init__(self, handler: Handler = lambda _cancellation: None, timeout: float | None = None) -> None:
        self.handler = handler
        self.timeout = timeout


class ListSource:
    """A source whose work stands in a list. Outcomes are pairs of a word and the work."""

    def __init__(self, *waiting: Work) -> None:
        self.waiting = list(waiting)
        self.settled: list[tuple[str, Work]] = []
        self.rooms: list[int] = []
        self.held: list[list[Work]] = []
        self.lost: list[Work] = []
        self.closed = 0
        self.holding: list[Work] = []
        #: Raised one by one, each by one exchange.
        self.troubles: list[Exception] = []
        self.turns = 0
        #: Called at the begin of each exchange with its number.
        self.on_turn: Callable[[int], object] = lambda _turn: None

    def exchange(self, settled: Sequence[Any], holding: Sequence[Work], room: int, ahead: int = 0) -> Turn[Work]:
        self.turns += 1
        self.holding = list(holding)
        self.on_turn(self.turns)
        if self.troubles:
            raise self.troubles.pop(0)
        self.settled += settled
        self.rooms.append(room)
        self.held.append(list(holding))
        claimed, self.waiting = self.waiting[:room], self.waiting[room:]
        lost, self.lost = self.lost, []
        return Turn(claimed=claimed, lost=lost)

    def perform(self, work: Work, cancellation: Cancellation) -> Any:
        came = work.handler(cancellation)
        return self._awaited(work, came) if asyncio.iscoroutine(came) else ("done", work)

    async def _awaited(self, work: Work, came: Any) -> Any:
        try:
            await came
        except asyncio.CancelledError:
            return ("cancelled", work)
        return ("done", work)

    def is_async(self, work: Work) -> bool:
        return asyncio.iscoroutinefunction(work.handler)

    def timeout(self, work: Work) -> float | None:
        return work.timeout

    def timed_out(self, work: Work) -> Any:
        return ("timed out", work)

    def released(self, work: Work) -> Any:
        return ("released", work)

    def expired(self, holding: Sequence[Work]) -> Sequence[Work]:
        return [work for work in holding if self.expiring]

    expiring = False

    def pause(self) -> float:
        return 0.0  # a clock that stands still would never see the end of a longer one

    def bell(self) -> int | None:
        return None

    def listens(self) -> bool:
        return True

    def rung(self) -> bool:
        return True

    def drained(self) -> bool:
        return not self.waiting

    def close(self) -> None:
        self.closed += 1


def run(source: ListSource, size: int = 1, *, grace: float = 30, drain: bool = True, clock: Any = None) -> int:
    return Loop(source, Threads(size), grace=grace, drain=drain, clock=clock).run()


def hang_until(event: threading.Event) -> Handler:
    def handler(_cancellation: Cancellation) -> None:
        assert event.wait(20), "nobody ended this handler"

    return handler


def until_cancelled(cancellation: Cancellation) -> None:
    told = threading.Event()
    cancellation.stops_by(told.set)
    assert told.wait(20), "nobody cancelled this handler"


@pytest.mark.parametrize("size", [1, 3])
def test_a_drain_performs_all_settles_all_and_ends(size: int) -> None:
    works = [Work() for _ in range(20)]
    source = ListSource(*works)
    assert run(source, size) == 0
    assert sorted(map(id, works)) == sorted(id(work) for word, work in source.settled if word == "done")
    assert len(source.settled) == 20
    assert source.closed == 1


def test_work_is_performed_in_order_by_one_thread() -> None:
    order: list[int] = []
    run(ListSource(*(Work(lambda _c, n=number: order.append(n)) for number in range(10))))
    assert order == list(range(10))


@pytest.mark.parametrize("size", [1, 4])
def test_no_more_is_claimed_than_can_be_performed(size: int) -> None:
    running, most, lock = [0], [0], threading.Lock()

    def handler(_cancellation: Cancellation) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        with lock:
            running[0] -= 1

    source = ListSource(*(Work(handler) for _ in range(30)))
    run(source, size)
    assert most[0] <= size
    assert all(room + len(held) <= size for room, held in zip(source.rooms, source.held, strict=True))


def test_as_many_run_at_once_as_there_are_threads() -> None:
    barrier = threading.Barrier(4, timeout=60)
    source = ListSource(*(Work(lambda _c: barrier.wait()) for _ in range(8)))
    assert run(source, 4) == 0
    assert [word for word, _ in source.settled] == ["done"] * 8


def stopping(source: ListSource, turn: int, clock: FakeClock, grace: float, *, size: int = 1, times: int = 1) -> int:
    """Run, stop at a turn, and let the clock jump to the end of the grace when the loop has understood."""
    loop = Loop(source, Threads(size), grace=grace, clock=clock)
    source.on_turn = lambda number: [loop.stop() for _ in range(times)] if number == turn else None
    subscribe(lambda name, fields: clock.advance(fields["grace"]) if name == "worker.stopping" else None)
    return loop.run()


def test_a_stop_releases_what_outlasts_the_grace_and_exits_0(clock: FakeClock) -> None:
    end = threading.Event()
    hanging = Work(hang_until(end))
    source = ListSource(hanging, Work())
    assert stopping(source, 2, clock, 30) == 0
    end.set()
    assert source.settled == [("released", hanging)]
    assert len(source.waiting) == 1
    assert source.closed == 1


def test_a_stop_claims_nothing_more(clock: FakeClock) -> None:
    source = ListSource()
    source.on_turn = lambda _turn: source.waiting.clear()
    assert stopping(source, 1, clock, 30) == 0
    assert source.rooms[1:] == [0] * len(source.rooms[1:])


def test_what_ends_within_the_grace_is_done_and_settled(clock: FakeClock) -> None:
    end, understood = threading.Event(), []
    work = Work(hang_until(end))
    source = ListSource(work)
    loop = Loop(source, Threads(1), grace=30, clock=clock)
    source.on_turn = lambda number: loop.stop() if number == 2 else None

    def observe(name: str, fields: dict[str, Any]) -> None:
        if name == "worker.stopping":
            understood.append(fields["running"])
            end.set()

    subscribe(observe)
    assert loop.run() == 0
    assert (source.settled, understood) == ([("done", work)], [1])


def test_a_second_stop_ends_the_grace(clock: FakeClock) -> None:
    end, graces = threading.Event(), []
    work = Work(hang_until(end))
    source = ListSource(work)
    loop = Loop(source, Threads(1), grace=1_000_000, clock=clock)
    source.on_turn = lambda number: (loop.stop(), loop.stop()) if number == 2 else None
    subscribe(lambda name, fields: graces.append(fields["grace"]) if name == "worker.stopping" else None)
    assert loop.run() == 0
    end.set()
    assert source.settled == [("released", work)]
    assert graces == [1_000_000, 0]


def test_a_stop_when_idle_ends_at_once(clock: FakeClock) -> None:
    source = ListSource()
    assert stopping(source, 3, clock, 30) == 0
    assert source.settled == []


@pytest.mark.parametrize("trouble", [DatabaseUnavailable, OutcomeUnknown, QueueFull])
def test_outcomes_outlast_an_outage_and_are_settled_once(clock: FakeClock, trouble: type[Exception]) -> None:
    works = [Work() for _ in range(3)]
    source = ListSource(*works)
    failures, recovered = [], []

    def observe(name: str, fields: dict[str, Any]) -> None:
        if name == "worker.outage":
            failures.append(fields["failures"])
            clock.advance(15)  # the longest wait there may be: were it longer, the loop would sleep for real
        elif name == "worker.recovered":
            recovered.append(fields["failures"])

    subscribe(observe)
    source.on_turn = lambda number: source.troubles.extend(trouble("away") for _ in range(200)) if number == 2 else None
    assert run(source, clock=clock) == 0
    assert sorted(map(id, works)) == sorted(id(work) for _, work in source.settled)
    assert failures == list(range(1, 201))
    assert recovered == [200]


def test_an_outage_at_the_very_start_is_survived(clock: FakeClock) -> None:
    source = ListSource(Work())
    source.troubles = [DatabaseUnavailable("locked")] * 3
    subscribe(lambda name, _fields: clock.advance(15) if name == "worker.outage" else None)
    assert run(source, clock=clock) == 0
    assert [word for word, _ in source.settled] == ["done"]


def test_an_error_that_is_no_outage_ends_the_loop_and_says_goodbye() -> None:
    source = ListSource()
    source.troubles = [ZeroDivisionError("a defect")]
    with pytest.raises(ZeroDivisionError):
        run(source)
    assert source.closed == 1


def test_what_could_not_be_renewed_is_told_to_stop(clock: FakeClock) -> None:
    work = Work(until_cancelled)
    source = ListSource(work)
    source.expiring = True
    source.on_turn = lambda number: source.troubles.append(DatabaseUnavailable("away")) if number == 2 else None
    subscribe(lambda name, _fields: clock.advance(15) if name == "worker.outage" else None)
    assert run(source, clock=clock) == 0
    assert source.settled == [("done", work)]


def test_what_was_lost_is_told_to_stop() -> None:
    lost, kept = Work(until_cancelled), Work()
    source = ListSource(lost, kept)
    source.on_turn = lambda number: source.lost.append(lost) if number == 2 else None
    assert run(source) == 0
    assert {work for _, work in source.settled} == {lost, kept}


def test_work_past_its_timeout_is_abandoned_told_and_replaced(clock: FakeClock) -> None:
    begun, told, end = threading.Event(), threading.Event(), threading.Event()

    def handler(cancellation: Cancellation) -> None:
        cancellation.stops_by(told.set)
        begun.set()
        assert end.wait(20)

    hanging, after = Work(handler, timeout=5), Work()
    source = ListSource(hanging, after)
    source.on_turn = lambda number: clock.advance(5) if number == 2 and begun.wait(20) else None
    assert run(source, clock=clock) == 0
    assert source.settled == [("timed out", hanging), ("done", after)]
    assert told.is_set()
    end.set()


def test_too_many_hanging_threads_end_the_process_for_a_restart(clock: FakeClock) -> None:
    begun, end = threading.Semaphore(0), threading.Event()

    def hang(_cancellation: Cancellation) -> None:
        begun.release()
        assert end.wait(20)

    source = ListSource(*(Work(hang, timeout=5) for _ in range(9)))
    source.on_turn = lambda _turn: clock.advance(5) if source.holding and begun.acquire(timeout=20) else None
    assert run(source, clock=clock) == 75
    end.set()
    settled = [word for word, _ in source.settled]
    assert set(settled) == {"timed out"}
    assert len(settled) + len(source.waiting) == 9
    assert source.waiting, "it went on claiming although every thread hangs"


class Crew(threading.Event):
    """Threads of their own, and what they reported."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.threads: Threads[Work] = Threads(size)
        self.threads.serve(ListSource(), self.set, time.monotonic)

    def next(self) -> list[Work]:
        """Return what has ended, once anything has."""
        assert self.wait(60), "nothing ended"
        self.clear()
        return [running.work for running in self.threads.finished()]


def test_an_abandoned_handler_s_outcome_is_ignored() -> None:
    crew = Crew(1)
    begun, end, back = threading.Event(), threading.Event(), threading.Event()

    def hang(_cancellation: Cancellation) -> None:
        begun.set()
        end.wait(60)
        back.set()

    first, second = Running(Work(hang), 0.0), Running(Work(), 0.0)
    crew.threads.start([first])
    assert begun.wait(60)
    assert crew.threads.abandon(first)
    assert not crew.threads.abandon(first)
    assert first.cancellation.requested
    assert crew.threads.stuck == 1
    crew.threads.start([second])
    assert crew.next() == [second.work]
    end.set()
    assert back.wait(60)
    assert crew.threads.finished() == []


def test_an_abandoned_thread_leaves_its_queue_to_another() -> None:
    crew = Crew(1)
    begun, end = threading.Event(), threading.Event()

    def hang(_cancellation: Cancellation) -> None:
        begun.set()
        end.wait(60)

    first, second = Running(Work(hang), 0.0), Running(Work(), 0.0)
    crew.threads.start([first, second])
    assert begun.wait(60)
    assert crew.threads.waiting == 1
    assert crew.threads.abandon(first)
    assert crew.next() == [second.work]
    end.set()


def test_what_waits_can_be_withdrawn_and_what_has_begun_cannot() -> None:
    crew = Crew(1)
    begun, end = threading.Event(), threading.Event()

    def hang(_cancellation: Cancellation) -> None:
        begun.set()
        end.wait(60)

    first, second, third = Running(Work(hang), 0.0), Running(Work(), 0.0), Running(Work(), 0.0)
    crew.threads.start([first, second, third])
    assert begun.wait(60)
    assert [crew.threads.withdraw(one) for one in (first, second, second)] == [False, True, False]
    assert not crew.threads.abandon(second)
    assert crew.threads.oldest is third
    end.set()
    ended: list[Work] = []
    while len(ended) < 2:
        ended += crew.next()
    assert ended == [first.work, third.work]
    assert crew.threads.oldest is None


def test_threads_that_rest_are_woken_for_every_batch() -> None:
    crew = Crew(3)
    for size in (1, 3, 2, 7, 1, 30):
        works = [Work() for _ in range(size)]
        crew.threads.start([Running(work, 0.0) for work in works])
        ended: list[Work] = []
        while len(ended) < size:
            ended += crew.next()
        assert set(ended) == set(works)


def test_a_wakeup_ends_the_sleep_it_finds_or_the_next() -> None:
    with Wakeup() as wakeup:
        wakeup.wake()
        wakeup.wake()
        assert not wakeup.sleep(60)
        threading.Timer(0.01, wakeup.wake).start()
        assert not wakeup.sleep(60)
        assert not wakeup.sleep(0.001)


def test_a_bell_ends_the_sleep() -> None:
    read, write = os.pipe()
    with Wakeup() as wakeup:
        os.write(write, b"!")
        assert wakeup.sleep(60, read)
        assert wakeup.sleep(60, read), "it rings until somebody has heard it"
        os.read(read, 1)
        wakeup.wake()
        assert not wakeup.sleep(60, read)
    os.close(read)
    os.close(write)


def test_waking_who_does_not_sleep_any_more_does_nothing() -> None:
    with Wakeup() as wakeup:
        for _ in range(100_000):
            wakeup.wake()  # more than a pipe takes
    wakeup.wake()


def test_a_loop_leaves_no_descriptor_behind() -> None:
    before = set(os.listdir("/proc/self/fd"))
    run(ListSource(Work()))
    assert set(os.listdir("/proc/self/fd")) == before


class Quiet(ListSource):
    """A source that has nothing to say for an hour, with a pipe for a doorbell."""

    def __init__(self, *waiting: Work, bell: int | None) -> None:
        super().__init__(*waiting)
        self._bell = bell

    def pause(self) -> float:
        return 3600.0

    def bell(self) -> int | None:
        return self._bell

    def listens(self) -> bool:
        return self._bell is None

    def rung(self) -> bool:
        if self._bell is not None and select.select([self._bell], [], [], 0)[0]:
            os.read(self._bell, 10)
        return bool(self.waiting)


@pytest.mark.parametrize("with_bell", [True, False], ids=["a descriptor", "looking"])
def test_a_ring_starts_work_while_the_loop_sleeps(with_bell: bool) -> None:
    read, write = os.pipe()
    source = Quiet(bell=read if with_bell else None)
    loop = Loop(source, Threads(1), grace=30)
    done = threading.Event()
    looped = threading.Thread(target=loop.run)
    looped.start()
    source.waiting.append(Work(lambda _cancellation: done.set()))
    os.write(write, b"!")
    assert done.wait(60)
    while not source.settled:
        time.sleep(0.001)
    loop.stop()
    looped.join(60)
    assert [word for word, _ in source.settled] == ["done"]
    os.close(read)
    os.close(write)


def test_a_stop_from_a_signal_handler_ends_the_sleep() -> None:
    source = Quiet(bell=None)
    source.listens = lambda: False  # type: ignore[method-assign]
    loop = Loop(source, Threads(1), grace=30)
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    source.on_turn = lambda turn: timer.start() if turn == 1 else None
    before = signal.signal(signal.SIGUSR1, lambda *_: loop.stop())
    try:
        assert loop.run() == 0
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    assert source.closed == 1
    loop.stop()  # late, and nobody is there any more


def test_coroutines_run_on_one_event_loop_in_the_order_of_the_queue() -> None:
    seen: list[Any] = []
    crew = Crew(1)

    def coroutine(number: int) -> Work:
        async def handler(_cancellation: Cancellation) -> Any:
            seen.append((number, threading.current_thread().name, id(asyncio.get_running_loop())))
            await asyncio.sleep(0)

        return Work(handler)

    def plain(number: int) -> Work:
        return Work(lambda _cancellation: seen.append((number, threading.current_thread().name, 0)))

    works = [coroutine(0), coroutine(1), plain(2), plain(3), coroutine(4), plain(5), coroutine(6)]
    crew.threads.start([Running(work, 0.0) for work in works])
    ended: list[Work] = []
    while len(ended) < len(works):
        ended += crew.next()
    assert ended == works
    assert [number for number, _, _ in seen] == list(range(7))
    assert {(name, loop) for _, name, loop in seen if loop} == {("persistq-asyncio", seen[0][2])}
    assert {name for _, name, loop in seen if not loop} == {"persistq-handler"}


def test_as_many_coroutines_run_at_once_as_there_are_threads() -> None:
    running, most = [0], [0]
    together = asyncio.Event()

    async def handler(_cancellation: Cancellation) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        if running[0] == 5:
            together.set()
        await together.wait()
        await asyncio.sleep(0)
        running[0] -= 1

    source = ListSource(*(Work(handler) for _ in range(50)))
    assert Loop(source, Threads(5), grace=30, drain=True, prefetch=20).run() == 0
    assert most == [5]
    assert len(source.settled) == 50


def test_a_coroutine_past_its_timeout_is_cancelled_and_the_next_one_runs(clock: FakeClock) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def hang(_cancellation: Cancellation) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def fine(_cancellation: Cancellation) -> None:
        await asyncio.sleep(0)

    hanging, after = Work(hang, timeout=5), Work(fine)
    source = ListSource(hanging, after)
    source.on_turn = lambda number: clock.advance(5) if number == 2 and begun.wait(20) else None
    executor: Threads[Work] = Threads(1)
    assert Loop(source, executor, grace=30, drain=True, clock=clock).run() == 0
    assert source.settled[0] == ("timed out", hanging)
    assert len(source.settled) == 2
    assert cancelled.wait(60)


def test_what_a_coroutine_leaves_behind_does_not_end_the_event_loop() -> None:
    async def leaves(_cancellation: Cancellation) -> None:
        async def exits() -> None:
            raise SystemExit(1)

        asyncio.get_running_loop().create_task(exits())

    async def fine(_cancellation: Cancellation) -> None:
        await asyncio.sleep(0)

    source = ListSource(Work(leaves), Work(fine), Work(fine))
    assert run(source) == 0
    assert len(source.settled) == 3
