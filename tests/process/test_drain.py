"""SIGTERM: finish within the grace, release the rest, exit 0."""

import signal

from support.databases import every_kind

from .yard import Process, Yard, eventually

APP = """
@persistq.task
def perform(item):
    note("begin", item)
    wait_for("gate")
    note("end", item)
"""


@every_kind
def test_jobs_that_finish_within_the_grace_are_done(make_yard):
    yard, consumer = _eight_running(make_yard, grace=60)
    consumer.send(signal.SIGTERM)
    eventually(lambda: consumer.lines("stopping: 8 jobs"), "it stops")
    late = yard.q.enqueue("too late")
    yard.open("gate")
    assert consumer.wait() == 0
    assert yard.statuses() == {"done": 8, "pending": 1}
    assert {job.attempts for job in yard.q.list_jobs("done")} == {1}
    assert yard.q.get_job(late).attempts == 0
    assert yard.q.consumers() == []


@every_kind
def test_jobs_that_outlast_the_grace_are_released_unspent(make_yard):
    yard, consumer = _eight_running(make_yard, grace=0.5)
    consumer.send(signal.SIGTERM)
    assert consumer.wait() == 0
    _assert_released(yard)

    yard.open("gate")
    assert yard.consumer("--task", "perform", "--concurrency", "8", "--drain").wait() == 0
    assert {(job.status, job.attempts) for job in yard.jobs()} == {("done", 1)}


def test_a_second_signal_ends_the_grace(make_yard):
    yard, consumer = _eight_running(make_yard, grace=3600)
    consumer.send(signal.SIGTERM)
    eventually(lambda: consumer.lines("stopping: 8 jobs"), "it stops")
    consumer.send(signal.SIGINT)
    assert consumer.wait() == 0
    _assert_released(yard)


def test_some_finish_and_some_are_released(make_yard):
    yard = make_yard(queue_grace_seconds=1)
    yard.app("@persistq.task\ndef perform(item):\n    note(item)\n    wait_for(item)\n")
    yard.q.enqueue_many(["short"] * 4 + ["long"] * 4)
    consumer = yard.consumer("--task", "perform", "--concurrency", "8")
    eventually(lambda: len(yard.journal()) == 8, "all eight run")
    consumer.send(signal.SIGTERM)
    yard.open("short")
    assert consumer.wait() == 0
    ended = {(job.item, str(job.status), job.attempts) for job in yard.jobs()}
    assert ended == {("short", "done", 1), ("long", "pending", 0)}


def test_an_idle_consumer_ends_at_once(make_yard):
    yard = make_yard(queue_poll_seconds=3600)
    consumer = yard.consumer()
    eventually(lambda: yard.q.consumers(), "it is there")
    consumer.send(signal.SIGTERM)
    assert consumer.wait() == 0
    assert yard.q.consumers() == []


def test_a_drain_during_an_outage_keeps_its_grace(make_yard):
    """The database may be out of reach just then; the process has to end all the same."""
    yard, consumer = _eight_running(make_yard, grace=0.5, queue_busy_seconds=0.1, timeout_seconds=1)
    holder = yard.lock()
    eventually(lambda: consumer.lines("trying again"), "it notices the outage")
    consumer.send(signal.SIGTERM)
    assert consumer.wait() == 0
    holder.hang_up()
    yard.open("gate")
    assert yard.consumer("--task", "perform", "--concurrency", "8", "--drain").wait() == 0
    assert yard.statuses() == {"done": 8}


def _eight_running(make_yard, grace: float, **settings: float) -> tuple[Yard, Process]:
    yard = make_yard(queue_grace_seconds=grace, **settings)
    yard.app(APP)
    yard.q.enqueue_many([str(n) for n in range(8)])
    consumer = yard.consumer("--task", "perform", "--concurrency", "8")
    eventually(lambda: len(yard.journal()) == 8, "all eight run")
    return yard, consumer


def _assert_released(yard: Yard) -> None:
    assert {(job.status, job.attempts) for job in yard.jobs()} == {("pending", 0)}
    assert {event.kind for job in yard.jobs() for event in yard.q.events(job.id)} == {"released"}
