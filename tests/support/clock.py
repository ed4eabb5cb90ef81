"""A clock that moves only when a test says so."""

from datetime import UTC, datetime, timedelta

START = datetime(2024, 2, 29, 23, 59, 58, 123_456, tzinfo=UTC)
"""A leap day, almost over, with microseconds: an awkward time to begin."""


class FakeClock:
    """The wall clock and the monotonic clock of a test."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start
        self._monotonic = 1000.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float | timedelta) -> datetime:
        """Let time pass, as both clocks see it, and return the new time."""
        span = seconds if isinstance(seconds, timedelta) else timedelta(seconds=seconds)
        self._monotonic += span.total_seconds()
        return self.jump(span)

    def jump(self, seconds: float | timedelta) -> datetime:
        """Set the wall clock only, as a person or a time daemon does, and return the new time."""
        self._now += seconds if isinstance(seconds, timedelta) else timedelta(seconds=seconds)
        return self._now
