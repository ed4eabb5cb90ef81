"""kill -9 of a consumer, at any moment."""

import random
import signal
import time

import pytest
from support.databases import every_kind

from persistq import jobfiles

from .yard import eventually

HANGS_ONCE = """
@persistq.task
def hangs_once(item):
    note(os.getpid(), me().attempts)
    if me().attempts == 1:
        wait_for("never")
"""


@every_kind
def test_a_killed_consumers_job_is_done_by_another(make_yard, long):
    lease, recovery = 1.0, 0.5
    yard = make_yard(timeout_seconds=lease, queue_recovery_seconds=recovery)
    yard.app(HANGS_ONCE)
    job_id = yard.q.enqueue("item")
    victim = yard.consumer("--task", "hangs_once", "--name", "victim")
    eventually(yard.journal, "the job is running")
    heir = yard.consumer("--task", "hangs_once", "--name", "heir")
    eventually(lambda: len(yard.q.consumers()) == 2, "the heir is there")

    victim.kill()
    killed = time.monotonic()
    eventually(lambda: yard.all_done(), "the job is done")
    took = time.monotonic() - killed

    job = yard.q.get_job(job_id)
    assert job.attempts == 2
    assert job.consumer_id.startswith("heir@")
    assert [line.split()[0] for line in yard.journal()] == [str(victim.pid), str(heir.pid)]
    assert [event.kind for event in yard.q.events(job_id)] == ["crashed"]
    print(f"delivered again after {took:.2f} s")
    assert not long or took / (lease + recovery) < 2


def test_redelivery_waits_for_nothing_else_to_wake_the_consumer(make_yard):
    """The promise is lease + recovery interval, whatever QUEUE_POLL_SECONDS is."""
    yard = make_yard(timeout_seconds=1, queue_recovery_seconds=0.5, queue_poll_seconds=3600)
    yard.app(HANGS_ONCE)
    yard.q.enqueue("item")
    victim = yard.consumer("--task", "hangs_once")
    eventually(yard.journal, "the job is running")
    yard.consumer("--task", "hangs_once")
    eventually(lambda: len(yard.q.consumers()) == 2, "the heir is there")

    victim.kill()
    eventually(lambda: yard.all_done(), "the job is done")


# A consumer takes most of a second to start, so a parent that has everything imported forks them.
KILLER = """
import random, sys
from persistq.consumer import consumer

persistq.connect().close()  # imports the driver, and opens nothing
chance, longest, left, idle = random.Random(2), 0.25, int(sys.argv[1]), 0
while left and idle < 10:
    before = os.stat("jobs").st_mtime_ns
    child = os.fork()
    if child == 0:
        os._exit(consumer.main(["--concurrency", "2"]))
    time.sleep(chance.uniform(0.01, longest))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    # On a busy machine they need longer to get as far as a stamp; a kill before that shows nothing.
    stamped = os.stat("jobs").st_mtime_ns != before
    longest = max(0.25, longest / 1.5) if stamped else min(2, longest * 1.5)
    left, idle = left - stamped, 0 if stamped else idle + 1
"""


@every_kind
def test_no_file_is_stamped_twice_however_often_consumers_are_killed(make_yard, long):
    yard = make_yard(timeout_seconds=0.2, queue_recovery_seconds=0.05, max_attempts=1000)
    folder = yard.folder / "jobs"
    count, strikes = 400, 20 if long else 8
    files = [jobfiles.create(folder, f"{n}\n") for n in range(count)]
    yard.q.enqueue_many([str(path) for path in files])
    assert yard.script(KILLER, str(strikes)).wait() == 0
    harm = sum(job.attempts > 1 or job.suspect for job in yard.jobs())
    assert harm, "no kill struck a running job, so this shows nothing"
    assert yard.consumer("--drain", "--concurrency", "4", timeout_seconds=60).wait() == 0

    assert yard.statuses() == {"done": count}
    for job, path in zip(yard.jobs(), files, strict=True):
        _text, stamp = path.read_text().splitlines()
        assert stamp.endswith(f"job={job.id}")
    yard.assert_sound()


@pytest.mark.needs("strace")
@pytest.mark.parametrize("call", ["renameat", "fsync"], ids=["before the rename", "after the rename"])
def test_a_kill_inside_the_stamp_leaves_one_stamp(make_yard, call):
    yard = make_yard(timeout_seconds=1)
    folder = yard.folder / "jobs"
    path = jobfiles.create(folder, "text\n")
    job_id = yard.q.enqueue(str(path))
    # -P: only calls on the job folder count. Its fsync is the one that follows the rename.
    strace = ("strace", "-f", "-o", "trace", "-P", str(folder), "-e", f"inject={call}:signal=KILL:when=1")
    assert yard.consumer("--drain", before=strace).wait() in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert yard.q.get_job(job_id).status == "processing"
    assert len(path.read_text().splitlines()) == (1 if call == "renameat" else 2)

    assert yard.consumer("--drain").wait() == 0
    job = yard.q.get_job(job_id)
    assert (job.status, job.attempts) == ("done", 2)
    assert len(path.read_text().splitlines()) == 2


@every_kind
def test_random_kills_of_real_consumers_lose_nothing(make_yard):
    yard = make_yard(timeout_seconds=0.5, queue_recovery_seconds=0.1, max_attempts=1000)
    yard.app("@persistq.task\ndef record(item):\n    note(me().id)\n    time.sleep(0.01)\n")
    ids = yard.q.enqueue_many([str(n) for n in range(200)])
    chance = random.Random(1)
    for _ in range(3):
        seen = len(yard.journal())
        victim = yard.consumer("--task", "record", "--concurrency", "3")
        eventually(lambda seen=seen: len(yard.journal()) > seen + chance.randint(1, 20), "it works")
        victim.kill()
    assert yard.consumer("--task", "record", "--drain", "--concurrency", "3", timeout_seconds=60).wait() == 0
    assert {int(line) for line in yard.journal()} == set(ids)
    assert yard.statuses() == {"done": 200}
    yard.assert_sound()
