"""explain: each case names its own blocker, in words that say what to do."""

import re
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from support.clock import FakeClock
from support.jobs import OTHER, WORKER, MakeQueue, Queue, claim, job_in

from persistq import ConfigError, ConsumerInfo, JobFilter, JobNotFound


def appear(q: Queue, name: str = "worker", **options: object) -> ConsumerInfo:
    """Let a consumer say that it lives."""
    now = q.clock.now()
    fields = {
        "queues": (), "concurrency": 2, "running": 0, "started_at": now, "seen_at": now, "tasks": ("known",), **options,
    }  # fmt: skip
    info = ConsumerInfo(id=f"{name}@host:1:aaaa", name=name, host="host", pid=1, **fields)  # type: ignore[arg-type]
    q.beat(info)
    return info


def blocker(q: Queue, job_id: int, code: str, *words: str) -> str:
    found = q.explain(job_id)
    assert found.blocker.code == code, found
    text = "\n".join(found.lines())
    for word in words:
        assert word in text, text
    return text


def test_a_paused_queue(queue: Queue) -> None:
    job_id = queue.enqueue("x", "mail")
    queue.pause("mail")
    blocker(queue, job_id, "queue_paused", "Queue mail", "2024-02-29 23:59:58", "persistq queues resume mail")


def test_a_time_that_lies_ahead(queue: Queue) -> None:
    blocker(queue, queue.enqueue("x", delay=7200), "not_due", "in 2 h", "persistq edit-job 1 --run-at now")


def test_a_retry_that_backs_off(queue: Queue) -> None:
    queue.enqueue("x")
    queue.fail(claim(queue), "TimeoutError: late", delay=90)
    blocker(queue, 1, "backing_off", "Attempt 1 of 3", "TimeoutError: late", "in 90 s")


def test_a_consumer_it_is_assigned_to_that_was_never_there(queue: Queue) -> None:
    appear(queue)
    queue.assign_job(queue.enqueue("x"), "ghost")
    blocker(queue, 1, "assigned_consumer_gone", "ghost, which is not on the list", "persistq consumer --name ghost")


def test_a_consumer_it_is_assigned_to_that_has_gone(queue: Queue, clock: FakeClock) -> None:
    appear(queue)
    queue.assign_job(queue.enqueue("x"), "worker")
    clock.advance(300)
    appear(queue, "other")
    blocker(queue, 1, "assigned_consumer_gone", "was last seen 5 min ago", "persistq assign-job 1 NAME")


def test_a_consumer_it_is_assigned_to_that_serves_other_queues(queue: Queue) -> None:
    appear(queue, queues=("mail",))
    queue.assign_job(queue.enqueue("x"), "worker")
    blocker(queue, 1, "queue_not_served", "reserved for consumer worker, which does not serve queue default")


def test_a_consumer_it_is_assigned_to_that_was_told_to_be_quiet(queue: Queue) -> None:
    appear(queue)
    appear(queue, "other")
    queue.assign_job(queue.enqueue("x"), "worker")
    queue.tell_consumer("worker", "stop")
    blocker(queue, 1, "consumers_quiet", "worker (0 of 2 running)", "persistq consumers resume worker")


def test_a_consumer_it_is_assigned_to_that_has_not_its_task(queue: Queue) -> None:
    appear(queue)
    appear(queue, "other", tasks=("special",))
    queue.assign_job(queue.enqueue("{}", task="special"), "worker")
    blocker(queue, 1, "task_unknown", "has the task special", "--app MODULE")


def test_no_consumer_at_all(queue: Queue) -> None:
    blocker(queue, queue.enqueue("x"), "no_consumer", "No consumer is alive.", "persistq up")


def test_consumers_that_are_all_silent(queue: Queue, clock: FakeClock) -> None:
    appear(queue)
    clock.advance(31)
    blocker(queue, queue.enqueue("x"), "no_consumer", "1 on the list are silent")


def test_no_consumer_for_its_queue(queue: Queue) -> None:
    appear(queue, queues=("mail", "files"))
    blocker(queue, queue.enqueue("x"), "queue_not_served", "none serves queue default", "persistq consumer --queue")


def test_no_consumer_for_its_task(queue: Queue) -> None:
    appear(queue)
    blocker(queue, queue.enqueue("{}", task="unknown"), "task_unknown", "has the task unknown", "--app MODULE")
    blocker(queue, queue.enqueue("{}", task="known"), "in_line")


def test_consumers_that_were_told_to_be_quiet(queue: Queue) -> None:
    appear(queue)
    queue.tell_consumer("worker", "quiet")
    job_id = queue.enqueue("x")
    blocker(queue, job_id, "consumers_quiet", "worker (0 of 2 running)", "persistq consumers resume worker")
    queue.tell_consumer("worker", None)
    blocker(queue, job_id, "due")


def test_consumers_that_are_all_busy(queue: Queue) -> None:
    appear(queue, running=2)
    blocker(queue, queue.enqueue("x"), "in_line", "It is next in line, and every consumer is busy")


def test_its_place_in_the_line(queue: Queue) -> None:
    appear(queue)
    queue.enqueue_many(["a", "b"])
    job_id = queue.enqueue("x", priority=1)
    queue.enqueue("urgent", priority=2)
    queue.enqueue("elsewhere", "mail", priority=9)
    blocker(queue, job_id, "in_line", "1 jobs of queue default come first", "--priority 2")
    blocker(queue, 2, "in_line", "3 jobs of queue default come first")


def test_nothing(queue: Queue) -> None:
    appear(queue)
    blocker(queue, queue.enqueue("x"), "due", "Nothing keeps it")


def test_a_suspect_among_busy_consumers(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue("x")
    claim(queue)
    clock.advance(queue.settings.timeout_seconds + 1)
    queue.recover()
    appear(queue, running=1)
    blocker(queue, 1, "suspect_waits", "nothing beside it")


def test_a_lease_that_is_held(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue("x")
    appear(queue)
    claim(queue, WORKER)
    clock.advance(20)
    appear(queue)
    blocker(queue, 1, "running", WORKER, "attempt 1 of 3", "for 20 s now", "until 2024-03-01 00:00:58 UTC, for 40 s")


def test_a_holder_that_has_fallen_silent(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue("x")
    appear(queue)
    claim(queue, WORKER)
    clock.advance(45)
    blocker(queue, 1, "holder_silent", "last seen 45 s ago", "persistq release 1")


def test_a_lease_that_ended_and_nobody_takes_back(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue("x")
    claim(queue, OTHER)
    clock.advance(queue.settings.timeout_seconds + 240)
    blocker(queue, 1, "lease_expired", OTHER, "4 min ago", "persistq.maintenance")


def test_attempts_that_are_spent(queue: Queue) -> None:
    queue.enqueue("x", max_attempts=2)
    for _ in range(2):
        queue.fail(claim(queue), "ValueError: bad", delay=0)
    blocker(queue, 1, "attempts_spent", "All 2 attempts", "ValueError: bad", "persistq resubmit 1")


def test_a_job_that_was_given_up(queue: Queue) -> None:
    queue.mark_failed(queue.enqueue("x"), "bad address")
    blocker(queue, 1, "given_up", "0 of 3 attempts: bad address", "persistq resubmit 1")


@pytest.mark.parametrize(("status", "word"), [("done", "in attempt 1"), ("cancelled", "persistq resubmit")])
def test_a_job_that_is_over(queue: Queue, status: str, word: str) -> None:
    blocker(queue, job_in(queue, status).id, status, word)


def test_a_unique_key_is_told_beside_the_blocker(queue: Queue) -> None:
    job_id = queue.enqueue("x", unique_key="order-7")
    found = queue.explain(job_id)
    assert [reason.code for reason in found.reasons] == ["no_consumer", "unique_key"]
    assert "'order-7'" in found.reasons[1].text


def test_every_obstacle_is_told_the_first_one_first(queue: Queue) -> None:
    job_id = queue.enqueue("x", delay=60)
    queue.assign_job(job_id, "ghost")
    queue.pause("default")
    codes = [reason.code for reason in queue.explain(job_id).reasons]
    assert codes == ["queue_paused", "not_due", "assigned_consumer_gone"]


def test_every_reason_has_its_case_here() -> None:
    source = Path(sys.modules["persistq.explain"].__file__ or "").read_text(encoding="utf-8")
    codes, cases = re.findall(r'code="(\w+)"', source), Path(__file__).read_text(encoding="utf-8")
    assert codes
    assert [code for code in codes if f'"{code}"' not in cases] == []


def test_an_unknown_job(queue: Queue) -> None:
    with pytest.raises(JobNotFound):
        queue.explain(4711)


# What consumers are told


def test_a_consumer_hears_its_wish_with_its_next_sign_of_life(make_queue: MakeQueue) -> None:
    q = make_queue(actor="cli:alice@x")
    info = appear(q)
    assert q.beat(info) is None
    assert q.tell_consumer("worker", "quiet", "deploying") == [info.id]
    assert q.beat(info) == "quiet"
    assert q.beat(info) == "quiet"
    assert q.tell_consumer(info.id, "stop") == [info.id]
    assert q.beat(info) == "stop"
    assert [consumer.wish for consumer in q.consumers()] == ["stop"]
    q.tell_consumer("worker", None)
    assert q.beat(info) is None
    actions = [(entry.action, entry.reason, entry.scope["told"]) for entry in q.audit()]
    assert actions == [
        ("consumer_resume", None, [info.id]),
        ("consumer_stop", None, [info.id]),
        ("consumer_quiet", "deploying", [info.id]),
    ]


def test_a_name_means_everyone_who_has_it_and_an_id_one(queue: Queue) -> None:
    one = appear(queue)
    two = one.evolve(id="worker@host:2:bbbb", pid=2)
    queue.beat(two)
    queue.beat(one.evolve(id="other@host:3:cccc", name="other"))
    assert queue.tell_consumer(two.id, "quiet") == [two.id]
    assert (queue.beat(one), queue.beat(two)) == (None, "quiet")
    assert queue.tell_consumer("worker", "stop") == [one.id, two.id]


@pytest.mark.parametrize("wish", ["die", "", "QUIET"])
def test_no_other_wish_is_known(queue: Queue, wish: str) -> None:
    appear(queue)
    with pytest.raises(ConfigError):
        queue.tell_consumer("worker", wish)


def test_nobody_of_that_name(queue: Queue) -> None:
    appear(queue)
    for name in ("ghost", "work", "%", "worker@host"):
        with pytest.raises(JobNotFound):
            queue.tell_consumer(name, "stop")


# Failures in groups


def test_failures_that_look_alike_are_one_group(queue: Queue, clock: FakeClock) -> None:
    errors: list[tuple[str, str]] = [
        ("TimeoutError: no answer from 10.0.0.1 after 30 s", "mail"),
        ("TimeoutError: no answer from 10.0.0.2 after 31 s", "mail"),
        ("TimeoutError: no answer from 10.0.0.2 after 31 s", "files"),
        ("KeyError: 'user'", "mail"),
        ("KeyError: 'order'", "mail"),
        ("KeyError: 'item'", "mail"),
        ("just a sentence: really", "mail"),
        ("ValueError", "mail"),
    ]
    for error, queue_name in errors:
        queue.enqueue("x", queue_name)
        queue.fail(claim(queue), error, permanent=True)
    groups, more = queue.errors()
    assert not more
    assert [(one.error, one.message, one.queue, one.count, one.newest_id) for one in groups] == [
        ("KeyError", "#", "mail", 3, 6),
        ("TimeoutError", "no answer from #.#.#.# after # s", "mail", 2, 2),
        ("ValueError", "", "mail", 1, 8),
        ("", "just a sentence: really", "mail", 1, 7),
        ("TimeoutError", "no answer from #.#.#.# after # s", "files", 1, 3),
    ]
    assert groups[0].newest_at == clock.now()


def test_errors_of_jobs_that_come_again_are_asked_for_by_name(queue: Queue) -> None:
    queue.enqueue("x")
    queue.fail(claim(queue), "ValueError: 1", delay=timedelta(hours=1))
    assert queue.errors() == ([], False)
    ((group,), _) = queue.errors(JobFilter.of("crashed"))
    assert (group.error, group.count) == ("ValueError", 1)
