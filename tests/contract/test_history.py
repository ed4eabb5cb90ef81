"""A job's history: in order, a traceback for each attempt, and never longer than it may be."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import func, select, text
from support.clock import FakeClock
from support.jobs import OTHER, WORKER, MakeQueue, Queue, claim

from persistq import Done, Failed, JobFilter, JobNotFound, PermanentError, Released
from persistq.codec import MAX_ERROR_CHARS
from persistq.storage import schema
from persistq.storage.history import KEPT, LOOK_EVERY

MOST = KEPT + 2 * (LOOK_EVERY + 1)
"""Two events a move, and a look every so many moves."""


def raised(message: str) -> ValueError:
    """Return an error with a traceback."""
    try:
        raise ValueError(message)
    except ValueError as error:
        return error


def kinds(q: Queue, job_id: int = 1) -> list[str]:
    return [event.kind for event in q.events(job_id)]


def test_the_happy_path_writes_none(queue: Queue) -> None:
    queue.enqueue("x")
    queue.complete(claim(queue))
    assert queue.events(1) == []


def test_it_is_told_in_the_order_in_which_it_happened(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue("x", max_attempts=2)
    began = clock.now()
    queue.exchange(WORKER, settled=[Released(claim(queue), 0, "snoozed")])
    clock.advance(1)
    queue.fail(claim(queue), "first", delay=0)
    queue.fail(claim(queue, OTHER), "second")
    queue.resubmit(1)
    queue.assign_job(1, OTHER)
    queue.cancel(1, "enough")
    clock.jump(-60)  # what happened later stays later whatever the clock says
    queue.resubmit(1)
    queue.exchange(WORKER, settled=[Done(claim(queue), dropped="too large")])
    told = [(event.kind, event.actor, event.attempt) for event in queue.events(1)]
    assert told == [
        ("snoozed", WORKER, 0),
        ("crashed", WORKER, 1),
        ("crashed", OTHER, 2),
        ("failed", OTHER, 2),
        ("resubmitted", "tester@here", 0),
        ("assigned", "tester@here", 0),
        ("cancelled", "tester@here", 0),
        ("resubmitted", "tester@here", 0),
        ("result_dropped", WORKER, 1),
    ]
    assert queue.events(1)[0].at == began
    assert [event.detail for event in queue.events(1)[:4]] == [
        {}, {"error": "first", "retry_in": 0.0}, {"error": "second"}, {"reason": "2 of 2 attempts"}
    ]  # fmt: skip
    assert queue.events(1)[-1].detail == {"reason": "too large"}


def test_a_line_says_when_the_job_comes_back_or_why_it_never_does(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue_many(["a", "b", "c"])
    queue.exchange(WORKER, settled=[Released(claim(queue), 5.1234)])
    queue.fail(claim(queue), "busy", delay=7.6543)
    queue.fail(claim(queue), "broken", permanent=True)
    told = [[(event.kind, event.detail) for event in queue.events(job_id)] for job_id in (1, 2, 3)]
    assert {event.actor for job_id in (1, 2, 3) for event in queue.events(job_id)} == {WORKER}
    assert told == [
        [("released", {"back_in": 5.123})],
        [("crashed", {"error": "busy", "retry_in": 7.654})],
        [("crashed", {"error": "broken"}), ("failed", {"reason": "permanent error"})],
    ]
    assert [queue.get_job(job_id).run_at for job_id in (1, 2)] == [
        clock.now() + timedelta(seconds=5.1234), clock.now() + timedelta(seconds=7.6543)
    ]  # fmt: skip


def test_a_word_of_one_s_own_is_kept_as_far_as_there_is_room(queue: Queue) -> None:
    queue.enqueue("x")
    queue.exchange(WORKER, settled=[Released(claim(queue), 0, "because " * 9)])
    (kind,) = kinds(queue)
    assert kind.startswith("because because")
    assert len(kind) <= 32


def test_each_attempt_keeps_its_own_error_and_traceback(queue: Queue) -> None:
    queue.enqueue("x", max_attempts=3)
    for number in (1, 2, 3):
        queue.fail(claim(queue), raised(f"error {number}"), delay=0)
    crashes = [event for event in queue.events(1) if event.kind == "crashed"]
    assert [event.attempt for event in crashes] == [1, 2, 3]
    for number, event in enumerate(crashes, 1):
        assert event.detail["error"] == f"ValueError: error {number}"
        assert event.detail["traceback"].startswith("Traceback")
        assert f"error {number}" in event.detail["traceback"]
    assert (queue.get_job(1).error, kinds(queue)[-1]) == ("ValueError: error 3", "failed")


def test_a_long_traceback_keeps_its_ends(queue: Queue) -> None:
    for filler in ("x", "ü", "\0", "\udcff", "\n", '"', "\U0001f600"):
        job_id = queue.enqueue("x")
        queue.fail(claim(queue), raised("begins" + filler * 100_000 + "ends"), permanent=True)
        event = queue.events(job_id)[0]
        trace = event.detail["traceback"]
        assert MAX_ERROR_CHARS - 2 <= len(trace) <= MAX_ERROR_CHARS, ascii(filler)
        assert trace.startswith("Traceback")
        assert trace.rstrip().endswith("ends")
        assert len(event.detail["error"]) <= MAX_ERROR_CHARS


def crash(q: Queue) -> None:
    q.fail(claim(q), raised("broken"), delay=0)
    if q.get_job(1).status == "failed":
        q.resubmit(1)


def crash_for_good(q: Queue) -> None:
    q.exchange(WORKER, settled=[Failed(claim(q), PermanentError("broken"), permanent=True)])
    q.resubmit(1)


def crash_by_word(q: Queue) -> None:
    claim(q)
    q.update_status(1, "crashed")
    if q.get_job(1).status == "failed":
        q.resubmit(1)


def snooze(q: Queue) -> None:
    q.exchange(WORKER, settled=[Released(claim(q), 0, "snoozed")])


def drop_results(q: Queue) -> None:
    q.exchange(WORKER, settled=[Done(claim(q), dropped="too large")])
    q.resubmit(1, force=True)


def call_off(q: Queue) -> None:
    q.cancel(1)
    q.resubmit(1)


def assign(q: Queue) -> None:
    q.assign_job(1, OTHER)


def lose(q: Queue) -> None:
    claim(q)
    q.clock.advance(q.settings.timeout_seconds + 1)  # type: ignore[attr-defined]
    q.recover()
    if q.get_job(1).status == "failed":
        q.resubmit(1)


def grow(q: Queue, job_id: int) -> None:
    """Give a job as long a history as it may have."""
    line = {"job_id": job_id, "at": q.clock.now(), "kind": "old", "detail": "{}"}
    with q.engine.begin() as connection:
        connection.execute(schema.events.insert(), [line] * KEPT)


def lines_of(q: Queue, job_id: int) -> int:
    """Count them, for to read a hundred lines after each turn would take most of the time."""
    counted = select(func.count()).where(schema.events.c.job_id == job_id)
    with q.engine.connect() as connection:
        return int(connection.execute(counted).scalar_one())


@pytest.mark.parametrize("attempts", [1, 2, 3, 4, 1_000])
def test_it_is_cut_however_often_a_job_crashes_and_is_resubmitted(make_queue: MakeQueue, attempts: int) -> None:
    q = make_queue(queue_backoff_seconds=0)
    grow(q, q.enqueue("x", max_attempts=attempts))
    for _ in range(2 * LOOK_EVERY + 6):
        crash(q)
        assert KEPT <= lines_of(q, 1) <= MOST


@pytest.mark.parametrize(
    "act", [crash_for_good, crash_by_word, snooze, drop_results, call_off, assign, lose], ids=lambda act: act.__name__
)
def test_it_is_cut_whatever_happens_to_a_job_again_and_again(
    make_queue: MakeQueue, act: Callable[[Queue], None]
) -> None:
    q = make_queue(queue_backoff_seconds=0, max_attempts=3)
    grow(q, q.enqueue("x"))
    for _ in range(2 * LOOK_EVERY + 6):
        act(q)
        assert KEPT <= lines_of(q, 1) <= MOST
    assert kinds(q)[-1] != "old"


def test_cutting_one_history_leaves_the_others_and_the_newest_lines(make_queue: MakeQueue) -> None:
    q = make_queue(queue_backoff_seconds=0)
    grow(q, q.enqueue("x", max_attempts=1_000))
    grow(q, q.enqueue("other", "elsewhere"))
    turns = 2 * LOOK_EVERY
    for number in range(turns):
        q.fail(claim(q, queue="default"), f"error {number}", delay=0)
    told = [event.detail.get("error") for event in q.events(1)]
    assert told[-turns:] == [f"error {number}" for number in range(turns)]
    assert set(told[:-turns]) == {None}
    assert len(told) < KEPT + turns
    assert kinds(q, 2) == ["old"] * KEPT


def test_it_goes_with_the_job(queue: Queue) -> None:
    queue.enqueue_many(["x", "y"])
    for job_id in (1, 2):
        queue.cancel(job_id)
    queue.delete_jobs(JobFilter(item="x"))
    with pytest.raises(JobNotFound):
        queue.events(1)
    with queue.engine.connect() as connection:
        assert connection.scalars(text("SELECT job_id FROM events")).all() == [2]
