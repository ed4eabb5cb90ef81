"""Producer and consumer with --batches: the main job at high volume, and what becomes of an item that fails."""

import signal
from collections import Counter

import pytest
from support.batches import fill, names

from .yard import eventually

APP = """
@persistq.task(name="work")
def work(n: int):
    note("got", n, me().attempts)
    if n == 3:
        raise ValueError("three is poison")
    if n == 7:
        wait_for("gate")
    if n == 100:
        os._exit(9)
    if n == 200:
        os.kill(os.getpid(), signal.SIGKILL)


@persistq.task(name="later", max_attempts=2)
async def later(item):
    note("got", item)
    if item == "bad":
        raise persistq.PermanentError("bad")
"""


@pytest.fixture
def yard(make_yard):
    made = make_yard(queue_batch_items=20, queue_batch_seconds=0.2)
    made.app(APP)
    return made


def test_the_main_job_in_batches(yard):
    assert yard.producer("--batches", "--count", "45", "--interval", "0", queue_batch_seconds=3600).wait() == 0
    assert len(names(yard.folder / "spool", "ready_", "default")) == 3
    consumer = yard.consumer("--batches", "--drain", "--concurrency", "2")
    assert consumer.wait() == 0
    lines = [path.read_text().splitlines() for path in (yard.folder / "jobs").iterdir()]
    assert len(lines) == 45
    assert all(len(line) == 2 and "job=batch:" in line[1] for line in lines)
    assert names(yard.folder / "spool", "", "default") == []
    assert yard.jobs() == []


def test_a_stopped_producer_hands_over_what_it_made(yard):
    producer = yard.producer("--batches", "--interval", "0", queue_batch_seconds=3600)
    eventually(lambda: len(names(yard.folder / "spool", "ready_", "default")) > 1, "batches are ready")
    producer.send(signal.SIGTERM)
    assert producer.wait() == 0
    assert names(yard.folder / "spool", "loading_", "default") == []
    assert yard.consumer("--batches", "--drain", "--concurrency", "2").wait() == 0
    assert all(len(path.read_text().splitlines()) == 2 for path in (yard.folder / "jobs").iterdir())


def test_a_poison_item_is_tried_again_then_becomes_a_failed_job_and_the_others_go_on(yard):
    yard.open("gate")
    fill(yard.folder / "spool", [{"n": n} for n in range(10)], "default", block_items=4)
    assert yard.consumer("--batches", "--drain", "--task", "work").wait() == 0
    assert [line for line in yard.journal() if line.startswith("got 3")] == ["got 3 1", "got 3 2", "got 3 3"]
    assert sorted({int(line.split()[1]) for line in yard.journal()}) == list(range(10))
    assert len(yard.journal()) == 12
    (job,) = yard.jobs()
    assert (job.status, job.task, job.item) == ("failed", "work", '{"n":3}')
    assert "three is poison" in job.error
    assert job.unique_key.startswith("batch:")
    # From here on it is a job like any other.
    yard.q.resubmit(job.id)
    assert yard.consumer("--drain").wait() == 0
    assert yard.journal()[-1].startswith("got 3 ")


def test_an_async_task_performs_items(yard):
    fill(yard.folder / "spool", ["a", "bad", "c"], "mail")
    assert yard.consumer("--batches", "--drain", "--task", "later", "--queue", "mail").wait() == 0
    assert yard.journal() == ["got a", "got bad", "got c"]
    (job,) = yard.jobs()
    assert (job.status, job.queue, job.item) == ("failed", "mail", '{"item":"bad"}')


def test_sigterm_gives_the_rest_back_to_the_item(yard):
    fill(yard.folder / "spool", [{"n": n} for n in (4, 5, 7, 8, 9)], "default")
    consumer = yard.consumer("--batches", "--task", "work")
    eventually(lambda: "got 7 1" in yard.journal(), "the handler waits")
    consumer.send(signal.SIGTERM)
    eventually(lambda: consumer.lines("stopping"), "the consumer heeds it")
    yard.open("gate")
    assert consumer.wait() == 0
    assert yard.journal() == ["got 4 1", "got 5 1", "got 7 1"]
    assert yard.consumer("--batches", "--drain", "--task", "work").wait() == 0
    assert yard.journal()[3:] == ["got 8 1", "got 9 1"]


def test_a_killed_consumer_repeats_its_block(yard):
    fill(yard.folder / "spool", [{"n": n} for n in (1, 2, 4, 5, 7, 8)], "default", block_items=3)
    consumer = yard.consumer("--batches", "--task", "work")
    eventually(lambda: "got 7 1" in yard.journal(), "the handler waits")
    consumer.kill()
    yard.open("gate")
    assert yard.consumer("--batches", "--drain", "--task", "work").wait() == 0
    assert [line.split()[1] for line in yard.journal()] == ["1", "2", "4", "5", "7", "5", "7", "8"]


def test_a_promotion_that_cannot_be_written_is_tried_until_it_can(yard):
    fill(yard.folder / "spool", ["bad", "good"], "default")
    lock = yard.lock()
    consumer = yard.consumer("--batches", "--drain", "--task", "later", queue_busy_seconds=0.1)
    eventually(lambda: consumer.lines("trying again"), "the outage is noticed")
    lock.hang_up()
    assert consumer.wait() == 0
    (job,) = yard.jobs()
    assert job.status == "failed"
    assert yard.journal() == ["got bad", "got good"]


def test_an_item_that_kills_its_process_becomes_a_failed_job_and_its_neighbours_are_repeated_once(yard):
    killers = (100, 200)
    fill(yard.folder / "spool", [{"n": n} for n in (1, 2, 100, 4, 5, 6, 200, 8, 9)], "default", block_items=5)
    codes = []
    while not codes or codes[-1]:
        codes.append(yard.consumer("--batches", "--drain", "--task", "work").wait())
        assert len(codes) <= 7
    assert len(codes) == 7  # three deaths for each
    performed = Counter(int(line.split()[1]) for line in yard.journal())
    assert performed == {1: 2, 2: 2, 100: 3, 4: 1, 5: 1, 6: 2, 200: 3, 8: 1, 9: 1}
    assert {(job.status, job.item) for job in yard.jobs()} == {("failed", f'{{"n":{n}}}') for n in killers}
    assert all("3 consumers in a row died" in job.error for job in yard.jobs())
    assert names(yard.folder / "spool", "", "default") == []


def test_two_queues_need_two_consumers(yard):
    consumer = yard.consumer("--batches", "--queue", "a", "--queue", "b")
    assert consumer.wait() == 78
    assert "one queue" in consumer.err


def test_an_item_that_no_job_can_carry_puts_its_batch_aside(yard):
    fill(yard.folder / "spool", ["x" * 5000, "good"], "default")
    assert yard.consumer("--batches", "--task", "stamp_file", "--drain", queue_max_item_bytes=1000).wait() == 0
    assert len(names(yard.folder / "spool", "invalid_", "default")) == 1
