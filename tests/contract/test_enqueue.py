"""Producing: what is accepted, what is refused, and how a new job stands."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from support.clock import FakeClock
from support.jobs import MakeQueue, Queue, claim

import persistq
from persistq import ConfigError, DuplicateJob, NewJob, PayloadError, QueueFull


def test_a_new_job_is_pending_and_untouched(queue: Queue, clock: FakeClock) -> None:
    job = queue.get_job(queue.enqueue("the item"))
    assert (job.item, job.queue, job.status, job.task) == ("the item", "default", "pending", None)
    assert (job.attempts, job.max_attempts, job.priority, job.fence, job.suspect) == (0, 3, 0, 0, False)
    assert (job.consumer_id, job.assigned_to, job.lease_until, job.started_at, job.finished_at) == (None,) * 5
    assert (job.error, job.result, job.unique_key, job.timeout) == (None,) * 4
    assert (job.created_at, job.run_at) == (clock.now(), clock.now())


def test_ids_are_whole_numbers_that_grow(queue: Queue) -> None:
    ids = [queue.enqueue("x") for _ in range(5)]
    assert all(type(one) is int for one in ids)
    assert ids == sorted(set(ids))


def test_every_option_is_kept(queue: Queue, clock: FakeClock) -> None:
    job = queue.get_job(
        queue.enqueue("x", "mail", task="send", priority=-7, delay=1.5, max_attempts=9, timeout=2.5, unique_key="k")
    )
    assert (job.queue, job.task, job.priority, job.max_attempts, job.timeout) == ("mail", "send", -7, 9, 2.5)
    assert (job.unique_key, job.run_at) == ("k", clock.now() + timedelta(seconds=1.5))


ODD_ITEMS = ["", " ", "0", "a\nb\r\n", "ünï 🎉", "x" * 10_000, "'; DROP TABLE jobs; --", "%_\\", "\x01\x7f", "\u202e"]
NO_ITEMS: list[Any] = [None, 5, b"bytes", ["list"], "a\0b", "\ud800", "x" * 262_145, "ü" * 131_073]


def test_an_item_comes_back_as_it_went_in(queue: Queue) -> None:
    for item in ODD_ITEMS:
        queue.enqueue(item)
        assert claim(queue).item == item


def test_an_item_that_cannot_be_kept_is_refused(queue: Queue) -> None:
    for item in NO_ITEMS:
        with pytest.raises(PayloadError):
            pytest.fail(f"{item!r:.40} as {queue.enqueue(item)}")
        with pytest.raises(PayloadError):
            pytest.fail(f"{item!r:.40} as {queue.enqueue_many(['fine', item])}")
    assert queue.counts()["pending"] == 0


def test_the_bound_of_an_item_is_a_setting(make_queue: MakeQueue) -> None:
    q = make_queue(queue_max_item_bytes=4)
    q.enqueue("üü")
    with pytest.raises(PayloadError, match="4"):
        q.enqueue("üüx")


AWARE = datetime(2030, 1, 1, tzinfo=UTC)
BAD_OPTIONS: list[dict[str, Any]] = [
    {"queue": ""}, {"queue": "a b"}, {"queue": "x" * 65}, {"queue": "é"}, {"queue": None}, {"queue": "a'b"},
    {"task": ""}, {"task": "a b"}, {"task": "x" * 65},
    {"priority": 1.5}, {"priority": "1"}, {"priority": None}, {"priority": 2**31}, {"priority": True},
    {"max_attempts": 0}, {"max_attempts": -1}, {"max_attempts": 1.5}, {"max_attempts": "3"}, {"max_attempts": 2**31},
    {"delay": -1}, {"delay": -0.001}, {"delay": float("nan")}, {"delay": float("inf")}, {"delay": timedelta(-1)},
    {"delay": 1e12}, {"delay": "soon"}, {"delay": [5]},
    {"timeout": -1}, {"timeout": float("nan")}, {"timeout": "long"},
    {"run_at": AWARE.replace(tzinfo=None)}, {"run_at": "tomorrow"}, {"run_at": 5}, {"run_at": AWARE, "delay": 1},
    {"on_duplicate": "replace"}, {"colour": "red"},
]  # fmt: skip


def test_an_option_that_makes_no_sense_is_refused(queue: Queue) -> None:
    for options in BAD_OPTIONS:
        with pytest.raises(ConfigError):
            pytest.fail(f"{options} as {queue.enqueue_many(['x'], **options)}")
        if "colour" not in options:
            with pytest.raises(ConfigError):
                pytest.fail(f"{options} as {queue.enqueue('x', **options)}")
    assert queue.counts()["pending"] == 0


@pytest.mark.parametrize("key", [5, b"x", "a\0b", "\ud800", "x" * 256])
def test_a_key_that_cannot_be_kept_is_refused(queue: Queue, key: Any) -> None:
    with pytest.raises(PayloadError):
        queue.enqueue("x", unique_key=key)


def test_many_are_added_in_order(queue: Queue) -> None:
    items = [f"item {number}" for number in range(2_500)]
    ids = queue.enqueue_many(items, "bulk", priority=3)
    assert ids == sorted(set(ids))
    assert [queue.get_job(ids[number]).item for number in (0, 999, 1000, 2499)] == [
        items[number] for number in (0, 999, 1000, 2499)
    ]
    assert queue.counts("bulk")["pending"] == 2_500
    assert queue.get_job(ids[-1]).priority == 3


def test_many_may_be_of_different_kinds(queue: Queue) -> None:
    ids = queue.enqueue_many(
        ["plain", NewJob(item="own", queue="mail", priority=2, unique_key="k"), NewJob(item="other")],
        "bulk",
        priority=1,
    )
    found = [(job.item, job.queue, job.priority) for job in map(queue.get_job, ids)]
    assert found == [("plain", "bulk", 1), ("own", "mail", 2), ("other", "default", 0)]


def test_none_at_all_are_added_too(queue: Queue) -> None:
    assert queue.enqueue_many([]) == []
    assert queue.enqueue_many(item for item in ()) == []


def test_one_bad_job_among_many_adds_none(queue: Queue) -> None:
    with pytest.raises(ConfigError):
        queue.enqueue_many([NewJob(item="a"), NewJob(item="b", priority=2**40)])
    queue.enqueue("x", unique_key="k")
    with pytest.raises(DuplicateJob):
        queue.enqueue_many([NewJob(item="a"), NewJob(item="b", unique_key="k")], on_duplicate="raise")
    assert queue.counts()["pending"] == 1


def test_a_repeated_key_gives_the_first_job(queue: Queue) -> None:
    first = queue.enqueue("first", unique_key="k")
    assert queue.enqueue("second", unique_key="k") == first
    assert queue.get_job(first).item == "first"
    assert queue.counts()["pending"] == 1
    with pytest.raises(DuplicateJob) as refusal:
        queue.enqueue("third", unique_key="k", on_duplicate="raise")
    assert refusal.value.job_id == first


@pytest.mark.parametrize("key", ["", " ", "0", "K", "ünï", "x" * 255])
def test_any_text_is_a_key(queue: Queue, key: str) -> None:
    first = queue.enqueue("x", unique_key=key)
    assert queue.enqueue("y", unique_key=key) == first
    assert queue.get_job(first).unique_key == key


def test_keys_differ_by_case_and_by_queue(queue: Queue) -> None:
    ids = {
        queue.enqueue("x", "a", unique_key="k"), queue.enqueue("x", "b", unique_key="k"),
        queue.enqueue("x", "a", unique_key="K"), queue.enqueue("x", "a"), queue.enqueue("x", "a"),
    }  # fmt: skip
    assert len(ids) == 5


def test_a_key_twice_in_one_call_is_one_job(queue: Queue) -> None:
    twin = NewJob(item="x", unique_key="k")
    first, second = queue.enqueue_many([twin, twin])
    assert first == second
    assert queue.counts()["pending"] == 1


@pytest.mark.parametrize("end", ["done", "failed", "cancelled"])
def test_a_key_is_held_while_the_row_stands_and_free_after(queue: Queue, clock: FakeClock, end: str) -> None:
    first = queue.enqueue("x", unique_key="k")
    if end == "cancelled":
        queue.cancel(first)
    elif end == "failed":
        queue.mark_failed(first)
    else:
        queue.complete(claim(queue))
    assert queue.enqueue("y", unique_key="k") == first
    clock.advance(1)
    assert queue.purge(0, status=end) == 1
    second = queue.enqueue("y", unique_key="k")
    assert second > first
    queue.delete_jobs()
    assert queue.enqueue("z", unique_key="k") > second


def test_a_full_queue_refuses_and_takes_again(make_queue: MakeQueue) -> None:
    q = make_queue(queue_max_pending=2)
    q.enqueue_many(["a", "b"])
    with pytest.raises(QueueFull, match="QUEUE_MAX_PENDING"):
        q.enqueue("c")
    with pytest.raises(QueueFull):
        q.enqueue_many(["c", "d"])
    q.complete(claim(q))
    q.enqueue("c")
    assert q.counts() == {"pending": 2, "processing": 0, "done": 1, "failed": 0, "cancelled": 0}


def test_repeating_a_key_in_a_full_queue_still_gives_its_job(make_queue: MakeQueue) -> None:
    q = make_queue(queue_max_pending=1)
    first = q.enqueue("x", unique_key="k")
    assert q.enqueue("x", unique_key="k") == first


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2030, 1, 1, 12, 0, 0, 1, tzinfo=UTC),
        datetime(2030, 1, 1, 12, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=-5, minutes=-30))),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=timezone(timedelta(hours=1))),
    ],
    ids=str,
)
def test_a_time_survives_to_the_microsecond_and_is_utc(queue: Queue, moment: datetime) -> None:
    job = queue.get_job(queue.enqueue("x", run_at=moment))
    assert job.run_at == moment
    assert job.run_at.utcoffset() == timedelta(0)


def test_every_time_of_a_job_is_exact_and_aware(queue: Queue, clock: FakeClock) -> None:
    created = clock.now()
    queue.enqueue("x")
    started = clock.advance(timedelta(microseconds=1))
    job = claim(queue)
    assert job.lease_until == started + timedelta(seconds=60)
    ended = clock.advance(timedelta(microseconds=333_333))
    queue.complete(job)
    found = queue.get_job(job.id)
    assert (found.created_at, found.started_at, found.finished_at) == (created, started, ended)
    assert {moment.utcoffset() for moment in (found.created_at, found.started_at, found.finished_at) if moment} == {
        timedelta(0)
    }


def test_the_limit_of_attempts_is_kept_with_the_job(make_queue: MakeQueue) -> None:
    job_id = make_queue(max_attempts=5).enqueue("x")
    assert make_queue(max_attempts=1).get_job(job_id).max_attempts == 5


def test_a_job_can_be_shown_as_json(queue: Queue, clock: FakeClock) -> None:
    shown = queue.get_job(queue.enqueue("x", unique_key="k")).to_dict()
    assert shown["created_at"] == clock.now().isoformat()
    assert persistq.loads(persistq.dumps(shown)) == shown
