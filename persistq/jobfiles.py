"""Job files on disk: written so that a power cut, a crash or a planted link cannot spoil them."""

import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

PREFIX, SUFFIX = "job_", ".txt"
MAX_BYTES = 1 << 30
_TEMPORARY = ".persistq-tmp-"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NO_LINK = os.O_NOFOLLOW | os.O_CLOEXEC
_WRONG_PATH = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG, errno.EACCES}


class NotAJobFile(Exception):
    """The path is no plain file inside the job folder."""


def create(folder: Path, text: str) -> Path:
    """Write a new uniquely named file and return its absolute path once it would survive power loss.

    The order matters: the bytes first, then the name, and only then may a database row speak of it.
    """
    make_folder(folder.absolute())
    handle, name = tempfile.mkstemp(prefix=PREFIX, suffix=SUFFIX, dir=folder.absolute())
    try:
        with open(handle, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        sync_folder(folder)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


def append_line(root: Path, path: str, line: str, mark: str) -> bool:
    """Append ``line`` to a job file unless a line with ``mark`` stands there; return whether it did.

    The file is replaced as a whole, so a reader sees it without the line or with it, never in between.

    Raises:
        NotAJobFile: ``path`` is no plain file under ``root``.
    """
    with _parent(root, path) as (folder, name):
        # Two jobs may name one file: without the lock the later rename would undo the earlier.
        fcntl.flock(folder, fcntl.LOCK_EX)
        old, mode = _read(folder, name)
        if any(mark.encode() in row.split() for row in old.splitlines()):
            return False
        if old and not old.endswith(b"\n"):
            old += b"\n"
        temporary = f"{_TEMPORARY}{os.getpid()}-{os.urandom(8).hex()}"
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, mode, dir_fd=folder)
        try:
            with open(handle, "wb") as file:
                os.fchmod(handle, mode)
                file.write(old + line.encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
            raise
        os.fsync(folder)
    return True


def check(root: Path, path: str) -> None:
    """Return when ``path`` is a plain file of ours under ``root``.

    Raises:
        NotAJobFile: it is not; the message says why.
    """
    with _parent(root, path) as (folder, name):
        _inspect(folder, name)


def delete(root: Path, path: str) -> None:
    """Delete one job file, reached from ``root`` through folders only, never through a link.

    Raises:
        NotAJobFile: ``path`` is no plain file under ``root``; nothing was deleted.
    """
    with _parent(root, path) as (folder, name):
        _inspect(folder, name)
        os.unlink(name, dir_fd=folder)


@contextmanager
def _parent(root: Path, path: str) -> Iterator[tuple[int, str]]:
    """Yield an open folder and the file's name in it; no step of the way may be a link."""
    *folders, name = _steps(root, path)
    with ExitStack() as opened:
        # A root that is missing, such as a disk that is not mounted, says nothing against the path.
        folder = _open(opened, str(root), _FOLDER)
        with _refusing():
            for part in folders:
                folder = _open(opened, part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            yield folder, name


def _steps(root: Path, path: str) -> tuple[str, ...]:
    if "\0" in path:
        raise NotAJobFile("the path holds a NUL")
    # Not resolve(): it would follow the very links that are to be refused.
    inside = os.path.relpath(path, root.absolute()) if os.path.isabs(path) else os.path.normpath(path)
    steps = Path(inside).parts
    if not steps or ".." in steps:
        raise NotAJobFile(f"not inside {root}")
    return steps


def _open(opened: ExitStack, name: str, flags: int, dir_fd: int | None = None) -> int:
    handle = os.open(name, flags, dir_fd=dir_fd)
    opened.callback(os.close, handle)
    return handle


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn what the file system says of a wrong path into NotAJobFile; a full disk is not that."""
    try:
        yield
    except OSError as error:
        if error.errno in _WRONG_PATH:
            raise NotAJobFile(os.strerror(error.errno)) from error
        raise


def _read(folder: int, name: str) -> tuple[bytes, int]:
    # O_NONBLOCK: opening a FIFO that was planted under the name must not hang.
    handle = os.open(name, os.O_RDONLY | os.O_NONBLOCK | _NO_LINK, dir_fd=folder)
    try:
        status = os.fstat(handle)
        _judge(status)
    except BaseException:
        os.close(handle)
        raise
    with open(handle, "rb") as file:
        return file.read(), stat.S_IMODE(status.st_mode)


def _inspect(folder: int, name: str) -> None:
    _judge(os.stat(name, dir_fd=folder, follow_symlinks=False))


def _judge(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NotAJobFile("not a plain file")
    if status.st_nlink != 1:
        raise NotAJobFile("it has a second name (a hard link)")
    if status.st_uid != os.geteuid():
        raise NotAJobFile("it belongs to another user")
    if status.st_size > MAX_BYTES:
        raise NotAJobFile(f"larger than {MAX_BYTES:,} bytes")


def sweep(root: Path, before: float) -> int:
    """Delete the temporary files that killed consumers left before a time (seconds since 1970); return how many."""
    swept = 0
    for entry in root.rglob(f"{_TEMPORARY}*"):
        with suppress(FileNotFoundError):  # its consumer lives, and has renamed it
            if entry.lstat().st_mtime < before:
                entry.unlink()
                swept += 1
    return swept


def make_folder(folder: Path) -> None:
    """Make a folder and what is missing above it, private and as durable as the files to come."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive power loss."""
    handle = os.open(folder, _FOLDER)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
