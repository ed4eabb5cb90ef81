"""JobSource: jobs of the queue as the worker loop sees them."""

import os
import socket
from collections.abc import Sequence

from .. import tasks
from ..clock import consumer_id
from ..errors import DatabaseUnavailable, OutcomeUnknown, QueueFull
from ..events import emit
from ..model import ConsumerInfo, Exchanged, Job, Outcome, Released
from ..queue import PersistentQSQLAlchemy
from ..tasks import Cancellation
from .attempt import Attempts
from .source import Coming, Turn

HEARTBEAT_SECONDS = 5.0
_NEVER = float("inf")


class JobSource:
    """Claims jobs for one consumer and performs them by their tasks."""

    def __init__(
        self, q: PersistentQSQLAlchemy, *, name: str, queues: Sequence[str], default_task: str, concurrency: int
    ) -> None:
        self.consumer = consumer_id(name)
        self._q = q
        self._now = q.clock.monotonic
        self._queues = tuple(queues)
        self._attempts = Attempts(q.settings, q.clock, default_task)
        self._doorbell = q.doorbell()
        #: When, by the monotonic clock, the lease of each delivery (id, fence) was last begun. One that the
        #: database says is lost is not here, though its handler may not have noticed yet.
        self._leased: dict[tuple[int, int], float] = {}
        #: When the first of these is to be renewed, or earlier.
        self._renew_at = _NEVER
        #: When the next job is due, as far as we know.
        self._due_at = _NEVER
        #: Whether we do not know what is due next.
        self._curious = False
        self._recovered = False
        self._beaten = -_NEVER
        #: What an operator told it last. Whatever it is, it says to claim nothing more.
        self._wish: str | None = None
        started = q.clock.now()
        self._info = ConsumerInfo(
            id=self.consumer, name=name, host=socket.gethostname(), pid=os.getpid(), queues=self._queues,
            concurrency=concurrency, running=0, started_at=started, seen_at=started, tasks=tuple(tasks.names()),
        )  # fmt: skip

    @property
    def _lease(self) -> float:
        return self._q.settings.timeout_seconds

    def exchange(self, settled: Sequence[Outcome], holding: Sequence[Job], room: int, ahead: int = 0) -> Turn[Job]:
        """Write the outcomes, renew what is due for it, claim up to ``room`` more."""
        self._beat(len(holding))
        settled = [outcome for outcome in settled if _key(outcome.job) in self._leased]
        renew = self._to_renew(holding)
        if self._wish or any(job.suspect for job in holding):
            room = 0
        if self._due_at <= self._now():
            self._due_at = _NEVER  # now is when to claim it, if there is room; else what makes room will claim it
        # To look first costs a server another trip; on SQLite it spares the others the one writer's lock.
        looked = bool(room) and not (settled or renew) and (self._curious or self._q.database.look_first)
        if looked and not self._look():
            room = 0
        got = self._exchange(settled, renew, room, min(ahead, room), busy=bool(holding))
        # Fewer than there was room for: that was all that is due, and what is due next is not known. None
        # after a look that saw some: they are not for us now, and looking again would not change that.
        self._curious = len(got) < room and (bool(got) or not looked)
        if renew or self._renew_at <= self._now():
            begun = [self._leased[_key(job)] for job in self._kept([*holding, *got])]
            self._renew_at = min(begun, default=_NEVER) + self._lease / 3
        # Only now: a lease of our own that ran out in an outage is still good if nobody took the job back.
        self._recovered = self._recover()
        lost = {_key(job) for job in got.lost}
        return Turn(claimed=list(got), lost=[job for job in holding if _key(job) in lost] if lost else ())

    def perform(self, job: Job, cancellation: Cancellation) -> Outcome | Coming:
        """Call the job's task and return what came of it, or the coroutine that will."""
        return self._attempts.perform(job, cancellation)

    def is_async(self, job: Job) -> bool:
        """Return whether the job's task is a coroutine."""
        return self._attempts.is_async(job)

    def timeout(self, job: Job) -> float | None:
        """Return the seconds that the job may take."""
        return job.timeout

    def timed_out(self, job: Job) -> Outcome:
        """Return the outcome of a job that took too long."""
        return self._attempts.timed_out(job)

    def released(self, job: Job) -> Outcome:
        """Return the outcome of a job that is given back."""
        return Released(job)

    def expired(self, holding: Sequence[Job]) -> Sequence[Job]:
        """Return the jobs that could not be renewed in time."""
        over = self._now() - self._lease
        return [job for job in self._kept(holding) if self._leased[_key(job)] <= over]

    def pause(self) -> float:
        """Return the seconds until the poll, the next due job, the next renewal or the next recovery."""
        if self._recovered or self._curious:
            return 0.0
        first = min(self._due_at, self._renew_at) - self._now()
        return max(0.0, min(self._q.settings.queue_poll_seconds, self._q.recovery_due_in(), first))

    def bell(self) -> int | None:
        """Return the doorbell's descriptor, if the database has one."""
        return self._doorbell.fileno()

    def listens(self) -> bool:
        """Return whether the doorbell can ring at all."""
        return self._doorbell.hears

    def rung(self) -> bool:
        """Return whether anything was committed to the database since the last call."""
        return self._doorbell.rung()

    def drained(self) -> bool:
        """Return whether the queues hold no due job, no waiting retry and nothing processing."""
        return not self._q.unfinished(self.consumer, self._queues)

    def close(self) -> None:
        """Take this consumer off the list."""
        self._doorbell.close()
        self._q.leave(self.consumer)

    def _look(self) -> bool:
        """Ask, with a read that locks nothing, whether there is something to claim, or when there will be."""
        # What rang so far, our own commits among it, is seen by this very look; what rings from now on is heard.
        self._doorbell.rung()
        self.bell()
        due = self._q.due_in(self.consumer, self._queues)
        self._due_at = self._now() + due if due else _NEVER
        return due == 0

    def _exchange(
        self, settled: Sequence[Outcome], renew: Sequence[Job], room: int, ahead: int, *, busy: bool
    ) -> Exchanged:
        """Call the queue, if there is anything to do: once, or on a full disk in as many small steps as it takes."""
        if not (settled or renew or room):
            return Exchanged()
        try:
            return self._call(settled, renew, room, ahead, busy=busy)
        except QueueFull:
            if len(settled) + len(renew) + room == 1:
                raise
        # Whatever is written goes to a log first, and there is space for a little where there is none for much.
        steps = [self._call([outcome], (), 0, 0, busy=busy) for outcome in settled]
        steps += [self._call((), [job], 0, 0, busy=busy) for job in renew]
        claimed = self._call((), (), 1, int(ahead == room), busy=busy) if room else ()
        return Exchanged(claimed, lost=[job for step in steps for job in step.lost])

    def _call(
        self, settled: Sequence[Outcome], renew: Sequence[Job], room: int, ahead: int, *, busy: bool
    ) -> Exchanged:
        """Exchange in one transaction, and keep book of what is leased."""
        # The lease is counted from before the call: it can only be longer than we think.
        began = self._now()
        got = self._q.exchange(
            self.consumer, settled=settled, renew=renew, limit=room, ahead=ahead, queue=self._queues, busy=busy
        )
        for outcome in settled:
            self._leased.pop(_key(outcome.job), None)
        for job in got.lost:
            self._leased.pop(_key(job), None)
            emit("job.lost", job=job)
        for job in (*got, *got.renewed):
            self._leased[_key(job)] = began
        if got:
            self._renew_at = min(self._renew_at, began + self._lease / 3)
        return got

    def _recover(self) -> bool:
        try:
            return self._q.recover_if_due() > 0
        except (DatabaseUnavailable, OutcomeUnknown, QueueFull) as error:
            # What the exchange brought must not be lost by this; the next recovery comes soon enough.
            emit("worker.outage", error=error, failures=1)
            return False

    def _to_renew(self, holding: Sequence[Job]) -> list[Job]:
        now = self._now()
        if now < self._renew_at:
            return []
        # The very sum that the pause was made of: rounded another way it could be late there and early here.
        return [job for job in self._kept(holding) if self._leased[_key(job)] + self._lease / 3 <= now]

    def _kept(self, jobs: Sequence[Job]) -> list[Job]:
        """Return those whose lease is not known to be lost."""
        return [job for job in jobs if _key(job) in self._leased]

    def _beat(self, holding: int) -> None:
        now = self._now()
        if now - self._beaten < HEARTBEAT_SECONDS:
            return
        self._beaten = now
        running = min(holding, self._info.concurrency)  # what is claimed ahead does not run
        self._info = self._info.evolve(running=running, seen_at=self._q.clock.now())
        wish = self._q.beat(self._info)
        if wish != self._wish:
            emit("worker.told", wish=wish)
        self._wish = wish


def _key(job: Job) -> tuple[int, int]:
    return job.id, job.fence
