"""Room: whether the disk takes a new job and leaves enough to finish all of them."""

import os
from collections.abc import Callable

from sqlalchemy import Connection

from ..errors import DatabaseUnavailable, DiskFull
from . import tallies
from .reserve import Reserve

PLENTY = 1 << 30
"""Free bytes from which on a look at the disk is good for ``LOOK_SECONDS``: nothing fills them in that time."""

LOOK_SECONDS = 0.1

_MUCH = 64 << 10
_CALLS_BETWEEN_COUNTS = 100


class Room:
    """What one process knows of the space that a database has, needs and will need."""

    def __init__(self, database: str, reserve: Reserve, monotonic: Callable[[], float]) -> None:
        self._database = database
        self._folder = os.path.dirname(database)  # noqa: PTH120
        self._reserve = reserve
        self._monotonic = monotonic
        self._page_bytes = 0
        #: Calls that may still add jobs before this process counts again what the reserve has to be for.
        self._uncounted = 0
        self._unfinished = 0
        self._looked_at = float("-inf")

    def is_plentiful(self) -> bool:
        """Return whether a look a moment ago saw so much space that adding a job needs no other."""
        return self._monotonic() - self._looked_at < LOOK_SECONDS

    def look(self, connection: Connection) -> int:
        """Return how many bytes the file will grow by once the running transaction is checkpointed.

        Raises:
            DatabaseUnavailable: the disk cannot be asked.
            DiskFull: it would leave too little disk to finish every job.
        """
        try:
            growth = max(0, self._size_within(connection) - os.stat(self._database).st_size)  # noqa: PTH116
            free = self._free()
        except OSError as error:
            raise DatabaseUnavailable(f"{self._folder}: {error.strerror}") from error
        self._uncounted -= 1
        if self._uncounted <= 0 or growth > _MUCH:
            self._unfinished = tallies.unfinished(connection)
            self._uncounted = _CALLS_BETWEEN_COUNTS
        if free < self._reserve.beside(growth) or not self._reserve.hold(self._unfinished):
            self._uncounted = 0
            raise DiskFull(f"{self._folder} has no room for this; free some space, then repeat the call")
        if free >= PLENTY:
            self._looked_at = self._monotonic()
        return growth

    def _free(self) -> int:
        disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize

    def _size_within(self, connection: Connection) -> int:
        cursor = connection.connection.cursor()
        if not self._page_bytes:
            self._page_bytes = cursor.execute("PRAGMA page_size").fetchone()[0]
        return int(cursor.execute("PRAGMA page_count").fetchone()[0] * self._page_bytes)
