"""The clock, ids and consumer names; the only place that asks for the time."""

import os
import random
import secrets
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Protocol

LONGEST_SPAN = 100 * 365 * 86_400
"""Seconds in a century: whatever is added to it, the sum is still a time."""

Seconds = int | float | timedelta
"""A span of time wherever the library takes one: seconds, or a timedelta."""


class Clock(Protocol):
    """What the library knows of time. Tests put their own in its place."""

    def now(self) -> datetime:
        """Return the wall clock's time, UTC-aware."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go backwards, from an arbitrary start."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """Return the wall clock's time, UTC-aware."""
        return datetime.now(UTC)

    #: Return seconds that never go backwards, from an arbitrary start. C's own, for it is asked several times a job.
    monotonic = staticmethod(time.monotonic)


class JumpGuard:
    """Notices that the wall clock was set, by comparing it with the monotonic clock.

    A lease on SQLite ends at a wall-clock time. When that clock leaps forward, every live lease
    looks expired; so recovery waits until the living have had time to renew.
    """

    TOLERANCE = 2.0
    """Seconds of drift that are no jump: time daemons slew a clock by less than this between looks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset = self._measure()
        self._jumped_at: float | None = None

    def quiet_for(self, seconds: float) -> bool:
        """Return whether the last jump, if any, is at least ``seconds`` ago."""
        offset = self._measure()
        if abs(offset - self._offset) > self.TOLERANCE:
            self._jumped_at = self._clock.monotonic()
        self._offset = offset
        return self._jumped_at is None or self._clock.monotonic() - self._jumped_at >= seconds

    def _measure(self) -> float:
        return self._clock.now().timestamp() - self._clock.monotonic()


def seconds(span: Seconds) -> float:
    """Return a span of time as seconds."""
    return span.total_seconds() if isinstance(span, timedelta) else float(span)


def tries_within(span: float) -> Iterator[bool]:
    """Yield once a try until ``span`` seconds are over, with short waits between; True says it is the last."""
    end = time.monotonic() + span
    while (left := end - time.monotonic()) > 0:
        yield False
        time.sleep(min(left, random.uniform(0.005, 0.03)))
    yield True


def default_consumer_name() -> str:
    """Return the name supervisord gave this process, or ``consumer``."""
    return os.environ.get("SUPERVISOR_PROCESS_NAME") or "consumer"


def consumer_id(name: str) -> str:
    """Return ``name@host:pid:random``, an id that no other process, past or future, has."""
    return f"{name}@{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def name_of(consumer: str) -> str:
    """Return the stable name in a consumer id; a bare name is returned as it is."""
    return consumer.partition("@")[0]


def default_actor() -> str:
    """Return who is at work here, ``user@host``, for the history of a job."""
    user = os.environ.get("SUDO_USER") or os.environ.get("USER") or f"uid{os.getuid()}"
    return f"{user}@{socket.gethostname()}"
