"""The reserve: disk space kept back so that work can still be finished when the disk is full."""

import os
from contextlib import suppress
from pathlib import Path

BASE = 256 << 10
"""Bytes that are kept back in any case."""

PER_JOB = 64
"""Bytes more for each job that is not over. Finishing one was seen to take 26: its row and an index grow."""

STEP = 64 << 10
"""Bytes by which it grows, so that not every job adds to it."""

MOST = 64 << 20
"""Bytes that are kept back at most, reached with a million jobs."""

GROWTH = 128 << 10
"""Bytes of new pages that may wait in the WAL. A checkpoint has to find room for them when the disk is
full, and afterwards the WAL is written anew from its start, so the reserve needs no more than this."""

HEADROOM = 64 << 10
"""Bytes that adding a job leaves free beside the reserve: SQLite needs some to open its files at all."""


class Reserve:
    """A file of zeros beside the database, given up for a settle and taken back before an enqueue.

    It only ever helps, so that no error of its file is one of the call.
    """

    def __init__(self, database: Path) -> None:
        # Text, and os.stat: every enqueue asks several times, and a Path takes longer than the kernel.
        self._database = os.fspath(database)
        self._path = f"{self._database}-reserve"

    def hold(self, unfinished: int = 0) -> bool:
        """Return whether enough space for so many jobs is kept back, taking what is missing."""
        missing = size_for(unfinished) - self._size()
        if missing <= 0:
            return True
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            return False
        with suppress(OSError), open(handle, "ab", buffering=0) as file:  # closing it may fail as well
            # Zeros, not truncate(): a hole keeps no space.
            while missing > 0:
                missing -= file.write(bytes(min(missing, 1 << 20)))
            os.fsync(handle)
        return missing <= 0

    def shrink(self, unfinished: int) -> None:
        """Return what is more than so many jobs need."""
        if self._size() > 2 * size_for(unfinished):
            with suppress(OSError):  # given up meanwhile, by a process that needs it
                os.truncate(self._path, size_for(unfinished))

    def is_held(self) -> bool:
        """Return whether the space is kept back now, and not a mere rest of it."""
        return self._size() > GROWTH

    def lend(self) -> None:
        """Return the space to the file system, but for what a checkpoint may need to let the database grow."""
        if self._size() > GROWTH:
            with suppress(OSError):
                os.truncate(self._path, GROWTH)

    def give_up(self) -> None:
        """Return the space to the file system."""
        with suppress(OSError):
            os.unlink(self._path)  # noqa: PTH108

    @staticmethod
    def beside(growth: int) -> int:
        """Return the bytes that have to be free beside the reserve when the database's file is to grow by ``growth``.

        New pages need room twice, in the WAL and at the checkpoint. Up to ``GROWTH`` may wait in the WAL
        on the reserve's account.
        """
        return HEADROOM + 2 * max(0, growth - GROWTH)

    def _size(self) -> int:
        try:
            return os.stat(self._path).st_size  # noqa: PTH116
        except OSError:
            return 0


def size_for(unfinished: int) -> int:
    """Return the bytes to keep back for so many jobs that are not over, in whole steps."""
    steps = -(-PER_JOB * unfinished // STEP)
    return min(MOST, BASE + STEP * steps)
