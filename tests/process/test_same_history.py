"""One script, every database: what is asked in the same order at the same times is answered alike."""

import random
from collections.abc import Callable
from typing import Any

from support.clock import FakeClock
from support.databases import Databases, each_server

import persistq
from persistq import Done, Failed, Job, JobFilter, JobStatus, PersistQError, Released

QUEUES = ("mail", "bulk")
WORKERS = ("one@h:1:a", "two@h:2:b", "three@h:3:c")
STEPS = 60

Line = tuple[Any, ...]


class Script:
    """What one seed asks of a queue, and the history that comes of it; ids are told by the order of their creation."""

    def __init__(self, target: str, seed: int) -> None:
        self.clock = FakeClock()
        self.q = persistq.connect(
            target, clock=self.clock, max_attempts=2, queue_durability="process", queue_max_pending=12, actor="x@y"
        )
        self.chance = random.Random(seed)
        random.seed(seed)  # the back-off's jitter
        self.places: dict[int, int] = {}
        self.held: list[Job] = []
        self.history: list[Line] = []

    def run(self) -> list[Line]:
        acts = [getattr(self, name) for name in dir(self) if name.startswith("do_")]
        for _ in range(STEPS):
            act: Callable[[], Any] = self.chance.choice(acts)
            try:
                told = act()
            except PersistQError as error:
                told = type(error).__name__
            self.history.append((act.__name__, told, *self._rows()))
        for job in self.q.list_jobs(limit=1000):
            self.history.append(("events", self._place(job.id), *(event.kind for event in self.q.events(job.id))))
        self.q.close()
        return self.history

    def _rows(self) -> list[Line]:
        return [
            (
                self._place(job.id), job.queue, job.item, str(job.status), job.priority, job.attempts, job.fence,
                job.consumer_id, job.assigned_to, job.suspect, job.run_at, job.lease_until, job.finished_at,
                job.result, job.error, job.unique_key,
            )
            for job in self.q.list_jobs(limit=1000)
        ]  # fmt: skip

    def _place(self, job_id: int) -> int:
        return self.places.setdefault(job_id, len(self.places))

    def _some(self) -> int:
        """Return the id of a job that there was, or of none."""
        return self.chance.choice([*self.places, 10**9])

    def _take(self, jobs: Any) -> list[int]:
        self.held = [*self.held, *jobs][-6:]
        return [self._place(job.id) for job in jobs]

    def _lease(self) -> Job:
        if not self.held:
            raise persistq.JobNotFound("nothing was claimed")
        return self.chance.choice(self.held)

    def do_enqueue(self) -> int:
        choice = self.chance.choice
        key, delay = choice([None, None, "k", "l"]), choice([None, None, 5])
        options = {"priority": choice([0, 0, 1]), "delay": delay, "unique_key": key}
        return self._place(self.q.enqueue(f"item {len(self.places)}", choice(QUEUES), **options))

    def do_enqueue_many(self) -> list[int]:
        items = [f"many {n}" for n in range(self.chance.randint(1, 4))]
        return [self._place(job_id) for job_id in self.q.enqueue_many(items, self.chance.choice(QUEUES))]

    def do_claim(self) -> list[int]:
        who, which = self.chance.choice(WORKERS), self.chance.choice([None, *QUEUES])
        return self._take(self.q.dequeue_many(who, which, limit=self.chance.randint(1, 3)))

    def do_exchange(self) -> Line:
        lease, kept = self._lease(), self._lease()
        kinds: list[Any] = [Done(lease, 1), Failed(lease, "e", delay=3), Failed(lease, "e", permanent=True)]
        outcome = self.chance.choice([*kinds, Released(lease)])
        renew = [kept] if kept.id != lease.id else []
        got = self.q.exchange(self.chance.choice(WORKERS), settled=[outcome], renew=renew, limit=1)
        return self._take(got), [self._place(job.id) for job in got.lost], [self._place(job.id) for job in got.renewed]

    def do_settle(self) -> None:
        lease = self._lease()
        acts = (self.q.complete, self.q.release, lambda job: self.q.fail(job, "e", delay=0), self.q.renew)
        self.chance.choice(acts)(lease)

    def do_decide(self) -> None:
        verb, job = self.chance.choice(["cancel", "mark_failed", "resubmit", "release_job"]), self._some()
        getattr(self.q, verb)(job)

    def do_assign(self) -> None:
        self.q.assign_job(self._some(), self.chance.choice(["one", "two"]))

    def do_pause(self) -> None:
        self.chance.choice([self.q.pause, self.q.resume, self.q.resume])(self.chance.choice(QUEUES))

    def do_wait(self) -> None:
        self.clock.advance(self.chance.choice([1, 6, 61]))

    do_wait_again = do_wait

    def do_recover(self) -> int:
        return self.q.recover()

    def do_purge(self) -> int:
        return self.q.purge(self.chance.choice([0, 60]), self.chance.choice(["done", "failed"]))

    def do_delete(self) -> Any:
        return self.q.delete_jobs(JobFilter(queue=self.chance.choice(QUEUES), status=(JobStatus.CANCELLED,)))

    def do_count(self) -> Line:
        return self.q.counts(self.chance.choice([None, *QUEUES])), self.q.tally_drift()


@each_server
def test_a_server_tells_the_history_that_sqlite_tells(kind: str, every_database: Databases, long: bool):
    seen: set[str] = set()
    for seed in range(500 if long else 5):
        expected = Script(every_database["sqlite"].fresh(), seed).run()
        found = Script(every_database[kind].fresh(), seed).run()
        for step, (theirs, ours) in enumerate(zip(found, expected, strict=True)):
            assert theirs == ours, f"seed {seed}, step {step}"
        seen |= {line[1] for line in expected if isinstance(line[1], str)}
    assert seen >= {"IllegalTransition", "LeaseLost", "JobNotFound"}, "it would prove little if nothing was refused"
