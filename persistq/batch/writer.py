"""BatchWriter: takes items one by one, hands over batches."""

import atexit
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Literal, Self

from ..clock import Clock, Seconds, SystemClock, seconds
from ..errors import ConfigError, PersistQError, QueueFull
from ..events import emit
from . import blocks
from .blocks import NOT_QUICK, SHALLOW, quick_dumps
from .file import MAX_ITEMS, Packed
from .loading import Loading
from .memory import Memory
from .names import LATEST, BatchStatus
from .spool import Spool

OnFull = Literal["block", "raise", "refuse"]
MAX_ITEM_BYTES = 262_144
BLOCK_ITEMS = 1000
_BLOCK_BYTES = 4 << 20
_PENDING_BYTES = 8 << 20
_BATCH_BYTES = 512 << 20
_FIRST_WAIT, _LONGEST_WAIT = 0.001, 0.05
_RETRY_SECONDS = 1.0

_log = logging.getLogger(__name__)
_alive: "weakref.WeakSet[BatchWriter]" = weakref.WeakSet()


class BatchWriter:
    """Writes the items of one producer, in order, into batches of the spool ``root``/``queue``.

    ``add`` keeps items in memory. They are safe once ``flush``, ``roll`` or ``close`` has returned, or the
    batch they are in has become ready: by count (``max_items``), by age (``max_age`` seconds after its
    first item, kept by a timer) or because it has grown to half a GiB. An ``add`` that did not return True
    has kept nothing; one that did is never undone.

    At most ``max_ready_files`` batches stand ready, whoever wrote them. A full batch waits for its place, and
    until it has one ``add`` waits (``block``, at most ``timeout`` seconds), raises QueueFull (``raise``) or
    returns False (``refuse``); so too while the disk is full. Only ``close`` goes beyond: it leaves nothing behind.

    Threads may share a writer; none may add while another closes it. A child process has a writer of
    its own: after a fork this one is empty there.

    Args:
        durability: ``power``: what is safe survives power loss. ``process``: the death of every process.
        compression: ``none``, or ``zstd`` for about a third of the disk (``pip install 'persistq[zstd]'``).
        allow_network: trust the locks of a network file system.

    Raises:
        ConfigError: an argument is not usable, or the folder is not this user's alone.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        queue: str = "default",
        max_items: int = 1000,
        max_age: Seconds | None = None,
        max_ready_files: int | None = None,
        on_full: OnFull = "block",
        *,
        timeout: Seconds | None = None,
        durability: Literal["power", "process"] = "power",
        compression: str | None = None,
        block_items: int = BLOCK_ITEMS,
        max_item_bytes: int = MAX_ITEM_BYTES,
        allow_network: bool = False,
        clock: Clock | None = None,
    ) -> None:
        if on_full not in ("block", "raise", "refuse"):
            raise ConfigError(f"on_full is 'block', 'raise' or 'refuse', not {on_full!r:.40}")
        if durability not in ("power", "process"):
            raise ConfigError(f"durability is 'power' or 'process', not {durability!r:.40}")
        self.max_items = _between("max_items", max_items, MAX_ITEMS)
        self.max_ready_files = (
            max_ready_files if max_ready_files is None else _between("max_ready_files", max_ready_files)
        )
        self.max_age = None if max_age is None else seconds(max_age)
        self._block_items = _between("block_items", block_items, 10_000)
        self._max_item_bytes = _between("max_item_bytes", max_item_bytes, blocks.MAX_BLOCK_BYTES // 4)
        self._short = min(blocks.SHORT, max_item_bytes // 4)
        self._small = min(SHALLOW, max_item_bytes)
        self._on_full, self._timeout = on_full, None if timeout is None else seconds(timeout)
        self._power = durability == "power"
        self._pack = blocks.compressor(compression)
        self._clock = clock or SystemClock()
        self.spool = Spool(root, queue, allow_network=allow_network)
        self._latest = max((name.created for name in self.spool.names() if name.created < LATEST), default=0)
        self._reset()
        _alive.add(self)

    def _reset(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        #: The items of the block that is being filled. It is the same list for ever: threads append to it
        #: without a lock, and whoever ends a block takes from its front under the lock.
        self._items: list[blocks.Kept] = []
        self._long_bytes = 0
        #: Blocks of the batch that are not in its file yet.
        self._pending: list[Packed] = []
        self._memory = Memory()
        self._pending_bytes = 0
        self._counted = 0
        self._bytes = 0
        self._file: Loading | None = None
        self._due = float("inf")
        self._timer: threading.Thread | None = None
        self._closed = False
        #: What takes an item: the list itself while a batch is open, else what opens one first.
        self._append: Callable[[Any], bool | None] = self._admit
        self._limit = min(self._block_items, self.max_items)

    def add(self, item: Any) -> bool:
        """Take a str, bytes or JSON value and return True; False if there is no room and ``on_full`` is ``refuse``.

        A value may be changed after the call without harm to the item.

        Raises:
            PayloadError: None, larger than ``max_item_bytes``, or not a JSON value.
            QueueFull: there is no room.
            DatabaseUnavailable: the spool cannot be written.
        """
        if type(item) is not str or len(item) > self._short:
            item = self._keep(item)
        append = self._append
        if append(item) is not None:
            return False
        if len(self._items) >= self._limit:
            self._end_block()
        return True

    def add_many(self, items: Iterable[Any]) -> int:
        """Take items in their order and return how many: all, unless there was no room and ``on_full`` is ``refuse``.

        Raises:
            PayloadError, QueueFull, DatabaseUnavailable: as ``add`` does. ``added`` of the error says how many
                items, from the first, were taken before.
        """
        rest = items if isinstance(items, list) else list(items)
        taken = 0
        try:
            while taken < len(rest):
                # A copy, which no other thread of the caller's can change between the look at it and its block.
                some = rest[taken : taken + max(1, self._limit - len(self._items))]
                if self._are_short(some):
                    if not self._extend(some):
                        break
                    taken += len(some)
                    continue
                for item in some:
                    if not self.add(item):
                        return taken
                    taken += 1
        except PersistQError as error:
            error.added = taken  # type: ignore[attr-defined]
            raise
        return taken

    def flush(self) -> None:
        """End the block: when this returns, every item that was added is safe.

        Raises:
            QueueFull: the disk is full; the items are kept, and may be flushed later.
            DatabaseUnavailable: the spool cannot be written; as above.
        """
        with self._changed:
            while self._items:
                if self._is_full() and not self._insist(self._finish):
                    raise QueueFull(f"a full batch of {self.spool.queue!r} waits for its place; flush again later")
                self._take()
            if self._counted:
                self._store(complete=self._is_full())
                self._loading().make_safe(self._power)

    def roll(self) -> bool:
        """Make the batch ready however few items it has, and return True; without items it does nothing.

        Returns False, or raises, if there is no room among the ready ones, as ``add`` does.
        """
        with self._changed:
            if not (self._items or self._file):
                return False
            return self._insist(self._finish)

    def close(self) -> None:
        """Make what there is ready, even beyond ``max_ready_files``, and take no more items. Twice is no harm."""
        with self._changed:
            if self._closed:
                return
            if self._items or self._counted:
                self._finish(wait=False)
            if self._file:
                self._file.discard()
                self._file = None
            self._closed = True
            self._append = self._admit
            self._changed.notify_all()
        _alive.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()

    # Taking items

    def _keep(self, item: Any) -> blocks.Kept:
        """Return an item as it is kept until its block ends; JSON of a small object or array is that at once."""
        data = None
        if type(item) is dict or type(item) is list:
            try:
                data = b"," + quick_dumps(item)
            except NOT_QUICK:
                pass
            else:
                if len(data) <= self._small and not data.partition(b"null")[1]:
                    return data
        kept = blocks.keep(item, self._max_item_bytes, data)
        size = blocks.size_of(kept)
        if size > self._short:
            self._long_bytes += size
            if self._long_bytes > _BLOCK_BYTES:
                self._limit = 1  # this item is the block's last
        return kept

    def _are_short(self, items: list[Any]) -> bool:
        """Return whether these are strings that may go into a block as they are; joining them tells soonest."""
        try:
            text = "".join(items)
        except TypeError:
            return False
        room = min(self._short * len(items), self._max_item_bytes)
        return (len(text) <= room and text.isascii()) or max(map(len, items)) <= self._short

    def _extend(self, items: list[Any]) -> bool:
        """Take items that need no look; return False, with none of them taken, when there is no room."""
        with self._changed:
            if self._append == self._admit and not self._make_room():
                return False
            if len(items) == self._block_items == self._limit and not self._items:
                self._end_block(items)
                return True
            self._items += items
            if len(self._items) >= self._limit:
                self._end_block()
        return True

    def _admit(self, item: blocks.Kept) -> bool | None:
        """Open a batch, then take the item; return False when it is refused."""
        with self._changed:
            if self._append != self._admit:  # another thread was here meanwhile
                return self._append(item)
            if not self._make_room():
                return False
            self._items.append(item)
            return None

    def _make_room(self) -> bool:
        if self._closed:
            raise ConfigError("this writer is closed; make another one")
        return self._insist(self._begin)

    def _insist(self, act: Callable[[], None]) -> bool:
        """Do it, or whatever ``on_full`` says to do when there is no room."""
        end = float("inf") if self._timeout is None else self._clock.monotonic() + self._timeout
        pause = _FIRST_WAIT
        while True:
            try:
                act()
            except QueueFull:
                if self._on_full == "refuse":
                    return False
                if self._on_full == "raise" or self._clock.monotonic() >= end:
                    raise
            else:
                return True
            self._changed.wait(min(pause, max(0.0, end - self._clock.monotonic())))
            pause = min(2 * pause, _LONGEST_WAIT)

    # Blocks and batches; all of it under the lock

    def _begin(self) -> None:
        """Open a batch, after the full one, if it is still waiting for its place, has got it."""
        if self._file and self._is_full():
            self._finish()
        elif self._pending_bytes >= _PENDING_BYTES:
            self._store(complete=False)
        if self._file is None:
            self._loading()
        self._append = self._items.append

    def _loading(self) -> Loading:
        if self._file is None:
            now = int(self._clock.now().timestamp() * 1_000_000) * 1000
            self._file = Loading(self.spool, max(now, self._latest + 1))
            self._latest = self._file.name.created
            if self.max_age is not None:
                self._due = self._clock.monotonic() + self.max_age
                self._start_timer()
        return self._file

    def _end_block(self, whole: list[Any] | None = None) -> None:
        """Take a block that came as one and full blocks out of the list, and hand over the batch when it is full.

        It raises nothing: the items are in memory, and the next ``add`` will meet the trouble before it takes any.
        """
        with self._changed:
            try:
                while whole or len(self._items) >= self._limit:
                    self._take(whole)
                    whole = None
                    if self._is_full():
                        self._finish()
                    elif self._pending_bytes >= _PENDING_BYTES:
                        self._store(complete=False)
            except QueueFull:
                self._append = self._admit
            except PersistQError as error:
                self._append = self._admit
                _log.warning("%s; the next add tries again", error)

    def _take(self, whole: list[Any] | None = None) -> bool:
        """Make items into a block: ``whole``, or what is in the list up to the end of a block and of the batch."""
        items = whole or self._items[: max(0, min(self._block_items, self.max_items - self._counted))]
        if not items:
            return False
        number = len(items)
        form, data = blocks.encode(items)
        if self._pack:
            form, data = self._pack(form, data)
        self._pending.append((form, self._memory.keep(data), number))
        if not whole:
            del self._items[:number]
        self._counted += number
        self._bytes += len(data)
        self._pending_bytes += len(data)
        self._long_bytes = 0
        self._limit = max(1, min(self._block_items, self.max_items - self._counted))
        return True

    def _is_full(self) -> bool:
        return self._counted >= self.max_items or self._bytes >= _BATCH_BYTES

    def _store(self, *, complete: bool) -> None:
        """Write the blocks that are not in the file yet."""
        loading = self._loading()
        if (self._pending or complete) and not loading.complete:
            loading.write(self._pending, complete=complete, careful=self._power and loading.promised)
            self._pending, self._pending_bytes = [], 0
            self._memory.clear()

    def _finish(self, *, wait: bool = True) -> None:
        """Complete the batch and make it ready.

        Raises:
            QueueFull: there is no room for another ready batch; this one is kept, complete.
        """
        while self._items and not self._is_full():
            self._take()
        if self._counted:
            self._store(complete=True)
            loading = self._loading()
            loading.make_safe(self._power)
            path = self._publish(loading, wait=wait)
            number, self._file, self._counted, self._bytes = self._counted, None, 0, 0
            self._due = float("inf")
            self._append = self._admit
            self._limit = min(self._block_items, self.max_items)
            emit("batch.ready", path=path, items=number)
        if self._items and not wait:  # another thread's, which came while the batch was closed
            self._finish(wait=wait)

    def _publish(self, loading: Loading, *, wait: bool) -> str:
        if self.max_ready_files is None or not wait:
            return loading.publish(self._power)
        with self.spool.exclusively():
            if self.spool.count(BatchStatus.READY) >= self.max_ready_files:
                raise QueueFull(
                    f"{self.max_ready_files} batches of {self.spool.queue!r} are ready already; start a reader"
                )
            return loading.publish(self._power)

    # Age

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = threading.Thread(
                target=_keep_time, args=[weakref.ref(self), self._changed], name="persistq-batch-age", daemon=True
            )
            self._timer.start()
        if self.max_age is not None and self.max_age < _RETRY_SECONDS:
            self._changed.notify_all()  # else it looks soon enough by itself

    def roll_if_due(self) -> float | None:
        """Make the batch ready if it has reached its age; return the seconds until it will, or None.

        The writer's own timer calls this; an application with a clock of its own may as well.
        """
        with self._changed:
            if self._items and self._file is None:
                self._loading()  # for what another thread added while a batch was closed
            left = self._due - self._clock.monotonic()
            if left > 0:
                return None if left == float("inf") else left
            try:
                self._finish()
            except PersistQError as error:
                if not isinstance(error, QueueFull):
                    _log.warning("%s; trying again", error)
                self._due = self._clock.monotonic() + _RETRY_SECONDS
                return _RETRY_SECONDS
            return None

    def _forget(self) -> None:
        """Leave everything to the parent, in a child process that was forked."""
        if self._file:
            self._file.close()
        self._reset()


def _keep_time(of: "weakref.ref[BatchWriter]", changed: threading.Condition) -> None:
    while (writer := of()) is not None and not writer._closed and writer._changed is changed:
        left = writer.roll_if_due()
        del writer  # so that the wait does not keep it alive
        with changed:
            changed.wait(min(left, _RETRY_SECONDS) if left else _RETRY_SECONDS)


def _between(name: str, value: object, most: int = 1 << 31) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most:
        return value
    raise ConfigError(f"{name} is a whole number from 1 to {most:,}, not {value!r:.40}")


def _close_all() -> None:
    for writer in tuple(_alive):
        try:
            writer.close()
        except PersistQError as error:
            _log.error("what was added last is lost: %s", error)


def _after_fork() -> None:
    for writer in tuple(_alive):
        writer._forget()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_after_fork)
