"""Worker: finds tubes in which requests wait and performs them, one tube at a time."""

import asyncio
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from ..clock import Clock, SystemClock
from ..errors import ConfigError
from ..events import emit
from ..retry import Backoff
from .handler import Handler, Tube, find
from .ports import Coordinator, Lease, check_match
from .promotion import Promoter
from .queue import Queue
from .session import TRANSIENT, Promote, Session, Surroundings

_PAGE = 16
_MOST = 1 << 20
_OUTAGE = Backoff(base=0.1, cap=15.0)


class Worker:
    """Performs the requests of a queue by the handlers that this process knows, until it is told to stop.

    Several workers, each with a coordinator of its own or all with one, in one process or in many,
    share the tubes: each is served by one of them at a time, the one that has waited longest first. A
    tube with no end of requests is left for another one's turn after a second times its weight.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        queue: Queue,
        *,
        promote: Promote | None = None,
        clock: Clock | None = None,
    ) -> None:
        check_match(queue.storage, coordinator)
        self.settings = queue.storage.settings
        self._storage = queue.storage
        self._coordinator = coordinator
        self._clock = clock or SystemClock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._around = Surroundings(
            queue.storage,
            coordinator,
            promote or Promoter(getattr(queue.storage, "door", None)),
            self._clock,
            asyncio.Event(),
            self._bind,
        )
        #: Requests that have left their tubes in this loop.
        self._done = 0
        #: A tube that is bound already, to be served next.
        self._following: Lease | None = None
        #: Consecutive looks that found nothing to do.
        self._looks = 0
        self._failures = 0
        #: Monotonic time from which it is worth looking again, as far as this worker knows.
        self._look_at = float("inf")

    @property
    def stopping(self) -> bool:
        """Whether it has been told to stop."""
        return self._around.stopping.is_set()

    def stop(self) -> None:
        """Finish the batch, give the tube back and end; for good. Any thread and any signal handler may call it."""
        if self._loop is None or not self._loop.is_running():
            self._around.stopping.set()
        else:
            self._loop.call_soon_threadsafe(self._around.stopping.set)

    async def loop(self, limit: int | None = None) -> int:
        """Perform requests and return how many have left their tubes.

        With a limit it ends when so many have, never later, or when every tube is empty and stays so for
        QUEUE_WORKER_EMPTY_LIMIT looks; without one it goes on until it is stopped. SIGTERM stops it,
        unless the program heeds that signal itself. It survives any time for which the storage is out
        of reach.
        """
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
            raise ConfigError(f"limit is a whole number from 0 up, or None, not {limit!r:.40}")
        self._enter(asyncio.get_running_loop())
        self._looks, self._done = 0, 0
        with _heeding_sigterm(self):
            try:
                while not self.stopping and self._done != limit and await self._turn(limit):
                    continue
            finally:
                await self._give_back()
        return self._done

    async def _turn(self, limit: int | None) -> bool:
        """Serve one tube, or wait; return False when the end has come."""
        try:
            lease, self._following = self._following or await self._bind(), None
            if lease is None:
                return await self._goes_on(limit)
            session = self._session(lease)
            try:
                await session.run(None if limit is None else limit - self._done)
            finally:
                self._done += session.count
                self._following = session.following
            self._note(session)
        except TRANSIENT as error:
            await self._suffer(error)
        return True

    def _enter(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not loop and not self.stopping:
            self._around.stopping = asyncio.Event()  # the old one may belong to another event loop
        self._loop = loop

    def _session(self, lease: Lease) -> Session:
        tube = Tube.parse(lease.tube)
        handler = find(tube.handler)
        assert handler is not None, "only tubes of known handlers are bound"  # noqa: S101
        return Session(self._around, lease, handler, tube.thread)

    def _note(self, session: Session) -> None:
        self._failures = 0
        self._looks = self.settings.worker_empty_limit if session.waited else 0
        if session.rest:
            self._look_at = min(self._look_at, self._clock.monotonic() + session.rest)

    async def _bind(self, other_than: str | None = None) -> Lease | None:
        """Return a lease of the tube that has waited longest among those that are free, if any is."""
        limit = _PAGE
        while True:
            found, due = await self._storage.look(limit)
            if due is not None:
                self._look_at = min(self._look_at, self._clock.monotonic() + due)
            known = [tube for tube in found if tube != other_than and self._handler_of(tube) is not None]
            lease = await self._bind_first(known) if known else None
            if lease is not None or len(found) < limit or limit >= _MOST:
                return lease
            limit *= 16

    async def _bind_first(self, tubes: Sequence[str]) -> Lease | None:
        asked = asyncio.ensure_future(self._coordinator.bind_first(tubes))
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            # Or a tube would be held, by nobody, until the lease runs out.
            with suppress(*TRANSIENT):
                self._following = await asked
                await self._give_back()
            raise

    async def _goes_on(self, limit: int | None) -> bool:
        """Wait when there was nothing to do; return False when the end has come."""
        self._looks += 1
        delay = self.settings.coordinator_delay
        if limit is not None:
            if self._looks <= self.settings.worker_empty_limit:
                delay = self.settings.worker_empty_pause
            elif await self._is_drained():
                return False
        rest = self._look_at - self._clock.monotonic()
        if rest <= delay:
            self._look_at = float("inf")
        await self._around.pause(max(0.0, min(delay, rest)))
        return True

    async def _is_drained(self) -> bool:
        """Return whether no request of a handler that is known here waits, be its tube held by others or resting."""
        limit = _PAGE
        while True:
            found = await self._storage.tubes(limit)
            if any(self._handler_of(tube) is not None for tube in found):
                return False
            if len(found) < limit or limit >= _MOST:
                return True
            limit *= 16

    def _handler_of(self, name: str) -> type[Handler] | None:
        try:
            tube = Tube.parse(name)
        except ConfigError:
            return None  # somebody else's, or made by hand
        return find(tube.handler) if str(tube) == name else None

    async def _suffer(self, error: Exception) -> None:
        self._failures += 1
        emit("shards.outage", error=error, failures=self._failures)
        await self._around.pause(max(0.05, _OUTAGE.delay(self._failures)))

    async def _give_back(self) -> None:
        lease, self._following = self._following, None
        if lease is not None:
            try:
                await self._coordinator.unbind(lease, tries=lease.tries)
            except TRANSIENT as error:
                emit("shards.outage", error=error, failures=1)


_running: set[Worker] = set()


@contextmanager
def _heeding_sigterm(worker: Worker) -> Iterator[None]:
    """Let SIGTERM stop the worker, as long as the program has nothing else to do at that signal."""
    loop = asyncio.get_running_loop()
    ours = threading.current_thread() is threading.main_thread() and (
        bool(_running) or signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if ours:
        if not _running:
            loop.add_signal_handler(signal.SIGTERM, _stop_all)
        _running.add(worker)
    try:
        yield
    finally:
        if ours:
            _running.discard(worker)
            if not _running:
                loop.remove_signal_handler(signal.SIGTERM)


def _stop_all() -> None:
    for worker in tuple(_running):
        worker.stop()
