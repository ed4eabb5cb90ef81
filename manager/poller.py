"""Poller: reads what the screen shows, in a thread of its own, and outlives whatever happens to the database."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import persistq

Queue = persistq.PersistentQSQLAlchemy

LEAST_SECONDS = 1.0
"""Between two looks, at least."""

_LONGEST_WAIT = 15.0
_BUSY = 3
"""A look that takes long is followed by a pause as many times as long, so that half of nobody's database is ours."""


class Look(Protocol):
    """What a screen wants to see. Equal ones want the same."""

    def read(self, q: Queue) -> Any:
        """Return it; in the poller's thread."""
        ...


@dataclass(frozen=True)
class Seen:
    """What a look found, when."""

    look: Look
    data: Any
    counts: Mapping[str, int]
    alive: int
    at: datetime


@dataclass(frozen=True)
class Trouble:
    """A look that failed: why, and when the next one comes, by the monotonic clock."""

    look: Look
    why: str
    again_at: float


class Poller:
    """Looks again and again, and hands over what it saw."""

    def __init__(self, q: Queue, look: Look, deliver: Callable[[Seen | Trouble], None], interval: float) -> None:
        self.interval = max(LEAST_SECONDS, interval)
        #: Whether to look only when asked to.
        self.frozen = False
        self._q = q
        self._look = look
        self._deliver = deliver
        self._wake = threading.Event()
        self._stopped = False
        # A daemon: a look that hangs on a dead server must not keep a person from leaving.
        self._thread = threading.Thread(target=self._run, name="persistq-tui-poller", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def want(self, look: Look) -> None:
        """Look at this from now on, at once if it is another."""
        if look != self._look:
            self._look = look
            self.wake()

    def wake(self) -> None:
        """Look now."""
        self._wake.set()

    def stop(self, patience: float) -> bool:
        """Look no more; return whether the thread ended within ``patience`` seconds."""
        self._stopped = True
        self.wake()
        if self._thread.is_alive():
            self._thread.join(patience)
        return not self._thread.is_alive()

    def _run(self) -> None:
        failures = 0
        while not self._stopped:
            self._wake.clear()
            look = self._look
            began = self._q.clock.monotonic()
            try:
                now = self._q.clock.now()
                alive = sum(info.is_alive(now) for info in self._q.consumers())
                seen = Seen(look, look.read(self._q), self._q.counts(), alive, now)
            except Exception as error:  # noqa: BLE001 - the screen says what it was, and stays alive
                failures += 1
                pause: float | None = min(_LONGEST_WAIT, max(self.interval, 2.0 ** min(failures - 1, 10)))
                self._deliver(Trouble(look, _said(error), self._q.clock.monotonic() + (pause or 0)))
            else:
                failures = 0
                self._deliver(seen)
                took = self._q.clock.monotonic() - began
                pause = None if self.frozen else max(self.interval, _BUSY * took)
            self._wake.wait(pause)


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, persistq.PersistQError) else f"{type(error).__name__}: {error}"
