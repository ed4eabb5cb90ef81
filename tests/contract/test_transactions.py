"""connection=: a job stands or falls with the caller's own data."""

import threading
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from support.databases import Databases, each_server
from support.jobs import MakeQueue, Queue, claim, job_in
from support.transactions import TRANSACTIONS, Transaction

import persistq
from persistq import ConfigError, DatabaseUnavailable, DuplicateJob, JobNotFound, LeaseLost, NewJob, PayloadError


class OnPurpose(Exception):
    """What makes a caller's transaction fail."""


@pytest.fixture(params=TRANSACTIONS)
def transaction(request: pytest.FixtureRequest) -> Transaction:
    """A way to open the caller's transaction."""
    return TRANSACTIONS[request.param]


def test_a_job_is_there_when_the_caller_commits(queue: Queue, transaction: Transaction, make_queue: MakeQueue) -> None:
    queue.counts()
    with transaction(queue) as own:
        job_id = own.enqueue("x")
        assert own.jobs() == 1
        assert make_queue().counts()["pending"] == 0
    assert queue.get_job(job_id).item == "x"
    assert queue.tally_drift() == {}


def test_a_job_is_gone_when_the_caller_rolls_back(queue: Queue, transaction: Transaction) -> None:
    queue.counts()
    with pytest.raises(OnPurpose), transaction(queue) as own:
        own.enqueue("x")
        own.enqueue_many(["y", NewJob(item="z", unique_key="k")])
        assert own.jobs() == 3
        raise OnPurpose
    assert queue.list_jobs() == []
    assert queue.counts()["pending"] == 0
    assert queue.tally_drift() == {}
    assert queue.enqueue("again", unique_key="k") > 0


def test_a_caller_may_go_on_after_a_commit_or_a_rollback(queue: Queue, transaction: Transaction) -> None:
    queue.counts()
    with transaction(queue) as own:
        own.enqueue("first")
        own.commit()
        own.enqueue("second")
        own.rollback()
        own.enqueue("third")
    assert [job.item for job in queue.list_jobs()] == ["first", "third"]
    assert queue.tally_drift() == {}


def test_every_option_goes_along(queue: Queue, transaction: Transaction) -> None:
    queue.counts()
    options: dict[str, Any] = {
        "queue": "mail", "task": "send", "priority": -3, "delay": 60, "max_attempts": 7, "timeout": 1.5,
        "unique_key": "k",
    }  # fmt: skip
    with transaction(queue) as own:
        joined = own.enqueue("Grüße\t\\N\n%s :x", **options)
    alone = queue.enqueue("Grüße\t\\N\n%s :x", **{**options, "unique_key": "other"})
    assert replace(queue.get_job(joined), id=alone, unique_key="other") == queue.get_job(alone)


def test_any_number_of_jobs_joins_in_order(queue: Queue, transaction: Transaction) -> None:
    queue.counts()
    last = 0
    for number in (0, 1, 2, 19, 20, 1001):
        items = [f"item {n}\té" for n in range(number)]
        with transaction(queue) as own:
            ids = own.enqueue_many(list(items), priority=2)
        assert ids == sorted(ids)
        found = [(job.id, job.item, job.priority) for job in queue.list_jobs(limit=2000, after=last)]
        assert found == [(n, i, 2) for n, i in zip(ids, items, strict=True)]
        last = max(ids, default=last)
    assert queue.tally_drift() == {}


def test_the_very_first_call_may_join_a_transaction(queue: Queue, transaction: Transaction) -> None:
    with transaction(queue) as own:
        own.enqueue("x")
    assert queue.counts()["pending"] == 1


@pytest.mark.parametrize("keep", [True, False])
def test_completing_joins_as_well(queue: Queue, transaction: Transaction, keep: bool) -> None:
    queue.enqueue_many(["a", "b", "c"])
    jobs = queue.dequeue_many("c")
    try:
        with transaction(queue) as own:
            own.complete(jobs[0], {"ok": 1})
            own.complete_many(jobs[1:])
            if not keep:
                raise OnPurpose
    except OnPurpose:
        pass
    assert queue.counts()["done"] == (3 if keep else 0)
    assert queue.counts()["processing"] == (0 if keep else 3)
    assert queue.get_job(jobs[0].id).result == ({"ok": 1} if keep else None)
    assert queue.tally_drift() == {}
    queue.complete_many(jobs)


def test_the_next_step_is_enqueued_in_the_transaction_that_completes_the_last(
    queue: Queue, transaction: Transaction
) -> None:
    queue.enqueue("first step")
    for item in ("second step", "third step"):
        with transaction(queue) as own:
            own.complete(job := claim(queue))
            own.enqueue(item, unique_key=f"after {job.id}")
    assert [(job.item, job.status) for job in queue.list_jobs()] == [
        ("first step", "done"), ("second step", "done"), ("third step", "pending"),
    ]  # fmt: skip


def test_a_savepoint_takes_its_own_jobs_along(queue: Queue, transaction: Transaction) -> None:
    queue.counts()
    with transaction(queue) as own:
        own.enqueue("kept")
        with pytest.raises(OnPurpose), own.savepoint():
            own.enqueue("dropped")
            own.enqueue_many(["dropped", "with it"])
            raise OnPurpose
        with own.savepoint():
            own.enqueue("kept too")
    assert [job.item for job in queue.list_jobs()] == ["kept", "kept too"]
    assert queue.tally_drift() == {}


def test_a_savepoint_takes_its_own_completions_along(queue: Queue, transaction: Transaction) -> None:
    queue.enqueue_many(["a", "b", "c"])
    first, second, third = queue.dequeue_many("c")
    with transaction(queue) as own:
        with own.savepoint():
            own.complete(first)
        with pytest.raises(OnPurpose), own.savepoint():
            own.complete(second, "in vain")
            raise OnPurpose
        own.complete(third)
    assert [job.status for job in queue.list_jobs()] == ["done", "processing", "done"]
    assert queue.tally_drift() == {}
    queue.complete(second, "in the end")


def test_a_savepoint_within_a_savepoint(queue: Queue, transaction: Transaction) -> None:
    queue.counts()
    with transaction(queue) as own:
        with own.savepoint():
            own.enqueue("outer")
            with pytest.raises(OnPurpose), own.savepoint():
                own.enqueue("inner")
                raise OnPurpose
        with pytest.raises(OnPurpose), own.savepoint():
            with own.savepoint():
                own.enqueue("released, then dropped")
            raise OnPurpose
    assert [job.item for job in queue.list_jobs()] == ["outer"]
    assert queue.tally_drift() == {}


def test_a_savepoint_that_was_kept_goes_with_the_transaction(queue: Queue, transaction: Transaction) -> None:
    queue.enqueue("x")
    job = claim(queue)
    with pytest.raises(OnPurpose), transaction(queue) as own:
        with own.savepoint():
            own.enqueue("y")
            own.complete(job)
        raise OnPurpose
    assert [job.status for job in queue.list_jobs()] == ["processing"]
    assert queue.tally_drift() == {}


def test_a_refusal_leaves_the_caller_s_transaction_usable_and_the_queue_as_it_was(
    queue: Queue, transaction: Transaction
) -> None:
    queue.enqueue_many(["a", "b"])
    good, lost = queue.dequeue_many("c")
    queue.cancel(lost.id)
    with transaction(queue) as own:
        with pytest.raises(LeaseLost):
            own.complete_many([good, lost])
        with pytest.raises(PayloadError):
            own.complete(good, object())
        own.enqueue("c")
    assert queue.get_job(good.id).status == "processing"
    assert queue.counts()["pending"] == 1
    assert queue.tally_drift() == {}


def test_a_deleted_job_cannot_be_completed(queue: Queue, transaction: Transaction) -> None:
    job = job_in(queue, "processing")
    queue.delete_jobs(force=True)
    with transaction(queue) as own, pytest.raises(JobNotFound):
        own.complete(job)


def test_a_refused_key_adds_none_of_the_call_to_the_caller_s_transaction(
    queue: Queue, transaction: Transaction
) -> None:
    queue.enqueue("first", unique_key="k")
    with transaction(queue) as own, pytest.raises(DuplicateJob):
        own.enqueue_many([NewJob(item="a", unique_key="new"), NewJob(item="b", unique_key="k")], on_duplicate="raise")
    assert [job.item for job in queue.list_jobs()] == ["first"]


def test_a_key_counts_within_the_transaction(queue: Queue, transaction: Transaction) -> None:
    queue.counts()
    with transaction(queue) as own:
        first = own.enqueue("x", unique_key="k")
        assert own.enqueue("x", unique_key="k") == first
        with pytest.raises(DuplicateJob):
            own.enqueue("x", unique_key="k", on_duplicate="raise")
    assert queue.enqueue("x", unique_key="k") == first


def test_nobody_claims_a_job_before_it_is_committed(
    queue: Queue, transaction: Transaction, make_queue: MakeQueue
) -> None:
    queue.counts()
    with transaction(queue) as own:
        own.enqueue("x")
        assert make_queue().list_jobs() == []
        own.commit()
        assert claim(make_queue()).item == "x"


def test_a_scoped_session_is_a_session(queue: Queue) -> None:
    sessions = scoped_session(sessionmaker(queue.engine))
    queue.enqueue("dropped", connection=sessions)
    sessions.rollback()
    queue.enqueue("kept", connection=sessions)
    sessions.commit()
    sessions.remove()
    assert [job.item for job in queue.list_jobs()] == ["kept"]


@pytest.mark.parametrize("what", ["Engine", "sessionmaker", "str"])
def test_what_has_no_transaction_is_refused(queue: Queue, what: str) -> None:
    given: Any = {"Engine": queue.engine, "sessionmaker": sessionmaker(queue.engine), "str": "BEGIN"}[what]
    with pytest.raises(ConfigError, match=f"of type {what}; it takes a Session or Connection"):
        queue.enqueue("x", connection=given)


@pytest.mark.needs("postgresql")
def test_a_transaction_on_another_kind_of_database_is_refused(every_database: Databases) -> None:
    one, other = (persistq.connect(every_database[kind].fresh()) for kind in ("sqlite", "postgresql"))
    for q, elsewhere in ((one, other), (other, one)):
        with Session(elsewhere.engine) as own, pytest.raises(ConfigError, match="on the queue's own database"):
            q.enqueue("x", connection=own)
    one.close()
    other.close()


@each_server
def test_a_lost_connection_takes_the_transaction_along(
    kind: str, every_database: Databases, transaction: Transaction
) -> None:
    database = every_database[kind]
    q = persistq.connect(database.apart())
    with transaction(q) as own:
        own.enqueue("lost")
        database.server.end_connections(q.dbname)
        with pytest.raises(DatabaseUnavailable):
            own.enqueue("refused")
        own.rollback()
        own.enqueue("after")
    assert [job.item for job in q.list_jobs()] == ["after"]
    assert q.tally_drift() == {}
    q.close()


@each_server
def test_a_deadlock_undoes_one_transaction_and_lets_the_other_go_on(
    kind: str, every_database: Databases, transaction: Transaction
) -> None:
    q = persistq.connect(every_database[kind].fresh())
    q.enqueue_many(["a", "b"])
    a, b = q.dequeue_many("c")
    undone: list[str] = []

    def meanwhile() -> None:
        try:
            q.complete(a, connection=theirs)
            theirs.commit()
        except DatabaseUnavailable:
            undone.append("theirs")
            theirs.rollback()

    with transaction(q) as own, q.engine.connect() as theirs:
        q.complete(b, connection=theirs)
        own.complete(a)
        crossing = threading.Thread(target=meanwhile)
        crossing.start()
        try:
            own.complete(b)
        except DatabaseUnavailable:
            undone.append("ours")
            own.rollback()
        crossing.join()
    assert len(undone) == 1
    assert q.counts()["done"] == 2
    assert q.tally_drift() == {}
    q.close()
