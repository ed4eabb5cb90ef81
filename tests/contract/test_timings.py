"""Timings: how long attempts waited and ran, counted as they end."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from support.clock import START, FakeClock
from support.jobs import OTHER, WORKER, MakeQueue, Queue, claim

from persistq import ConfigError, Done, Failed, LeaseLost, Released, Timing
from persistq.storage import schema
from persistq.storage.timings import KEPT_SECONDS, bucket_of, seconds_of

WEEK = timedelta(seconds=KEPT_SECONDS)


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands at the beginning of a minute."""
    return FakeClock(START.replace(second=0, microsecond=0))


def perform(
    q: Queue, clock: FakeClock, *, wait: float = 0, run: float = 0, fails: bool = False, **options: Any
) -> None:
    """Let one attempt wait and run for so long, and count at once."""
    q.enqueue("x", max_attempts=1, **options)
    clock.advance(wait)
    job = claim(q)
    clock.advance(run)
    if fails:
        q.fail(job, "broken")
    else:
        q.complete(job)


def only(q: Queue, **options: Any) -> Timing:
    (found,) = q.timings(**options)
    return found


def ended(q: Queue, **options: Any) -> tuple[int, int]:
    """Return how many attempts were done and failed, whatever their queue and task."""
    found = q.timings(**options)
    return sum(one.done for one in found), sum(one.failed for one in found)


def rows(q: Queue) -> list[datetime]:
    """Return the minutes of the rows that are kept."""
    with q.engine.connect() as connection:
        return list(connection.execute(select(schema.timings.c.at).order_by(schema.timings.c.id)).scalars())


# The buckets


def test_buckets_rise_with_the_span_and_their_middle_is_within_an_eighth() -> None:
    spans = sorted(
        {*range(2_000), *(base + offset for base in (1 << n for n in range(11, 52)) for offset in (-1, 0, 1))}
    )
    buckets = [bucket_of(span) for span in spans]
    assert buckets == sorted(buckets)
    for span, bucket in zip(spans, buckets, strict=True):
        assert bucket_of(round(seconds_of(bucket) * 1_000_000)) == bucket or span < 16
        assert abs(seconds_of(bucket) * 1_000_000 - span) <= span / 8


def test_what_ran_backwards_took_no_time() -> None:
    assert bucket_of(-5) == 0
    assert seconds_of(0) == 0


# Counting


def test_nothing_ended_yet(queue: Queue) -> None:
    queue.enqueue("x")
    claim(queue)
    assert queue.timings() == []


def test_attempts_are_counted_by_queue_and_task(queue: Queue, clock: FakeClock) -> None:
    for name, task, fails in (
        ("b", "send", False), ("b", None, False), ("a", "send", True), ("b", "send", True), ("b", "send", False),
    ):  # fmt: skip
        perform(queue, clock, queue=name, task=task, fails=fails, run=1)
    found = [(one.queue, one.task, one.done, one.failed) for one in queue.timings()]
    assert found == [("a", "send", 0, 1), ("b", None, 1, 0), ("b", "send", 2, 1)]


def test_each_attempt_counts_and_waits_from_when_it_was_due(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue("x", delay=100)
    clock.advance(101)
    queue.fail(claim(queue), "broken", delay=50)
    clock.advance(51)
    queue.complete(claim(queue))
    found = only(queue)
    assert (found.done, found.failed) == (1, 1)
    assert found.wait == pytest.approx(dict.fromkeys(("p50", "p95", "p99"), 1), rel=0.125)


@pytest.mark.parametrize("seconds", [0.001, 0.02, 0.25, 1, 7, 59, 600])
def test_times_are_told_within_an_eighth(queue: Queue, clock: FakeClock, seconds: float) -> None:
    perform(queue, clock, wait=seconds, run=2 * seconds)
    found = only(queue)
    assert found.wait == pytest.approx(dict.fromkeys(("p50", "p95", "p99"), seconds), rel=0.125)
    assert found.run == pytest.approx(dict.fromkeys(("p50", "p95", "p99"), 2 * seconds), rel=0.125)


def test_percentiles_are_those_of_all_that_were_counted(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue_many(["x"] * 100)
    jobs = queue.dequeue_many(WORKER)
    # 1 to 100 seconds, settled in ten calls a second and more apart, so that several rows have to be read.
    for number, job in enumerate(jobs, 1):
        clock.advance(1)
        queue.exchange(WORKER, settled=[Done(job) if number % 10 else Failed(job, "broken", permanent=True)])
    found = only(queue)
    assert (found.done, found.failed) == (90, 10)
    assert found.wait == {"p50": 0, "p95": 0, "p99": 0}
    assert found.run["p50"] == pytest.approx(50, rel=0.125)
    assert found.run["p95"] == pytest.approx(95, rel=0.125)
    assert found.run["p99"] == pytest.approx(99, rel=0.125)


def test_what_is_given_back_has_not_ended(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue_many(["a", "b", "c"])
    released, snoozed, done = queue.dequeue_many(WORKER)
    queue.release(released)
    clock.advance(2)
    queue.exchange(WORKER, settled=[Released(snoozed, 5, "snoozed"), Done(done)])
    assert ended(queue) == (1, 0)


def test_what_is_only_given_back_writes_nothing(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue("x")
    for _ in range(3):
        clock.advance(2)
        queue.release(claim(queue))
    assert (rows(queue), queue.timings()) == ([], [])


@pytest.mark.parametrize("many", [True, False], ids=["one call", "call by call"])
def test_a_busy_second_writes_one_row(queue: Queue, clock: FakeClock, many: bool) -> None:
    queue.enqueue_many(["x"] * 50)
    jobs = queue.dequeue_many(WORKER)
    if many:
        queue.complete_many(jobs)
    else:
        for job in jobs:
            queue.complete(job)
            clock.advance(0.019)  # 50 of them are 0.95 s
    assert len(rows(queue)) == 1
    clock.advance(1)
    queue.enqueue("last")
    queue.complete(claim(queue))
    assert len(rows(queue)) == 2
    assert ended(queue) == (51, 0)


def test_minutes_of_calls_write_a_row_a_second_at_most(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue_many(["x"] * 100)
    for job in queue.dequeue_many(WORKER):
        queue.exchange(WORKER, settled=[Done(job)])
        clock.advance(0.25)
    assert len(rows(queue)) == 25
    queue.close()
    assert ended(queue) == (100, 0)


@pytest.mark.parametrize("way", ["close", "leave"])
def test_who_ends_writes_what_it_has_counted(make_queue: MakeQueue, way: str) -> None:
    q, other = make_queue(), make_queue()
    q.enqueue_many(["x"] * 5)
    for job in q.dequeue_many(WORKER):
        q.complete(job)
    assert ended(other)[0] < 5, "the rest of the second is still unwritten"
    if way == "close":
        q.close()
    else:
        q.leave(WORKER)
    assert ended(other) == (5, 0)
    q.leave(WORKER)
    q.close()
    assert ended(other) == (5, 0)


def test_every_process_is_counted(make_queue: MakeQueue, clock: FakeClock) -> None:
    queues = [make_queue() for _ in range(3)]
    queues[0].enqueue_many(["x"] * 9)
    for q in queues * 3:
        q.complete(claim(q))
        clock.advance(1)
    assert [ended(q) for q in queues] == [(9, 0)] * 3


def test_a_lease_that_was_lost_counts_for_nobody(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue_many(list("abcde"))
    lost, kept, late, broken, refused = queue.dequeue_many(WORKER)
    queue.cancel(lost.id)
    queue.cancel(refused.id)
    clock.advance(2)
    settled = [Done(lost), Done(kept), Failed(late, "late"), Failed(broken, "broken", permanent=True)]
    assert queue.exchange(WORKER, settled=settled).lost == [lost]
    clock.advance(2)
    with pytest.raises(LeaseLost):
        queue.complete(refused)
    queue.close()
    assert ended(queue) == (1, 2)


def test_a_settlement_that_is_repeated_counts_once(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue("x")
    job = claim(queue)
    for _ in range(3):
        clock.advance(2)
        queue.complete(job)
    queue.close()
    assert ended(queue) == (1, 0)


def test_a_refusal_forgets_nothing_that_was_counted_before(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue_many(["x"] * 4)
    first, second, third, lost = queue.dequeue_many(WORKER)
    queue.cancel(lost.id)
    queue.complete(first)
    queue.complete(second)
    queue.complete(third)
    clock.advance(2)
    with pytest.raises(LeaseLost):
        queue.complete(lost)
    queue.close()
    assert ended(queue) == (3, 0)


def test_a_caller_s_rollback_forgets_nothing_that_was_counted_before(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue_many(["x"] * 3)
    first, second, third = queue.dequeue_many(WORKER)
    queue.complete(first)
    queue.complete(second)
    clock.advance(2)
    with Session(queue.engine) as session:
        queue.complete(third, connection=session)
        session.rollback()
    assert queue.get_job(third.id).status == "processing"
    queue.close()
    assert ended(queue) == (2, 0)


def test_a_caller_s_commit_counts(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue("x")
    job = claim(queue)
    with Session(queue.engine) as session, session.begin():
        queue.complete(job, connection=session)
    queue.close()
    assert ended(queue) == (1, 0)


# What is asked for


def test_only_what_ended_within_the_span_is_told_to_the_minute(queue: Queue, clock: FakeClock) -> None:
    perform(queue, clock)
    clock.advance(3600 - 60)
    perform(queue, clock)
    assert ended(queue, within=3600) == (2, 0)
    assert ended(queue, within=timedelta(minutes=1)) == (1, 0)
    clock.advance(59)
    assert ended(queue, within=3540) == (2, 0)
    clock.advance(1)
    assert ended(queue, within=3599) == (2, 0)
    assert ended(queue, within=3540) == (1, 0)


def test_the_rate_is_that_of_the_span(queue: Queue, clock: FakeClock) -> None:
    for fails in (False, True):
        perform(queue, clock, fails=fails, run=1)
    clock.advance(28)
    # The minute that the span begins in is counted as a whole.
    assert only(queue).per_second == pytest.approx(2 / 3630)
    assert only(queue, within=31).per_second == pytest.approx(2 / 90)
    assert only(queue, within=1).per_second == pytest.approx(2 / 30)


@pytest.mark.parametrize("within", [-1, float("nan"), "an hour", None, 1e30])
def test_a_span_that_is_none_is_refused(queue: Queue, within: Any) -> None:
    with pytest.raises(ConfigError, match="within"):
        queue.timings(within)


def test_no_span_at_all_is_the_running_minute(queue: Queue, clock: FakeClock) -> None:
    perform(queue, clock)
    assert ended(queue, within=0) == (1, 0)
    assert only(queue, within=0).per_second == 1


def test_a_century_is_a_span(queue: Queue, clock: FakeClock) -> None:
    perform(queue, clock)
    assert ended(queue, within=36_500 * 86_400) == (1, 0)


# Keeping


def walk(q: Queue, clock: FakeClock, minutes: int) -> None:
    """Leave three rows a minute, of two queues."""
    for minute in range(minutes):
        for turn in range(3):
            perform(q, clock, queue="ab"[turn % 2], fails=turn == 2, wait=minute + 1, run=turn)
            clock.advance(20 - minute - 1 - turn)


def test_folding_leaves_a_row_a_minute_and_every_number_as_it_was(queue: Queue, clock: FakeClock) -> None:
    walk(queue, clock, 5)
    assert len(rows(queue)) == 15
    spans = (30, 61, 200, 3600)
    before = [queue.timings(within=span) for span in spans]
    queue.fold_timings()
    minutes = rows(queue)
    assert len(minutes) == len(set(minutes)) == 5
    assert [queue.timings(within=span) for span in spans] == before
    queue.fold_timings()
    assert rows(queue) == minutes


def test_the_running_minute_is_left_to_its_writers(queue: Queue, clock: FakeClock) -> None:
    for _ in range(3):
        perform(queue, clock, run=1)
    queue.fold_timings()
    assert len(rows(queue)) == 3
    clock.advance(60)
    queue.fold_timings()
    assert len(rows(queue)) == 1
    assert ended(queue) == (3, 0)


def test_more_rows_than_one_transaction_takes_are_folded(queue: Queue, clock: FakeClock) -> None:
    perform(queue, clock, run=1)
    with queue.engine.begin() as connection:
        (row,) = connection.execute(select(schema.timings.c.at, schema.timings.c.data)).all()
        connection.execute(schema.timings.insert(), [dict(row._mapping)] * 2_500)
    assert ended(queue) == (2_501, 0)
    clock.advance(60)
    queue.fold_timings()
    assert (len(rows(queue)), ended(queue)) == (1, (2_501, 0))


def test_after_a_week_all_is_forgotten(queue: Queue, clock: FakeClock) -> None:
    began = clock.now()
    walk(queue, clock, 2)
    clock.advance(began + WEEK - clock.now())
    queue.fold_timings()
    assert len(rows(queue)) == 2
    assert ended(queue, within=WEEK) == (4, 2)
    clock.advance(60)
    queue.fold_timings()
    assert (len(rows(queue)), ended(queue, within=2 * WEEK)) == (1, (2, 1))
    clock.advance(60)
    queue.fold_timings()
    assert (rows(queue), queue.timings(within=2 * WEEK)) == ([], [])


def test_folding_beside_each_other_counts_nothing_twice(make_queue: MakeQueue, clock: FakeClock) -> None:
    from concurrent.futures import ThreadPoolExecutor

    queues = [make_queue() for _ in range(4)]
    walk(queues[0], clock, 8)
    clock.advance(60)
    before = queues[0].timings()
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(q.fold_timings) for q in queues]:
            done.result()
    queues[0].fold_timings()
    assert queues[0].timings() == before
    assert len(rows(queues[0])) == 8


def test_old_jobs_and_their_timings_are_kept_apart(queue: Queue, clock: FakeClock) -> None:
    perform(queue, clock)
    queue.delete_jobs()
    assert ended(queue) == (1, 0)
    with queue.engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(schema.timings)).scalar() == 1


def test_two_consumers_of_one_process_share_a_meter(queue: Queue) -> None:
    queue.enqueue_many(["a", "b"])
    queue.complete(claim(queue))
    queue.complete(claim(queue, OTHER))
    queue.leave(WORKER)
    assert ended(queue) == (2, 0)


# By the minute


def test_each_minute_is_told_whether_anything_ended_in_it_or_not(queue: Queue, clock: FakeClock) -> None:
    begin = clock.now()
    perform(queue, clock)
    perform(queue, clock, run=1, fails=True)
    clock.advance(120)
    perform(queue, clock, queue="other")
    found = queue.throughput(4)
    assert [one.at - begin for one in found] == [timedelta(minutes=minute) for minute in (-1, 0, 1, 2)]
    assert [(one.done, one.failed) for one in found] == [(0, 0), (1, 1), (0, 0), (1, 0)]
    queue.fold_timings()
    assert queue.throughput(4) == found


@pytest.mark.parametrize("minutes", [0, -1, 10_081, "ten", None])
def test_minutes_that_make_no_sense_are_refused(queue: Queue, minutes: Any) -> None:
    with pytest.raises(ConfigError):
        queue.throughput(minutes)
