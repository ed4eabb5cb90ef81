"""Looking: lists, filters, counts, queues and consumers."""

from contextlib import suppress
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.clock import FakeClock
from support.jobs import OTHER, STATUSES, WORKER, Queue, claim, job_in

import persistq
from persistq import ConsumerInfo, PersistQError, UnknownStatus


def found(q: Queue, *args: Any, **filters: Any) -> list[str]:
    return [job.item for job in q.list_jobs(*args, **filters)]


def test_a_list_is_by_id_and_in_pages(queue: Queue) -> None:
    ids = queue.enqueue_many([str(number) for number in range(250)], priority=1)
    queue.enqueue("first in line", priority=9)
    assert [job.id for job in queue.list_jobs()] == ids[:100]
    assert [job.id for job in queue.list_jobs(limit=3, after=ids[9])] == ids[10:13]
    pages, after = [], 0
    while page := queue.list_jobs(limit=70, after=after):
        pages.append(len(page))
        after = page[-1].id
    assert pages == [70, 70, 70, 41]
    assert queue.list_jobs(after=2**62) == []


def test_the_newest_come_in_pages_too(queue: Queue) -> None:
    ids = queue.enqueue_many([str(number) for number in range(250)])[::-1]
    seen, before = [], None
    while page := queue.list_jobs(limit=70, newest=True, before=before):
        seen += [job.id for job in page]
        before = page[-1].id
    assert seen == ids
    assert [job.id for job in queue.list_jobs(before=ids[-3])] == [ids[-1], ids[-2]]
    assert len(queue.list_jobs(limit=300, before=2**62)) == 250


@pytest.mark.parametrize(
    "options", [{"limit": -1}, {"limit": "ten"}, {"limit": 2**70}, {"after": "x"}, {"after": 2**70}], ids=str
)
def test_a_page_that_makes_no_sense_is_refused_or_empty(queue: Queue, options: dict[str, Any]) -> None:
    queue.enqueue_many(["a", "b"])
    try:
        page = queue.list_jobs(**options)
    except PersistQError:
        return
    assert page == [] or options["limit"] > 2


def test_a_list_by_status_takes_every_word(queue: Queue) -> None:
    for status in STATUSES:
        job_in(queue, status, item=status)
    asked: list[tuple[Any, list[str]]] = [
        *((status, [status]) for status in STATUSES), ("Processed", ["done"]), ("queued", ["pending"]),
        ("dead", ["failed"]), (["done", "failed"], ["done", "failed"]), ({"running"}, ["processing"]),
        ([], list(STATUSES)), (None, list(STATUSES)),
    ]  # fmt: skip
    for words, expected in asked:
        assert sorted(found(queue, words)) == sorted(expected), words


def test_crashed_means_pending_again_after_a_delivery(queue: Queue) -> None:
    queue.enqueue_many(["crashed", "released", "fresh"])
    queue.fail(claim(queue), "broken", delay=100)
    queue.release(claim(queue))
    assert found(queue, "Crashed") == ["crashed"]
    assert found(queue, "pending") == ["crashed", "released", "fresh"]
    with pytest.raises(UnknownStatus):
        queue.list_jobs(["crashed", "done"])
    with pytest.raises(UnknownStatus):
        queue.list_jobs("nonsense")


def test_pending_jobs_have_a_list_of_their_own(queue: Queue) -> None:
    for status in STATUSES:
        job_in(queue, status, item=status)
    queue.enqueue("mail", "mail")
    assert [job.item for job in queue.get_pending_jobs()] == ["pending", "mail"]
    assert [job.item for job in queue.get_pending_jobs(queue="mail", limit=1)] == ["mail"]


ODD = ["50%", "50x", "a_b", "aXb", "it's", 'say "hi"', "back\\slash", "a/b", "[x]", "ünï", "'; DROP TABLE jobs; --"]


PARTS: dict[str, list[str]] = {
    "%": ["50%"], "_": ["a_b"], "50%": ["50%"], "a_b": ["a_b"], "'": ["it's", "'; DROP TABLE jobs; --"],
    '"hi"': ['say "hi"'], "\\": ["back\\slash"], "/": ["a/b"], "[x]": ["[x]"], "ünï": ["ünï"],
    "'; DROP TABLE jobs; --": ["'; DROP TABLE jobs; --"], "": ODD, "nothing like it": [], "%%": [], "5_%": [],
}  # fmt: skip


def test_a_part_of_an_item_or_error_is_taken_literally(queue: Queue) -> None:
    for job_id in queue.enqueue_many(ODD):
        queue.mark_failed(job_id, queue.get_job(job_id).item)
    for part, expected in PARTS.items():
        assert found(queue, item=part) == expected, part
        assert found(queue, error=part) == expected, part


def test_names_are_compared_literally(queue: Queue) -> None:
    for status in STATUSES:
        job_in(queue, status)
    for name in ("queue", "task", "consumer"):
        for value in ("%", "_", "to-%", "' OR 1=1 --", 'x"y', "", "\\"):
            assert found(queue, **{name: value}) == [], (name, value)


def test_text_that_no_job_can_hold_matches_none(queue: Queue) -> None:
    queue.enqueue("x")
    for name in ("item", "error", "queue", "task", "consumer"):
        for value in ("\ud800", "\udcff", "a\0b"):
            with suppress(PersistQError):  # a refusal is as good
                assert found(queue, **{name: value}) == [], (name, value)


def test_a_filter_that_is_too_long_is_refused_by_name(queue: Queue) -> None:
    assert queue.list_jobs(item="x" * (1 << 20)) == []
    with pytest.raises(PersistQError, match=r"\ba filter\b"):
        queue.list_jobs(item="x" * ((1 << 20) + 1))


def test_filters_narrow_together(queue: Queue) -> None:
    queue.enqueue("a", "mail", task="send")
    queue.enqueue("b", "mail", task="sort")
    queue.enqueue("b", "other", task="send")
    assert found(queue, queue="mail") == ["a", "b"]
    assert found(queue, task="send", queue="other") == ["b"]
    assert found(queue, "done", queue="mail") == []
    with pytest.raises((PersistQError, TypeError)):
        queue.list_jobs(colour="red")


def test_a_consumer_s_jobs_are_found_by_its_id_and_by_its_name(queue: Queue) -> None:
    queue.enqueue_many(["runs", "done", "other's", "assigned to the name", "assigned to the id", "nobody's"])
    claim(queue, WORKER)
    queue.complete(claim(queue, WORKER))
    claim(queue, OTHER)
    queue.assign_job(4, "worker")
    queue.assign_job(5, WORKER)
    assert found(queue, consumer=WORKER) == ["runs", "done", "assigned to the id"]
    assert found(queue, consumer="worker") == ["runs", "done", "assigned to the name", "assigned to the id"]
    assert found(queue, consumer="work") == []


def test_a_span_of_time_includes_its_beginning_only(queue: Queue, clock: FakeClock) -> None:
    times = []
    for item in "abc":
        times.append(clock.advance(10))
        queue.enqueue(item)
    assert found(queue, since=times[1]) == ["b", "c"]
    assert found(queue, until=times[1]) == ["a"]
    assert found(queue, since=times[0], until=times[2]) == ["a", "b"]
    assert found(queue, since=times[2] + timedelta(microseconds=1)) == []


def test_a_time_without_a_zone_is_refused(queue: Queue) -> None:
    queue.enqueue("x")
    odd: list[Any] = [datetime(2030, 1, 1, tzinfo=UTC).replace(tzinfo=None), "yesterday", 5]
    for name in ("since", "until"):
        for moment in odd:
            with pytest.raises(PersistQError):
                pytest.fail(f"{moment} as {queue.list_jobs(**{name: moment})}")


def test_counts_name_every_status_also_of_nothing(queue: Queue) -> None:
    assert queue.counts() == dict.fromkeys(STATUSES, 0)
    assert queue.counts("no such queue") == dict.fromkeys(STATUSES, 0)
    for status in STATUSES:
        job_in(queue, status)
    assert queue.counts() == dict.fromkeys(STATUSES, 1)
    assert queue.counts("to-done") == dict.fromkeys(STATUSES, 0) | {"done": 1}


def test_queues_are_shown_at_a_glance(queue: Queue, clock: FakeClock) -> None:
    began = clock.now()
    queue.enqueue_many(["a", "b"], "mail")
    clock.advance(10)
    queue.enqueue("c", "later", delay=5)
    queue.pause("mail")
    later, mail = queue.queues()
    assert (mail.name, mail.paused, mail.counts["pending"], mail.waiting_since) == ("mail", True, 2, began)
    assert (later.name, later.paused, later.waiting_since) == ("later", False, None)
    assert mail.to_dict()["waiting_since"] == began.isoformat()


def test_events_are_frozen(queue: Queue) -> None:
    queue.cancel(queue.enqueue("x"))
    event: Any = queue.events(1)[0]
    with pytest.raises(FrozenInstanceError):
        event.kind = "forged"
    assert event.to_dict()["kind"] == "cancelled"


def test_a_live_job_is_known_by_its_item(queue: Queue) -> None:
    for status in STATUSES:
        job_in(queue, status, item=status)
    assert {status for status in STATUSES if queue.has_live_job(status)} == {"pending", "processing"}
    assert not queue.has_live_job("pend%")


def consumer(number: int, seen: datetime) -> ConsumerInfo:
    return ConsumerInfo(
        id=f"w@h:{number}", name="w", host="h", pid=number, queues=("a", "b"), concurrency=2, running=1,
        started_at=datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=number), seen_at=seen,
    )  # fmt: skip


def test_consumers_say_of_themselves_what_is_shown(queue: Queue, clock: FakeClock) -> None:
    first, second = consumer(1, clock.now()), consumer(2, clock.now())
    for info in (first, second, first):
        queue.beat(info)
    assert queue.consumers() == [first, second]
    later = first.evolve(running=0, seen_at=clock.advance(100))
    queue.beat(later)
    assert queue.prune_consumers(50) == 1
    assert queue.consumers() == [later]
    queue.leave(later.id)
    queue.leave(later.id)
    assert queue.consumers() == []


def test_recovery_needs_no_list_of_consumers(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue("x")
    claim(queue)
    clock.advance(61)
    queue.prune_consumers(0)
    assert queue.recover() == 1


def test_looking_writes_nothing(queue: Queue) -> None:
    queue.enqueue("x")
    before = queue.list_jobs()
    queue.counts(), queue.queues(), queue.consumers(), queue.events(1), queue.due_in(WORKER), queue.unfinished(WORKER)
    assert queue.list_jobs() == before
    assert before[0].status == persistq.PENDING
