"""An idle consumer starts a new job at once, and costs next to nothing."""

import random
import statistics
import time

import pytest
from support.databases import EVERY_KIND

from .yard import eventually

rings = pytest.mark.parametrize("kind", EVERY_KIND[:2], indirect=True)
"""Runs a test on the databases that tell of commits; on MariaDB a consumer looks every QUEUE_POLL_SECONDS."""

NOTHING = "@persistq.task\ndef nothing(item):\n    pass\n"


@rings
def test_a_new_job_wakes_an_idle_consumer(make_yard):
    """Nothing else would for an hour, so that it is done at all says that the commit was heard."""
    yard = make_yard(queue_poll_seconds=3600, queue_recovery_seconds=3600)
    yard.app(NOTHING)
    yard.consumer("--task", "nothing", "--concurrency", "4")
    eventually(yard.q.consumers, "the consumer is there")
    chance = random.Random(4)
    for _ in range(20):
        time.sleep(chance.uniform(0, 0.1))  # idle for a while
        yard.q.enqueue("item")
        eventually(yard.all_done, "the job is done")
    waits = [(job.started_at - job.created_at).total_seconds() for job in yard.jobs()]
    print(f"median {statistics.median(waits) * 1000:.1f} ms, worst {max(waits) * 1000:.1f} ms")


@rings
def test_jobs_enqueued_while_others_run_are_heard_too(make_yard):
    """A claim that comes back short, a handler that runs on, one of our own commits: none of them hides a ring."""
    yard = make_yard(queue_poll_seconds=3600, queue_recovery_seconds=3600, timeout_seconds=3600)
    yard.app("@persistq.task\ndef perform(item):\n    note(item)\n    if item == 'long':\n        wait_for('gate')\n")
    yard.consumer("--task", "perform", "--concurrency", "2")
    yard.q.enqueue("long")
    for number in range(20):
        yard.q.enqueue(str(number))
        eventually(lambda number=number: str(number) in yard.journal(), "it runs beside the long one")
    yard.open("gate")
    eventually(yard.all_done, "all are done")


@rings
def test_a_retry_and_a_delayed_job_start_when_they_are_due(make_yard):
    yard = make_yard(queue_poll_seconds=3600, queue_recovery_seconds=3600, queue_backoff_seconds=0.5)
    yard.app("@persistq.task\ndef flaky(item):\n    if me().attempts < 3:\n        raise OSError('not yet')\n")
    yard.consumer("--task", "flaky")
    yard.q.enqueue("retried")
    yard.q.enqueue("delayed", delay=0.7)
    eventually(yard.all_done, "both are done")


def test_an_idle_consumer_uses_little_processor_time(make_yard):
    yard = make_yard(queue_poll_seconds=1)
    yard.app(NOTHING)
    consumer = yard.consumer("--task", "nothing")
    yard.q.enqueue("item")
    eventually(yard.all_done, "it has warmed up")
    used, began = consumer.cpu_seconds(), time.monotonic()
    time.sleep(3)  # the measurement itself
    share = (consumer.cpu_seconds() - used) / (time.monotonic() - began)
    print(f"{share:.2%} of a processor")
    assert share < 0.05


def test_a_waiting_suspect_does_not_make_a_busy_consumer_spin(make_yard):
    yard = make_yard(queue_poll_seconds=1)
    yard.app("@persistq.task\ndef perform(item):\n    note(item)\n    if item == 'long':\n        wait_for('gate')\n")
    suspect = yard.q.enqueue("suspect")
    held = yard.q.dequeue("dead")
    yard.q.enqueue("long")
    consumer = yard.consumer("--task", "perform", "--concurrency", "4")
    eventually(yard.journal, "the long one runs")
    short = yard.connect(timeout_seconds=0.1)
    short.renew(held)  # and never again
    short.close()
    eventually(lambda: yard.q.get_job(suspect).suspect, "the consumer takes it back")
    used, began = consumer.cpu_seconds(), time.monotonic()
    time.sleep(2)  # the measurement itself
    share = (consumer.cpu_seconds() - used) / (time.monotonic() - began)
    print(f"{share:.2%} of a processor")
    assert share < 0.2  # the handler's own waiting is part of it
    assert yard.journal() == ["long"], "the suspect waits until it can be alone"
    yard.open("gate")
    eventually(yard.all_done, "both are done")
