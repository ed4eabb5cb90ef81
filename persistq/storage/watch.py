"""FileDoorbell: hears another process commit to a SQLite file."""

import ctypes
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from .database import Doorbell

_MODIFY, _DELETE_SELF, _MOVE_SELF, _IGNORED = 0x2, 0x400, 0x800, 0x8000
_EVENT = struct.Struct("iIII")


class FileDoorbell(Doorbell):
    """Watches ``PRAGMA data_version``, which another connection's commit changes, at the price of one page read.

    On Linux the kernel also tells when the WAL is written (inotify), so that nobody has to look before.
    """

    hears = True

    def __init__(self, connect: Callable[[], Any], database: Path, identity: Callable[[], object]) -> None:
        self._connect = connect
        self._database = database
        self._identity = identity
        self._watched: object = None
        self._connection: Any = None
        self._seen: Any = None
        self._inotify: int | None = None

    def fileno(self) -> int | None:
        """Return the descriptor that becomes readable when the WAL is written, where the kernel can tell."""
        if self._inotify is None and self._connection is not None:
            self._inotify = _watch([self._database.with_name(self._database.name + "-wal"), self._database])
        return self._inotify

    def rung(self) -> bool:
        """Return whether anything was committed since the last call. Trouble counts as a ring: look."""
        self._drain()
        try:
            if self._watched != self._identity():
                self.close()  # the file was replaced: the old one will never ring again
            if self._connection is None:
                self._connection = self._connect()
                self._watched = self._identity()
            version = self._connection.driver_connection.execute("PRAGMA data_version").fetchone()
        except Exception:  # noqa: BLE001 - the caller's own query will say what is wrong
            self.close()
            return True
        before, self._seen = self._seen, version
        return bool(before != version)

    def close(self) -> None:
        """Give the connection and the descriptor back."""
        if self._connection is not None:
            self._connection.invalidate()
        self._connection = self._seen = None
        self._stop_watching()

    def _drain(self) -> None:
        if self._inotify is None:
            return
        with suppress(OSError):  # nothing to read
            events = os.read(self._inotify, 1 << 16)
            if any(mask & (_DELETE_SELF | _MOVE_SELF | _IGNORED) for mask in _masks(events)):
                self._stop_watching()

    def _stop_watching(self) -> None:
        if self._inotify is not None:
            os.close(self._inotify)
        self._inotify = None


def _watch(paths: list[Path]) -> int | None:
    """Return an inotify descriptor for the files that exist, or None where there is no inotify."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, AttributeError):
        return None
    if descriptor < 0:
        return None
    # The status of the file is watched, not the file opened: closing it would drop this process's locks.
    watched = [libc.inotify_add_watch(descriptor, os.fsencode(path), _MODIFY | _DELETE_SELF | _MOVE_SELF)
               for path in paths]  # fmt: skip
    if watched[0] < 0 and watched[1] < 0:
        os.close(descriptor)
        return None
    return descriptor


def _masks(events: bytes) -> list[int]:
    found, at = [], 0
    while at + _EVENT.size <= len(events):
        _, mask, _, length = _EVENT.unpack_from(events, at)
        found.append(mask)
        at += _EVENT.size + length
    return found
