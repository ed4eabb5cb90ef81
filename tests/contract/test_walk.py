"""Any walk through all operations keeps the promises that always hold."""

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from support.clock import FakeClock
from support.databases import Database
from support.jobs import STATUSES

import persistq
from persistq import Done, Failed, IllegalTransition, Job, JobFilter, JobNotFound, LeaseLost, Released

REFUSED = (IllegalTransition, JobNotFound, LeaseLost)
NAMES = st.sampled_from(["mail", "bulk"])
WORKERS = st.sampled_from(["one@h:1:a", "two@h:2:b"])


def attempt(act: Callable[[], Any]) -> Any:
    try:
        return act()
    except REFUSED:
        return None


class Walk(RuleBasedStateMachine):
    """A producer, two consumers, an administrator and the clock, in any order."""

    database: Database
    ids = Bundle("ids")
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.q = persistq.connect(self.database.fresh(), clock=self.clock, max_attempts=2, queue_durability="process")
        self.fences: dict[int, int] = {}

    def teardown(self) -> None:
        self.q.close()

    @initialize(target=ids)
    def begin(self) -> int:
        return self.q.enqueue("first", "mail")

    @rule(
        target=ids,
        name=NAMES,
        priority=st.integers(-1, 1),
        delay=st.sampled_from([None, 5]),
        key=st.sampled_from([None, "k"]),
    )
    def enqueue(self, name: str, priority: int, delay: float | None, key: str | None) -> int:
        return self.q.enqueue("x", name, priority=priority, delay=delay, unique_key=key)

    @rule(target=leases, who=WORKERS, limit=st.integers(1, 3), name=st.none() | NAMES)
    def dequeue(self, who: str, limit: int, name: str | None) -> Any:
        jobs = self.q.dequeue_many(who, name, limit=limit)
        assert all(job.status == "processing" and job.consumer_id == who for job in jobs)
        assert len(jobs) <= (1 if any(job.suspect for job in jobs) else limit)
        return multiple(*jobs)

    @rule(
        target=leases,
        who=WORKERS,
        settled=st.lists(consumes(leases), max_size=2),
        kept=leases,
        how=st.sampled_from([Done, Failed, Released]),
    )
    def exchange(self, who: str, settled: list[Job], kept: Job, how: Any) -> Any:
        settled = list({job.id: job for job in settled if job.id != kept.id}.values())
        got = self.q.exchange(who, settled=[how(job) for job in settled], renew=[kept], limit=1)
        assert {job.id for job in got.lost} <= {kept.id, *(job.id for job in settled)}
        return multiple(*got, *got.renewed)

    @rule(job=leases)
    def complete(self, job: Job) -> None:
        attempt(lambda: self.q.complete(job, 1))

    @rule(job=leases, permanent=st.booleans(), delay=st.sampled_from([None, 0]))
    def fail(self, job: Job, permanent: bool, delay: float | None) -> None:
        attempt(lambda: self.q.fail(job, "e", permanent, delay=delay))

    @rule(job=leases)
    def release(self, job: Job) -> None:
        attempt(lambda: self.q.release(job))

    @rule(target=leases, job=leases)
    def renew(self, job: Job) -> Any:
        renewed = attempt(lambda: self.q.renew(job))
        return multiple(renewed) if renewed else multiple()

    @rule(job_id=ids, act=st.sampled_from(["cancel", "mark_failed", "resubmit"]))
    def decide(self, job_id: int, act: str) -> None:
        attempt(lambda: getattr(self.q, act)(job_id))

    @rule(job_id=ids)
    def force(self, job_id: int) -> None:
        attempt(lambda: self.q.resubmit(job_id, force=True))

    @rule(job_id=ids, who=WORKERS)
    def assign(self, job_id: int, who: str) -> None:
        attempt(lambda: self.q.assign_job(job_id, who))

    @rule(job_id=ids, word=st.sampled_from([*STATUSES, "crashed"]))
    def update(self, job_id: int, word: str) -> None:
        attempt(lambda: self.q.update_status(job_id, word))

    @rule(name=NAMES, paused=st.booleans())
    def pause(self, name: str, paused: bool) -> None:
        (self.q.pause if paused else self.q.resume)(name)

    @rule(seconds=st.sampled_from([1, 30, 61]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([-600, 600]))
    def set_the_clock(self, seconds: float) -> None:
        self.clock.jump(seconds)

    @rule()
    def recover(self) -> None:
        self.q.recover()

    @rule(age=st.sampled_from([0, 60]), status=st.sampled_from(["done", "failed", "cancelled"]))
    def purge(self, age: float, status: str) -> None:
        self.q.purge(age, status)

    @rule(name=NAMES, force=st.booleans())
    def delete(self, name: str, force: bool) -> None:
        self.q.delete_jobs(JobFilter(queue=name), force=force)

    @invariant()
    def counts_are_the_rows(self) -> None:
        assert self.q.tally_drift() == {}
        jobs = self.q.list_jobs(limit=1000)
        for name in ("mail", "bulk", None):
            mine = [job.status for job in jobs if name in (None, job.queue)]
            assert self.q.counts(name) == {status: mine.count(status) for status in STATUSES}

    @invariant()
    def every_row_makes_sense(self) -> None:
        for job in self.q.list_jobs(limit=1000):
            assert job.attempts >= 0
            assert job.fence >= self.fences.get(job.id, 0), "a fence only grows"
            self.fences[job.id] = job.fence
            runs, over = job.status == "processing", job.status in ("done", "failed", "cancelled")
            assert (job.lease_until is not None) == runs
            assert (job.finished_at is not None) == over
            assert job.consumer_id is not None or not runs
            assert self.q.events(job.id) is not None


def test_no_walk_breaks_a_promise(database: Database, long: bool) -> None:
    walk = type("WalkHere", (Walk,), {"database": database})
    # What is the same on every database is walked on the cheapest; on a server a step takes ten times as long.
    examples, steps = (200, 50) if long else (25 if database.kind == "sqlite" else 8, 30)
    run_state_machine_as_test(
        walk,
        settings=settings(max_examples=examples, stateful_step_count=steps, suppress_health_check=list(HealthCheck)),
    )
