"""Several of everything at once, forks among them."""

import signal
from collections import Counter

from support.databases import every_kind

from .yard import eventually

SAME_KEY = """
import sys
q = persistq.connect()
wait_for("gate")
print(*{q.enqueue(f"item of {os.getpid()}", unique_key="the key") for _ in range(200)}, flush=True)
"""


def test_the_same_key_from_eight_processes_is_one_job(make_yard):
    yard = make_yard(queue_busy_seconds=60)
    callers = [yard.script(SAME_KEY) for _ in range(8)]
    yard.open("gate")
    assert [caller.wait() for caller in callers] == [0] * 8
    answers = {int(word) for caller in callers for word in caller.out.split()}
    assert answers == {job.id for job in yard.jobs()}
    assert yard.statuses() == {"pending": 1}
    yard.assert_sound()


FORK = """
q = persistq.connect()
q.enqueue("parent, before")
child = os.fork()
if child == 0:
    for n in range(50):
        q.enqueue("child")
    os._exit(0)
for n in range(50):
    q.enqueue("parent")
assert os.waitpid(child, 0)[1] == 0
assert q.counts()["pending"] == 101
q.enqueue("parent, after")
"""


@every_kind
def test_a_forked_child_may_go_on_with_its_parents_queue(make_yard):
    yard = make_yard(queue_busy_seconds=60)
    parent = yard.script(FORK)
    assert parent.wait() == 0, parent.err
    counted = Counter(job.item for job in yard.jobs())
    assert counted == {"parent, before": 1, "child": 50, "parent": 50, "parent, after": 1}
    yard.assert_sound()


# Forked from a parent that has everything imported: two dozen lives in the time of two cold starts.
STORM = """
import random

chance = random.Random(3)
children = []

def journal_size():
    return os.path.getsize("journal") if os.path.exists("journal") else 0

for _ in range(6):
    for _ in range(4):
        child = os.fork()
        if child == 0:
            q = persistq.connect()
            while True:
                ids = q.enqueue_many([str(os.getpid())] * chance.choice([1, 1, 10]))
                note(*ids)  # acknowledged
        children.append(child)
    enough = journal_size() + chance.randint(1, 2000)
    while journal_size() < enough:
        time.sleep(0.001)
    while children:
        child = children.pop()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
"""


@every_kind
def test_killed_producers_lose_nothing_that_was_acknowledged(make_yard):
    yard = make_yard(queue_busy_seconds=60)
    assert yard.q.counts()["pending"] == 0  # the schema is there before the storm
    storm = yard.script(STORM)
    assert storm.wait() == 0, storm.err
    acknowledged = [int(word) for line in yard.journal() for word in line.split()]
    assert len(acknowledged) > 100
    assert len(acknowledged) == len(set(acknowledged))
    assert set(acknowledged) <= {job.id for job in yard.jobs()}
    yard.assert_sound()


def test_eight_processes_may_make_the_database_at_once(make_yard):
    yard = make_yard(queue_busy_seconds=60)
    makers = [yard.script("wait_for('gate')\npersistq.connect().enqueue('item')") for _ in range(8)]
    yard.open("gate")
    assert [maker.wait() for maker in makers] == [0] * 8, makers[0].err
    assert yard.statuses() == {"pending": 8}
    yard.assert_sound()


@every_kind
def test_two_maintenance_processes_take_each_lease_back_once(make_yard):
    yard = make_yard(timeout_seconds=0.05, queue_recovery_seconds=0.05, queue_retention_seconds=0.1)
    ids = yard.q.enqueue_many(["item"] * 700)
    done = yard.q.dequeue_many("long-lived", limit=100)
    yard.q.complete_many(done)
    assert len(yard.q.dequeue_many("dead", limit=1000)) == 600
    two = [yard.maintenance(), yard.maintenance()]
    eventually(lambda: yard.q.counts() == yard.q.counts() | {"pending": 600, "done": 0}, "recovered and purged")

    jobs = yard.jobs()
    assert [job.id for job in jobs] == ids[100:]
    assert {(job.attempts, job.suspect) for job in jobs} == {(1, True)}
    assert {tuple(event.kind for event in yard.q.events(job.id)) for job in jobs[::50]} == {("crashed",)}
    for one in two:
        eventually(one.listens, "it is there")
        one.send(signal.SIGTERM)
    assert [one.wait() for one in two] == [0, 0]
    yard.assert_sound()


def test_maintenance_waits_out_a_lock_whenever_it_comes(make_yard):
    yard = make_yard(queue_busy_seconds=0.05, queue_recovery_seconds=0.05)
    yard.q.enqueue("item")
    maintenance = yard.maintenance()
    for times in (1, 2, 3):
        holder = yard.lock()
        eventually(lambda n=times: len(maintenance.lines("trying again")) >= n or maintenance.ended(), "it notices")
        holder.hang_up()
        holder.wait()
        assert not maintenance.ended(), maintenance.err[-500:]
    with _pinning_reader(yard):
        for _ in range(20):
            yard.q.enqueue("item")
        seen = maintenance.cpu_seconds()
        eventually(lambda: maintenance.ended() or maintenance.cpu_seconds() > seen + 0.1, "some passes")
    assert not maintenance.ended(), maintenance.err[-500:]


def _pinning_reader(yard):
    """Return a connection that pins the WAL, as a slow report would."""
    connection = yard.q.engine.connect().execution_options(persistq_reading=True)
    connection.exec_driver_sql("SELECT count(*) FROM jobs")
    return connection
