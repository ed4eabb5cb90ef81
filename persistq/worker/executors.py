"""Where handlers run: threads, and one event loop for the coroutines among them."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from ..model import Outcome
from ..tasks import Cancellation
from .source import Coming, Source

W = TypeVar("W")
T = TypeVar("T")


class Running(Generic[W]):
    """One piece of work in an executor: waiting for a thread, then in its hands. Times are monotonic."""

    # Of the class until they are known: there is one of these for every job.
    begun = float("inf")
    #: When it has taken too long; known once it has begun.
    deadline = float("inf")
    ended = float("inf")
    outcome: Outcome | None = None

    def __init__(self, work: W, claimed: float, timeout: float | None = None) -> None:
        self.work = work
        self.claimed = claimed
        #: Seconds that the handler may take, counted from its begin.
        self.timeout = timeout
        self.cancellation = Cancellation()


class Threads(Generic[W]):
    """A fixed number of threads, with a queue in front so that each goes from one work to the next at once.

    Python cannot stop a thread. One that hangs is abandoned: its outcome will be ignored, a fresh
    thread takes its place, and ``stuck`` counts it for as long as it hangs.

    Work moves from ``_waiting`` to ``_performing`` to ``_finished``. Taking it out of a container is
    one step that no other thread can come between, so whoever gets it out alone decides what becomes
    of it; performing takes no lock.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        #: Abandoned threads that have not come back.
        self.stuck = 0
        self._waiting: deque[Running[W]] = deque()
        self._performing: dict[Running[W], bool] = {}
        self._finished: deque[Running[W]] = deque()
        self._threads = 0
        self._resting = 0
        #: Guards the counts of threads, and wakes those that rest.
        self._changed = threading.Condition()
        self._asyncio = EventLoop()

    def serve(self, source: Source[W], report: Callable[[], None], now: Callable[[], float]) -> None:
        """Say whose work it is, and what to call in the handler's thread once an outcome is there to be taken."""
        self._perform, self._is_async = source.perform, source.is_async
        self._report, self._now = report, now

    @property
    def waiting(self) -> int:
        """How much work no thread has begun."""
        return len(self._waiting)

    @property
    def oldest(self) -> Running[W] | None:
        """The work that has waited longest for a thread, if any waits."""
        try:
            return self._waiting[0]
        except IndexError:
            return None

    def start(self, batch: Sequence[Running[W]]) -> None:
        """Perform it all, in this order, as threads are free."""
        with self._changed:
            self._waiting.extend(batch)
            self._hire()
            self._changed.notify(len(batch))

    def withdraw(self, running: Running[W]) -> bool:
        """Take it back, unless a thread has begun it; return whether it was in time."""
        try:
            self._waiting.remove(running)
        except ValueError:
            return False
        return True

    def abandon(self, running: Running[W]) -> bool:
        """Stop waiting for its handler: tell it, ignore its outcome, replace its thread.

        Returns False, and does nothing, when no thread is at it: it waits, or its outcome is there.
        """
        if not self._performing.pop(running, False):
            return False
        with self._changed:
            self.stuck += 1
            self._threads -= 1
            self._hire()
        running.cancellation.request()
        return True

    def finished(self) -> Sequence[Running[W]]:
        """Return what has ended since the last call, with its outcome."""
        return [self._finished.popleft() for _ in range(len(self._finished))]

    @property
    def has_finished(self) -> bool:
        """Whether ``finished`` would return any."""
        return bool(self._finished)

    def _hire(self) -> None:
        wanted = min(len(self._waiting) - self._resting, self.size - self._threads)
        for _ in range(wanted):
            self._threads += 1
            # A daemon: a hanging handler must not keep the process from ending.
            threading.Thread(target=self._work, name="persistq-handler", daemon=True).start()

    def _work(self) -> None:
        following: Running[W] | None = None
        while True:
            running = following or self._next()
            if running is None:
                self._rest()
                continue
            self._begin(running)
            outcome = self._perform(running.work, running.cancellation)
            if isinstance(outcome, Coroutine):
                following, kept = self._asyncio.run(self._await(running, outcome))
            else:
                following, kept = None, self._end(running, outcome)
            if not kept:
                return

    async def _await(self, running: Running[W], outcome: Outcome | Coming) -> tuple[Running[W] | None, bool]:
        """Perform a coroutine, and then whatever coroutines are next in the queue, in the place of one thread.

        So the event loop, like a thread, goes from one to the next without a handoff. Returns the first
        work that is for the thread again, if any, and whether there is still a thread to wait for it.
        """
        loop = asyncio.get_running_loop()
        following: Running[W] | None = running
        while following:
            if isinstance(outcome, Coroutine):
                task = loop.create_task(outcome)
                running.cancellation.stops_by(partial(loop.call_soon_threadsafe, task.cancel))
                outcome = await task
            if not self._end(running, outcome):
                return None, False
            following = self._next()
            if following is None or not self._is_async(following.work):
                break
            running = following
            self._begin(running)
            outcome = self._perform(running.work, running.cancellation)
        return following, True

    def _next(self) -> Running[W] | None:
        try:
            return self._waiting.popleft()
        except IndexError:
            return None

    def _begin(self, running: Running[W]) -> None:
        self._performing[running] = True
        running.begun = self._now()
        if running.timeout is not None:
            running.deadline = running.begun + running.timeout

    def _end(self, running: Running[W], outcome: Outcome) -> bool:
        """Report the outcome; return whether its thread is still wanted."""
        running.outcome = outcome
        running.ended = self._now()
        if not self._performing.pop(running, False):
            with self._changed:
                self.stuck -= 1
            return False
        self._finished.append(running)
        self._report()
        return True

    def _rest(self) -> None:
        with self._changed:
            if not self._waiting:
                self._resting += 1
                self._changed.wait()
                self._resting -= 1


class EventLoop:
    """One asyncio event loop in a thread of its own, started when the first coroutine comes."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return the coroutine's result."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_run_on, args=[self._loop], name="persistq-asyncio", daemon=True).start()
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def _run_on(loop: asyncio.AbstractEventLoop) -> None:
    while True:
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt):
            continue  # raised by a task that some handler left behind; it ends that task, not everybody's loop
