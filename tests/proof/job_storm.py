"""A storm on jobs: producers, consumers, maintenance and an operator of one queue."""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import persistq
from persistq import Done, Failed, Released, maintenance
from persistq.settings import Settings
from persistq.worker import JobSource

from . import actors
from .actors import Recorded
from .bugs import sow
from .day import Gap
from .history import History
from .nemesis import DRAIN_SECONDS, EXIT_LATE, Plan, Storm, leave_nothing_open

LEASE = 1.0
PATIENCE = 5.0
SETTINGS: dict[str, Any] = {
    "timeout_seconds": LEASE, "queue_recovery_seconds": 0.3, "queue_poll_seconds": 0.2, "queue_backoff_seconds": 0.02,
    "queue_backoff_max_seconds": 0.1, "queue_busy_seconds": PATIENCE, "max_attempts": 1000,
    "queue_retention_seconds": 0,
}  # fmt: skip


class JobStorm(Storm):
    """Everybody on one queue, which is empty at first."""

    of = "jobs"
    roles = ("producer", "producer", "consumer", "consumer", "taker", "maintenance", "operator")
    lease = LEASE

    def __init__(self, folder: Path, target: str, plan: Plan) -> None:
        super().__init__(folder, target, plan)
        most = 15 * plan.size
        self._settings = Settings.load(None, queue_max_pending=most, queue_prefetch=plan.size, **SETTINGS)
        rehearse(target, self._settings)
        if plan.bug:
            sow(plan.bug, Gap())

    def act(self, role: str, history: History, chance: random.Random, count: Callable[[int], None]) -> None:
        q = self._queue(history)
        match role:
            case "producer":
                actors.produce(q, chance, count, self.plan.size)
            case "consumer":
                actors.consume(q)
            case "taker":
                actors.take(q)
            case "maintenance":
                actors.maintain(q)
            case "operator":
                actors.operate(q, chance)

    def settle(self) -> None:
        left = self.apart("drain", lambda history: _drain(self._queue(history)))
        self.write_meta(drained=left, quiet=True)
        if self.apart("dump", lambda history: actors.dump(self._queue(history), self.folder)):
            raise RuntimeError("the final table could not be written")

    def meta(self) -> dict[str, Any]:
        on_server = "://" in self.target
        return {
            "patience": PATIENCE, "skew": 0.2 if on_server else 0.02, "skips_locked": on_server,
            "offset": time.time_ns() - time.monotonic_ns(),
        }  # fmt: skip

    def _queue(self, history: History) -> Recorded:
        return Recorded(self.target, history, self._settings)


def _drain(q: Recorded) -> int:
    """Finish everything that is left, and return what the consumer says, or that it takes for ever."""
    end, code = time.monotonic() + DRAIN_SECONDS, 0
    while not code and q.list_jobs(("pending", "processing"), limit=1):
        if time.monotonic() > end:
            return EXIT_LATE
        code = actors.consume(q, drain=True, concurrency=8, patience=DRAIN_SECONDS)
    return code


def rehearse(target: str, settings: Settings) -> None:
    """Do once what actors do, so that what is imported and compiled for it is here, and leave nothing open."""
    q = persistq.connect(target, settings=settings)
    source = JobSource(q, name="c", queues=[], default_task="storm", concurrency=1)
    q.enqueue("rehearsal", unique_key="rehearsal")
    q.enqueue_many(["rehearsal"] * 2)
    q.enqueue("rehearsal", priority=1)
    outcomes: list[Callable[[persistq.Job], Any]] = [Released, lambda job: Failed(job, "", delay=0), Done]
    for outcome in outcomes:
        held = source.exchange([], [], 4).claimed
        q.renew(held[0])
        source.exchange([outcome(job) for job in held], [], 0)
    q.delete_jobs()
    source.drained()
    maintenance.run_once(q)
    q.list_jobs()
    source.close()
    q.close()
    del q, source, held
    leave_nothing_open()
