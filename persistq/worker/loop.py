"""The one loop: it knows a Source, an executor, and how long it may sleep."""

from collections.abc import Sequence
from typing import Generic, TypeVar

from ..clock import Clock, SystemClock
from ..errors import DatabaseUnavailable, OutcomeUnknown, QueueFull
from ..events import emit
from ..model import Outcome
from ..retry import Backoff
from .executors import Running, Threads
from .pace import Pace
from .source import Source
from .wakeup import Wakeup

W = TypeVar("W")

GATHER_SECONDS = 0.01
"""An outcome is written at most so much later than it could be, so that others can join it in one commit."""

STALE_SECONDS = 1.0
"""Work that has waited so long for a thread is given back: what runs before it is slower than was measured."""

LOOK_SECONDS = 0.0004
"""Until the first look at a doorbell with a descriptor, and twice as long until each further one: a commit may ring
before it can be seen, while it is still being made durable."""

LISTEN_SECONDS = 0.008
"""Between two looks at a doorbell without a descriptor. A look costs 4 µs, waking up for it 10 to 60: about 1 % of
a core when idle."""

_TRANSIENT = (DatabaseUnavailable, OutcomeUnknown, QueueFull)
_FAREWELL_SECONDS = 5.0
_OUTAGE_LOOK_SECONDS = 0.25
_OUTAGE = Backoff(base=0.1, cap=15.0)
_NEVER = float("inf")

EXIT_OK = 0
EXIT_STUCK = 75
"""EX_TEMPFAIL: too many handlers hang; a fresh process is needed."""


class Loop(Generic[W]):
    """Claims work, has it performed, settles it, until told to stop or, if ``drain``, until nothing is left.

    It claims up to ``prefetch`` more than there are free threads, if handlers are quick. What waits
    for a thread is leased like what runs, but it is given back whenever it would wait for long.
    """

    def __init__(
        self,
        source: Source[W],
        executor: Threads[W],
        *,
        grace: float,
        drain: bool = False,
        prefetch: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self._source = source
        self._executor = executor
        self._grace = grace
        self._drain = drain
        self._pace = Pace(prefetch)
        self._now = (clock or SystemClock()).monotonic
        #: What the executor has, waiting or begun, by the id() of the work.
        self._held: dict[int, Running[W]] = {}
        #: Outcomes to be written, and when the first of them came.
        self._outcomes: list[Outcome] = []
        self._gathering_since = _NEVER
        #: Calls of ``stop`` that the loop has not heeded yet.
        self._stops: list[None] = []
        self._stop_at: float | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._idle = False
        self._exit_code = EXIT_OK
        self._wakeup = Wakeup()
        self._asleep = False
        #: Seconds until the next look at the doorbell.
        self._look_in = LOOK_SECONDS
        executor.serve(source, self._outcome_came, self._now)

    def stop(self) -> None:
        """Finish what runs within the grace, release the rest, and end; a second call ends the grace.

        A signal handler may call it: nothing here takes a lock.
        """
        self._stops.append(None)
        self._wakeup.wake()

    def run(self) -> int:
        """Work until the end and return the process's exit code."""
        try:
            with self._wakeup:
                while True:
                    self._turn()
                    if self._over():
                        return self._exit_code
                    self._rest()
        finally:
            self._leave()

    def _turn(self) -> None:
        """Settle, renew and claim once, unless an outage says to wait."""
        self._collect()
        self._heed_stops()
        self._abandon_late()
        self._give_back_stale()
        if self._now() < self._retry_at:
            self._let_go(self._source.expired(self._holding()), release=True)
            return
        room = self._room()
        free = max(0, self._executor.size - len(self._held))
        try:
            turn = self._source.exchange(self._outcomes, self._holding(), room, max(0, room - free))
        except _TRANSIENT as error:
            self._suffer(error)
            return
        if self._failures:
            emit("worker.recovered", failures=self._failures)
        self._failures, self._retry_at = 0, 0.0
        self._outcomes, self._gathering_since = [], _NEVER
        self._let_go(turn.lost, release=False)
        self._start(turn.claimed)
        idle = room > 0 and not turn.claimed
        if idle and not self._idle:
            emit("worker.idle")
        self._idle = idle

    def _room(self) -> int:
        """Return how much more may be claimed."""
        if self._stop_at is not None:
            return 0
        return max(0, self._executor.size + self._pace.ahead(self._executor.size) - len(self._held))

    def _start(self, claimed: Sequence[W]) -> None:
        now, timeout = self._now(), self._source.timeout
        batch = [Running(work, now, timeout(work)) for work in claimed]
        if batch:
            self._held.update((id(running.work), running) for running in batch)
            self._executor.start(batch)

    def _collect(self) -> None:
        """Take what the executor has finished."""
        for running in self._executor.finished():
            del self._held[id(running.work)]
            self._pace.note(running.ended - running.begun)
            if running.outcome is not None:
                self._add(running.outcome)

    def _add(self, outcome: Outcome) -> None:
        if not self._outcomes:
            self._gathering_since = self._now()
        self._outcomes.append(outcome)

    def _suffer(self, error: Exception) -> None:
        """Take note that the database is out of reach; what could not be renewed is let go."""
        self._failures += 1
        self._retry_at = self._now() + max(0.05, _OUTAGE.delay(self._failures))
        emit("worker.outage", error=error, failures=self._failures)
        self._let_go(self._source.expired(self._holding()), release=True)

    def _let_go(self, lost: Sequence[W], *, release: bool) -> None:
        """Never begin work that is no longer ours, and tell the handlers that have begun it.

        ``release`` says that it may still be ours in the database, which then is to give it back.
        """
        for work in lost:
            running = self._held[id(work)]
            if not self._executor.withdraw(running):
                running.cancellation.request()
                continue
            del self._held[id(work)]
            if release:
                self._add(self._source.released(work))

    def _give_back_waiting(self) -> None:
        for running in list(self._held.values()):
            if self._executor.withdraw(running):
                del self._held[id(running.work)]
                self._add(self._source.released(running.work))

    def _give_back_stale(self) -> None:
        oldest = self._executor.oldest
        if oldest and self._now() >= oldest.claimed + STALE_SECONDS:
            self._pace.slow_down(STALE_SECONDS)  # or the same work would be claimed again at once
            self._give_back_waiting()

    def _abandon_late(self) -> None:
        """Leave behind what has taken too long, or what is still running when the grace is over."""
        now = self._now()
        graceless = self._stop_at is not None and now >= self._stop_at
        for running in [one for one in self._held.values() if graceless or now >= one.deadline]:
            if self._executor.abandon(running):
                del self._held[id(running.work)]
                late = now >= running.deadline
                self._add((self._source.timed_out if late else self._source.released)(running.work))
        if self._executor.stuck > max(2, self._executor.size) and self._stop_at is None:
            emit("worker.stuck", threads=self._executor.stuck)
            self._exit_code = EXIT_STUCK
            self._begin_stop()

    def _heed_stops(self) -> None:
        while self._stops:
            self._stops.pop()
            self._begin_stop()

    def _begin_stop(self) -> None:
        again = self._stop_at is not None
        self._stop_at = self._now() + (0 if again else self._grace)
        self._give_back_waiting()
        emit("worker.stopping", running=len(self._held), grace=0 if again else self._grace)

    def _over(self) -> bool:
        if self._held:
            return False
        if self._stop_at is not None:
            return not self._outcomes or self._now() > self._stop_at + _FAREWELL_SECONDS
        return self._drain and self._idle and not self._outcomes and self._is_drained()

    def _is_drained(self) -> bool:
        try:
            return self._source.drained()
        except _TRANSIENT as error:
            self._suffer(error)
            return False

    def _rest(self) -> None:
        """Wait for outcomes to settle, a stop, the doorbell, a deadline or the source's own wish."""
        until = self._wake_at()
        self._look_in = LOOK_SECONDS
        while not self._stops:
            self._collect()
            seconds = min(until, self._settle_at()) - self._now()
            if seconds <= 0 or self._sleep(seconds):
                return

    def _wake_at(self) -> float:
        """Return when the next turn is due if nothing comes of others."""
        now = self._now()
        times = [min(self._retry_at, now + _OUTAGE_LOOK_SECONDS)] if self._failures else [now + self._source.pause()]
        # What has not begun yet is late at the earliest when its timeout has passed from now.
        times += [min(one.deadline, now + one.timeout) for one in self._held.values() if one.timeout is not None]
        if self._stop_at is not None and self._held:
            times.append(self._stop_at)
        if oldest := self._executor.oldest:
            times.append(oldest.claimed + STALE_SECONDS)
        return min(times)

    def _settle_at(self) -> float:
        """Return when to write the outcomes: at once if no thread has anything left to begin."""
        if not self._outcomes or self._failures:
            return _NEVER
        return self._gathering_since + (GATHER_SECONDS if self._executor.waiting else 0)

    def _sleep(self, seconds: float) -> bool:
        """Sleep until something happens, for ``seconds`` at most; return whether the doorbell rang."""
        listening = not (self._executor.waiting or self._failures) and self._room() > 0
        bell = self._source.bell() if listening else None
        listening = listening and (bell is not None or self._source.listens())
        if listening:
            seconds = min(seconds, LISTEN_SECONDS if bell is None else self._look_in)
            self._look_in *= 2
        self._asleep = True
        # Only now: an outcome or a stop that came before is seen here, a later one sees that we sleep.
        if not self._executor.has_finished and not self._stops and self._wakeup.sleep(seconds, bell):
            self._look_in = LOOK_SECONDS
        self._asleep = False
        return listening and not self._executor.has_finished and self._source.rung()

    def _outcome_came(self) -> None:
        """Wake the loop for an outcome, in the handler's thread.

        While others wait for a thread, the loop needs to know of the first one only: it knows then
        how long it may gather more.
        """
        if self._asleep and not (self._outcomes and self._executor.waiting):
            self._asleep = False
            self._wakeup.wake()

    def _leave(self) -> None:
        for outcome in self._outcomes:
            emit("worker.unwritten", job=outcome.job)
        try:
            self._source.close()
        except _TRANSIENT as error:
            emit("worker.outage", error=error, failures=1)

    def _holding(self) -> list[W]:
        return [running.work for running in self._held.values()]
