"""A day: one script in which everything happens once that an invariant is about, on a real queue, without chance.

Time is a test's clock. Whoever dies in it is a forked process that is killed in the middle of what it
does. Bugs are looked for in it, so nothing here relies on being told the truth: what the queue refuses
is passed over, and a job that does not come is not missed. The verifier has the word.
"""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from support.clock import FakeClock

from persistq import Job
from persistq.errors import PersistQError
from persistq.settings import Settings

from .actors import Recorded, consume, dump
from .history import META, History

LEASE = 60.0
SETTINGS: dict[str, Any] = {"timeout_seconds": LEASE, "queue_durability": "process", "queue_backoff_seconds": 1}


class Gap:
    """A moment amid somebody's call in which others act, if a bug leaves one; else they act after the call."""

    def __init__(self) -> None:
        self._meanwhile: Callable[[], Any] | None = None

    @contextmanager
    def filled(self, meanwhile: Callable[[], Any]) -> Iterator[None]:
        self._meanwhile = meanwhile
        yield
        self.open()

    def open(self) -> None:
        """Let the others act now, if they have not."""
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile:
            meanwhile()


def refusals() -> Any:
    """Pass over what the queue refuses."""
    return suppress(PersistQError)


class Day:
    """The actors of one day, and its clock."""

    def __init__(self, folder: Path, target: str, gap: Gap) -> None:
        self.folder, self.target, self.gap = folder, target, gap
        self.clock = FakeClock()
        self._ticks = count()
        self._nemesis = History(folder, "nemesis", self._now)
        self.producer, self.a, self.b, self.maintenance, self.operator = map(
            self.actor, ("producer", "a", "b", "maintenance", "operator")
        )
        self._write_meta()

    def actor(self, name: str, clock: FakeClock | None = None, **settings: Any) -> Recorded:
        history = History(self.folder, name, self._now)
        return Recorded(self.target, history, Settings.load(None, **SETTINGS, **settings), clock=clock or self.clock)

    def _now(self) -> int:
        return round(self.clock.monotonic() * 1e9) + 1000 * next(self._ticks)

    def dies(self, name: str, act: Callable[[Recorded], Any]) -> None:
        """Have a process act, and be killed before it can do anything more."""
        child = os.fork()
        if not child:
            with refusals():
                act(self.actor(name))
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        self._ticks = count(next(self._ticks) + 1000)
        self._nemesis.note("kill", actor=name)

    def take(self, q: Recorded, queue: str) -> Job | None:
        """Claim a job and begin it."""
        job = None
        with refusals():
            job = next(iter(q.exchange(q.history.actor, limit=1, queue=queue)), None)
        if job:
            q.perform(job)
        return job

    def try_to(self, act: Callable[..., Any], job: Job | None, *arguments: Any, **options: Any) -> None:
        with refusals():
            if job:
                act(job, *arguments, **options)

    def work(self, q: Recorded, queue: str) -> None:
        """Do all there is."""
        for _ in range(50):
            job = self.take(q, queue)
            if not job:
                return
            self.try_to(q.complete, job)

    def later(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def recover(self) -> None:
        with refusals():
            self.maintenance.recover()
            self.operator.look()

    def end(self) -> None:
        """Finish what is left, and write the table down."""
        queues = {job.queue for job in self.operator.list_jobs(limit=1000)}
        for _ in range(4):
            self.later(LEASE + 1)
            self.recover()
            for queue in sorted(queues):
                self.work(self.b, queue)
        dump(self.operator, self.folder)
        self._write_meta(quiet=True)

    def _write_meta(self, **more: Any) -> None:
        meta = {"lease": LEASE, "patience": 5.0, **more}
        (self.folder / META).write_text(json.dumps(meta))


def live(folder: Path, target: str, gap: Gap) -> int:
    """Live through a whole day, and return how many parts of it were cut short, as only a bug can do."""
    day = Day(folder, target, gap)
    short = 0
    for part in PARTS:
        try:
            part(day)
        except PersistQError:
            short += 1
        day.operator.look()
    day.end()
    return short


def an_ordinary_job(day: Day) -> None:
    for item in ("one", " two\n", "drei €"):
        day.producer.enqueue(item, "plain")
    day.work(day.a, "plain")


def a_holder_comes_too_late(day: Day) -> None:
    day.producer.enqueue("late", "late")
    old = day.take(day.a, "late")
    day.later(LEASE + 1)
    day.recover()
    new = day.take(day.b, "late")
    day.try_to(day.a.renew, old)
    day.try_to(day.a.complete, old)
    day.try_to(day.b.complete, new)


def one_lease_is_settled_in_two_ways(day: Day) -> None:
    day.producer.enqueue("twice", "twice")
    job = day.take(day.a, "twice")
    day.try_to(day.a.release, job)
    day.try_to(day.a.complete, job)
    day.work(day.b, "twice")


def consumers_die(day: Day) -> None:
    for item in ("poison", "survivor"):
        day.producer.enqueue(item, "death", max_attempts=2)
    for name in ("first", "second"):
        day.dies(name, lambda q: day.take(q, "death"))
        day.recover()
        day.later(LEASE + 1)
        day.recover()
    day.work(day.b, "death")


def a_consumer_dies_while_another_settles(day: Day) -> None:
    day.producer.enqueue_many(["of the dead", "of the living"], "beside")
    day.dies("third", lambda q: day.take(q, "beside"))
    day.try_to(day.a.complete, day.take(day.a, "beside"))
    day.later(LEASE + 1)
    day.recover()
    day.work(day.b, "beside")


def a_lease_is_renewed(day: Day) -> None:
    day.producer.enqueue("long", "long")
    job = day.take(day.a, "long")
    for _ in range(4):
        day.later(LEASE / 2)
        day.try_to(day.a.renew, job)
        day.recover()
        day.take(day.b, "long")
    day.try_to(day.a.complete, job)


def handlers_fail(day: Day) -> None:
    for item in ("flaky", "hopeless"):
        day.producer.enqueue(item, "errors")
    day.try_to(day.a.fail, day.take(day.a, "errors"), "not yet", delay=100)
    day.try_to(day.a.fail, day.take(day.a, "errors"), "never", permanent=True)
    day.take(day.b, "errors")
    day.later(101)
    day.work(day.b, "errors")


def a_job_has_to_wait(day: Day) -> None:
    day.producer.enqueue("not now", "delayed", delay=100)
    day.try_to(day.a.complete, day.take(day.a, "delayed"))
    day.later(101)
    day.work(day.a, "delayed")


def producers_die(day: Day) -> None:
    def unheard(q: Recorded) -> None:
        q.history.invoke("enqueue", jobs=[{"item": "mine", "queue": "keys", "key": "mine"}])
        super(Recorded, q).enqueue("mine", "keys", unique_key="mine")

    day.dies("unheard", unheard)
    day.dies("heard", lambda q: q.enqueue("acknowledged", "keys"))
    for _ in range(2):
        day.producer.enqueue("mine", "keys", unique_key="mine")
    day.work(day.b, "keys")


def the_queue_is_full(day: Day) -> None:
    waiting = day.operator.counts()["pending"]
    day.producer.enqueue_many([f"filler {n}" for n in range(3)], "full")
    bounded = day.actor("bounded", queue_max_pending=waiting + 4)
    for n in range(3):
        with refusals():
            bounded.enqueue(f"drop {n}", "full")
    day.work(day.b, "full")


def a_clock_is_behind(day: Day) -> None:
    behind = FakeClock()
    behind.jump(-3600)
    day.producer.enqueue("on time", "order")
    day.producer.enqueue("urgent", "order", priority=3)
    day.actor("behind", clock=behind).enqueue("seems older", "order")
    day.work(day.b, "order")


def two_claim_at_once(day: Day) -> None:
    day.producer.enqueue_many(["left", "right"], "race")
    taken: list[Job | None] = []
    with day.gap.filled(lambda: taken.append(day.take(day.b, "race"))):
        taken.append(day.take(day.a, "race"))
    for q, job in zip((day.b, day.a), taken, strict=False):
        day.try_to(q.complete, job)


def a_recovery_is_overtaken(day: Day) -> None:
    day.producer.enqueue("just in time", "photo-finish")
    job = day.take(day.a, "photo-finish")
    day.later(LEASE + 1)
    with day.gap.filled(lambda: day.try_to(day.a.complete, job)):
        day.recover()
    day.work(day.b, "photo-finish")


def another_writes_amid_a_claim(day: Day) -> None:
    day.producer.enqueue("first", "busy")
    with day.gap.filled(lambda: day.producer.enqueue("second", "busy")):
        day.try_to(day.a.complete, day.take(day.a, "busy"))
    day.work(day.b, "busy")


def a_person_decides(day: Day) -> None:
    ids = day.producer.enqueue_many(["called off", "given away"], "decided")
    held = [day.take(day.a, "decided") for _ in ids]
    day.operator.look()
    day.operator.cancel(ids[0])
    day.operator.assign_job(ids[1], "b")
    day.operator.look()
    for job in held:
        day.try_to(day.a.complete, job)
    day.operator.resubmit(ids[0])
    day.work(day.b, "decided")


def the_worker_works(day: Day) -> None:
    day.producer.enqueue_many([f"{n} quick" for n in range(3)], "worker")
    consume(day.actor("worker"), "worker", drain=True, concurrency=1, patience=3)


def the_clock_is_set(day: Day) -> None:
    day.producer.enqueue("held", "clock")
    job = day.take(day.a, "clock")
    day.clock.jump(3600)
    day.recover()
    day.take(day.b, "clock")
    day.try_to(day.a.renew, job)
    day.later(LEASE / 2)
    day.try_to(day.a.complete, job)


PARTS = (
    an_ordinary_job, a_holder_comes_too_late, one_lease_is_settled_in_two_ways, consumers_die,
    a_consumer_dies_while_another_settles, a_lease_is_renewed, handlers_fail, a_job_has_to_wait, producers_die,
    the_queue_is_full, a_clock_is_behind, two_claim_at_once, a_recovery_is_overtaken, another_writes_amid_a_claim,
    a_person_decides, the_worker_works, the_clock_is_set,
)  # fmt: skip
