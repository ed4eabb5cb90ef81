"""Consuming: who gets which job, when."""

from datetime import timedelta, timezone

import pytest
from support.clock import FakeClock
from support.jobs import OTHER, WORKER, MakeQueue, Queue, claim

from persistq import ConfigError, PayloadError


def items(q: Queue, consumer: str = WORKER, limit: int = 100, **options: object) -> list[str]:
    return [job.item for job in q.dequeue_many(consumer, limit=limit, **options)]


def test_an_empty_queue_gives_nothing(queue: Queue) -> None:
    assert queue.dequeue(WORKER) is None
    assert queue.dequeue_many(WORKER) == []
    assert queue.exchange(WORKER, limit=5) == []


def test_a_claim_leases_the_job_and_counts_the_attempt_first(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue("x")
    job = claim(queue)
    assert (job.status, job.attempts, job.fence, job.consumer_id) == ("processing", 1, 1, WORKER)
    assert (job.started_at, job.lease_until) == (clock.now(), clock.now() + timedelta(seconds=60))
    assert queue.get_job(job.id) == job


def test_a_job_is_leased_once(queue: Queue, make_queue: MakeQueue) -> None:
    queue.enqueue("x")
    claim(queue)
    assert make_queue().dequeue(OTHER) is None


def test_the_first_in_is_the_first_out(queue: Queue) -> None:
    queue.enqueue_many(list("abcde"))
    assert [claim(queue).item for _ in "abcde"] == list("abcde")


def test_a_higher_priority_goes_first_and_equals_keep_their_order(queue: Queue) -> None:
    for item, priority in (("a", 0), ("b", 5), ("c", -1), ("d", 5), ("e", 0)):
        queue.enqueue(item, priority=priority)
    assert items(queue, limit=3) == ["b", "d", "a"]
    assert items(queue) == ["e", "c"]


def test_order_holds_across_queues(queue: Queue) -> None:
    for item, name, priority in (("a", "z", 0), ("b", "m", 1), ("c", "a", 0), ("d", "m", 0)):
        queue.enqueue(item, name, priority=priority)
    assert items(queue, limit=3) == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (None, "abc"),
        ("x", "a"),
        (["x", "z"], "ac"),
        (("y",), "b"),
        ({"z"}, "c"),
        ("none", ""),
        (lambda: iter(["x"]), "a"),
    ],
)
def test_a_consumer_is_served_from_the_queues_it_names(queue: Queue, wanted: object, expected: str) -> None:
    for item, name in (("a", "x"), ("b", "y"), ("c", "z")):
        queue.enqueue(item, name)
    assert items(queue, queue=wanted() if callable(wanted) else wanted) == list(expected)


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "a'b"])
def test_a_queue_that_cannot_exist_is_refused(queue: Queue, name: str) -> None:
    with pytest.raises(ConfigError):
        queue.dequeue(WORKER, name)


@pytest.mark.parametrize("name", [None, 5, "a\0b", "\ud800", "x" * 256])
def test_a_consumer_that_cannot_be_written_down_is_refused(queue: Queue, name: object) -> None:
    queue.enqueue("x")
    with pytest.raises((PayloadError, ConfigError)):
        queue.dequeue(name)  # type: ignore[arg-type]
    assert queue.counts()["pending"] == 1


@pytest.mark.parametrize("limit", [0, -1])
def test_no_room_takes_nothing(queue: Queue, limit: int) -> None:
    queue.enqueue("x")
    assert queue.dequeue_many(WORKER, limit=limit) == []


@pytest.mark.parametrize("delay", [1, 0.5, timedelta(minutes=5), 0.000_001])
def test_a_delayed_job_comes_when_it_is_due_and_not_before(
    queue: Queue, clock: FakeClock, delay: float | timedelta
) -> None:
    queue.enqueue("later", delay=delay)
    span = delay if isinstance(delay, timedelta) else timedelta(seconds=delay)
    clock.advance(span - timedelta(microseconds=1))
    assert items(queue) == []
    clock.advance(timedelta(microseconds=1))
    assert items(queue) == ["later"]


def test_a_job_for_a_time_in_another_zone_comes_at_that_moment(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue("later", run_at=(clock.now() + timedelta(hours=1)).astimezone(timezone(timedelta(hours=-7))))
    clock.advance(3599)
    assert items(queue) == []
    clock.advance(1)
    assert items(queue) == ["later"]


def test_a_job_for_a_time_that_is_past_comes_at_once(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue("late", run_at=clock.now() - timedelta(days=400))
    assert items(queue) == ["late"]


def test_waiting_jobs_keep_nobody_waiting(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue_many(["later"] * 600, priority=9, delay=50)
    queue.enqueue("now")
    assert items(queue) == ["now"]
    clock.advance(50)
    got = []
    while page := items(queue, limit=1000):
        got += page
    assert got == ["later"] * 600


def test_priority_decides_however_many_become_due_together(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue_many(["low"] * 1200, delay=10)
    queue.enqueue("high", priority=1, delay=20)
    clock.advance(20)
    assert claim(queue).item == "high"


def test_jobs_that_wait_hide_none_that_becomes_due(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue_many(["waits"] * 10_001)
    queue.enqueue("due", priority=1, delay=10)
    clock.advance(10)
    assert claim(queue).item == "due"


def test_a_job_that_became_due_takes_its_place_by_priority_then_age(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue("a", delay=10)
    queue.enqueue("b")
    queue.enqueue("c", delay=10, priority=1)
    clock.advance(10)
    assert items(queue) == ["c", "a", "b"]


def test_a_paused_queue_gives_nothing_until_it_is_resumed(queue: Queue, make_queue: MakeQueue) -> None:
    queue.enqueue("m", "mail")
    queue.enqueue("o", "other")
    queue.pause("mail")
    assert items(make_queue()) == ["o"]
    assert items(queue, queue="mail") == []
    queue.pause("mail")
    queue.resume("mail")
    queue.resume("mail")
    assert items(make_queue()) == ["m"]


def test_a_queue_may_be_paused_before_its_first_job(queue: Queue) -> None:
    queue.pause("mail")
    queue.enqueue("m", "mail")
    assert items(queue) == []
    assert [(info.name, info.paused, info.counts["pending"]) for info in queue.queues()] == [("mail", True, 1)]
    with pytest.raises(ConfigError):
        queue.pause("not a name")


def test_what_runs_in_a_paused_queue_can_be_finished(queue: Queue) -> None:
    queue.enqueue("m", "mail")
    job = claim(queue)
    queue.pause("mail")
    queue.complete(queue.renew(job))
    assert queue.counts("mail")["done"] == 1


@pytest.mark.parametrize("wish", [WORKER, "worker"])
def test_an_assigned_job_goes_to_its_consumer_only(queue: Queue, wish: str) -> None:
    job_id = queue.enqueue("mine")
    queue.enqueue("anyone's")
    assert queue.assign_job(job_id, wish).assigned_to == wish
    assert items(queue, OTHER) == ["anyone's"]
    assert items(queue, "worker2@host:1:aaaa") == []
    assert items(queue, WORKER) == ["mine"]


def test_a_name_serves_every_process_of_that_name_and_an_id_only_one(queue: Queue) -> None:
    by_name, by_id = queue.enqueue("n"), queue.enqueue("i")
    queue.assign_job(by_name, "worker")
    queue.assign_job(by_id, WORKER)
    assert items(queue, "worker@elsewhere:9:ffff") == ["n"]
    assert items(queue, "worker") == []
    assert items(queue, WORKER) == ["i"]


def test_jobs_of_others_hide_none_of_mine(queue: Queue) -> None:
    for job_id in queue.enqueue_many(["theirs"] * 150, priority=9):
        queue.assign_job(job_id, "somebody")
    queue.enqueue("mine")
    assert items(queue) == ["mine"]


def test_due_in_tells_how_long_a_consumer_may_sleep(queue: Queue, clock: FakeClock) -> None:
    assert queue.due_in(WORKER) is None
    queue.enqueue("later", "slow", delay=30)
    assert queue.due_in(WORKER) == 30
    clock.advance(10)
    assert queue.due_in(WORKER) == 20
    queue.enqueue("now", "fast")
    assert queue.due_in(WORKER) == 0
    claim(queue)
    clock.advance(20)
    assert queue.due_in(WORKER) == 0


def test_a_drain_waits_for_due_retried_and_running_jobs_and_not_for_planned_ones(
    queue: Queue, clock: FakeClock
) -> None:
    assert not queue.unfinished(WORKER)
    queue.enqueue("planned", delay=1000)
    assert not queue.unfinished(WORKER)
    queue.enqueue("due")
    assert queue.unfinished(WORKER)
    assert not queue.unfinished(WORKER, "elsewhere")
    job = claim(queue)
    assert queue.unfinished(WORKER)
    assert not queue.unfinished(WORKER, "elsewhere")
    queue.fail(job, "again", delay=50)
    assert queue.unfinished(WORKER)
    assert not queue.unfinished(WORKER, "elsewhere")
    clock.advance(50)
    queue.complete(claim(queue))
    assert not queue.unfinished(WORKER)


def test_a_queue_that_is_named_twice_is_asked_once(queue: Queue) -> None:
    ids = queue.enqueue_many(["x", "y"], queue="mail")
    assert [job.id for job in queue.dequeue_many(WORKER, ["mail", "mail"])] == ids
