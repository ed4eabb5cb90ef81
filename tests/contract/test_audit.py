"""The audit log: each decision leaves a line that nobody can change; hot paths leave none."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from support.clock import FakeClock
from support.databases import Database, upgrade
from support.jobs import WORKER, MakeQueue, Queue, claim, job_in

import persistq
from persistq import IllegalTransition, JobFilter, JobNotFound, ReadOnly, maintenance
from persistq.bulk import carry_out

DECISIONS: dict[str, tuple[str, Callable[[Queue, int], Any]]] = {
    "resubmit": ("failed", lambda q, n: q.resubmit(n, reason="why")),
    "cancel": ("pending", lambda q, n: q.cancel(n, "why")),
    "mark_failed": ("processing", lambda q, n: q.mark_failed(n, "why")),
    "assign": ("pending", lambda q, n: q.assign_job(n, "one", "why")),
    "release": ("processing", lambda q, n: q.release_job(n, "why")),
    "edit": ("pending", lambda q, n: q.edit_job(n, priority=2, reason="why")),
    "delete": ("done", lambda q, n: q.delete_job(n, reason="why")),
    "queue_pause": ("pending", lambda q, n: q.pause("mail", "why")),
    "queue_resume": ("pending", lambda q, n: q.resume("mail", "why")),
}


@pytest.mark.parametrize("action", DECISIONS)
def test_each_decision_leaves_a_line(make_queue: MakeQueue, clock: FakeClock, action: str) -> None:
    status, decide = DECISIONS[action]
    q = make_queue(actor="tui:alice@desk")
    job = job_in(q, status)
    decide(q, job.id)
    (entry,) = q.audit()
    assert (entry.action, entry.actor, entry.via, entry.reason) == (action, "alice@desk", "tui", "why")
    assert entry.at == entry.finished_at == clock.now()
    assert entry.host
    if action.startswith("queue"):
        assert entry.scope == {"queue": "mail"}
    else:
        assert entry.scope["ids"] == [job.id]
        assert entry.counts == {"matched": 1, "changed": 1}


def test_options_are_written_down(queue: Queue) -> None:
    job = job_in(queue, "done")
    queue.resubmit(job.id, force=True)
    queue.edit_job(job.id, priority=0)
    assert [entry.scope for entry in queue.audit()] == [
        {"priority": 0, "ids": [job.id]},
        {"force": True, "ids": [job.id]},
    ]


@pytest.mark.parametrize(
    ("actor", "who"),
    {
        "cli:a@b": ("cli", "a@b"),
        "dashboard:x": ("dashboard", "x"),
        "maintenance": ("maintenance", "maintenance"),
        "somebody@here": ("library", "somebody@here"),
        "wget:http://evil": ("library", "wget:http://evil"),
        "cli:\x1b[2J\0": ("cli", "\x1b[2J\\x00"),
    }.items(),
)
def test_the_line_says_who_and_by_which_window(make_queue: MakeQueue, actor: str, who: tuple[str, str]) -> None:
    q = make_queue(actor=actor)
    q.pause("mail")
    assert [(entry.via, entry.actor) for entry in q.audit()] == [who]


def test_what_is_refused_leaves_no_line(queue: Queue) -> None:
    job = job_in(queue, "done")
    for act in (queue.cancel, queue.mark_failed, queue.release_job, lambda n: queue.assign_job(n, "one")):
        with pytest.raises(IllegalTransition):
            act(job.id)
        with pytest.raises(JobNotFound):
            act(4711)
    assert queue.audit() == []


def test_the_work_of_producers_and_consumers_leaves_no_line(queue: Queue, clock: FakeClock) -> None:
    queue.enqueue_many(["a", "b", "c", "d"])
    queue.complete(claim(queue))
    queue.fail(claim(queue), "broken", delay=0)
    queue.release(claim(queue))
    claim(queue)
    clock.advance(queue.settings.timeout_seconds + 1)
    queue.recover()
    queue.update_status(claim(queue).id, "done")
    clock.advance(queue.settings.queue_retention_seconds + 1)
    assert maintenance.run_once(queue).purged == 2
    assert queue.audit() == []


def test_bulk_deletions_leave_one_entry_each(queue: Queue, clock: FakeClock) -> None:
    for _ in range(3):
        job_in(queue, "failed")
    job_in(queue, "done")
    clock.advance(10)
    assert queue.purge(5) == 1
    assert queue.delete_jobs(JobFilter.of("failed")) == 3
    deletion, purge = queue.audit()
    assert (deletion.action, deletion.reason, deletion.scope["filter"]) == ("delete", None, {"status": ["failed"]})
    assert deletion.counts == {"matched": 3, "changed": 3, "refused": 0}
    assert (purge.action, purge.reason, purge.scope["filter"]) == ("delete", "purge", {"status": ["done"]})
    assert purge.counts == {"matched": 1, "changed": 1, "refused": 0}
    assert deletion.finished_at and purge.finished_at


def test_a_bulk_action_is_one_entry_with_its_bounds_and_what_came_of_it(queue: Queue, clock: FakeClock) -> None:
    found = [job_in(queue, "failed") for _ in range(4)]
    what = queue.preview("resubmit", JobFilter.of("failed", queue="to-failed"), reason="why")
    clock.advance(1)
    queue.delete_job(found[1].id)
    began = clock.now()
    progress = queue.begin_bulk(what)
    progress = queue.advance_bulk(what, progress, size=3)
    (half, _) = queue.audit()
    assert (half.finished_at, half.counts) == (None, {"matched": 4, "changed": 2, "refused": 1})
    clock.advance(1)
    queue.advance_bulk(what, progress, size=3)
    (entry, _) = queue.audit()
    assert (entry.at, entry.finished_at) == (began, clock.now())
    assert entry.counts == {"matched": 4, "changed": 3, "refused": 1}
    assert entry.scope == {
        "filter": {"status": ["failed"], "queue": "to-failed"},
        "cutoff": 4,
        "at": what.at.isoformat(),
    }


def test_the_log_is_read_by_page_and_filter(make_queue: MakeQueue, clock: FakeClock) -> None:
    alice, bob = make_queue(actor="cli:alice@x"), make_queue(actor="cli:bob@x")
    for q in (alice, bob, alice):
        q.pause("mail")
        clock.advance(10)
    alice.resume("mail")
    numbers = [entry.id for entry in alice.audit()]
    assert numbers == sorted(numbers, reverse=True)
    assert [entry.id for entry in alice.audit(limit=2)] == numbers[:2]
    assert [entry.id for entry in alice.audit(before=numbers[1])] == numbers[2:]
    assert {entry.actor for entry in bob.audit(actor="ALICE")} == {"alice@x"}
    assert len(bob.audit(actor="%")) == 0
    assert [entry.action for entry in bob.audit(action="queue_resume")] == ["queue_resume"]
    assert len(bob.audit(since=clock.now())) == 1


def test_a_whole_filter_survives_the_log(queue: Queue, clock: FakeClock) -> None:
    which = JobFilter.of(
        ["failed", "cancelled"], queue="q", task="t", consumer="c", item="é\U0001f600'\"", error="%_",
        since=clock.now(), until=clock.now(),
    )  # fmt: skip
    assert JobFilter.from_dict(which.to_dict()) == which


@pytest.fixture
def owned(database: Database) -> str:
    """A database with triggers and all, as its owner reaches it."""
    if database.kind == "sqlite":
        return database.apart()
    server, name = database.server, "queue_audited"  # type: ignore[attr-defined]
    if not getattr(server, "_audited", False):
        server.create(name)
        upgrade(server, name)
        server._audited = True
    return str(server.url(name))


@pytest.mark.parametrize(
    "statement",
    ["UPDATE audit SET actor = 'nobody'", "DELETE FROM audit", "UPDATE audit SET counts = '{}' WHERE id = 1",
     "REPLACE INTO audit SELECT id, operation, at, step, via, 'no', host, action, reason, scope, counts FROM audit"],
)  # fmt: skip
def test_no_statement_changes_a_line(owned: str, statement: str) -> None:
    q = persistq.connect(owned, actor="cli:alice@x")
    q.pause("mail")
    before = q.audit()
    if statement.startswith("REPLACE") and q.dbtype == "postgresql":
        pytest.skip("PostgreSQL has no REPLACE")
    with pytest.raises(DBAPIError, match="append-only"), q.engine.begin() as connection:
        connection.execute(text(statement))
    assert q.audit() == before
    q.close()


def test_one_who_may_only_look_is_refused_by_the_service_itself(make_queue: MakeQueue, target: str) -> None:
    q = make_queue()
    job = job_in(q, "pending")
    looking = persistq.connect(target, read_only=True, clock=q.clock)
    for name, (_, decide) in DECISIONS.items():
        with pytest.raises(ReadOnly):
            decide(looking, job.id)
        assert name
    for write in (
        lambda: looking.enqueue("x"),
        lambda: looking.dequeue(WORKER),
        lambda: looking.purge(0),
        lambda: looking.delete_jobs(),
        lambda: list(carry_out(looking, looking.preview("cancel"))),
        looking.recover,
    ):
        with pytest.raises(ReadOnly):
            write()
    assert looking.get_job(job.id) == job
    assert looking.counts()["pending"] == 1
    looking.close()
    assert q.audit() == []
