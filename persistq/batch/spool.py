"""Spool: the folder of a queue's batches, and the locks on what is in it."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..clock import SystemClock, tries_within
from ..codec import check_name
from ..errors import ConfigError, DatabaseUnavailable, DiskFull, PersistQError, QueueFull
from ..jobfiles import make_folder, sync_folder
from ..mounts import is_network
from .names import SIDECARS, BatchName, BatchStatus

MAX_FILE_BYTES = 1 << 30
_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_FILE = {errno.ELOOP, errno.EISDIR, errno.ENXIO}
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TICK = 0.05
_PATIENCE = 1.0
_OPENING_BYTES = 64 << 10


class Damaged(Exception):
    """This is no batch as it was written; the message says why."""


class Spool:
    """``<root>/<queue>/``, private to this user, on a file system of this machine.

    Raises:
        ConfigError: the queue's name is not usable, others may write to the folder, or it is on a network.
    """

    def __init__(self, root: str | os.PathLike[str], queue: str, *, allow_network: bool = False) -> None:
        if check_name("queue", queue) in (".", ".."):
            raise ConfigError(f"a queue cannot be called {queue!r}: its name is a folder's")
        self.queue = queue
        self.root = Path(root).absolute()
        self.folder = self.root / queue
        self._seen: tuple[int, bool] | None = None
        with translating(self.folder):
            make_folder(self.folder)
            _check_private(self.root, shared=True)
            _check_private(self.folder)
        if not allow_network and is_network(self.folder):
            raise ConfigError(
                f"{self.folder} is on a network file system, where locks do not hold everybody back; use a local disk, "
                "and ledger mode to reach other machines"
            )

    def path(self, name: BatchName) -> str:
        """Return the file's path."""
        return f"{self.folder}/{name.text}"

    def names(self) -> Iterator[BatchName]:
        """Yield the name of every batch, in no order."""
        with translating(self.folder), os.scandir(self.folder) as entries:
            for entry in entries:
                if name := BatchName.parse(entry.name):
                    yield name

    def strays(self) -> list[str]:
        """Return the sidecars whose batch is gone."""
        with translating(self.folder):
            present = set(os.listdir(self.folder))  # noqa: PTH208 - names, not paths
        return sorted(
            text for text in present for end in SIDECARS if text.endswith(end) and text.removesuffix(end) not in present
        )

    def count(self, status: BatchStatus) -> int:
        """Return how many batches are in a status."""
        return sum(name.status is status for name in self.names())

    def changed(self) -> bool:
        """Return whether any file may have come, gone or been renamed since the last call."""
        with translating(self.folder):
            found = os.stat(self.folder)  # noqa: PTH116
        # What comes within the same tick of the file system's clock leaves no trace in the time.
        settled = SystemClock().now().timestamp() - found.st_mtime > _TICK
        before, self._seen = self._seen, (found.st_mtime_ns, settled)
        return before != (found.st_mtime_ns, True)

    def look_again(self) -> None:
        """Let the next ``changed`` say yes."""
        self._seen = None

    def sync(self) -> None:
        """Make the names durable."""
        sync_folder(self.folder)

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Keep every other process of this spool out of such a block.

        Raises:
            QueueFull: one has been in it for a second: it may have been stopped there.
        """
        with translating(self.folder):
            handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for last in tries_within(_PATIENCE):
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if last:
                        raise QueueFull(f"another producer keeps {self.folder} to itself; is it stopped?") from None
                else:
                    break
            yield
        finally:
            os.close(handle)

    def create(self, name: BatchName) -> int | None:
        """Make an empty file and return the descriptor that owns it; None when someone took it for a dead one's."""
        path = self.path(name)
        return _locked(os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600), path)

    def own(self, name: BatchName) -> int | None:
        """Return a descriptor that owns the batch until it is closed; None when it is another's, or gone.

        The kernel ends the ownership when the process dies, and not before, however long it is paused.

        Raises:
            Damaged: there is something under the name that can be no batch.
        """
        path = self.path(name)
        try:
            handle = os.open(path, _FLAGS)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _NO_FILE:
                raise Damaged("not a plain file") from None
            raise
        return _locked(handle, path)

    def is_owned(self, name: BatchName) -> bool:
        """Return whether a living process owns the batch."""
        try:
            handle = os.open(self.path(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def rename(self, old: BatchName, new: BatchName) -> None:
        """Give a batch its new name; the caller owns it.

        Raises:
            FileExistsError: there is another file of that name, which a rename would delete.
        """
        if os.path.lexists(self.path(new)):
            raise FileExistsError(errno.EEXIST, "there is a batch of this name already", self.path(new))
        os.rename(self.path(old), self.path(new))  # noqa: PTH104

    def quarantine(self, name: BatchName) -> BatchName:
        """Put a file aside under the status ``invalid``, with what SQLite left beside it, and return its new name."""
        aside = name.become(BatchStatus.INVALID)
        number = 0
        while os.path.lexists(self.path(aside)):
            number += 1
            aside = aside.numbered(number)
        for end in SIDECARS:
            with suppress(FileNotFoundError):
                os.rename(self.path(name) + end, self.path(aside) + end)  # noqa: PTH104
        os.rename(self.path(name), self.path(aside))  # noqa: PTH104
        return aside


@contextmanager
def translating(place: object) -> Iterator[None]:
    """Turn what the file system says into the library's errors; what is the library's own passes."""
    try:
        yield
    except PersistQError:
        raise
    except OSError as error:
        raise translated(error, place) from error


def translated(error: OSError, place: object) -> PersistQError:
    """Return the library's error for one of the file system's."""
    if error.errno in _FULL:
        return DiskFull(f"{place}; free some space, then repeat the call")
    return DatabaseUnavailable(f"{place}: {error.strerror or error}")


def is_full(path: str) -> bool:
    """Return whether the disk has no room for even the files that SQLite opens beside a batch."""
    try:
        disk = os.statvfs(Path(path).parent)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < _OPENING_BYTES


def _check_private(folder: Path, *, shared: bool = False) -> None:
    """Refuse a folder where others may put or take files; a root may be like /tmp, where none takes another's."""
    status = folder.stat(follow_symlinks=shared)
    if stat.S_ISLNK(status.st_mode):
        raise ConfigError(f"{folder} is a link; make it a folder")
    open_to_all = status.st_mode & 0o022 and not (shared and status.st_mode & stat.S_ISVTX)
    if open_to_all or (status.st_uid != os.geteuid() and not shared):
        raise ConfigError(f"{folder} is not this user's alone; chmod go-w it, or choose another folder")


def _check_file(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Damaged("not a plain file")
    if status.st_nlink > 1:
        raise Damaged("it has a second name (a hard link)")
    if status.st_uid != os.geteuid():
        raise Damaged("it belongs to another user")
    if status.st_size > MAX_FILE_BYTES:
        raise Damaged(f"larger than {MAX_FILE_BYTES:,} bytes")


def _locked(handle: int, path: str) -> int | None:
    """Return the descriptor once it owns the batch that has this name; else close it and return None."""
    try:
        _check_file(os.fstat(handle))
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_named(handle, path):
            return handle
    except BlockingIOError:
        pass
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _is_named(handle: int, path: str) -> bool:
    """Return whether the open file still has the name by which it was opened."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False
