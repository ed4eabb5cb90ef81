"""Leases: renewed while the work goes on, lost by who is paused."""

import signal
import time

from support.databases import every_kind

from .yard import Process, Yard, eventually

LEASE = 0.5
SAFE = 2.0
"""A lease that a busy machine does not overrun by itself."""
CONTINUE = signal.SIGCONT

FIRST_WAITS = """
@persistq.task
def perform(item):
    note(item, me().attempts, os.getpid())
    if me().attempts == 1:
        wait_for(f"gate-{item}")
    return os.getpid()
"""


@every_kind
def test_a_paused_consumer_is_refused_and_the_second_result_stands(make_yard, long):
    """Its lease is made to end, so that a busy machine ends nobody else's; at length it runs out by itself."""
    yard = make_yard(timeout_seconds=2 if long else 60, queue_recovery_seconds=0.05, queue_poll_seconds=0.05)
    rounds = 20 if long or yard.server is None else 6
    yard.app(FIRST_WAITS)
    consumers = {one.pid: one for one in (yard.consumer("--task", "perform") for _ in range(2))}
    refused = 0
    for round_ in range(rounds):
        job_id = yard.q.enqueue(str(round_))
        first = consumers[int(eventually(lambda n=round_: _deliveries(yard, n), "the job runs")[0])]
        _pause(yard, first)
        if not long:
            yard.end_leases()
        eventually(lambda job_id=job_id: yard.q.get_job(job_id).status == "done", "the second finished it")
        second = yard.q.get_job(job_id)
        already = len(_refusals(first, job_id))

        first.send(CONTINUE)
        yard.open(f"gate-{round_}")
        eventually(lambda f=first, j=job_id, n=already: len(_refusals(f, j)) > n, "the first is refused")
        eventually(lambda f=first, j=job_id: _performed(f, j), "the first came to its end")
        after = yard.q.get_job(job_id)
        assert len(_deliveries(yard, round_)) == after.attempts == 2
        assert after.result != first.pid
        assert after == second, "the paused consumer changed what the second wrote"
        refused += 1
    assert refused == rounds
    yard.assert_sound()


@every_kind
def test_a_job_five_times_as_long_as_its_lease_is_delivered_once(make_yard):
    yard = make_yard(timeout_seconds=SAFE, queue_recovery_seconds=0.05)
    yard.app(f"@persistq.task\ndef perform(item):\n    note(item)\n    time.sleep({5 * SAFE})\n")
    job_id = yard.q.enqueue("long")
    consumers = [yard.consumer("--task", "perform", "--drain") for _ in range(3)]
    assert [one.wait() for one in consumers] == [0, 0, 0]
    job = yard.q.get_job(job_id)
    assert (job.status, job.attempts) == ("done", 1)
    assert yard.journal() == ["long"]
    assert yard.q.events(job_id) == []


def test_long_jobs_at_once_with_waiting_ones_keep_their_leases(make_yard):
    """Renewing must not wait for room, nor be starved by short jobs beside it."""
    yard = make_yard(timeout_seconds=SAFE, queue_recovery_seconds=0.05)
    yard.app(
        f"@persistq.task\ndef perform(item):\n    note(item)\n    time.sleep({2 * SAFE} if item == 'long' else 0.01)\n"
    )
    yard.q.enqueue_many(["long", "long", "long"] + ["short"] * 100)
    consumers = [yard.consumer("--task", "perform", "--drain", "--concurrency", "4") for _ in range(2)]
    assert [one.wait() for one in consumers] == [0, 0]
    assert len(yard.journal()) == 103
    assert {(job.status, job.attempts) for job in yard.jobs()} == {("done", 1)}


def test_a_consumer_that_cannot_renew_tells_its_handlers(make_yard):
    yard = make_yard(timeout_seconds=1, queue_busy_seconds=0.2)
    yard.app("""
@persistq.task
def perform(item):
    note("started")
    while not persistq.cancelled():
        time.sleep(0.01)
    note("told")
""")
    yard.q.enqueue("item")
    yard.consumer("--task", "perform")
    eventually(yard.journal, "the job runs")
    holder = yard.lock()
    eventually(lambda: yard.journal() == ["started", "told"], "the handler is told while nobody can renew")
    holder.hang_up()


def test_a_cancelled_running_job_tells_its_handler(make_yard):
    yard = make_yard(timeout_seconds=LEASE)
    yard.app("""
@persistq.task
def perform(item):
    note("started")
    while not persistq.cancelled():
        time.sleep(0.01)
    note("told")
""")
    job_id = yard.q.enqueue("item")
    consumer = yard.consumer("--task", "perform")
    eventually(yard.journal, "the job runs")
    yard.q.cancel(job_id)
    eventually(lambda: yard.journal() == ["started", "told"], "the handler is told")
    eventually(lambda: _refusals(consumer, job_id), "the log says so")
    assert yard.q.get_job(job_id).status == "cancelled"


def test_a_lost_lease_is_reported_once_and_costs_nothing_more(make_yard):
    """A handler may not notice that its job was called off; the consumer must not spin until it ends."""
    yard = make_yard(timeout_seconds=LEASE)
    yard.app("@persistq.task\ndef deaf(item):\n    note(item)\n    wait_for('gate')\n")
    job_id = yard.q.enqueue("item")
    consumer = yard.consumer("--task", "deaf")
    eventually(yard.journal, "the job runs")
    yard.q.cancel(job_id)
    eventually(lambda: _refusals(consumer, job_id), "the log says so")
    used, began = consumer.cpu_seconds(), time.monotonic()
    time.sleep(2)  # the measurement itself
    share = (consumer.cpu_seconds() - used) / (time.monotonic() - began)
    print(f"{share:.2%} of a processor, {len(_refusals(consumer, job_id))} lines")
    yard.open("gate")
    eventually(lambda: _performed(consumer, job_id), "the handler ends")
    assert len(_refusals(consumer, job_id)) <= 2, "told more than when it was noticed and when it was refused"
    assert share < 0.2  # the handler's own waiting is part of it


def _pause(yard: Yard, process: Process) -> None:
    """Stop it outside a transaction: amid one it holds locks, on SQLite the only one, and others wait for it."""
    while True:
        process.stop()
        if yard.is_calm():
            return
        process.send(CONTINUE)
        time.sleep(0.02)  # or it would be stopped again before it has had a chance to get on


def _deliveries(yard: Yard, item: int) -> list[str]:
    """Return the pids of the item's deliveries."""
    return [line.split()[2] for line in yard.journal() if line.split()[0] == str(item)]


def _refusals(process: Process, job_id: int) -> list[str]:
    return [line for line in process.lines("is no longer leased to this consumer") if f"job {job_id} " in line]


def _performed(process: Process, job_id: int) -> list[str]:
    return process.lines(f"job {job_id} (attempt 1 of 3) done")
