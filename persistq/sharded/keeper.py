"""Keeper: renews a lease by a timer while its tube is served, and ends the handler's work when it is lost."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Self

from ..clock import Clock
from ..errors import DatabaseUnavailable, LeaseLost, OutcomeUnknown
from .handler import call
from .ports import Coordinator, Lease

_TRANSIENT = (DatabaseUnavailable, OutcomeUnknown)


class HandlerExit(Exception):
    """The handler asked for the end of the process, or cancelled itself; that ends its attempt only."""


class Keeper:
    """Keeps a lease for the length of an ``async with`` block.

    The timer runs on the event loop: a coroutine that blocks the loop for longer than the lease loses it.
    """

    def __init__(self, coordinator: Coordinator, lease: Lease, clock: Clock) -> None:
        self._coordinator = coordinator
        self._lease = lease
        self._now = clock.monotonic
        self._timer: asyncio.Task[None] | None = None
        self._doing: asyncio.Task[Any] | None = None
        self._over = False
        #: Why the tube is no longer ours; None as long as it is.
        self.lost: LeaseLost | None = None

    async def __aenter__(self) -> Self:
        self._timer = asyncio.create_task(self._renew())
        return self

    async def __aexit__(self, *_: object) -> None:
        timer, self._timer = self._timer, None
        # A client may swallow a cancellation that comes amid its own clean-up; then the timer goes by this.
        self._over = True
        if timer is not None:
            timer.cancel()
            await asyncio.wait([timer])

    def check(self) -> None:
        """Return unless the lease is lost.

        Raises:
            LeaseLost
        """
        if self.lost is not None:
            raise self.lost

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what the user's function returns, sync or async; a coroutine is cancelled when the lease is lost.

        Raises:
            LeaseLost: it was; whatever the coroutine did counts for nothing.
            HandlerExit: instead of SystemExit and the like, which would end the process.
        """
        self._doing = asyncio.create_task(_contained(function, arguments))
        try:
            return await self._doing
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            self.check()
            raise HandlerExit("the handler was cancelled from within") from None
        finally:
            self._doing = None

    async def _renew(self) -> None:
        until = self._now() + self._lease.seconds
        while self.lost is None and not self._over:
            await asyncio.sleep(self._lease.seconds / 3)
            asked = self._now()
            try:
                await self._coordinator.renew(self._lease)
                until = asked + self._lease.seconds
            except LeaseLost as error:
                self.lost = error
            except _TRANSIENT as error:
                if self._now() >= until:
                    self.lost = LeaseLost(f"tube {self._lease.tube} could not be renewed in time: {error}")
        if self._doing is not None:
            self._doing.cancel()


async def _contained(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    try:
        return await call(function, *arguments)
    except (SystemExit, GeneratorExit) as error:
        raise HandlerExit(f"the handler raised {type(error).__name__}") from error
