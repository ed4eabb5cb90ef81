"""Claiming ahead of the threads: how far, what is settled when, and what is given back.

Here handlers take no time of ours: threads, the clock and the loop's sleep are simulated, so that every
test sees the same run to the microsecond.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from persistq import DatabaseUnavailable
from persistq.worker import Loop, Threads, Turn, loop
from persistq.worker.pace import AHEAD_SECONDS, Pace

NEVER = float("inf")


@dataclass(eq=False)
class Work:
    """A piece of work, and what became of it. Times are seconds from the begin."""

    takes: float
    timeout: float | None = None
    suspect: bool = False
    claimed: float | None = None
    begun: float | None = None
    ended: float | None = None
    settled: float | None = None
    outcome: str | None = None


class SimulatedThreads(Threads[Work]):
    """Threads whose handlers end when the clock has come to the time."""

    def next_end(self) -> float:
        """When the next handler ends."""
        return min((one.begun + one.work.takes for one in self._performing), default=NEVER)

    def end_next(self) -> None:
        """End the handler whose time has come, and have its thread begin what waits."""
        running = min(self._performing, key=lambda one: one.begun + one.work.takes)
        del self._performing[running]
        running.outcome = self._perform(running.work, running.cancellation)
        running.ended = running.work.ended = self._now()
        self._finished.append(running)
        self._report()
        self._hire()

    def _hire(self) -> None:
        while self._waiting and len(self._performing) < self.size:
            running = self._waiting.popleft()
            assert running.work.outcome is None, "it was begun although it was settled"
            self._performing[running] = True
            running.begun = running.work.begun = self._now()
            if running.timeout is not None:
                running.deadline = running.begun + running.timeout


class World:
    """A source, threads and a sleeper on one clock."""

    def __init__(self, size: int = 1, *works: Work, prefetch: int = 100, cost: float = 0.002) -> None:
        self.time = 0.0
        self.threads = SimulatedThreads(size)
        self.waiting = list(works)
        self.works = list(works)
        #: Seconds that an exchange takes.
        self.cost = cost
        self.exchanges: list[tuple[int, int, int]] = []
        self.lost: list[Work] = []
        self.broken_until = 0.0
        #: Whether an outage outlasts the leases.
        self.expiring = False
        self.wish = 1.0
        self.woken = False
        self.slept: list[float] = []
        self.events: list[tuple[float, Callable[[], object]]] = []
        self.ringing = False
        self.visible_at = 0.0
        self.loop = Loop(self, self.threads, grace=30, drain=True, prefetch=prefetch, clock=self)
        self.loop._wakeup = self  # type: ignore[assignment]

    def monotonic(self) -> float:
        return self.time

    def at(self, when: float, act: Callable[[], object]) -> None:
        """Do something at a time."""
        self.events.append((when, act))

    def run(self) -> int:
        return self.loop.run()

    def pass_time(self, until: float, *, asleep: bool) -> None:
        """Let handlers end and things happen until then, or until the sleeper is woken."""
        while not (asleep and (self.woken or self.ringing)):
            event = min((when for when, _ in self.events), default=NEVER)
            first = min(self.threads.next_end(), event, until)
            self.time = max(self.time, first)
            if first == until:
                return
            if event == first:
                due = next(one for one in self.events if one[0] == event)
                self.events.remove(due)
                due[1]()
            else:
                self.threads.end_next()

    # The wake-up

    def __enter__(self) -> "World":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wake(self) -> None:
        self.woken = True

    def sleep(self, seconds: float, bell: int | None = None) -> bool:
        before = self.time
        assert seconds > 0
        self.pass_time(before + seconds, asleep=True)
        self.woken = False
        self.slept.append(self.time - before)
        return self.ringing and bell is not None

    # The source

    def exchange(self, settled: Sequence[Any], holding: Sequence[Work], room: int, ahead: int = 0) -> Turn[Work]:
        if self.time < self.broken_until:
            raise DatabaseUnavailable("away")
        self.ringing = False
        if settled or room:
            self.pass_time(self.time + self.cost, asleep=False)
        for word, work in settled:
            assert work.outcome in (None, "lost"), "settled twice"
            work.outcome, work.settled = work.outcome or word, self.time
        if any(work.suspect for work in holding):
            room = 0
        claimed = self.waiting[:room]
        if claimed and claimed[0].suspect:
            claimed = [] if holding else claimed[:1]
        claimed = claimed[: next((n for n, work in enumerate(claimed) if work.suspect and n), None)]
        del self.waiting[: len(claimed)]
        for work in claimed:
            work.claimed = self.time
        if settled or claimed:
            self.exchanges.append((len(settled), len(holding), len(claimed)))
        lost, self.lost = [work for work in self.lost if work in holding], []
        for work in lost:
            work.outcome = "lost"
        return Turn(claimed=claimed, lost=lost)

    def perform(self, work: Work, cancellation: Any) -> Any:
        return ("done", work)

    def is_async(self, work: Work) -> bool:
        return False

    def timeout(self, work: Work) -> float | None:
        return work.timeout

    def timed_out(self, work: Work) -> Any:
        return ("timed out", work)

    def released(self, work: Work) -> Any:
        return ("released", work)

    def expired(self, holding: Sequence[Work]) -> Sequence[Work]:
        return list(holding) if self.expiring and self.time < self.broken_until else []

    def pause(self) -> float:
        return self.wish

    def bell(self) -> int | None:
        return 99

    def listens(self) -> bool:
        raise AssertionError("it has a descriptor")

    def rung(self) -> bool:
        self.ringing = False
        return bool(self.waiting) and self.time >= self.visible_at

    def drained(self) -> bool:
        return not self.waiting

    def close(self) -> None:
        pass


def many(count: int, takes: float, **more: Any) -> list[Work]:
    return [Work(takes, **more) for _ in range(count)]


def outcomes(works: Sequence[Work]) -> set[str | None]:
    return {work.outcome for work in works}


# How far ahead


def test_a_pace_allows_nothing_before_it_has_measured() -> None:
    assert Pace(100).ahead(4) == 0


def test_a_pace_never_allows_more_than_it_has_measured() -> None:
    pace = Pace(100)
    for measured in range(1, 150):
        pace.note(0.0)
        assert pace.ahead(1) == min(measured, 100)


@pytest.mark.parametrize(
    ("seconds", "threads", "ahead"),
    [
        (0.00001, 1, 100), (0.001, 1, 100), (0.01, 1, 10), (0.01, 4, 40), (0.09, 1, 1), (0.11, 1, 0), (0.11, 4, 3),
        (60, 9, 0),
    ],
)  # fmt: skip
def test_a_pace_allows_what_threads_begin_within_a_tenth_of_a_second(seconds: float, threads: int, ahead: int) -> None:
    pace = Pace(100)
    for _ in range(200):
        pace.note(seconds)
    assert AHEAD_SECONDS == 0.1
    assert pace.ahead(threads) == ahead


def test_a_pace_that_was_slowed_down_recovers_by_measuring() -> None:
    pace = Pace(100)
    for _ in range(200):
        pace.note(0.0001)
    pace.slow_down(1.0)
    assert pace.ahead(1) == 0
    for _ in range(100):
        pace.note(0.0001)
    assert pace.ahead(1) == 100


def test_no_prefetch_is_none() -> None:
    world = World(2, *many(50, 0.0001), prefetch=0)
    assert world.run() == 0
    assert max(holding + claimed for _, holding, claimed in world.exchanges) <= 2


@pytest.mark.parametrize("size", [1, 4])
def test_quick_handlers_are_claimed_and_settled_a_hundred_at_a_time(size: int) -> None:
    world = World(size, *many(10_000, 0.00001))
    assert world.run() == 0
    assert outcomes(world.works) == {"done"}
    assert len(world.exchanges) < 120
    assert max(holding + claimed for _, holding, claimed in world.exchanges) <= 100 + size


def test_threads_are_kept_at_work_while_the_database_is_spoken_to() -> None:
    world = World(2, *many(2000, 0.001), cost=0.004)
    world.run()
    assert world.time == pytest.approx(1.0, rel=0.1)


def test_slow_handlers_are_claimed_one_by_one() -> None:
    world = World(2, *many(20, 0.5))
    world.run()
    assert max(holding + claimed for _, holding, claimed in world.exchanges) == 2
    assert all(work.begun == work.claimed for work in world.works)  # what is claimed begins at once


# When outcomes are written


def test_a_lone_job_is_settled_at_once() -> None:
    (work,) = many(1, 0.3)
    world = World(4, work)
    world.run()
    assert work.ended is not None
    assert work.settled == pytest.approx(work.ended + world.cost)


@pytest.mark.parametrize("takes", [0.0001, 0.0007, 0.003, 0.009, 0.02, 0.07])
@pytest.mark.parametrize("size", [1, 3])
def test_no_outcome_waits_for_long(size: int, takes: float) -> None:
    world = World(size, *many(500, takes))
    world.run()
    late = [work.settled - work.ended for work in world.works if work.settled and work.ended]
    # One exchange may have begun just before it ended; the next is the one that takes it along.
    assert max(late) <= loop.GATHER_SECONDS + 2 * world.cost + 1e-9


@pytest.mark.parametrize("late", [0.0, 0.0004, 0.003, 0.02, 0.3])
def test_an_idle_loop_sleeps_until_something_rings(late: float) -> None:
    """What rings may not be visible at once: its commit is still on the way to the disk."""
    world = World(1)
    world.wish = 60.0
    world.loop._drain = False
    (work,) = many(1, 0.01)

    def ring() -> None:
        world.ringing = True
        world.visible_at = 40.0 + late
        world.waiting.append(work)

    world.at(40.0, ring)
    world.at(50.0, world.loop.stop)
    assert world.run() == 0
    assert work.begun is not None
    assert work.begun <= 40.0 + max(2 * late, late + 2 * loop.LOOK_SECONDS) + world.cost
    assert len(world.slept) <= 4 * 20, "it looked again and again although nothing rang"


# What is given back


def test_work_behind_a_handler_that_turns_out_slow_is_given_back_once() -> None:
    world = World(1, *many(300, 0.0001), Work(10.0), *many(150, 0.0001))
    world.loop._drain = False
    world.at(8.0, world.loop.stop)
    world.run()
    behind = [work for work in world.works[301:] if work.claimed is not None]
    assert behind
    assert outcomes(behind) == {"released"}
    assert all(work.begun is None for work in behind)
    assert all(work.settled - work.claimed < 1.1 for work in behind if work.settled and work.claimed)
    assert len(behind) + len(world.waiting) == 150, "the same work was claimed and given back again"


def test_a_stop_gives_back_what_has_not_begun_and_finishes_the_rest() -> None:
    world = World(2, *many(2000, 0.002))
    world.at(1.0, world.loop.stop)
    assert world.run() == 0
    begun = [work for work in world.works if work.begun is not None]
    unbegun = [work for work in world.works if work.begun is None and work.claimed is not None]
    assert outcomes(begun) == {"done"}
    assert len(unbegun) > 10
    assert outcomes(unbegun) == {"released"}
    assert max(work.begun or 0 for work in begun) <= 1.0
    assert world.time < 1.1


def test_what_is_lost_before_it_began_never_begins_and_is_not_settled() -> None:
    world = World(1, *many(400, 0.001))
    world.at(0.3, lambda: world.lost.extend(world.works))
    world.run()
    lost = [work for work in world.works if work.outcome == "lost"]
    assert len(lost) > 10
    begun = [work for work in lost if work.begun is not None]
    assert max(work.begun or 0 for work in begun) <= 0.3 + loop.GATHER_SECONDS + 2 * world.cost, "it was told by then"


def test_what_expired_before_it_began_never_begins_and_is_given_back_after_the_outage() -> None:
    world = World(1, *many(300, 0.0001), Work(0.5), *many(100, 0.0001))
    world.wish = 0.05
    world.expiring = True
    world.loop._drain = False
    world.at(0.2, lambda: setattr(world, "broken_until", 0.4))
    world.at(0.45, world.loop.stop)
    world.run()
    slow, *behind = [work for work in world.works[300:] if work.claimed is not None and work.claimed < 0.2]
    assert slow.outcome == "done"
    assert len(behind) > 10
    assert outcomes(behind) == {"released"}
    assert all(work.begun is None and (work.settled or 0) > 0.4 for work in behind)


# Timeouts and suspects


def test_a_timeout_counts_from_the_begin_and_not_from_the_claim() -> None:
    world = World(1, *many(300, 0.001, timeout=0.02), Work(5.0, timeout=0.05), *many(50, 0.001))
    hangs = world.works[300]
    world.run()
    assert hangs.begun is not None
    assert hangs.claimed is not None
    assert hangs.begun - hangs.claimed > 0.02, "it waited longer than the others may take"
    assert hangs.outcome == "timed out"
    assert hangs.settled == pytest.approx(hangs.begun + 0.05 + world.cost, abs=0.005)
    assert outcomes([work for work in world.works if work is not hangs]) == {"done"}


def test_a_suspect_is_alone_among_quick_ones() -> None:
    world = World(4, *many(300, 0.0005), Work(0.01, suspect=True), Work(0.01, suspect=True), *many(300, 0.0005))
    world.run()
    assert outcomes(world.works) == {"done"}
    for suspect in (work for work in world.works if work.suspect):
        assert suspect.begun is not None
        assert suspect.ended is not None
        others = [one for one in world.works if one is not suspect]
        assert not [one for one in others if one.begun < suspect.ended and one.ended > suspect.begun]


# Anything at all

TIMES = st.sampled_from([0.0, 0.00001, 0.001, 0.02, 0.3, 2.0, 40.0])


@hypothesis.given(
    st.integers(1, 4),
    st.lists(st.builds(Work, TIMES, st.sampled_from([None, None, 0.01, 1.0]), st.booleans()), max_size=60),
    st.lists(st.tuples(TIMES, st.sampled_from(["stop", "lose", "break"])), max_size=6),
    st.sampled_from([0, 3, 100]),
)
def test_whatever_happens_each_claim_has_one_end(
    size: int, works: list[Work], events: list[tuple[float, str]], prefetch: int
) -> None:
    world = World(size, *works, prefetch=prefetch)

    def happen(what: str) -> None:
        if what == "stop":
            world.loop.stop()
        elif what == "lose":
            world.lost = [work for work in works[::3] if work.claimed is not None and work.outcome is None]
        else:
            world.broken_until = world.time + 1.0

    for when, what in events:
        world.at(when, lambda what=what: happen(what))
    assert world.run() in (0, 75)
    for work in works:
        assert (work.claimed is None) == (work.outcome is None)
        assert work.outcome != "done" or work.ended is not None
        assert work.outcome != "timed out" or (work.begun is not None and work.timeout is not None)
    assert all(holding + claimed <= size + prefetch for _, holding, claimed in world.exchanges)
