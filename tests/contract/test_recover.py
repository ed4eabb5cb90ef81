"""Recovery: expired leases come back, live ones never, and suspects run alone."""

from datetime import timedelta

import pytest
from support.clock import FakeClock
from support.jobs import OTHER, WORKER, MakeQueue, Queue, claim, run_out_of_attempts


def test_an_expired_lease_is_taken_back_at_once_and_for_anyone(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue("x")
    claim(queue)
    clock.advance(60)
    assert queue.recover() == 0
    clock.advance(0.000_001)
    assert queue.recover() == 1
    job = queue.get_job(1)
    assert (job.status, job.attempts, job.suspect, job.consumer_id, job.lease_until) == ("pending", 1, True, None, None)
    assert job.run_at == clock.now()
    assert claim(queue, OTHER).attempts == 2


def test_a_crash_names_the_consumer_that_was_lost(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue("x")
    claim(queue)
    clock.advance(61)
    queue.recover()
    (event,) = queue.events(1)
    error = queue.get_job(1).error
    assert (event.kind, event.actor, event.attempt, event.at) == ("crashed", "tester@here", 1, clock.now())
    assert event.detail == {"error": error, "consumer": WORKER}
    assert error and error.startswith("the lease expired")


@pytest.mark.parametrize("limit", [1, 3])
def test_attempts_are_deliveries_when_each_ends_in_a_lost_consumer(queue: Queue, clock: FakeClock, limit: int) -> None:
    queue.enqueue("x", max_attempts=limit)
    assert run_out_of_attempts(queue, clock) == list(range(1, limit + 1))
    job = queue.get_job(1)
    assert (job.status, job.attempts, job.finished_at is not None) == ("failed", limit, True)
    assert [event.kind for event in queue.events(1)] == ["crashed"] * limit + ["failed"]
    over = queue.events(1)[-1]
    assert (over.actor, over.attempt, over.detail) == ("tester@here", limit, {"reason": f"{limit} of {limit} attempts"})
    assert (job.lease_until, job.consumer_id, job.error) == (None, WORKER, queue.events(1)[0].detail["error"])


def test_a_consumer_recovers_as_it_claims(make_queue: MakeQueue, clock: FakeClock) -> None:
    first, second = make_queue(), make_queue()
    first.enqueue("x")
    claim(first)
    clock.advance(61)
    assert claim(second, OTHER).attempts == 2


def test_claiming_recovers_once_an_interval_and_asking_always_does(make_queue: MakeQueue, clock: FakeClock) -> None:
    q = make_queue(timeout_seconds=1, queue_recovery_seconds=5)
    q.enqueue_many(["a", "b"])
    claim(q)
    clock.advance(2)
    assert q.dequeue(WORKER) is not None
    clock.advance(2)
    assert q.dequeue(WORKER) is None
    clock.advance(1.5)
    assert q.dequeue(WORKER) is not None
    clock.advance(1.1)
    assert q.recover() == 1


def test_many_are_recovered_in_one_call(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue_many(["x"] * 1_200, max_attempts=1)
    queue.enqueue_many(["y"] * 300, max_attempts=2)
    while queue.dequeue_many(WORKER, limit=1000):
        pass
    clock.advance(61)
    assert queue.recover() == 1_500
    assert queue.counts() == {"pending": 300, "processing": 0, "done": 0, "failed": 1_200, "cancelled": 0}
    assert queue.tally_drift() == {}


def test_long_leases_hide_no_expired_one(make_queue: MakeQueue, clock: FakeClock) -> None:
    long, short = make_queue(timeout_seconds=10_000), make_queue(timeout_seconds=1)
    long.enqueue_many(["x"] * 1_100)
    while long.dequeue_many(WORKER, limit=1_000):
        pass
    short.enqueue("y")
    claim(short, OTHER)
    clock.advance(2)
    assert short.recover() == 1


# Suspects


def a_suspect(q: Queue, clock: FakeClock, item: str = "suspect", **options: object) -> None:
    q.enqueue(item, **options)
    claim(q)
    clock.advance(61)
    assert q.recover() == 1


def test_a_suspect_comes_alone_and_in_its_turn(queue: Queue, clock: FakeClock) -> None:
    a_suspect(queue, clock)
    queue.enqueue_many(["a", "b"])
    queue.enqueue("first", priority=1)
    assert [job.item for job in queue.dequeue_many(WORKER, limit=10)] == ["first"]
    assert [(job.item, job.suspect) for job in queue.dequeue_many(WORKER, limit=10)] == [("suspect", True)]
    assert [job.item for job in queue.dequeue_many(WORKER, limit=10)] == ["a", "b"]


def test_two_suspects_come_one_by_one(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue_many(["a", "b"])
    queue.dequeue_many(WORKER)
    clock.advance(61)
    assert queue.recover() == 2
    assert [len(queue.dequeue_many(WORKER)) for _ in range(3)] == [1, 1, 0]


def test_a_busy_consumer_is_given_no_suspect_and_an_idle_one_is(queue: Queue, clock: FakeClock) -> None:
    a_suspect(queue, clock)
    queue.enqueue("mine", priority=9)
    mine = claim(queue)
    assert list(queue.exchange(WORKER, renew=[mine], limit=5)) == []
    assert list(queue.exchange(WORKER, limit=5, busy=True)) == []
    assert [job.item for job in queue.exchange(OTHER, limit=5)] == ["suspect"]


def test_a_consumer_that_performs_a_suspect_is_given_nothing_beside_it(queue: Queue, clock: FakeClock) -> None:
    a_suspect(queue, clock)
    suspect = claim(queue)
    queue.enqueue("neighbour")
    assert list(queue.exchange(WORKER, renew=[suspect], limit=5)) == []


def test_of_what_would_wait_in_a_consumer_none_is_claimed_that_its_death_could_finish_off(queue: Queue) -> None:
    queue.enqueue_many(["crashed", "a"])
    queue.fail(claim(queue), "an ordinary error", delay=0)
    queue.enqueue("only once", max_attempts=1)
    queue.enqueue_many(["b", "c"])

    def claimed(limit: int, ahead: int) -> list[str]:
        return [job.item for job in queue.exchange(WORKER, limit=limit, ahead=ahead)]

    assert claimed(3, 3) == []
    assert claimed(3, 2) == ["crashed", "a"]
    assert claimed(2, 2) == []
    assert claimed(2, 1) == ["only once", "b"]
    assert claimed(2, 2) == ["c"]


def test_a_suspicion_ends_with_an_ordinary_outcome(queue: Queue, clock: FakeClock) -> None:
    a_suspect(queue, clock)
    queue.fail(claim(queue), "an ordinary error", delay=0)
    assert not queue.get_job(1).suspect
    assert not claim(queue).suspect


def test_a_released_suspect_is_still_one_and_a_resubmitted_one_is_not(queue: Queue, clock: FakeClock) -> None:
    a_suspect(queue, clock)
    queue.release(claim(queue))
    assert queue.get_job(1).suspect
    queue.cancel(1)
    queue.resubmit(1)
    assert not queue.get_job(1).suspect


def test_three_deaths_park_the_culprit_and_cost_a_neighbour_one_attempt(queue: Queue, clock: FakeClock) -> None:
    """A consumer of five: whenever it holds the culprit it dies, else it completes what it has."""
    queue.enqueue_many(["a", "b", "culprit", "c", "d"])
    deaths = 0
    while jobs := queue.dequeue_many(WORKER, limit=5):
        if any(job.item == "culprit" for job in jobs):
            deaths += 1
            clock.advance(timedelta(seconds=61))
            queue.recover()
        else:
            queue.complete_many(jobs)
    ended = {job.item: (str(job.status), job.attempts) for job in queue.list_jobs()}
    assert deaths == 3
    assert ended == {"culprit": ("failed", 3)} | dict.fromkeys("abcd", ("done", 2))
