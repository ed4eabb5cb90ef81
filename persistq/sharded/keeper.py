"""Keeper: renews a lease while its tube is served, and ends the handler's work when it is lost."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ..clock import Clock
from ..errors import DatabaseUnavailable, LeaseLost, OutcomeUnknown
from .handler import call
from .ports import Coordinator, Lease

_TRANSIENT = (DatabaseUnavailable, OutcomeUnknown)


class HandlerExit(Exception):
    """The handler asked for the end of the process, or cancelled itself; that ends its attempt only."""


class Keeper:
    """Keeps a lease for as long as a tube is served.

    It renews on the event loop: a coroutine that blocks the loop for longer than the lease loses it.
    """

    def __init__(self, coordinator: Coordinator, lease: Lease, clock: Clock) -> None:
        self._coordinator = coordinator
        self._lease = lease
        self._now = clock.monotonic
        self._until = 0.0
        self._performing = False
        #: The task that waits for the work, and how often it was cancelled before.
        self._keeping: asyncio.Task[Any] | None = None
        self._cancels = 0
        #: Why the tube is no longer ours; None as long as it is.
        self.lost: LeaseLost | None = None
        #: What a renewal raised that will not pass: a defect, or a schema of another version.
        self._broken: Exception | None = None

    async def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work in a task of its own, and renew the lease meanwhile.

        One task for a tube, none for each batch: with many tubes of few requests that is most of what a batch costs.
        Whoever cancels this cancels the work, and waits for it to tidy up. So does a renewal that fails for good,
        or the tube would be given back, and served by others, while the handler is at work still.

        Raises:
            CancelledError: this was cancelled, whatever the work made of that.
            Exception: what a renewal failed by, or else what the work raised.
        """
        self._keeping = _this_task()
        self._cancels = self._keeping.cancelling()
        self._until = self._now() + self._lease.seconds
        serving = asyncio.create_task(work)
        while not serving.done():
            try:
                await asyncio.wait([serving], timeout=self._lease.seconds / 3 if self.lost is None else None)
                if self.lost is None and not serving.done():
                    await self._renew()
                    if self.lost is not None and self._performing:
                        serving.cancel()
            except asyncio.CancelledError:
                if self._is_cancelled():
                    serving.cancel()
        ended_by = None if serving.cancelled() else serving.exception()
        if self._is_cancelled():
            raise asyncio.CancelledError from self._broken or ended_by
        if self._broken is not None:
            raise self._broken
        return serving.result()

    def check(self) -> None:
        """Return unless the work is to end. To be called within the work only.

        Raises:
            CancelledError: it was cancelled, though a handler may have swallowed that.
            LeaseLost
        """
        if self._is_cancelled() and _this_task().cancelling():
            raise asyncio.CancelledError
        if self.lost is not None:
            raise self.lost

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what the user's function returns, sync or async; a coroutine is cancelled when the lease is lost.

        A coroutine that was cancelled counts for nothing, even if it returns or raises another error: it may have
        broken off anywhere. To be called within the work only.

        Raises:
            CancelledError: whoever keeps the lease was cancelled.
            LeaseLost: it was.
            HandlerExit: instead of SystemExit and the like, which would end the process.
        """
        task = _this_task()
        cancels = task.cancelling()  # those before have struck already, and are not this call's
        self._performing = True
        try:
            found = await call(function, *arguments)
            if task.cancelling():
                await asyncio.sleep(0)  # a cancellation that has not struck yet strikes here
        except asyncio.CancelledError:
            if self._is_cancelled():
                raise
            task.uncancel()
            self.check()
            raise HandlerExit("the handler was cancelled from within") from None
        except (Exception, SystemExit, GeneratorExit) as error:
            if task.cancelling() > cancels:
                self.check()
            if isinstance(error, Exception):
                raise
            raise HandlerExit(f"the handler raised {type(error).__name__}") from error
        finally:
            self._performing = False
        if task.cancelling() > cancels:
            self.check()
        return found

    def _is_cancelled(self) -> bool:
        # At the end of a program all tasks are cancelled at once, and the work's may be the first to hear of it.
        return self._keeping is not None and self._keeping.cancelling() > self._cancels

    async def _renew(self) -> None:
        asked = self._now()
        try:
            await self._coordinator.renew(self._lease)
            self._until = asked + self._lease.seconds
        except LeaseLost as error:
            self.lost = error
        except _TRANSIENT as error:
            if self._now() >= self._until:
                self.lost = LeaseLost(f"tube {self._lease.tube} could not be renewed in time: {error}")
        except Exception as error:  # noqa: BLE001 - raised when the work has ended
            self._broken = error
            self.lost = LeaseLost(f"tube {self._lease.tube} cannot be renewed: {error}")


def _this_task() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    assert task is not None, "called on an event loop"  # noqa: S101
    return task
