"""Every job is delivered, once, and in its order."""

from collections import Counter
from datetime import UTC, datetime, timedelta

from support.databases import every_kind

from .yard import eventually

APP = """
@persistq.task
def record(item):
    note(item, me().id)
"""


@every_kind
def test_four_consumers_share_2000_jobs(make_yard):
    yard = make_yard()
    yard.app(APP + "    wait_for('gate')\n")
    ids = yard.q.enqueue_many([f"item-{n}" for n in range(2000)])
    consumers = [yard.consumer("--task", "record", "--concurrency", "4", "--drain") for _ in range(4)]
    # The last to start would find nothing left.
    eventually(lambda: len({job.consumer_id for job in yard.q.list_jobs("processing")}) == 4, "all four are at work")
    yard.open("gate")
    assert [consumer.wait() for consumer in consumers] == [0] * 4

    delivered = Counter(int(line.split()[1]) for line in yard.journal())
    assert sorted(delivered) == ids, "lost"
    assert sum(delivered.values()) == 2000, "duplicates"
    assert yard.statuses() == {"done": 2000}
    shares = Counter(job.consumer_id for job in yard.jobs())
    assert len(shares) == 4, f"not everybody worked: {shares}"
    yard.assert_sound()


@every_kind
def test_equal_priorities_are_first_in_first_out(make_yard):
    yard = make_yard()
    yard.app(APP)
    yard.q.enqueue_many([f"item-{n}" for n in range(200)])
    assert yard.consumer("--task", "record", "--drain").wait() == 0
    assert [line.split()[0] for line in yard.journal()] == [f"item-{n}" for n in range(200)]


def test_higher_priority_comes_first(make_yard):
    yard = make_yard()
    yard.app(APP)
    for priority in (0, 5, -3, 9, 5, 0):
        yard.q.enqueue(f"p{priority}", priority=priority)
    assert yard.consumer("--task", "record", "--drain").wait() == 0
    assert [line.split()[0] for line in yard.journal()] == ["p9", "p5", "p5", "p0", "p0", "p-3"]


def test_run_at_is_never_early(make_yard):
    yard = make_yard(queue_poll_seconds=60)  # so that it is the due time that wakes the consumer
    yard.app(APP)
    consumer = yard.consumer("--task", "record")
    eventually(lambda: yard.q.consumers(), "the consumer is there")
    due = datetime.now(UTC) + timedelta(seconds=1.5)
    late = yard.q.enqueue("late", run_at=due)
    early = yard.q.enqueue("early")
    never = yard.q.enqueue("next year", delay=timedelta(days=365))
    eventually(lambda: yard.q.get_job(late).status == "done", "the late job is done")

    assert [line.split()[0] for line in yard.journal()] == ["early", "late"]
    assert yard.q.get_job(early).started_at < due <= yard.q.get_job(late).started_at
    assert yard.q.get_job(never).status == "pending"
    assert not consumer.ended()
