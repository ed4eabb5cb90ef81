"""Pace: how far ahead of its free threads a consumer may claim."""

AHEAD_SECONDS = 0.1
"""What is claimed ahead is what the threads will begin within this time: enough that none of them waits for the
database, too little to keep from another consumer what that one could begin sooner."""

_WEIGHT = 0.1
"""Of the newest handler's time in the mean."""


class Pace:
    """Measures how long handlers take, and says how much work may wait in this process.

    It begins with none, and never waits with more than it has measured, so that the first quick
    handler among slow ones does not speak for them all.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._measured = 0
        #: Seconds that a handler takes, the newest counting most.
        self._mean = 0.0

    def note(self, seconds: float) -> None:
        """Take a handler's time into the mean."""
        self._mean += (seconds - self._mean) * (_WEIGHT if self._measured else 1.0)
        self._measured += 1

    def slow_down(self, seconds: float) -> None:
        """Assume that handlers take at least so long, until measuring shows again that they do not."""
        self._mean = max(self._mean, seconds)

    def ahead(self, threads: int) -> int:
        """Return how many pieces of work may wait for one of so many threads."""
        most = min(self._limit, self._measured)
        return most if most * self._mean <= threads * AHEAD_SECONDS else int(threads * AHEAD_SECONDS / self._mean)
