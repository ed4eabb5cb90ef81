"""Hand: does what a person decided, one thing after the other, in a thread of its own."""

import threading
from collections.abc import Callable
from queue import SimpleQueue


class Hand:
    """Performs work off the event loop; the work hands its results over itself."""

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="persistq-tui-hand", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def do(self, work: Callable[[], None]) -> None:
        """Perform this when everything before it is done. It has to catch what it raises."""
        self._work.put(work)

    def stop(self, patience: float) -> bool:
        """Do no more; return whether the work under way ended within ``patience`` seconds."""
        self._work.put(None)
        if self._thread.is_alive():
            self._thread.join(patience)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
