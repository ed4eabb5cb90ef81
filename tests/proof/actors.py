"""Actors: a queue that writes down what it is asked and told, and what producers, consumers and others do with it."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import persistq
from persistq import Done, Failed, Job, Released, maintenance
from persistq.clock import consumer_id
from persistq.errors import OutcomeUnknown, PersistQError
from persistq.model import Outcome
from persistq.settings import Settings
from persistq.worker import JobSource, Loop, Threads

from .history import FINAL, SUFFIX, History

TROUBLE = (persistq.DatabaseUnavailable, persistq.OutcomeUnknown, persistq.QueueFull)
_KINDS = {Done: "done", Failed: "fail", Released: "release"}


class Recorded(persistq.PersistentQSQLAlchemy):
    """A queue all of whose calls are in its actor's history."""

    def __init__(self, target: str, history: History, settings: Settings, *, clock: Any = None) -> None:
        super().__init__(target, settings, clock=clock, actor=history.actor)
        self.history = history

    @contextmanager
    def _call(self, op: str, **asked: Any) -> Iterator[dict[str, Any]]:
        """Record a call; what the block puts into the dict is what it was told."""
        number = self.history.invoke(op, **asked)
        told: dict[str, Any] = {}
        try:
            yield told
        except OutcomeUnknown:
            self.history.answer(number, "unknown", error="OutcomeUnknown")
            raise
        except PersistQError as error:
            self.history.answer(number, "fail", error=type(error).__name__)
            raise
        except Exception as error:
            self.history.answer(number, "unknown", error=f"{type(error).__name__}: {error}")
            raise
        self.history.answer(number, "ok", **told)

    def enqueue(self, item: str, queue: str = "default", **options: Any) -> int:
        new = {"item": item, "queue": queue, "key": options.get("unique_key")}
        new |= {name: options[name] for name in ("priority", "delay") if name in options}
        with self._call("enqueue", jobs=[new], most=self.settings.queue_max_pending) as told:
            job_id = super().enqueue(item, queue, **options)
            told["ids"] = [job_id]
        return job_id

    def enqueue_many(self, items: Any, queue: str = "default", **options: Any) -> list[int]:
        new = [{"item": item, "queue": queue} for item in items]
        with self._call("enqueue", jobs=new, most=self.settings.queue_max_pending) as told:
            told["ids"] = super().enqueue_many(items, queue, **options)
        return list(told["ids"])

    def exchange(self, consumer: str, **options: Any) -> Any:
        queue = options.get("queue")
        asked = {
            "settled": [_settling(outcome) for outcome in options.get("settled", ())],
            "renew": _leases(options.get("renew", ())),
            "limit": options.get("limit", 0),
            "queues": [] if queue is None else [queue] if isinstance(queue, str) else list(queue),
        }
        with self._call("exchange", **asked) as told:
            got = super().exchange(consumer, **options)
            told |= {"claimed": [_claim(job) for job in got], "lost": _leases(got.lost)}
        return got

    def complete(self, job: Job, result: Any = None, **options: Any) -> None:
        with self._settling(Done(job)):
            super().complete(job, result, **options)

    def fail(self, job: Job, error: Any, permanent: bool = False, **options: Any) -> None:
        with self._settling(Failed(job, error, permanent, options.get("delay"))):
            super().fail(job, error, permanent, **options)

    def release(self, job: Job) -> None:
        with self._settling(Released(job)):
            super().release(job)

    def renew(self, job: Job) -> Job:
        with self._call("exchange", renew=_leases([job])):
            return super().renew(job)

    def _settling(self, outcome: Any) -> Any:
        return self._call("exchange", settled=[_settling(outcome)])

    def recover(self) -> int:
        calm = self.database.is_calm(self.settings.timeout_seconds)
        with self._call("recover", calm=calm) as told:
            told["taken"] = super().recover()
        return int(told["taken"])

    def cancel(self, job_id: int, reason: str | None = None) -> Job:
        return self._decide("cancel", job_id, super().cancel)

    def resubmit(self, job_id: int, **options: Any) -> Job:
        return self._decide("resubmit", job_id, super().resubmit, **options)

    def assign_job(self, job_id: int, consumer: str, reason: str | None = None) -> Job:
        return self._decide("assign", job_id, super().assign_job, consumer=consumer)

    def _decide(self, verb: str, job_id: int, act: Callable[..., Job], **options: Any) -> Job:
        with self._call("decide", verb=verb, job=job_id):
            return act(job_id, **options)

    def look(self, limit: int = 200) -> list[Job]:
        """Write down how the newest jobs stand."""
        with self._call("sample") as told:
            found = self.list_jobs(limit=limit, newest=True)
            told["rows"] = [[job.id, str(job.status), job.fence] for job in found]
        return found

    def perform(self, job: Job) -> None:
        """Write down that a handler begins, and with which item and fence."""
        self.history.note("effect", job=job.id, fence=job.fence, item=job.item)


def _leases(jobs: Sequence[Job]) -> list[list[int]]:
    return [[job.id, job.fence] for job in jobs]


def _settling(outcome: Any) -> list[Any]:
    kind = "permanent" if isinstance(outcome, Failed) and outcome.permanent else _KINDS[type(outcome)]
    return [outcome.job.id, outcome.job.fence, kind, getattr(outcome, "delay", None)]


def _claim(job: Job) -> dict[str, Any]:
    names = ("id", "fence", "attempts", "max_attempts", "item", "queue", "priority")
    return {name: getattr(job, name) for name in names}


# What they do. Each runs until it is killed, in a process of its own.


def produce(q: Recorded, chance: random.Random, count: Callable[[int], None], size: int = 20) -> None:
    """Enqueue jobs of every kind; repeat with the same key what may or may not have been written.

    Half of the calls are of up to ``size`` jobs, which are quick.
    """
    number = 0
    while True:
        number += 1
        item = f"{q.history.actor}.{number}"
        try:
            if chance.random() < 0.5:
                count(len(q.enqueue_many([f"{item} quick {n}" for n in range(chance.randint(2, size))])))
            else:
                _enqueue_one(q, chance, f"{item} {_nature(chance)}")
                count(1)
        except TROUBLE:
            time.sleep(0.02)
        time.sleep(chance.expovariate(500))


def _enqueue_one(q: Recorded, chance: random.Random, item: str) -> None:
    options: dict[str, Any] = {"priority": chance.choice((0, 0, 0, 5))}
    if chance.random() < 0.1:
        options["delay"] = chance.uniform(0.05, 0.5)
    if chance.random() < 0.1:
        options["max_attempts"] = 2
    if chance.random() < 0.5:
        options["unique_key"] = item
    try:
        q.enqueue(item, **options)
    except persistq.OutcomeUnknown:
        if "unique_key" not in options:
            raise
        q.enqueue(item, **options)


def _nature(chance: random.Random) -> str:
    return chance.choices(("quick", "slow", "flaky", "broken", "nap"), (83, 2, 8, 4, 3))[0]


def consume(q: Recorded, *queues: str, drain: bool = False, concurrency: int = 4, patience: float | None = None) -> int:
    """Perform jobs with the real worker, of these queues or of all, for ``patience`` seconds; return its exit code."""

    @persistq.task(name="storm")
    def storm(item: str) -> None:
        job = persistq.current_job()
        assert job is not None
        q.perform(job)
        _behave(job, item.split()[1])

    source = JobSource(q, name="c", queues=queues, default_task="storm", concurrency=concurrency)
    threads: Threads[Job] = Threads(concurrency)
    loop = Loop(source, threads, grace=5, drain=drain, prefetch=q.settings.queue_prefetch)
    if patience is not None:
        timer = threading.Timer(patience, loop.stop)
        timer.daemon = True
        timer.start()
    return loop.run()


def _behave(job: Job, nature: str) -> None:
    match nature:
        case "slow":
            time.sleep(random.uniform(0.1, 1.2))
        case "flaky" if job.attempts % 3:
            raise ConnectionError("not this time")
        case "broken":
            raise persistq.PermanentError("never")
        case "nap" if not (job.fence % 3):
            raise persistq.Snooze(0.05)


def take(q: Recorded) -> None:
    """Do by hand what the worker does, as fast as can be: take a hundred, perform them, settle them with the next."""
    consumer = consumer_id("taker")
    outcomes: list[Outcome] = []
    while True:
        with suppress(*TROUBLE):
            q.recover_if_due()
            held = q.exchange(consumer, settled=outcomes, limit=100)
            outcomes = []
            for job in held:
                q.perform(job)
                outcomes.append(Failed(job, "broken", permanent=True) if " broken" in job.item else Done(job))
            if not held:
                time.sleep(0.01)


def maintain(q: Recorded) -> None:
    """Do what maintenance does, over and over."""
    while True:
        with suppress(*TROUBLE):
            maintenance.run_once(q)
        time.sleep(q.settings.queue_recovery_seconds)


def operate(q: Recorded, chance: random.Random) -> None:
    """Look at the newest jobs, and now and then decide about one of them."""
    while True:
        time.sleep(chance.expovariate(10))
        with suppress(*TROUBLE, persistq.JobNotFound, persistq.IllegalTransition):
            found = q.look()
            if not found or chance.random() < 0.5:
                continue
            job = chance.choice(found)
            if job.status in ("failed", "cancelled"):
                q.resubmit(job.id)
            elif chance.random() < 0.5:
                q.cancel(job.id)
            else:
                q.assign_job(job.id, "c")


def dump(q: persistq.PersistentQSQLAlchemy, folder: Path) -> None:
    """Write down the table, its history and its counts as they are now."""
    partial = folder / "final.part"
    with partial.open("w") as file:
        for record in (*_table(q), {"is": "end"}):
            file.write(json.dumps(record) + "\n")
    partial.rename(folder / f"{FINAL}{SUFFIX}")


def _table(q: persistq.PersistentQSQLAlchemy) -> Iterator[dict[str, Any]]:
    for job in _rows(
        q, "SELECT id, queue, item, status, fence, attempts, max_attempts, lease_until, finished_at FROM jobs"
    ):
        yield {"is": "job", **job}
    for event in _rows(q, "SELECT job_id, at, kind, attempt, detail FROM events"):
        expired = event["kind"] == "crashed" and "the lease expired" in event.pop("detail")
        yield {"is": "event", "job": event.pop("job_id"), **event, "expired": expired}
    for queue in q.queues():
        for status, number in queue.counts.items():
            yield {"is": "tally", "queue": queue.name, "status": status, "count": number}
    for what in q.database.check():
        yield {"is": "fault", "what": what}


def _rows(q: persistq.PersistentQSQLAlchemy, query: str) -> Iterator[dict[str, Any]]:
    with q.engine.connect() as connection:
        for row in connection.exec_driver_sql(query).mappings():
            yield dict(row)
