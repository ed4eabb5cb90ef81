"""Jobs that harm their consumer: three deliveries each, and the neighbours get through."""

from collections import Counter

import pytest
from support.databases import every_kind

from .yard import Yard

APP = """
@persistq.task
def perform(item):
    note(me().id, item)
    if item == "raises":
        raise ValueError("on purpose")
    if item == "exits":
        os._exit(1)
    if item == "kills itself":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "hangs":
        threading.Event().wait()
"""
LOST = "the lease expired"
REASONS = {
    "raises": "ValueError: on purpose",
    "exits": LOST,
    "kills itself": LOST,
    "hangs": "Timeout: it took longer than 0.5 s",
}


@every_kind
def test_culprits_fail_after_three_deliveries_and_1000_neighbours_are_done(make_yard):
    yard = make_yard(timeout_seconds=1, queue_prefetch=100)  # what is charged is performed again one by one
    yard.app(APP)
    neighbours, culprits = [], {}
    for kind in REASONS:
        neighbours += yard.q.enqueue_many(["neighbour"] * 125)
        culprits[kind] = yard.q.enqueue(kind, timeout=0.5 if kind == "hangs" else None)
        neighbours += yard.q.enqueue_many(["neighbour"] * 125)
    restarts = _supervise(yard, "--task", "perform", "--concurrency", "4", "--drain")

    delivered = Counter(line.partition(" ")[2] for line in yard.journal())
    for kind, reason in REASONS.items():
        job = yard.q.get_job(culprits[kind])
        assert (job.status, job.attempts) == ("failed", 3), kind
        # Who waits beside one that kills may be charged for it once, begun or not.
        charged = 0 if reason == LOST else sum(LOST in str(event.detail) for event in yard.q.events(job.id))
        assert charged <= 1
        assert 3 - charged <= delivered[kind] <= 3, kind
        assert job.error.startswith((reason, LOST) if charged else reason), kind
        assert yard.q.events(job.id)[-1].kind == "failed"
    jobs = {job.id: job for job in yard.jobs()}
    assert {jobs[n].status for n in neighbours} == {"done"}
    assert max(jobs[n].attempts for n in neighbours) <= 2, "a neighbour was charged more than once"
    assert restarts >= 6
    yard.assert_sound()


ODD = """
class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")

class Base(BaseException):
    pass

class Unkeepable(Exception):
    def __str__(self):
        return "lone \\ud800, NUL \\0, and " + "x" * 100_000

class NoRepr(Exception):
    def __repr__(self):
        raise RuntimeError("no repr")

@persistq.task
def perform(item):
    note(item)
    if item != "fine":
        raise {"Exit": SystemExit, "Interrupt": KeyboardInterrupt, "Stop": StopIteration}.get(item) or globals()[item]
"""


@pytest.mark.parametrize(
    "errors", [["Base", "Exit", "Interrupt", "Stop", "Unkeepable", "NoRepr"], ["Mute"]], ids=" ".join
)
def test_odd_errors_fail_their_job_and_never_the_consumer(make_yard, errors):
    yard = make_yard()
    yard.app(ODD)
    odd = yard.q.enqueue_many(errors)
    fine = yard.q.enqueue("fine")
    consumer = yard.consumer("--task", "perform", "--drain")
    assert consumer.wait() == 0, consumer.err[-500:]
    for job_id in odd:
        job = yard.q.get_job(job_id)
        assert (job.status, job.attempts) == ("failed", 3), job.item
        assert job.error, job.item
    assert yard.q.get_job(fine).status == "done"
    assert Counter(yard.journal()) == {**dict.fromkeys(errors, 3), "fine": 1}


def test_a_result_that_cannot_be_kept_does_not_undo_the_work(make_yard):
    yard = make_yard()
    yard.app("@persistq.task\ndef evaluate(item):\n    note(item)\n    return eval(item)\n")
    kept = ["'lone \\ud800'", "{1: 2}", "[1, None, 'ä']"]
    dropped = ["object()", "float('nan')", "10 ** 5000", "[[]] * 200_000", "{'a': {1}}"]
    yard.q.enqueue_many(kept + dropped)
    assert yard.consumer("--task", "evaluate", "--drain").wait() == 0
    assert yard.statuses() == {"done": 8}
    assert yard.journal() == kept + dropped
    assert [job.result for job in yard.jobs()] == ["lone \ud800", {"1": 2}, [1, None, "ä"]] + [None] * 5
    assert [[event.kind for event in yard.q.events(n)] for n in (3, 4)] == [[], ["result_dropped"]]


def test_a_consumer_full_of_hanging_handlers_leaves_for_a_restart(make_yard):
    yard = make_yard(max_attempts=2)
    yard.app("@persistq.task\ndef hang(item):\n    threading.Event().wait()\n")
    yard.q.enqueue_many(["item"] * 4, timeout=0.1)
    consumer = yard.consumer("--task", "hang")
    assert consumer.wait() == 75
    assert "hang past their timeout" in consumer.out
    _supervise(yard, "--task", "hang", "--drain")
    assert yard.statuses() == {"failed": 4}
    assert {job.attempts for job in yard.jobs()} == {2}


def _supervise(yard: Yard, *arguments: str) -> int:
    """Start consumers one after the other until one ends well; return how many did not."""
    restarts = 0
    while yard.consumer(*arguments).wait() != 0:
        restarts += 1
        assert restarts < 20, "the consumers die without end"
    return restarts
