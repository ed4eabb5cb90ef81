"""Settling: done, failed, released, renewed, and the ways in which a lease is lost."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from support.clock import FakeClock
from support.jobs import OTHER, WORKER, MakeQueue, Queue, claim

from persistq import Done, Failed, Job, JobFilter, JobNotFound, LeaseLost, PayloadError, PermanentError, Released


def test_a_completed_job_is_done_with_its_result(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue("x")
    queue.complete(claim(queue), {"answer": [1, 2.5, None, "ü\0"]})
    job = queue.get_job(1)
    assert (job.status, job.result, job.error) == ("done", {"answer": [1, 2.5, None, "ü\0"]}, None)
    assert (job.finished_at, job.lease_until, job.consumer_id, job.attempts) == (clock.now(), None, WORKER, 1)


def test_any_json_value_is_a_result(queue: Queue) -> None:
    results: list[Any] = [0, False, "", [], {}, 1.5, "text", None, 10**400, [[]], {"1": 1}]
    for result in results:
        job_id = queue.enqueue("x")
        queue.complete(claim(queue), result)
        assert queue.get_job(job_id).result == result


@pytest.mark.parametrize(
    "result", [object(), float("nan"), {1, 2}, b"x", "x" * 262_143, {1: "a", "1": "b"}], ids=lambda r: type(r).__name__
)
def test_what_is_no_result_is_refused_and_the_job_runs_on(queue: Queue, result: Any) -> None:
    queue.enqueue("x")
    job = claim(queue)
    with pytest.raises(PayloadError):
        queue.complete(job, result)
    with pytest.raises(PayloadError):
        queue.exchange(WORKER, settled=[Done(job, result)])
    assert queue.get_job(1) == job
    assert queue.list_jobs() == [job]


def test_repeating_complete_is_harmless(queue: Queue) -> None:
    queue.enqueue("x")
    job = claim(queue)
    queue.complete(job, "first")
    queue.complete(job, "second")
    assert queue.get_job(1).result == "first"
    assert queue.counts()["done"] == 1


@pytest.mark.parametrize(
    "settle",
    [lambda q, job: q.fail(job, "e"), lambda q, job: q.release(job), lambda q, job: q.fail(job, "e", permanent=True)],
    ids=["fail", "release", "fail for good"],
)
def test_repeating_any_settlement_is_harmless(queue: Queue, settle: Callable[[Queue, Job], None]) -> None:
    queue.enqueue("x")
    job = claim(queue)
    settle(queue, job)
    before, events = queue.get_job(1), queue.events(1)
    settle(queue, job)
    assert (queue.get_job(1), queue.events(1)) == (before, events)
    assert queue.tally_drift() == {}


def test_a_settled_job_cannot_be_settled_otherwise(queue: Queue) -> None:
    queue.enqueue_many(["a", "b"])
    done, failed = claim(queue), claim(queue)
    queue.complete(done)
    queue.fail(failed, "broken", permanent=True)
    for act in (lambda: queue.fail(done, "e"), lambda: queue.release(done), lambda: queue.renew(done),
                lambda: queue.complete(failed), lambda: queue.release(failed), lambda: queue.renew(failed),
                ):  # fmt: skip
        with pytest.raises(LeaseLost):
            act()
    assert (queue.get_job(1).status, queue.get_job(2).status) == ("done", "failed")


def test_many_are_completed_together_or_not_at_all(queue: Queue) -> None:
    queue.enqueue_many(["a", "b", "c"])
    jobs = queue.dequeue_many(WORKER)
    queue.cancel(jobs[1].id)
    with pytest.raises(LeaseLost, match=str(jobs[1].id)):
        queue.complete_many(jobs)
    assert queue.counts()["done"] == 0
    queue.complete_many([jobs[0], jobs[2]])
    assert queue.counts()["done"] == 2
    queue.complete_many([])


def test_jobs_of_different_attempts_are_completed_together(queue: Queue) -> None:
    queue.enqueue_many(["again", "first"], max_attempts=3)
    for _ in range(2):
        queue.fail(claim(queue), "broken", delay=0)
    again, first = queue.dequeue_many(WORKER)
    assert (again.attempts, first.attempts) == (3, 1)
    assert queue.exchange(WORKER, settled=[Done(again, "again"), Done(first, "first")]).lost == []
    assert [(job.status, job.result) for job in queue.list_jobs()] == [("done", "again"), ("done", "first")]
    assert queue.tally_drift() == {}


def test_an_error_brings_the_job_back_after_a_back_off(make_queue: MakeQueue, clock: FakeClock) -> None:
    q = make_queue(queue_backoff_seconds=8)
    q.enqueue("x", max_attempts=20)
    for attempt in range(1, 8):
        job = claim(q)
        assert job.attempts == attempt
        q.fail(job, ValueError("broken"))
        found = q.get_job(1)
        assert (found.status, found.error, found.consumer_id) == ("pending", "ValueError: broken", None)
        assert clock.now() <= found.run_at <= clock.now() + timedelta(seconds=min(600, 8 * 2 ** (attempt - 1)))
        clock.advance(600)


def test_the_back_off_is_spread(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue_many(["x"] * 40)
    for job in queue.dequeue_many(WORKER):
        queue.fail(job, "broken")
    assert len({job.run_at for job in queue.list_jobs()}) > 30


@pytest.mark.parametrize("delay", [0, 5, 0.25, timedelta(hours=1)])
def test_a_failure_may_say_when_to_come_back(queue: Queue, clock: FakeClock, delay: float | timedelta) -> None:
    queue.enqueue("x")
    queue.fail(claim(queue), "busy", delay=delay)
    wait = delay if isinstance(delay, timedelta) else timedelta(seconds=delay)
    assert queue.get_job(1).run_at == clock.now() + wait
    if wait:
        assert queue.dequeue(WORKER) is None
    clock.advance(wait)
    assert claim(queue).attempts == 2


def test_three_attempts_are_three_deliveries_when_each_ends_in_an_error(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue("x")
    deliveries = 0
    while job := queue.dequeue(WORKER):
        deliveries += 1
        queue.fail(job, f"error {deliveries}", delay=1)
        clock.advance(1)
    found = queue.get_job(1)
    assert (deliveries, found.status, found.attempts, found.error) == (3, "failed", 3, "error 3")
    assert found.finished_at is not None


def test_three_attempts_are_three_deliveries_when_errors_and_crashes_mix(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue("x")
    queue.fail(claim(queue), "error", delay=0)
    claim(queue)
    clock.advance(61)
    assert queue.recover() == 1
    queue.fail(claim(queue), "error", delay=0)
    assert (queue.get_job(1).status, queue.get_job(1).attempts) == ("failed", 3)


def test_an_exhausted_job_hides_no_other(queue: Queue) -> None:
    queue.enqueue("bad", max_attempts=1)
    queue.enqueue("good")
    queue.fail(claim(queue), "broken")
    assert claim(queue).item == "good"


def test_a_permanent_failure_needs_no_further_attempt(queue: Queue) -> None:
    queue.enqueue("x")
    queue.fail(claim(queue), PermanentError("no such user"), permanent=True)
    job = queue.get_job(1)
    assert (job.status, job.attempts) == ("failed", 1)
    assert "no such user" in (job.error or "")


@pytest.mark.parametrize(
    "error",
    ["a\0b", "\ud800", "x" * 100_000, "\x1b[2J", "", ValueError("\udcff\0")],
    ids=["NUL", "surrogate", "long", "escape", "empty", "exception"],
)
def test_any_error_can_be_kept(queue: Queue, error: BaseException | str) -> None:
    queue.enqueue("x")
    queue.fail(claim(queue), error)
    kept = queue.get_job(1).error
    assert kept
    assert len(kept) <= 20_000
    assert queue.events(1)[0].detail["error"] == kept


def test_a_released_job_comes_back_at_once_and_uncounted(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue("x", max_attempts=1)
    for _ in range(5):
        job = claim(queue)
        assert job.attempts == 1
        queue.release(job)
        found = queue.get_job(1)
        assert (found.status, found.attempts, found.consumer_id, found.lease_until) == ("pending", 0, None, None)
    assert [event.kind for event in queue.events(1)] == ["released"] * 5


def test_renewing_keeps_the_job_past_its_lease(queue: Queue, make_queue: MakeQueue, clock: FakeClock) -> None:
    queue.enqueue("x")
    job = first = claim(queue)
    for _ in range(10):
        clock.advance(40)
        job = queue.renew(job)
        assert job.lease_until == clock.now() + timedelta(seconds=60)
        assert queue.get_job(1) == job
        assert make_queue().recover() == 0
    queue.complete(first)
    assert (queue.get_job(1).status, queue.get_job(1).attempts) == ("done", 1)


def test_an_expired_lease_that_nobody_took_back_still_settles(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue_many(["a", "b", "c", "d"])
    done, failed, released, renewed = queue.dequeue_many(WORKER)
    clock.advance(10_000)
    queue.complete(done)
    queue.fail(failed, "late")
    queue.release(released)
    assert queue.renew(renewed).lease_until == clock.now() + timedelta(seconds=60)
    assert queue.counts() == {"pending": 2, "processing": 1, "done": 1, "failed": 0, "cancelled": 0}


def take_back(q: Queue, _job: Job) -> None:
    assert q.recover() == 1


def reclaim(q: Queue, job: Job) -> None:
    take_back(q, job)
    claim(q, OTHER)


def finish_elsewhere(q: Queue, job: Job) -> None:
    take_back(q, job)
    q.complete(claim(q, OTHER), "theirs")


THEFTS: dict[str, Callable[[Queue, Job], object]] = {
    "taken back": take_back,
    "reclaimed": reclaim,
    "done by another": finish_elsewhere,
    "cancelled": lambda q, job: q.cancel(job.id),
    "marked failed": lambda q, job: q.mark_failed(job.id),
    "assigned": lambda q, job: q.assign_job(job.id, OTHER),
    "assigned to the holder itself": lambda q, job: q.assign_job(job.id, WORKER),
    "released by a person": lambda q, job: q.update_status(job.id, "pending"),
    "crashed by a person": lambda q, job: q.update_status(job.id, "crashed"),
    "done by a person": lambda q, job: q.update_status(job.id, "done"),
    "cancelled and resubmitted": lambda q, job: (q.cancel(job.id), q.resubmit(job.id)),
}
SETTLEMENTS: dict[str, Callable[[Queue, Job], object]] = {
    "complete": lambda q, job: q.complete(job, "mine"),
    "complete_many": lambda q, job: q.complete_many([job]),
    "fail": lambda q, job: q.fail(job, "mine"),
    "fail for good": lambda q, job: q.fail(job, "mine", permanent=True),
    "release": lambda q, job: q.release(job),
    "renew": lambda q, job: q.renew(job),
}


def test_a_lost_lease_writes_nothing(queue: Queue, clock: FakeClock) -> None:
    for theft, steal in THEFTS.items():
        job_id = queue.enqueue("x")
        job = claim(queue)
        clock.advance(61)
        steal(queue, job)
        before, events = queue.get_job(job_id), queue.events(job_id)
        why = f"job {job_id} is {before.status} at fence {before.fence}; the lease had fence {job.fence}"
        for name, settle in SETTLEMENTS.items():
            with pytest.raises(LeaseLost, match=why):
                pytest.fail(f"{name} after '{theft}': {settle(queue, job)}")
            assert (queue.get_job(job_id), queue.events(job_id)) == (before, events), (theft, name)
        queue.delete_job(job_id, force=True)


@pytest.mark.parametrize("settlement", SETTLEMENTS)
def test_a_deleted_job_is_not_found(queue: Queue, settlement: str) -> None:
    queue.enqueue("x")
    job = claim(queue)
    assert queue.delete_jobs(force=True) == 1
    with pytest.raises(JobNotFound, match=rf"\bid {job.id}\b"):
        SETTLEMENTS[settlement](queue, job)


def test_a_deleted_job_s_number_is_never_given_again(queue: Queue) -> None:
    queue.enqueue("x")
    job = claim(queue)
    queue.delete_jobs(force=True)
    assert queue.enqueue("y") > job.id
    claim(queue)
    with pytest.raises(JobNotFound):
        queue.complete(job)


# The wheel: settle, renew and claim in one turn.


def test_one_exchange_settles_renews_and_claims(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue_many(list("abcdefg"))
    done, failed, released, kept = queue.dequeue_many(WORKER, limit=4)
    clock.advance(30)
    got = queue.exchange(
        WORKER,
        settled=[Done(done, 1), Failed(failed, "broken", delay=5), Released(released)],
        renew=[kept],
        limit=2,
    )
    assert [job.item for job in got] == ["c", "e"]
    assert [(job.id, job.lease_until) for job in got.renewed] == [(kept.id, clock.now() + timedelta(seconds=60))]
    assert got.lost == []
    assert queue.counts() == {"pending": 3, "processing": 3, "done": 1, "failed": 0, "cancelled": 0}


def test_a_lost_lease_does_not_stop_the_rest_of_an_exchange(queue: Queue) -> None:
    queue.enqueue_many(list("abcde"))
    gone, cancelled, good, kept = queue.dequeue_many(WORKER, limit=4)
    queue.cancel(cancelled.id)
    queue.delete_jobs(JobFilter(item="a"), force=True)
    got = queue.exchange(WORKER, settled=[Done(gone), Done(good)], renew=[cancelled, kept], limit=9)
    assert [job.id for job in got.lost] == [gone.id, cancelled.id]
    assert [job.id for job in got.renewed] == [kept.id]
    assert [job.item for job in got] == ["e"]
    assert queue.get_job(good.id).status == "done"


def test_an_exchange_may_be_repeated(queue: Queue) -> None:
    queue.enqueue_many(["a", "b", "c"])
    outcomes = [
        Done(claim(queue), "r"), Failed(claim(queue), "broken", delay=100),
        Failed(claim(queue), "worse", permanent=True),
    ]  # fmt: skip
    assert queue.exchange(WORKER, settled=outcomes).lost == []
    before = queue.list_jobs()
    assert queue.exchange(WORKER, settled=outcomes).lost == []
    assert queue.list_jobs() == before


def test_an_exchange_of_nothing_does_nothing(queue: Queue) -> None:
    queue.enqueue("x")
    got = queue.exchange(WORKER)
    assert (list(got), got.renewed, got.lost) == ([], [], [])


def test_a_result_that_was_dropped_leaves_a_line(queue: Queue) -> None:
    queue.enqueue("x")
    queue.exchange(WORKER, settled=[Done(claim(queue), dropped="not JSON")])
    assert queue.get_job(1).status == "done"
    assert [(event.kind, event.detail) for event in queue.events(1)] == [("result_dropped", {"reason": "not JSON"})]
