"""Session: one worker with one tube, from bind to unbind."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from ..clock import Clock
from ..errors import DatabaseUnavailable, LeaseLost, OutcomeUnknown, PayloadError, PermanentError, QueueFull, Snooze
from ..events import emit
from ..model import check_span
from ..retry import Backoff
from . import requests as bytes_of
from .handler import Handler
from .keeper import Keeper
from .ports import Coordinator, Lease, Message, Storage
from .queue import codec_of

TRANSIENT = (DatabaseUnavailable, OutcomeUnknown, QueueFull)
"""What passes: the requests stay where they are."""

TURN_SECONDS = 1.0
"""How long a tube of weight 1 is served while others wait for a worker."""

Promote = Callable[[str, Message, BaseException], Awaitable[object]]
"""Makes a job of a request that its handler has finally failed; doing so twice has to be harmless."""


class _Rest(Exception):
    """The tube is to be left alone for a while."""

    def __init__(self, pause: float) -> None:
        super().__init__(pause)
        self.pause = pause


@dataclass(slots=True)
class Surroundings:
    """What a worker's sessions share."""

    storage: Storage
    coordinator: Coordinator
    promote: Promote
    clock: Clock
    stopping: asyncio.Event
    #: Binds another tube than this one, if any waits.
    bind_other: Callable[[str], Awaitable[Lease | None]]
    #: By tube, how often each request was given up by this worker, as far as it is still there.
    tries: dict[str, dict[int, int]] = field(default_factory=dict)

    async def pause(self, seconds: float) -> None:
        """Wait for so long, or until the worker is to stop."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        except TimeoutError:
            return


class Session:
    """Serves a tube until it is empty, another one's turn has come, the limit is reached or the worker stops."""

    def __init__(self, around: Surroundings, lease: Lease, handler: type[Handler], thread: int | str) -> None:
        self._around = around
        self._lease = lease
        self._tube = lease.tube
        self._class = handler
        self._codec = codec_of(handler)
        self._settings = around.storage.settings
        self._keeper = Keeper(around.coordinator, lease, around.clock)
        self._tries = around.tries.setdefault(lease.tube, {})
        began = around.clock.monotonic()
        self._turn_ends = began + TURN_SECONDS * max(0.0, handler.weight(thread))
        self._must_end = began + self._settings.coordinator_timeout
        #: Requests that are to be handled one by one, for a worker died over this tube.
        self._wary = 0
        #: Requests that have left the tube.
        self.count = 0
        #: Seconds for which the tube is to rest.
        self.rest = 0.0
        #: Another tube's lease, to go on with.
        self.following: Lease | None = None
        #: Whether it ended after waiting in vain for late requests.
        self.waited = False

    async def run(self, limit: int | None) -> None:
        """Serve the tube and give it back. What the handler raises stays here.

        Raises:
            DatabaseUnavailable, OutcomeUnknown, QueueFull: the storage is out of reach; what was not removed stays.
        """
        tries = 0
        try:
            await self._keeper.keep(self._serve(limit))
        except LeaseLost as error:
            self._tries.clear()
            emit("shards.lost", tube=self._tube, error=error)
        except _Rest as rest:
            self.rest, tries = rest.pause, max(self._tries.values(), default=self._lease.tries)
        finally:
            if not self._tries:
                self._around.tries.pop(self._tube, None)
            await self._unbind(tries)

    async def _unbind(self, tries: int) -> None:
        try:
            await self._around.coordinator.unbind(self._lease, tries=tries, pause=self.rest)
        except TRANSIENT as error:
            emit("shards.outage", error=error, failures=1)  # the lease runs out by itself

    async def _serve(self, limit: int | None) -> None:
        handler = await self._started()
        try:
            messages = await self._around.storage.peek(self._tube, self._size(limit))
            self._suspect(messages)
            while True:
                if not messages and not (messages := await self._late(limit)):
                    return
                done = await self._take(handler, messages)
                left = await self._remove(done, self._size(limit, len(done)))
                self.count += len(done)
                if limit is not None and self.count >= limit:
                    return
                messages = left
                if messages and await self._is_over():
                    return
                await asyncio.sleep(0)  # drivers in memory never wait, so others have their turn here
        finally:
            await self._stopped(handler)

    async def _started(self) -> Handler:
        try:
            handler: Handler = await self._keeper.run(self._class.create)
            await self._keeper.run(handler.start)
        except LeaseLost:
            raise
        except Exception as error:
            # No request is to blame.
            emit("shards.failed", tube=self._tube, requests=0, error=error, tries=self._lease.tries)
            raise _Rest(self._backoff(1)) from error
        return handler

    async def _stopped(self, handler: Handler) -> None:
        try:
            await self._keeper.run(handler.stop)
        except LeaseLost:
            return
        except Exception as error:  # noqa: BLE001 - what was handled before is removed all the same
            emit("shards.failed", tube=self._tube, requests=0, error=error, tries=0)

    def _suspect(self, messages: Sequence[Message]) -> None:
        """Remember what the lease says of the tries of the request at the head."""
        if self._lease.taken_over:
            self._wary = self._class.batch_size or self._settings.worker_batch_size
        there = {message.id for message in messages}
        for gone in self._tries.keys() - there:
            del self._tries[gone]
        if messages and self._lease.tries:
            head = messages[0].id
            self._tries[head] = max(self._lease.tries, self._tries.get(head, 0))

    def _size(self, limit: int | None, more: int = 0) -> int:
        size = self._class.batch_size or self._settings.worker_batch_size
        return size if limit is None else min(size, limit - self.count - more)

    async def _late(self, limit: int | None) -> list[Message]:
        """Wait for late requests, unless another tube waits for a worker; return none if it is to be left."""
        around = self._around
        for _ in range(self._settings.worker_empty_limit):
            if around.stopping.is_set() or await self._goes_on_elsewhere():
                return []
            await around.pause(self._settings.worker_empty_pause)
            self._keeper.check()
            await around.storage.mature()
            if messages := await around.storage.peek(self._tube, self._size(limit)):
                return messages
        self.waited = True
        return []

    async def _is_over(self) -> bool:
        """Return whether the tube is to be left though requests wait in it."""
        if self._around.stopping.is_set():
            return True
        now = self._around.clock.monotonic()
        if now >= self._must_end:
            return True
        if now < self._turn_ends:
            return False
        self._turn_ends = now + TURN_SECONDS
        return await self._goes_on_elsewhere()

    async def _goes_on_elsewhere(self) -> bool:
        self.following = await self._around.bind_other(self._tube)
        return self.following is not None

    async def _take(self, handler: Handler, messages: Sequence[Message]) -> Sequence[Message]:
        """Handle the first of the messages, as many as may be taken together, and return those that are over."""
        self._keeper.check()
        most = self._settings.max_attempts
        head = messages[0]
        if self._tries.get(head.id, 0) >= most:
            return await self._promoted(head, DiedTooOften(f"its worker died, or it failed, {most} times"))
        batch = self._together(messages)
        requests, error = bytes_of.decode(self._codec, [message.payload for message in batch])
        if error is not None and not requests:
            return await self._promoted(head, error)
        batch = batch[: len(requests)]
        began = self._around.clock.monotonic()
        try:
            await self._keeper.run(handler.handle, *requests)
        except LeaseLost:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a handler raises, it is tried again
            return await self._failed(batch, error)
        seconds = self._around.clock.monotonic() - began
        emit("shards.performed", tube=self._tube, requests=len(batch), seconds=seconds)
        return batch

    def _together(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Return what may be handled in one call: what failed before is, in the end, handled alone."""
        if self._wary > 0:
            return messages[:1]
        last = max(1, self._settings.max_attempts - 1)
        for place, message in enumerate(messages if self._tries else ()):
            if self._tries.get(message.id, 0) >= last:
                return messages[: max(1, place)]
        return messages

    async def _failed(self, batch: Sequence[Message], error: Exception) -> Sequence[Message]:
        """Promote a request that has failed for good; otherwise let the tube rest."""
        most, tries = self._settings.max_attempts, self._tries
        if isinstance(error, Snooze):
            raise _Rest(check_span("a snooze", error.delay)) from error
        if isinstance(error, (PermanentError, PayloadError)):
            if len(batch) == 1:
                return await self._promoted(batch[0], error)
            return self._one_by_one(batch)
        for message in batch:
            tries[message.id] = tries.get(message.id, 0) + 1
        worst = max(tries[message.id] for message in batch)
        emit("shards.failed", tube=self._tube, requests=len(batch), error=error, tries=worst)
        if worst < most:
            raise _Rest(self._backoff(worst)) from error
        return await self._promoted(batch[0], error) if len(batch) == 1 else self._one_by_one(batch)

    def _one_by_one(self, batch: Sequence[Message]) -> Sequence[Message]:
        """Take these again at once, each alone: one of them is to blame, which shows then."""
        self._wary = max(self._wary, len(batch))
        for message in batch:
            self._tries.pop(message.id, None)
        return ()

    async def _promoted(self, message: Message, error: BaseException) -> Sequence[Message]:
        try:
            await self._around.promote(self._tube, message, error)
        except Exception as trouble:
            # It stays where it is, and is tried again: a request is never dropped.
            self._tries[message.id] = max(self._tries.get(message.id, 0), self._settings.max_attempts)
            emit("shards.failed", tube=self._tube, requests=1, error=trouble, tries=self._settings.max_attempts)
            raise _Rest(max(self._backoff(self._settings.max_attempts), 0.05)) from trouble
        emit("shards.promoted", tube=self._tube, request=message.id, error=error)
        return (message,)

    async def _remove(self, done: Sequence[Message], limit: int) -> list[Message]:
        ids = [message.id for message in done]
        _, left = await self._around.storage.exchange(self._tube, ids, self._lease, limit)
        self._wary = max(0, self._wary - len(ids))
        if self._tries:
            for number in ids:
                self._tries.pop(number, None)
        return left

    def _backoff(self, tries: int) -> float:
        return Backoff(self._settings.backoff, self._settings.backoff_max).delay(tries)


class DiedTooOften(Exception):
    """Nobody performed it: whoever began to did not end."""
