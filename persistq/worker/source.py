"""Source: anything that the worker loop can claim from."""

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from ..model import Outcome
from ..tasks import Cancellation

W = TypeVar("W")

Coming = Coroutine[Any, Any, Outcome]
"""An outcome that an event loop has yet to bring about."""


@dataclass(frozen=True, slots=True)
class Turn(Generic[W]):
    """What one exchange with a source brought."""

    claimed: Sequence[W] = ()
    #: Work of ``holding``, the very objects, whose lease is gone: its outcome is worth nothing any more.
    lost: Sequence[W] = field(default_factory=tuple)


class Source(Protocol[W]):
    """A queue of work under leases. Only ``perform`` and ``is_async`` are called in other threads than the loop's."""

    def exchange(self, settled: Sequence[Outcome], holding: Sequence[W], room: int, ahead: int = 0) -> Turn[W]:
        """Write the outcomes, keep ``holding`` leased, claim up to ``room`` more.

        ``ahead`` says how many of these will have to wait in this process before they begin.

        Raises:
            DatabaseUnavailable, OutcomeUnknown, QueueFull: repeat the call later with the same outcomes.
        """
        ...

    def perform(self, work: W, cancellation: Cancellation) -> Outcome | Coming:
        """Run the handler and return the outcome, or the coroutine that will; neither ever raises."""
        ...

    def is_async(self, work: W) -> bool:
        """Return whether ``perform`` returns a coroutine, at once, and so may be called on an event loop."""
        ...

    def timeout(self, work: W) -> float | None:
        """Return the seconds that performing it may take."""
        ...

    def timed_out(self, work: W) -> Outcome:
        """Return the outcome of work that took longer than its timeout."""
        ...

    def released(self, work: W) -> Outcome:
        """Return the outcome of work that is given back unperformed."""
        ...

    def expired(self, holding: Sequence[W]) -> Sequence[W]:
        """Return what, by this machine's monotonic clock, is no longer leased: it could not be renewed."""
        ...

    def pause(self) -> float:
        """Return how many seconds the loop may sleep before the next exchange."""
        ...

    def bell(self) -> int | None:
        """Return a descriptor that is readable when there may be something new, or None when there is none.

        Asked before every sleep, for it may change.
        """
        ...

    def listens(self) -> bool:
        """Return whether, for want of a descriptor, ``rung`` is worth being asked a hundred times a second."""
        ...

    def rung(self) -> bool:
        """Return, cheaply, whether there may be something new, and make the descriptor unreadable again."""
        ...

    def drained(self) -> bool:
        """Return whether nothing is left to wait for."""
        ...

    def close(self) -> None:
        """Say goodbye."""
        ...
