"""Time as the database judges it: what is due, and which lease has ended."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from ..clock import Clock
from ..errors import DatabaseUnavailable
from .schema import micros, time_of

_FRESH_SECONDS = 60.0
_JUMP_SECONDS = 1.0
_GOOD_SECONDS = 0.05
_TRIES = 3


class Now:
    """The time of one call."""

    __slots__ = ("micros", "value")

    def __init__(self, value: datetime) -> None:
        self.value = value
        #: As the database keeps it.
        self.micros = micros(value)

    def after(self, seconds: float) -> datetime:
        """Return the time ``seconds`` from now."""
        return self.value + timedelta(seconds=seconds)

    def micros_after(self, seconds: float) -> int:
        """Return the time ``seconds`` from now as the database keeps it."""
        return self.micros + round(seconds * 1_000_000)


class ServerClock:
    """A database server's clock, read once a minute and carried on by this machine's monotonic clock.

    Hosts disagree about the time of day, and theirs may be set at any moment; with this all of them go
    by the server's, to a few milliseconds, and a call pays nothing for it.
    """

    def __init__(self, ask: Callable[[], int], local: Clock) -> None:
        self._ask = ask
        self._local = local
        self._lock = threading.Lock()
        self._offset = 0.0
        self._read_at = float("-inf")
        self._wall_offset = 0.0

    def now(self) -> datetime:
        """Return the server's time.

        Raises:
            DatabaseUnavailable: the server does not answer, and has never been asked or not since the machine slept.
        """
        if not self._is_fresh():
            with self._lock:
                if not self._is_fresh():
                    self._read()
        return time_of(round((self._local.monotonic() + self._offset) * 1_000_000))

    def after_fork(self) -> None:
        """Begin with a new lock: whoever was asking is in the parent."""
        self._lock = threading.Lock()

    def _is_fresh(self) -> bool:
        return not self._slept() and self._local.monotonic() - self._read_at < _FRESH_SECONDS

    def _slept(self) -> bool:
        # A machine that slept has a monotonic clock that did not count the time; its wall clock did.
        return abs(self._wall() - self._wall_offset) > _JUMP_SECONDS

    def _read(self) -> None:
        best = float("inf")
        for _ in range(_TRIES):
            before = self._local.monotonic()
            try:
                theirs = self._ask() / 1_000_000
            except DatabaseUnavailable:
                if best == float("inf") and (self._read_at == float("-inf") or self._slept()):
                    raise
                break  # what is known already is good for another while
            after = self._local.monotonic()
            # The answer is of some moment between question and reply: the shorter, the better known.
            if after - before < best:
                best = after - before
                self._offset = theirs - (before + after) / 2
            if best < _GOOD_SECONDS:
                break
        self._read_at = self._local.monotonic()
        self._wall_offset = self._wall()

    def _wall(self) -> float:
        return self._local.now().timestamp() - self._local.monotonic()
