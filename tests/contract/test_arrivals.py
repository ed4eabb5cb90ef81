"""Arrivals: how many jobs were enqueued in each of the last minutes."""

from typing import Any

import pytest
from support.clock import FakeClock
from support.jobs import Queue

from persistq import ConfigError
from persistq.storage import arrivals


def test_each_job_is_counted_in_its_minute(queue: Queue, clock: FakeClock) -> None:
    assert queue.arrivals(3) == [0, 0, 0]
    clock.advance(60 - queue.database.now().value.second)
    queue.enqueue_many(["old"] * 4)
    clock.advance(120)
    queue.enqueue_many(["work"] * 3)
    clock.advance(59)
    queue.enqueue("work")
    clock.advance(1)
    queue.enqueue_many(["work"] * 2)
    assert queue.arrivals(2) == [4, 2]
    assert queue.arrivals(4) == [4, 0, 4, 2]
    assert [minute.at.second for minute in queue.throughput(4)] == [0] * 4


def test_what_is_deleted_is_not_counted(queue: Queue) -> None:
    ids = queue.enqueue_many(["work"] * 9)
    for job_id in (ids[0], ids[4], ids[8]):
        queue.delete_job(job_id)
    assert sum(queue.arrivals(2)) == 6


def test_of_many_jobs_some_stand_for_their_neighbours(
    queue: Queue, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "PROBES", 10)
    clock.advance(60 - queue.database.now().value.second)
    queue.enqueue_many(["work"] * 70)
    clock.advance(60)
    queue.enqueue_many(["work"] * 33)
    first, second = queue.arrivals(2)
    assert first + second == 103, "none is lost and none counted twice"
    assert abs(second - 33) <= 11, "one that stands for others is off by what it stands for"


@pytest.mark.parametrize("minutes", [0, -1, 10_081, "ten", None])
def test_minutes_that_make_no_sense_are_refused(queue: Queue, minutes: Any) -> None:
    with pytest.raises(ConfigError):
        queue.arrivals(minutes)
