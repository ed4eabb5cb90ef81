"""A server's clock, carried on by the machine's own between two questions."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from support.clock import START, FakeClock

from persistq import DatabaseUnavailable
from persistq.storage.now import Now, ServerClock
from persistq.storage.schema import micros

AHEAD = timedelta(minutes=7)
"""How far the server's clock is ahead of the machine's."""


class World:
    """A machine and a server, whose clocks agree about nothing but how fast time passes."""

    def __init__(self) -> None:
        self.local = FakeClock()
        self.server = START + AHEAD
        #: Seconds that the next questions and their answers take on the way; then they take none.
        self.trips: list[tuple[float, float]] = []
        self.asked = 0
        self.is_up = True
        self.clock = ServerClock(self.ask, self.local)

    def ask(self) -> int:
        self.asked += 1
        there, back = self.trips.pop(0) if self.trips else (0.0, 0.0)
        self.advance(there)
        answer = micros(self.server)
        self.advance(back)
        if not self.is_up:
            raise DatabaseUnavailable("nobody answers")
        return answer

    def advance(self, seconds: float) -> None:
        """Let time pass everywhere."""
        self.local.advance(seconds)
        self.server += timedelta(seconds=seconds)

    def sleep(self, seconds: float) -> None:
        """Let the machine sleep: its monotonic clock stands still."""
        self.local.jump(seconds)
        self.server += timedelta(seconds=seconds)

    def error(self) -> float:
        """Return by how many seconds the clock is wrong."""
        return abs((self.clock.now() - self.server).total_seconds())


@pytest.fixture
def world() -> World:
    """A world in which nobody has asked yet."""
    return World()


def test_the_server_s_time_is_told(world: World) -> None:
    assert world.clock.now() == world.server
    assert world.clock.now().tzinfo is UTC


def test_it_is_carried_on_without_asking_again(world: World) -> None:
    world.clock.now()
    for _ in range(59):
        world.advance(1)
        assert world.error() < 0.000_01
    assert world.asked == 1


def test_it_is_asked_once_a_minute(world: World) -> None:
    for _ in range(600):
        world.clock.now()
        world.advance(1)
    assert world.asked == 10


def test_the_server_s_clock_may_be_set_and_is_followed_within_a_minute(world: World) -> None:
    world.clock.now()
    world.server += timedelta(hours=1)
    world.advance(60)
    assert world.error() < 0.000_01


@pytest.mark.parametrize("jump", [-86_400, -3, -0.5, 0.5, 3, 86_400])
def test_setting_the_machine_s_clock_changes_nothing(world: World, jump: float) -> None:
    before = world.clock.now()
    world.local.jump(jump)
    assert abs(world.clock.now() - before) < timedelta(microseconds=10)
    world.advance(1)
    assert world.error() < 0.000_01
    assert world.asked == (2 if abs(jump) > 1 else 1)


def test_after_a_sleep_it_is_asked_again(world: World) -> None:
    world.clock.now()
    world.sleep(3600)
    assert world.error() < 0.000_01
    assert world.asked == 2
    world.clock.now()
    assert world.asked == 2


def test_a_clock_that_is_slewed_is_no_sleep(world: World) -> None:
    world.clock.now()
    for _ in range(50):
        world.advance(1)
        world.local.jump(0.01)
        world.clock.now()
    assert world.asked == 1


@pytest.mark.parametrize("trip", [(0.02, 0.02), (0.049, 0), (0, 0.049)])
def test_a_quick_answer_is_good_enough(world: World, trip: tuple[float, float]) -> None:
    world.trips = [trip]
    assert world.error() <= sum(trip) / 2 + 0.000_01
    assert world.asked == 1


@pytest.mark.parametrize(
    ("trips", "asked"),
    [
        ([(0.8, 0.0), (0.01, 0.01)], 2),
        ([(0.8, 0.0), (0.1, 0.0), (0.3, 0.0)], 3),
        ([(0.1, 0.0), (0.0, 0.8), (0.3, 0.0)], 3),
        ([(0.0, 0.9), (0.9, 0.0), (0.0, 0.06)], 3),
    ],
)
def test_of_slow_answers_the_quickest_counts(world: World, trips: Iterable[tuple[float, float]], asked: int) -> None:
    world.trips = list(trips)
    best = min(map(sum, world.trips))
    assert world.error() <= best / 2 + 0.000_01
    assert world.asked == asked


def test_three_slow_answers_are_enough(world: World) -> None:
    world.trips = [(1, 1)] * 10
    assert world.error() < 0.000_01, "as long there as back, so that the middle is right"
    assert world.asked == 3


def test_a_server_that_was_never_reached_is_an_outage(world: World) -> None:
    world.is_up = False
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable, match="nobody answers"):
            world.clock.now()
    world.is_up = True
    assert world.error() < 0.000_01


def test_a_server_that_cannot_be_asked_again_is_no_reason_to_know_less(world: World) -> None:
    world.clock.now()
    world.is_up = False
    for _ in range(3):
        world.advance(61)
        assert world.error() < 0.000_01
    world.is_up = True
    world.server += timedelta(seconds=5)
    world.advance(61)
    assert world.error() < 0.000_01, "it is asked again when it is back"


def test_after_a_sleep_the_old_time_is_not_told_as_the_new(world: World) -> None:
    world.clock.now()
    world.sleep(3600)
    world.is_up = False
    with pytest.raises(DatabaseUnavailable):
        world.clock.now()
    world.is_up = True
    assert world.error() < 0.000_01


def test_an_answer_is_good_although_the_next_one_does_not_come(world: World) -> None:
    world.trips = [(0.1, 0.1)]
    ask, answers = world.ask, []

    def once() -> int:
        if answers:
            raise DatabaseUnavailable("nobody answers")
        answers.append(ask())
        return answers[0]

    clock = ServerClock(once, world.local)
    assert abs((clock.now() - world.server).total_seconds()) < 0.000_01


def test_the_time_of_a_call_and_what_comes_after_it() -> None:
    value = datetime(2024, 2, 29, 23, 59, 58, 123_456, tzinfo=UTC)
    now = Now(value)
    assert now.after(1.5) == value + timedelta(seconds=1.5)
    assert now.micros_after(1.5) == now.micros + 1_500_000 == micros(now.after(1.5))
    assert now.micros_after(-0.000_001) == now.micros - 1
