"""Ledger mode: batches leave the machine. Their bytes are in a store, and a tracked job for each says whose they are.

``Ledger.announce`` takes ready batches out of a spool, puts each into the store and enqueues a job whose item is its
URL. Any consumer that reaches the store performs that job by ``Ledger.opened``; it is leased, retried and given up on
like every other. A store is a folder, or a URL of any file system that fsspec knows, such as ``s3://bucket/prefix``.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from ..errors import ConfigError, DatabaseUnavailable, PermanentError
from ..jobfiles import make_folder, sync_folder
from .file import Batch
from .names import BatchName, BatchStatus
from .recovery import quarantine
from .spool import Damaged, Spool, translated, translating

_DONE = ".done"
_LOCAL_COPY = "batch.db"


class Ledger:
    """A store of announced batches.

    Args:
        place: a folder, or a URL; its password, if any, belongs into ``options`` or the environment.
        options: passed to fsspec's file system, such as ``endpoint_url``.

    Raises:
        ConfigError: the URL's file system is not known, or its library is missing.
    """

    def __init__(self, place: str | os.PathLike[str], **options: Any) -> None:
        text = os.fspath(place)
        scheme, mark, rest = text.partition("://")
        if not mark or scheme == "file":
            folder = Path(rest if mark else text).absolute()
            self.place = str(folder)
            self._store: _Store = _Folder()
        else:
            self.place = text.rstrip("/")
            self._store = _Remote(self.place, options)

    def announce(
        self, root: str | os.PathLike[str], queue: str, enqueue: Callable[[str], object], *, limit: int | None = None
    ) -> int:
        """Move the ready batches of a spool here, announce each, and return how many.

        ``enqueue`` is called with a batch's URL and has to be safe to repeat, as ``lambda url: q.enqueue(url,
        unique_key=url)`` is: whatever dies in between, the next call does the rest, under the same URL.

        Raises:
            DatabaseUnavailable: the store cannot be written now; the batch is ready again. What ``enqueue``
                raises passes likewise.
        """
        spool = Spool(root, queue)
        moved = 0
        for name in sorted(name for name in spool.names() if name.status is BatchStatus.READY):
            if limit is not None and moved >= limit:
                break
            moved += self._move(spool, name, enqueue)
        return moved

    @contextmanager
    def opened(self, url: str) -> Iterator[Iterator[Any]]:
        """Yield the items of an announced batch; when the block ends without an exception, the batch is done with.

        A job that is delivered again after that finds nothing left to do.

        Raises:
            PermanentError: the URL is not one of this ledger's, the batch is damaged, or it is gone.
            DatabaseUnavailable: the store cannot be read now; another attempt may find it.
        """
        inside = url.removeprefix(self.place + "/")
        if inside == url or ".." in inside.split("/"):
            raise PermanentError(f"{url!r:.200} is no batch in {self.place}")
        with tempfile.TemporaryDirectory(prefix="persistq-batch-") as folder:
            copy = f"{folder}/{_LOCAL_COPY}"
            if not self._fetch(url, copy):
                yield iter(())
                return
            try:
                batch = Batch(copy)
            except Damaged as damage:
                raise PermanentError(f"{url} is damaged: {damage}") from damage
            try:
                yield _items(batch, url)
            finally:
                batch.close()
        with self._reaching(url):
            self._store.mark(url + _DONE)
            self._store.delete(url)

    def _fetch(self, url: str, copy: str) -> bool:
        """Copy a batch here; return False if it is done with already."""
        with self._reaching(url):
            try:
                self._store.get(url, copy)
            except FileNotFoundError:
                if self._store.exists(url + _DONE):
                    return False
                raise PermanentError(f"{url} is gone, and nobody has performed it") from None
        return True

    def _move(self, spool: Spool, name: BatchName, enqueue: Callable[[str], object]) -> bool:
        handle = None
        try:
            with translating(spool.folder):
                handle = spool.own(name)
            if handle is None:
                return False
            _check(spool.path(name), handle)
            url = f"{self.place}/{spool.queue}/{name.created:019d}_{name.id}.db"
            # It stays ready, owned by this process, until it is announced: a crash leaves nothing to be recovered.
            with self._reaching(url):
                self._store.put(spool.path(name), url)
            enqueue(url)
            with translating(spool.folder):
                Path(spool.path(name)).unlink()
                spool.sync()
        except Damaged as damage:
            quarantine(spool, name, str(damage))
            return False
        finally:
            if handle is not None:
                os.close(handle)
        return True

    @contextmanager
    def _reaching(self, url: str) -> Iterator[None]:
        try:
            yield
        except PermanentError:
            raise
        except OSError as error:
            raise translated(error, url) from error
        except Exception as error:  # each file system has errors of its own
            raise DatabaseUnavailable(f"{url}: {type(error).__name__}: {error}") from error


class _Store(Protocol):
    """What a ledger asks of a file system. A put is seen whole or not at all."""

    def put(self, path: str, url: str) -> None: ...
    def get(self, url: str, path: str) -> None: ...
    def exists(self, url: str) -> bool: ...
    def mark(self, url: str) -> None: ...
    def delete(self, url: str) -> None: ...


class _Folder:
    """Files of this machine, or of what is mounted on it."""

    def put(self, path: str, url: str) -> None:
        self._write(url, Path(path).read_bytes())

    def get(self, url: str, path: str) -> None:
        Path(path).write_bytes(Path(url).read_bytes())

    def exists(self, url: str) -> bool:
        return Path(url).exists()

    def mark(self, url: str) -> None:
        self._write(url, b"")

    def delete(self, url: str) -> None:
        Path(url).unlink(missing_ok=True)

    def _write(self, url: str, data: bytes) -> None:
        target = Path(url)
        make_folder(target.parent)
        handle, temporary = tempfile.mkstemp(prefix=".persistq-tmp-", dir=target.parent)
        try:
            with open(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_folder(target.parent)


class _Remote:
    """Whatever fsspec reaches."""

    def __init__(self, place: str, options: dict[str, Any]) -> None:
        try:
            from fsspec.core import url_to_fs

            self._fs, _ = url_to_fs(place, use_listings_cache=False, **options)
        except ImportError as error:
            raise ConfigError(f"{place} needs a library ({error}); for s3:// pip install 'persistq[s3]'") from error
        except ValueError as error:
            raise ConfigError(f"{place}: {error}") from error

    def put(self, path: str, url: str) -> None:
        self._fs.put_file(path, url)

    def get(self, url: str, path: str) -> None:
        self._fs.get_file(url, path)

    def exists(self, url: str) -> bool:
        return bool(self._fs.exists(url))

    def mark(self, url: str) -> None:
        self._fs.pipe_file(url, b"done")

    def delete(self, url: str) -> None:
        with suppress(FileNotFoundError):
            self._fs.rm_file(url)


def _check(path: str, handle: int) -> None:
    """Read a batch from its first to its last byte before it leaves."""
    batch = Batch(path, handle)
    try:
        for block in batch.blocks:
            batch.read(block)
    finally:
        batch.close()


def _items(batch: Batch, url: str) -> Iterator[Any]:
    begun = batch.progress
    for block in batch.blocks:
        if block.first + block.number > begun:
            try:
                items = batch.read(block)
            except Damaged as damage:
                raise PermanentError(f"{url} is damaged: {damage}") from damage
            yield from items[max(0, begun - block.first) :]
