"""The clock's jumps, ids and names."""

from datetime import timedelta

import pytest
from support.clock import FakeClock

from persistq.clock import JumpGuard, SystemClock, consumer_id, default_consumer_name, name_of, seconds


def test_time_that_passes_is_no_jump(clock: FakeClock) -> None:
    guard = JumpGuard(clock)
    for _ in range(100):
        clock.advance(3600)
        assert guard.quiet_for(60)


@pytest.mark.parametrize("jump", [-86_400, -3, 3, 86_400])
def test_a_jump_is_remembered_for_as_long_as_asked(clock: FakeClock, jump: float) -> None:
    guard = JumpGuard(clock)
    clock.jump(jump)
    assert not guard.quiet_for(60)
    clock.advance(59)
    assert not guard.quiet_for(60)
    clock.advance(1)
    assert guard.quiet_for(60)


def test_a_second_jump_begins_the_wait_anew(clock: FakeClock) -> None:
    guard = JumpGuard(clock)
    clock.jump(100)
    assert not guard.quiet_for(60)
    clock.advance(50)
    clock.jump(-100)
    assert not guard.quiet_for(60)
    clock.advance(50)
    assert not guard.quiet_for(60)
    clock.advance(10)
    assert guard.quiet_for(60)


def test_slow_drift_is_no_jump(clock: FakeClock) -> None:
    guard = JumpGuard(clock)
    for _ in range(50):
        clock.advance(10)
        clock.jump(0.5)
        assert guard.quiet_for(60)


@pytest.mark.parametrize(("span", "length"), [(2, 2.0), (0.5, 0.5), (timedelta(minutes=1, milliseconds=1), 60.001)])
def test_a_span_is_seconds_or_a_timedelta(span: float | timedelta, length: float) -> None:
    assert seconds(span) == length


def test_a_consumer_id_is_never_given_twice() -> None:
    ids = {consumer_id("mail") for _ in range(200)}
    assert len(ids) == 200
    assert {name_of(one) for one in ids} == {"mail"}
    assert name_of("mail") == "mail"


def test_supervisord_names_the_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_consumer_name() == "consumer"
    monkeypatch.setenv("SUPERVISOR_PROCESS_NAME", "consumer_03")
    assert default_consumer_name() == "consumer_03"


def test_the_system_clock_is_aware_of_its_zone() -> None:
    assert SystemClock().now().utcoffset() == timedelta(0)
