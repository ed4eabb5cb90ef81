"""Wakeup: how the loop sleeps, and how threads and signal handlers end its sleep."""

import os
import select
import time
from contextlib import suppress
from typing import Self


class Wakeup:
    """A pipe to oneself, open for the length of a ``with`` block. Whoever writes into it wakes who polls it."""

    def __init__(self) -> None:
        self._ends: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        self._ends = os.pipe()
        for end in self._ends:
            os.set_blocking(end, False)
        return self

    def __exit__(self, *_: object) -> None:
        ends, self._ends = self._ends, None
        for end in ends or ():
            os.close(end)

    def wake(self) -> None:
        """End the sleep, or the next one. A signal handler may call it: there is no lock to deadlock on."""
        if ends := self._ends:
            with suppress(BlockingIOError):  # a pipe that is full wakes as well
                os.write(ends[1], b"\0")

    def sleep(self, seconds: float, bell: int | None = None) -> bool:
        """Sleep until woken, until ``bell`` is readable, or for ``seconds``; return whether it was the bell."""
        if seconds < _FINEST:
            time.sleep(max(0.0, seconds))
            seconds = 0
        poll = select.poll()
        own = self._ends[0] if self._ends else None
        for descriptor in (own, bell):
            if descriptor is not None:
                poll.register(descriptor, select.POLLIN)
        ready = [descriptor for descriptor, _event in poll.poll(min(seconds, _LONGEST) * 1000)]
        if own is not None and own in ready:
            os.read(own, 4096)
        return bell in ready


_FINEST, _LONGEST = 0.001, 86_400.0
"""Seconds: poll takes whole milliseconds, rounded up, as a C int. What is shorter is slept, and nobody wakes it."""
