"""Counts: right whatever happens at once, and folded without anybody noticing."""

import os
import random
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session
from support.clock import FakeClock
from support.jobs import WORKER, MakeQueue, Queue, claim

from persistq import Done, Failed, IllegalTransition, JobNotFound, LeaseLost, Released
from persistq.storage import schema, tallies

NAMES = ("mail", "bulk", "slow")
REFUSED = (IllegalTransition, JobNotFound, LeaseLost)


def slots(q: Queue) -> list[tuple[str, int]]:
    """Return the queue and slot of every row of counts."""
    with q.engine.connect() as connection:
        found = connection.execute(select(schema.tallies.c.queue, schema.tallies.c.slot)).all()
    return sorted((name, slot) for name, slot in found)


def step(q: Queue, choose: random.Random, me: str) -> None:
    """Do something, whatever it is."""
    name, job_id = choose.choice(NAMES), choose.randint(1, 120)
    how = choose.choice(
        [
            lambda job: Done(job, choose.choice([None, 1])),
            lambda job: Failed(job, "broken", permanent=choose.random() < 0.5, delay=0),
            lambda job: Released(job, choose.choice([None, 5])),
        ]
    )

    def work() -> None:
        jobs = q.dequeue_many(me, choose.choice([None, name]), limit=choose.randint(1, 4))
        q.exchange(me, settled=[how(job) for job in jobs[1:]], renew=jobs[:1], limit=choose.randint(0, 1))

    def join() -> None:
        with Session(q.engine) as session:
            q.enqueue("joined", name, connection=session)
            if choose.random() < 0.5:
                session.commit()
            else:
                session.rollback()

    acts: list[Callable[[], Any]] = [
        work,
        work,
        work,
        join,
        lambda: q.enqueue("x", name, unique_key=choose.choice([None, "k"])),
        lambda: q.enqueue_many(["x"] * choose.randint(1, 30), name, delay=choose.choice([None, 60])),
        lambda: q.cancel(job_id),
        lambda: q.mark_failed(job_id),
        lambda: q.resubmit(job_id, force=choose.random() < 0.5),
        lambda: q.assign_job(job_id, me),
        lambda: q.update_status(job_id, choose.choice(["done", "crashed", "pending"])),
        lambda: q.purge(0, choose.choice(["done", "failed", "cancelled"])),
        q.recover,
        q.database.tidy,
    ]
    try:
        choose.choice(acts)()
    except REFUSED:
        return


def test_counts_stay_right_whatever_threads_do_at_once(make_queue: MakeQueue) -> None:
    queues = [make_queue(max_attempts=2, queue_backoff_seconds=0), make_queue(max_attempts=2, queue_backoff_seconds=0)]
    for name in NAMES:
        queues[0].enqueue_many(["first"] * 10, name)
    begin = threading.Barrier(4)

    def walk(number: int) -> None:
        choose = random.Random(number)
        begin.wait()
        for _ in range(40):
            step(queues[number % 2], choose, f"worker{number}@h:1:a")

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(walk, number) for number in range(4)]:
            done.result()
    q = queues[0]
    assert q.tally_drift() == {}
    before = {info.name: info.counts for info in q.queues()}
    q.database.tidy()
    assert slots(q) == [(name, tallies.FOLDED) for name in sorted(before)]
    assert {info.name: info.counts for info in queues[1].queues()} == before
    jobs = q.list_jobs(limit=10_000)
    for name in NAMES:
        mine = [job.status for job in jobs if job.queue == name]
        assert q.counts(name) == {status: mine.count(status) for status in before[name]}
    assert q.tally_drift() == {}


def test_folding_leaves_one_row_a_queue_and_the_counts_as_they_were(queue: Queue) -> None:
    for name in NAMES * 5:
        queue.enqueue_many(["a", "b"], name)
    queue.complete(claim(queue))
    queue.cancel(2)
    before = {name: queue.counts(name) for name in (*NAMES, None)}
    queue.database.tidy()
    assert slots(queue) == [(name, tallies.FOLDED) for name in sorted(NAMES)]
    assert {name: queue.counts(name) for name in (*NAMES, None)} == before
    assert queue.tally_drift() == {}
    queue.database.tidy()
    assert {name: queue.counts(name) for name in (*NAMES, None)} == before


def test_more_rows_than_one_transaction_takes_are_folded(queue: Queue) -> None:
    queue.enqueue("x")
    with queue.engine.begin() as connection:
        row = dict.fromkeys(("pending", "processing", "done", "failed", "cancelled"), 0)
        changes = [
            {**row, "queue": "default", "slot": slot, "pending": (-1) ** slot}
            for slot in range(1, 2 * tallies.PAGE + 3)
        ]
        connection.execute(insert(schema.tallies), changes)
    assert queue.counts()["pending"] == 1
    if queue.dbtype == "sqlite":
        pytest.skip("SQLite adds to the sum at once, so there is nothing to fold")
    queue.database.tidy()
    assert slots(queue) == [("default", tallies.FOLDED)]
    assert queue.counts()["pending"] == 1


def test_folding_while_others_add_loses_nothing(make_queue: MakeQueue) -> None:
    queues = [make_queue() for _ in range(3)]
    queues[0].prepare()
    over = threading.Event()
    folded = threading.Event()

    def fold(q: Queue) -> None:
        while not over.is_set():
            q.database.tidy()
            folded.set()

    def add(q: Queue) -> None:
        folded.wait()
        for number in range(100):
            q.enqueue("x", NAMES[number % 3])

    with ThreadPoolExecutor(4) as pool:
        folders = [pool.submit(fold, q) for q in queues[:2]]
        adders = [pool.submit(add, q) for q in (queues[2], queues[0])]
        try:
            for one in adders:
                one.result()
        finally:
            over.set()
        for one in folders:
            one.result()
    assert queues[0].counts()["pending"] == 200
    queues[0].database.tidy()
    assert queues[0].tally_drift() == {}
    assert slots(queues[0]) == [(name, tallies.FOLDED) for name in sorted(NAMES)]


def test_folding_waits_for_no_transaction_that_is_open(make_queue: MakeQueue) -> None:
    q, other = make_queue(), make_queue(queue_busy_seconds=0.5)
    if q.dbtype == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    for _ in range(10):
        q.enqueue("before")
    with Session(q.engine) as session, session.begin():
        q.enqueue("open", connection=session)
        q.enqueue("open", "mail", connection=session)
        other.database.tidy()
        assert slots(other) == [("default", tallies.FOLDED)]
        assert other.counts()["pending"] == 10
    assert other.counts()["pending"] == 12
    other.database.tidy()
    assert other.tally_drift() == {}


def test_drift_is_found_and_mended(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue_many(["a", "b", "c"], "mail")
    queue.enqueue("d")
    queue.complete(claim(queue, WORKER, queue="mail"))
    with queue.engine.begin() as connection:
        connection.execute(delete(schema.tallies).where(schema.tallies.c.queue == "mail"))
    assert queue.tally_drift() == {("mail", "pending"): 2, ("mail", "done"): 1}
    queue.mend_tallies()
    assert queue.tally_drift() == {}
    assert queue.counts("mail") == {"pending": 2, "processing": 0, "done": 1, "failed": 0, "cancelled": 0}


def test_a_forked_child_counts_over_connections_of_its_own(queue: Queue) -> None:
    queue.enqueue("before")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other tests may have left a thread
        child = os.fork()
    number = 30 if child else 20
    code = 1
    try:
        for _ in range(number):
            queue.enqueue("after", "parent" if child else "child")
        code = 0
    finally:
        if not child:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert [queue.counts(name)["pending"] for name in ("default", "parent", "child")] == [1, 30, 20]
    assert queue.tally_drift() == {}
