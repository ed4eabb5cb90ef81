"""Deciding: each act in each status does what the drawing says, or is refused."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from support.clock import FakeClock
from support.jobs import OTHER, STATUSES, WORKER, MakeQueue, Queue, claim, job_in

from persistq import IllegalTransition, Job, JobFilter, JobNotFound, PersistQError, UnknownStatus
from persistq.events import subscribe

ACTS: dict[str, Callable[[Queue, int], Job]] = {
    "resubmit": lambda q, job_id: q.resubmit(job_id),
    "resubmit by force": lambda q, job_id: q.resubmit(job_id, force=True),
    "cancel": lambda q, job_id: q.cancel(job_id),
    "mark_failed": lambda q, job_id: q.mark_failed(job_id),
    "assign": lambda q, job_id: q.assign_job(job_id, OTHER),
    "pending": lambda q, job_id: q.update_status(job_id, "pending"),
    "processing": lambda q, job_id: q.update_status(job_id, "processing"),
    "done": lambda q, job_id: q.update_status(job_id, "done"),
    "failed": lambda q, job_id: q.update_status(job_id, "failed"),
    "cancelled": lambda q, job_id: q.update_status(job_id, "cancelled"),
    "crashed": lambda q, job_id: q.update_status(job_id, "crashed"),
}
# act: {status before: status after}; what is not here is refused.
LEGAL: dict[str, dict[str, str]] = {
    "resubmit": {"failed": "pending", "cancelled": "pending"},
    "resubmit by force": {"failed": "pending", "cancelled": "pending", "done": "pending"},
    "cancel": {"pending": "cancelled", "processing": "cancelled"},
    "mark_failed": {"pending": "failed", "processing": "failed"},
    "assign": {"pending": "pending", "processing": "pending"},
    "pending": {"processing": "pending", "failed": "pending", "cancelled": "pending"},
    "processing": {},
    "done": {"processing": "done"},
    "failed": {"pending": "failed", "processing": "failed"},
    "cancelled": {"pending": "cancelled", "processing": "cancelled"},
    "crashed": {"processing": "pending"},
}


@pytest.mark.parametrize("act", ACTS)
def test_each_act_in_each_status(queue: Queue, act: str) -> None:
    for status in STATUSES:
        before = job_in(queue, status)
        history = queue.events(before.id)
        target = LEGAL[act].get(status)
        if target is None:
            with pytest.raises(IllegalTransition, match=rf"job {before.id} is {status}"):
                ACTS[act](queue, before.id)
            assert queue.get_job(before.id) == before
            assert queue.events(before.id) == history
        else:
            after = ACTS[act](queue, before.id)
            assert after == queue.get_job(before.id)
            assert after.status == target
            assert after.fence > before.fence
            assert len(queue.events(before.id)) > len(history)
    assert queue.tally_drift() == {}


WORDS = {
    "pending": ["pending", "Unprocessed", "unprocessed", "queued", "ready"],
    "processing": ["processing", "Under_Process", "under_process", "running"],
    "done": ["done", "DONE", "Processed", "processed", "completed"],
    "failed": ["failed", "Manual_intervention", "manual_intervention", "dead"],
    "cancelled": ["cancelled", "canceled"],
    "crashed": ["crashed", "Crashed"],
}


@pytest.mark.parametrize("meaning", WORDS)
def test_each_word_does_what_its_meaning_does(queue: Queue, meaning: str) -> None:
    asked = [(meaning, status) for status in STATUSES] + [(word, "processing") for word in WORDS[meaning][1:]]
    for word, status in asked:
        job = job_in(queue, status)
        target = LEGAL[meaning].get(status)
        if target is None:
            with pytest.raises(IllegalTransition):
                queue.update_status(job.id, word)
            assert queue.get_job(job.id) == job, (word, status)
        else:
            assert queue.update_status(job.id, word).status == target, (word, status)
        queue.delete_job(job.id, force=True)


def test_an_unknown_word_is_refused_and_names_the_known(queue: Queue) -> None:
    job = job_in(queue, "processing")
    for word in ("", "finished", "pending'", "crashed!", "null", "pend ing"):
        with pytest.raises(UnknownStatus, match="manual_intervention"):
            queue.update_status(job.id, word)
        assert queue.get_job(job.id) == job, word


def test_a_job_that_is_not_there_is_not_found(queue: Queue) -> None:
    for act in [*ACTS.values(), queue.__class__.get_job, queue.__class__.events]:
        for job_id in (1, 0, -1, 2**40, 2**64):
            with pytest.raises(JobNotFound, match=rf"\bid {job_id}\b"):
                act(queue, job_id)


def test_a_refusal_says_what_the_act_is_for(queue: Queue) -> None:
    job = job_in(queue, "done")
    with pytest.raises(IllegalTransition, match=rf"job {job.id} is done; 'cancel' is for pending, processing jobs"):
        queue.cancel(job.id)
    for word, event in (("done", "complete"), ("crashed", "crash")):
        with pytest.raises(IllegalTransition, match=rf"job {job.id} is done; '{event}' is for processing jobs"):
            queue.update_status(job.id, word)


def test_what_is_no_number_is_no_job(queue: Queue) -> None:
    queue.enqueue("x")
    odd: list[Any] = [None, "1", 1.5, b"1"]
    for job_id in odd:
        for act in ("get_job", "cancel", "resubmit", "events"):
            with pytest.raises(PersistQError):
                getattr(queue, act)(job_id)
    assert queue.counts()["pending"] == 1


def test_a_resubmitted_job_has_a_new_budget_and_its_old_history(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue("x", max_attempts=2, priority=3, timeout=9, unique_key="k")
    for _ in range(2):
        queue.fail(claim(queue), "broken", delay=0)
    spent = queue.get_job(1)
    clock.advance(5)
    job = queue.resubmit(1)
    assert (job.status, job.attempts, job.error, job.result, job.finished_at) == ("pending", 0, None, None, None)
    assert (job.item, job.priority, job.timeout, job.unique_key, job.created_at) == ("x", 3, 9, "k", spent.created_at)
    assert job.fence > spent.fence
    kinds = [event.kind for event in queue.events(1)]
    assert kinds == ["crashed", "crashed", "failed", "resubmitted"]
    assert [claim(queue).attempts, queue.fail(claim_again(queue), "x", delay=0)] == [1, None]
    assert claim(queue).attempts == 2


def claim_again(queue: Queue) -> Job:
    """Return the one job as its holder has it."""
    return queue.list_jobs("processing")[0]


def test_a_done_job_runs_again_by_force_and_loses_its_result(queue: Queue) -> None:
    job_in(queue, "done")
    with pytest.raises(IllegalTransition):
        queue.resubmit(1)
    assert queue.resubmit(1, force=True).result is None
    assert claim(queue).attempts == 1


def test_a_resubmitted_job_is_free_for_anyone_and_due(queue: Queue, clock: FakeClock) -> None:
    job_id = queue.enqueue("x", delay=500)
    queue.assign_job(job_id, OTHER)
    queue.cancel(job_id)
    queue.resubmit(job_id)
    assert claim(queue, WORKER).id == job_id


def test_a_planned_job_stays_planned_when_it_is_assigned(queue: Queue, clock: FakeClock) -> None:
    job_id = queue.enqueue("x", delay=50)
    queue.assign_job(job_id, WORKER)
    assert queue.dequeue(WORKER) is None
    clock.advance(50)
    assert claim(queue).id == job_id


def test_taking_a_running_job_for_another_never_makes_more_deliveries_than_its_limit(queue: Queue) -> None:
    queue.enqueue("x", max_attempts=1)
    claim(queue)
    queue.assign_job(1, OTHER)
    job = claim(queue, OTHER)
    assert job.attempts <= job.max_attempts
    queue.fail(job, "broken")
    assert queue.get_job(1).attempts <= 1


def test_a_crash_by_word_backs_off_and_at_the_limit_fails(make_queue: MakeQueue, clock: FakeClock) -> None:
    q = make_queue(queue_backoff_seconds=8, actor="operator@here")
    q.enqueue("x", max_attempts=2)
    claim(q)
    job = q.update_status(1, "crashed")
    assert (job.status, job.attempts) == ("pending", 1)
    assert clock.now() <= job.run_at <= clock.now() + timedelta(seconds=8)
    assert (job.error, q.events(1)[0].actor) == ("reported as crashed", "operator@here")
    clock.advance(8)
    claim(q)
    assert (q.update_status(1, "crashed").status, q.get_job(1).attempts) == ("failed", 2)


def test_a_release_by_word_gives_the_attempt_back(queue: Queue) -> None:
    queue.enqueue("x")
    claim(queue)
    job = queue.update_status(1, "pending")
    assert (job.attempts, job.consumer_id, job.lease_until) == (0, None, None)
    assert claim(queue).attempts == 1


def test_who_did_it_why_and_when_is_in_the_history(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue_many(["a", "b"])
    first = clock.advance(1)
    queue.assign_job(1, OTHER)
    second = clock.advance(1)
    queue.cancel(1, reason="wrong address")
    queue.mark_failed(2, reason="hopeless")
    events = queue.events(1)
    assert [(event.kind, event.actor, event.at) for event in events] == [
        ("assigned", "tester@here", first), ("cancelled", "tester@here", second),
    ]  # fmt: skip
    assert events[0].detail == {"consumer": OTHER}
    assert events[1].detail == {"reason": "wrong address"}
    assert queue.get_job(2).error == "hopeless"
    assert queue.events(2)[0].detail == {"reason": "hopeless"}


def test_the_happy_path_writes_no_history(queue: Queue) -> None:
    queue.enqueue("x")
    queue.complete(queue.renew(claim(queue)))
    assert queue.events(1) == []


def test_a_crash_is_recorded_with_its_traceback_and_what_comes_next(queue: Queue) -> None:
    queue.enqueue("x", max_attempts=2)
    for delay in (5, 0):
        try:
            raise KeyError("user")
        except KeyError as error:
            queue.fail(claim(queue), error, delay=0 if delay else None)
    crash, last, over = queue.events(1)
    assert (crash.kind, crash.actor, crash.attempt, crash.detail["error"]) == ("crashed", WORKER, 1, "KeyError: 'user'")
    assert "test_operate.py" in crash.detail["traceback"]
    assert (last.kind, last.attempt, "retry_in" in last.detail) == ("crashed", 2, False)
    assert (over.kind, over.detail) == ("failed", {"reason": "2 of 2 attempts"})


def test_any_reason_can_be_kept(queue: Queue) -> None:
    for reason in ("a\0b", "\ud800", "x" * 100_000, ""):
        one, two = queue.enqueue_many(["a", "b"])
        queue.mark_failed(one, reason)
        queue.cancel(two, reason)
        assert queue.get_job(one).error
        assert len(queue.events(two)) == 1


# Deleting


def test_deleting_leaves_what_runs(queue: Queue) -> None:
    jobs = [job_in(queue, status) for status in STATUSES]
    assert queue.delete_jobs() == 4
    assert [job.status for job in queue.list_jobs()] == ["processing"]
    assert queue.delete_jobs(force=True) == 1
    assert queue.list_jobs() == []
    for job in jobs:
        with pytest.raises(JobNotFound):
            queue.events(job.id)
    assert sum(queue.counts().values()) == 0
    assert queue.tally_drift() == {}


def test_deleting_by_filter_takes_the_matching_only(queue: Queue) -> None:
    for status in STATUSES:
        job_in(queue, status)
    assert queue.delete_jobs(JobFilter.of(["done", "dead"])) == 2
    assert queue.delete_jobs(JobFilter.of("running")) == 0
    assert queue.delete_jobs(JobFilter(queue="to-cancelled")) == 1
    assert [job.status for job in queue.list_jobs()] == ["pending", "processing"]


def test_many_are_deleted_too(queue: Queue) -> None:
    queue.enqueue_many(["x"] * 2_345)
    assert queue.delete_jobs() == 2_345
    assert queue.tally_drift() == {}


@pytest.mark.parametrize("status", ["done", "failed", "cancelled", "Processed", "DONE"])
def test_purging_takes_only_what_ended_so_and_long_enough_ago(queue: Queue, clock: FakeClock, status: str) -> None:
    for one in STATUSES:
        job_in(queue, one)
    clock.advance(100)
    for one in ("done", "failed", "cancelled"):
        job_in(queue, one)
    assert queue.purge(100, status=status) == 0
    clock.advance(0.000_001)
    assert queue.purge(timedelta(seconds=100), status=status) == 1
    assert queue.purge(0, status=status) == 1
    assert len(queue.list_jobs()) == 6
    assert queue.tally_drift() == {}


def test_purging_counts_from_the_end_not_from_the_beginning(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue("x")
    clock.advance(1000)
    queue.complete(claim(queue))
    clock.advance(10)
    assert queue.purge(11) == 0
    assert queue.purge(9) == 1


def test_retirement_takes_what_was_done_longer_ago_than_is_kept(make_queue: MakeQueue, clock: FakeClock) -> None:
    q = make_queue(queue_retention_seconds=100, timeout_seconds=1000)
    for status in STATUSES:
        job_in(q, status)
    clock.advance(100)
    job_in(q, "done")
    assert q.retire() == 0
    clock.advance(0.000_001)
    assert make_queue(queue_retention_seconds=0).retire() == 0
    assert q.retire() == 1
    assert q.counts() == dict.fromkeys(STATUSES, 1)
    assert q.tally_drift() == {}


def test_retirement_goes_in_chunks_from_what_was_done_first(
    make_queue: MakeQueue, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("persistq.storage.jobs.CHUNK", 2)
    q = make_queue(queue_retention_seconds=100)
    q.enqueue_many(["done last", "done second", "done first"])
    for job in reversed(q.dequeue_many(WORKER)):
        q.complete(job)
        clock.advance(1)
    clock.advance(100)
    left: list[list[str]] = []
    subscribe(lambda name, _: left.append([job.item for job in q.list_jobs()]) if name == "queue.retire" else None)
    assert q.retire() == 3
    assert left == [["done last"], [], []]


def test_purging_what_is_not_over_is_refused(queue: Queue) -> None:
    job_in(queue, "pending")
    for status in ("pending", "processing", "running"):
        with pytest.raises(IllegalTransition):
            queue.purge(0, status=status)
    with pytest.raises(UnknownStatus):
        queue.purge(0, status="everything")
    assert queue.counts()["pending"] == 1


def test_purging_needs_a_span(queue: Queue) -> None:
    odd: list[Any] = [-1, float("nan"), float("inf"), "old", None]
    for span in odd:
        with pytest.raises(PersistQError):
            queue.purge(span)
