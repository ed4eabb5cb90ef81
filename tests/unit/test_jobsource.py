"""JobSource: jobs as the loop sees them."""

import asyncio
import select
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from support.clock import FakeClock
from support.jobs import MakeQueue, Queue, claim

import persistq
from persistq import Done, Failed, Job, Released, Retry, Snooze, task
from persistq.tasks import Cancellation
from persistq.worker import JobSource, Loop, Threads


@pytest.fixture
def source(queue: Queue) -> Iterator[JobSource]:
    """A consumer of two at once."""
    made = JobSource(queue, name="w", queues=(), default_task="plain", concurrency=2)
    yield made
    made.close()


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


def perform(source: JobSource, job: Job, cancellation: Cancellation | None = None) -> Any:
    """Return the outcome, awaited on an event loop if need be."""
    outcome = source.perform(job, cancellation or Cancellation())
    return asyncio.run(outcome) if asyncio.iscoroutine(outcome) else outcome


def boom(error: BaseException) -> Any:
    def handler() -> None:
        raise error

    return handler


def test_what_a_handler_returns_is_the_result(queue: Queue, source: JobSource) -> None:
    task(name="double")(lambda number: 2 * number)
    task(name="plain")(lambda item: item.upper())
    queue.enqueue('{"number":4}', task="double")
    queue.enqueue("text")
    jobs = source.exchange([], [], 2).claimed
    outcomes = [perform(source, job) for job in jobs]
    assert [outcome.result for outcome in outcomes] == [8, "TEXT"]
    source.exchange(outcomes, [], 0)
    assert [job.result for job in queue.list_jobs("done")] == [8, "TEXT"]


def test_an_async_handler_is_awaited_and_sees_its_job(queue: Queue, source: JobSource) -> None:
    @task(name="plain")
    async def plain(item: str) -> Any:
        await asyncio.sleep(0)
        job = persistq.current_job()
        return [item, job and job.id]

    queue.enqueue("x")
    (job,) = source.exchange([], [], 1).claimed
    assert perform(source, job) == Done(job, ["x", 1])


@pytest.mark.parametrize("requested", [True, False])
def test_a_cancelled_coroutine_fails_its_attempt(queue: Queue, source: JobSource, requested: bool) -> None:
    @task(name="plain")
    async def plain(item: str) -> None:
        asyncio.current_task().cancel()  # type: ignore[union-attr]
        await asyncio.sleep(0)

    queue.enqueue("x")
    (job,) = source.exchange([], [], 1).claimed
    cancellation = Cancellation()
    cancellation.requested = requested
    outcome = perform(source, job, cancellation)
    assert isinstance(outcome, Failed)
    assert ("the lease was lost" in str(outcome.error)) is requested


def test_only_a_coroutine_function_is_async(queue: Queue, source: JobSource) -> None:
    async def coroutine() -> str:
        return "came"

    task(name="coroutine")(coroutine)
    task(name="wraps")(lambda: coroutine())
    for name in ("coroutine", "wraps", "unknown"):
        queue.enqueue("{}", task=name)
    jobs = source.exchange([], [], 3).claimed
    assert [source.is_async(job) for job in jobs] == [True, False, False]
    assert [perform(source, job) for job in jobs[:2]] == [Done(jobs[0], "came"), Done(jobs[1], "came")]


@pytest.mark.parametrize(
    ("error", "permanent"),
    [
        (ValueError("x"), False), (SystemExit(1), False), (KeyboardInterrupt(), False), (RecursionError(), False),
        (persistq.PermanentError("no"), True), (Unprintable(), False), (asyncio.CancelledError(), False),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_whatever_a_handler_raises_fails_its_attempt_only(
    queue: Queue, source: JobSource, error: BaseException, permanent: bool
) -> None:
    task(name="fails")(boom(error))
    queue.enqueue("{}", task="fails")
    (job,) = source.exchange([], [], 1).claimed
    outcome = perform(source, job)
    assert isinstance(outcome, Failed)
    source.exchange([outcome], [], 0)
    found = queue.get_job(1)
    assert found.status == ("failed" if permanent else "pending")
    assert type(error).__name__ in (found.error or "")


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError(), ValueError("x")])
def test_whatever_a_coroutine_raises_fails_its_attempt_only(
    queue: Queue, source: JobSource, error: BaseException
) -> None:
    async def fails() -> None:
        raise error

    outcome = outcome_of(queue, source, fails)
    assert isinstance(outcome, Failed)
    assert outcome.error is error


@pytest.mark.parametrize(
    "item", ["garbage", "[" * 100_000, "1" * 5000, '{"a":1,"a":2}', '{"other":1}', "NaN"], ids=lambda i: i[:9]
)
def test_an_item_that_cannot_be_read_fails_for_good(queue: Queue, source: JobSource, item: str) -> None:
    task(name="takes")(lambda a: a)
    queue.enqueue(item, task="takes")
    (job,) = source.exchange([], [], 1).claimed
    source.exchange([perform(source, job)], [], 0)
    assert queue.get_job(1).status == "failed"


def test_a_task_that_is_not_registered_is_tried_again_elsewhere(queue: Queue, source: JobSource) -> None:
    queue.enqueue("{}", task="os.system")
    (job,) = source.exchange([], [], 1).claimed
    source.exchange([perform(source, job)], [], 0)
    assert (queue.get_job(1).status, "--app" in (queue.get_job(1).error or "")) == ("pending", True)


@pytest.mark.parametrize(
    "result", [object(), {1, 2}, "x" * 300_000, float("nan"), {1: "a", "1": "b"}], ids=lambda r: type(r).__name__
)
def test_a_result_that_cannot_be_kept_is_dropped_and_the_job_done(queue: Queue, source: JobSource, result: Any) -> None:
    task(name="plain")(lambda item: result)
    queue.enqueue("x")
    (job,) = source.exchange([], [], 1).claimed
    source.exchange([perform(source, job)], [], 0)
    assert (queue.get_job(1).status, queue.get_job(1).result) == ("done", None)
    assert [event.kind for event in queue.events(1)] == ["result_dropped"]


def outcome_of(queue: Queue, source: JobSource, function: Any, **options: Any) -> Any:
    """Perform one job of a task and return its outcome."""
    task(name="tried", **options)(function)
    queue.enqueue("{}", task="tried")
    (job,) = source.exchange([], [], 1).claimed
    return perform(source, job)


@pytest.mark.parametrize("delay", [30, 30.0, timedelta(seconds=30)])
def test_a_snoozed_job_comes_back_later_and_has_spent_nothing(
    queue: Queue, source: JobSource, clock: FakeClock, delay: Any
) -> None:
    outcome = outcome_of(queue, source, boom(Snooze(delay)), max_attempts=1)
    assert outcome == Released(outcome.job, delay=30.0, reason="snoozed")
    source.exchange([outcome], [], 0)
    job = queue.get_job(1)
    assert (job.status, job.attempts, job.run_at) == ("pending", 0, clock.now() + timedelta(seconds=30))
    assert [event.kind for event in queue.events(1)] == ["snoozed"]


class Lazy(Snooze):
    def __init__(self) -> None:
        pass


@pytest.mark.parametrize("nap", [Snooze(-1), Snooze(float("nan")), Snooze("soon"), Snooze(None), Snooze(1e300), Lazy()])  # type: ignore[arg-type]
def test_a_snooze_that_is_none_fails_the_attempt(queue: Queue, source: JobSource, nap: Snooze) -> None:
    outcome = outcome_of(queue, source, boom(nap))
    assert isinstance(outcome, Failed)
    source.exchange([outcome], [], 0)
    job = queue.get_job(1)
    assert (job.status, job.attempts) == ("pending", 1)
    assert isinstance(nap, Lazy) or "a snooze is 0 to a century" in (job.error or "")


def test_an_async_handler_may_snooze(queue: Queue, source: JobSource) -> None:
    async def later() -> None:
        await asyncio.sleep(0)
        raise Snooze(5)

    assert outcome_of(queue, source, later).delay == 5


def test_an_error_that_the_task_gives_up_on_is_for_good(queue: Queue, source: JobSource) -> None:
    outcome = outcome_of(queue, source, boom(KeyError("gone")), retry=Retry(give_up_on=LookupError))
    source.exchange([outcome], [], 0)
    assert (queue.get_job(1).status, queue.get_job(1).attempts) == ("failed", 1)
    assert "KeyError" in (queue.get_job(1).error or "")


def test_an_error_that_is_to_be_retried_waits_as_the_task_says(
    queue: Queue, source: JobSource, clock: FakeClock
) -> None:
    policy = Retry(retry_on=OSError, delay=lambda attempt, error: 100 * attempt + error.args[0])
    source.exchange([outcome_of(queue, source, boom(OSError(7)), retry=policy)], [], 0)
    assert queue.get_job(1).run_at == clock.now() + timedelta(seconds=107)


def test_a_task_without_a_policy_waits_as_the_settings_say(queue: Queue, source: JobSource) -> None:
    assert outcome_of(queue, source, boom(OSError(7))).delay is None


@pytest.mark.parametrize("delay", [boom(ZeroDivisionError("a defect")), lambda: None, lambda *_: "soon"])
def test_a_policy_that_fails_leaves_the_error_and_the_usual_wait(queue: Queue, source: JobSource, delay: Any) -> None:
    outcome = outcome_of(queue, source, boom(OSError("disk")), retry=Retry(delay=delay))
    assert (outcome.permanent, outcome.delay, str(outcome.error)) == (False, None, "disk")
    source.exchange([outcome], [], 0)
    (event,) = queue.events(1)
    assert "OSError: disk" in event.detail["error"]
    assert "retry policy failed" in event.detail["traceback"]


def test_a_permanent_error_is_for_good_whatever_the_policy(queue: Queue, source: JobSource) -> None:
    policy = Retry(retry_on=persistq.PermanentError, delay=1)
    assert outcome_of(queue, source, boom(persistq.PermanentError("no")), retry=policy).permanent


def test_a_timeout_is_judged_by_the_policy_too(queue: Queue, source: JobSource) -> None:
    task(name="hangs", retry=Retry(give_up_on=TimeoutError))(lambda: None)
    task(name="waits", retry=Retry(delay=9))(lambda: None)
    for name in ("hangs", "waits", "unknown"):
        queue.enqueue("{}", task=name, timeout=1.5)
    hangs, waits, unknown = (source.timed_out(job) for job in source.exchange([], [], 3).claimed)
    assert (hangs.permanent, waits.delay, unknown) == (True, 9, Failed(unknown.job, waits.error))


def test_leases_are_renewed_at_a_third(queue: Queue, source: JobSource, clock: FakeClock) -> None:
    queue.enqueue("x")
    jobs = source.exchange([], [], 1).claimed
    for age, renewed in ((19, False), (1, True), (19, False), (1, True)):
        before = queue.get_job(1).lease_until
        clock.advance(age)
        source.exchange([], jobs, 0)
        assert (queue.get_job(1).lease_until != before) is renewed


def test_a_renewal_is_made_when_the_pause_before_it_has_ended(make_queue: MakeQueue, clock: FakeClock) -> None:
    q = make_queue(queue_poll_seconds=1000, queue_recovery_seconds=2000)
    source = JobSource(q, name="w", queues=(), default_task="plain", concurrency=1)
    q.enqueue("x")
    clock.advance(4.1)
    jobs = source.exchange([], [], 1).claimed
    clock.advance(20)
    # As floats 1004.1 + 20 is less than 20 seconds after 1004.1: due for the pause, and not yet for the renewal.
    assert clock.monotonic() - 20 < 1004.1
    assert source.pause() == 0
    source.exchange([], jobs, 0)
    assert source.pause() == pytest.approx(20)
    source.close()


def test_the_pause_ends_at_the_next_renewal_or_due_job(make_queue: MakeQueue, clock: FakeClock) -> None:
    q = make_queue(queue_poll_seconds=1000, queue_recovery_seconds=2000)
    source = JobSource(q, name="w", queues=(), default_task="plain", concurrency=2)
    source.exchange([], [], 1)
    assert source.pause() == 1000
    q.enqueue("later", delay=7)
    source.exchange([], [], 1)
    assert source.pause() == 7
    clock.advance(7)
    source.exchange([], [], 1)
    assert source.pause() == pytest.approx(20)
    source.close()


def test_a_lost_job_is_told_once_and_does_not_keep_the_loop_awake(
    queue: Queue, source: JobSource, clock: FakeClock
) -> None:
    queue.enqueue("x")
    jobs = source.exchange([], [], 1).claimed
    queue.cancel(1)
    clock.advance(20)
    assert source.exchange([], jobs, 0).lost == [*jobs]
    # Its handler may take its time to notice.
    assert source.pause() > 0
    assert list(source.exchange([], jobs, 0).lost) == []


def test_what_could_not_be_renewed_expires_by_the_local_clock(
    queue: Queue, source: JobSource, clock: FakeClock
) -> None:
    queue.enqueue("x")
    jobs = source.exchange([], [], 1).claimed
    clock.jump(10_000)
    clock.advance(59)
    assert source.expired(jobs) == []
    clock.advance(1)
    assert list(source.expired(jobs)) == list(jobs)


def test_a_suspect_is_performed_with_nothing_beside_it(queue: Queue, source: JobSource, clock: FakeClock) -> None:
    queue.enqueue("suspect")
    claim(queue)
    clock.advance(61)
    queue.recover()
    queue.enqueue("neighbour")
    (suspect,) = source.exchange([], [], 2).claimed
    assert suspect.suspect
    assert list(source.exchange([], [suspect], 1).claimed) == []
    (neighbour,) = source.exchange([Done(suspect)], [], 2).claimed
    assert neighbour.item == "neighbour"


def test_a_busy_consumer_takes_no_suspect(queue: Queue, source: JobSource, clock: FakeClock) -> None:
    queue.enqueue("suspect")
    claim(queue)
    clock.advance(61)
    queue.recover()
    queue.enqueue("mine", priority=1)
    (mine,) = source.exchange([], [], 1).claimed
    assert mine.item == "mine"
    assert list(source.exchange([], [mine], 1).claimed) == []
    assert [job.item for job in source.exchange([Done(mine)], [], 2).claimed] == ["suspect"]


def test_a_consumer_is_listed_while_it_lives(queue: Queue, clock: FakeClock) -> None:
    source = JobSource(queue, name="w", queues=("mail",), default_task="plain", concurrency=2)
    source.exchange([], [], 1)
    (info,) = queue.consumers()
    assert (info.id, info.name, info.queues, info.concurrency, info.running) == (source.consumer, "w", ("mail",), 2, 0)
    clock.advance(5)
    source.exchange([], [], 0)
    assert queue.consumers()[0].seen_at == clock.now()
    source.close()
    assert queue.consumers() == []


def test_outcomes_for_the_loop(queue: Queue, source: JobSource) -> None:
    queue.enqueue("x", timeout=1.5)
    (job,) = source.exchange([], [], 1).claimed
    assert source.timeout(job) == 1.5
    assert source.released(job) == Released(job)
    late = source.timed_out(job)
    assert isinstance(late, Failed)
    assert "1.5 s" in str(late.error)
    assert not late.permanent


def test_a_loop_drains_a_queue_end_to_end(path: Any) -> None:
    """On the machine's own clock: nothing waits, so nothing is slow."""
    done: list[str] = []
    task(name="plain")(lambda item: done.append(item))
    with_real_clock = persistq.connect(path)
    with_real_clock.enqueue_many([str(number) for number in range(30)])
    source = JobSource(with_real_clock, name="w", queues=(), default_task="plain", concurrency=3)
    assert Loop(source, Threads(3), grace=5, drain=True).run() == 0
    assert sorted(done, key=int) == [str(number) for number in range(30)]
    assert with_real_clock.counts()["done"] == 30
    assert with_real_clock.tally_drift() == {}


def test_a_recovery_that_fails_loses_nothing_that_was_claimed(
    queue: Queue, source: JobSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.enqueue("x")

    def locked() -> int:
        raise persistq.DatabaseUnavailable("locked")

    monkeypatch.setattr(queue, "recover_if_due", locked)
    assert [job.item for job in source.exchange([], [], 1).claimed] == ["x"]


class Calls:
    """Counts what a source asks of its queue."""

    def __init__(self, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        for name in ("due_in", "exchange"):
            monkeypatch.setattr(queue, name, self._counting(name, getattr(queue, name)))

    def _counting(self, name: str, call: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.made.append(name)
            return call(*args, **kwargs)

        return counted

    def since(self) -> list[str]:
        """Return the calls since the last time."""
        made, self.made = self.made, []
        return made


@pytest.fixture
def calls(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What the source asks of its queue."""
    return Calls(queue, monkeypatch)


def test_only_an_idle_turn_looks_before_it_claims(
    queue: Queue, source: JobSource, calls: Calls, clock: FakeClock
) -> None:
    source.exchange([], [], 2)
    assert calls.since() == ["due_in"], "a look that found nothing locks nothing"
    queue.enqueue_many(["a", "b", "c", "d", "e"])
    first = source.exchange([], [], 2).claimed
    assert calls.since() == ["due_in", "exchange"]
    second = source.exchange([Done(job) for job in first], [], 2).claimed
    assert calls.since() == ["exchange"]
    clock.advance(20)
    third = source.exchange([], second, 1).claimed
    assert calls.since() == ["exchange"], "it renews, and claims along with it"
    assert [job.item for job in (*first, *second, *third)] == ["a", "b", "c", "d", "e"]
    source.exchange([], [*second, *third], 0)
    assert calls.since() == []


def test_after_the_last_due_job_one_look_tells_what_is_due_next(
    make_queue: MakeQueue, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    q = make_queue(queue_poll_seconds=1000, queue_recovery_seconds=2000)
    source = JobSource(q, name="w", queues=(), default_task="plain", concurrency=2)
    q.enqueue_many(["now", "too"])
    q.enqueue("later", delay=7)
    jobs = source.exchange([], [], 2).claimed
    assert source.pause() > 0, "there is no room for more"
    assert source.exchange([Done(job) for job in jobs], [], 2).claimed == []
    assert source.pause() == 0
    calls = Calls(q, monkeypatch)
    source.exchange([], [], 2)
    assert calls.since() == ["due_in"]
    assert source.pause() == 7
    clock.advance(3)
    assert source.pause() == 4
    source.close()


def test_a_due_time_that_passes_while_there_is_no_room_keeps_nobody_awake(
    make_queue: MakeQueue, clock: FakeClock
) -> None:
    q = make_queue(queue_poll_seconds=1000, queue_recovery_seconds=2000, timeout_seconds=900)
    source = JobSource(q, name="w", queues=(), default_task="plain", concurrency=1)
    q.enqueue("now")
    q.enqueue("later", delay=7)
    jobs = source.exchange([], [], 2).claimed
    source.exchange([], jobs, 1)
    assert source.pause() == 7
    clock.advance(7)
    source.exchange([], jobs, 0)
    assert source.pause() > 100
    assert [job.item for job in source.exchange([Done(jobs[0])], [], 1).claimed] == ["later"]
    source.close()


def test_a_suspect_that_has_to_wait_keeps_nobody_awake(queue: Queue, source: JobSource, clock: FakeClock) -> None:
    queue.enqueue("suspect")
    claim(queue)
    clock.advance(61)
    queue.recover()
    queue.enqueue("mine", priority=1)
    jobs = source.exchange([], [], 1).claimed
    assert source.exchange([], jobs, 1).claimed == []
    assert source.pause() > 0


def test_a_lease_is_renewed_however_often_others_come_and_go(queue: Queue, source: JobSource, clock: FakeClock) -> None:
    queue.enqueue("long")
    held = list(source.exchange([], [], 1).claimed)
    short: list[Any] = []
    for _ in range(100):
        clock.advance(3)
        queue.enqueue("short")
        short = list(source.exchange([Done(job) for job in short], [*held], 1).claimed)
        assert queue.get_job(1).lease_until > clock.now() + timedelta(seconds=60 - 20 - 3)


def test_on_a_full_disk_it_goes_on_in_small_steps(
    queue: Queue, source: JobSource, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.enqueue_many(["a", "b", "c", "d", "e"])
    jobs = source.exchange([], [], 4).claimed
    queue.cancel(2)
    queue.cancel(4)
    exchange = queue.exchange

    def full(consumer: str, *, settled: Any, renew: Any, limit: int, **more: Any) -> Any:
        if len(settled) + len(renew) + limit > 1:
            raise persistq.QueueFull("no space for so much")
        return exchange(consumer, settled=settled, renew=renew, limit=limit, **more)

    monkeypatch.setattr(queue, "exchange", full)
    clock.advance(20)
    turn = source.exchange([Done(jobs[0]), Done(jobs[1])], jobs[2:], 3)
    assert [job.item for job in turn.claimed] == ["e"]
    assert turn.lost == [jobs[3]]
    assert queue.counts() == {"pending": 0, "processing": 2, "done": 1, "failed": 0, "cancelled": 2}


def test_a_disk_that_takes_nothing_is_an_outage(
    queue: Queue, source: JobSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.enqueue("a")

    def full(*_: Any, **__: Any) -> Any:
        raise persistq.QueueFull("no space")

    (job,) = source.exchange([], [], 1).claimed
    monkeypatch.setattr(queue, "exchange", full)
    with pytest.raises(persistq.QueueFull):
        source.exchange([Done(job)], [], 5)
    monkeypatch.undo()
    source.exchange([Done(job)], [], 5)
    assert queue.get_job(1).status == "done"


def test_what_is_claimed_ahead_does_not_count_as_running(queue: Queue, source: JobSource, clock: FakeClock) -> None:
    queue.enqueue_many(["x"] * 50)
    jobs = source.exchange([], [], 50).claimed
    clock.advance(5)
    source.exchange([], jobs, 0)
    assert queue.consumers()[0].running == 2


def test_the_doorbell_rings_for_others_and_is_silent_after_a_look(path: Any) -> None:
    """On the machine's own clock and kernel: what is waited for has happened before."""
    q, other = persistq.connect(path), persistq.connect(path)
    source = JobSource(q, name="w", queues=(), default_task="plain", concurrency=2)
    source.exchange([], [], 2)
    assert not source.rung()
    other.enqueue("x")
    bell = source.bell()
    assert bell is None or select.select([bell], [], [], 60)[0]
    assert source.rung()
    (job,) = source.exchange([], [], 1).claimed
    source.exchange([Done(job)], [], 2)
    source.exchange([], [], 2)
    assert bell is None or not select.select([bell], [], [], 0)[0], "our own commits are no news"
    assert not source.rung()
    source.close()
    other.close()
    q.close()


def test_only_jobs_with_attempts_to_spare_wait_in_the_consumer(queue: Queue, source: JobSource) -> None:
    """Should it die, whatever it holds has spent an attempt, begun or not."""
    queue.enqueue_many(["a", "b"])
    queue.enqueue("once", max_attempts=1)
    queue.enqueue("c")
    first = source.exchange([], [], 4, ahead=3).claimed
    assert [job.item for job in first] == ["a", "b"]
    assert list(source.exchange([], first, 2, ahead=2).claimed) == []
    second = source.exchange([Done(job) for job in first], [], 4, ahead=3).claimed
    assert [job.item for job in second] == ["once", "c"]


def test_a_retry_does_not_wait_in_the_consumer(queue: Queue, source: JobSource) -> None:
    queue.enqueue_many(["retried", "a", "b"])
    first = source.exchange([], [], 1).claimed
    second = source.exchange([Failed(first[0], "x", delay=0)], [], 3, ahead=3).claimed
    assert list(second) == []
    third = source.exchange([], [], 3, ahead=2).claimed
    assert [job.item for job in third] == ["retried", "a", "b"]
