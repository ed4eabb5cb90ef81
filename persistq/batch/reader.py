"""BatchReader: hands out the items of batches, in order, each batch to one reader at a time."""

import heapq
import os
import random
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from time import sleep
from typing import Any, Literal, Self

from ..clock import Clock, Seconds, SystemClock, seconds
from ..errors import ConfigError
from ..events import emit
from .file import Batch, Block
from .memory import Memory
from .names import BatchName, BatchStatus
from .recovery import quarantine, recover_spool
from .spool import Damaged, Spool, translating

_KNOWN = 10_000
"""Names remembered from one look into the folder, so that claiming costs the same however many wait."""

_RECOVERY_SECONDS = 1.0
_FIRST_WAIT, _LONGEST_WAIT = 0.001, 0.05
_END: Any = object()

_alive: "weakref.WeakSet[BatchReader]" = weakref.WeakSet()


class BatchReader:
    """Takes batches of the spool ``root``/``queue``, oldest first, and gives their items one after the other.

    ``for item in reader`` ends when nothing is ready; with ``wait`` it waits so many seconds for more, or
    for ever (``wait=True``). It may be begun again at any time and goes on where it was.

    An item counts as consumed when the next one is asked for, or when the reader is closed; not so if a ``with`` block
    ends by an exception. Progress is saved at the end of each block of items, and by ``close`` to the item: a crash
    hands at most one block out again. A reader belongs to one thread.

    Once a reader has died with a block in hand, the items of that block are handed out one by one, each saved before
    the next: so the item that kills its process is found out, and ``deaths`` tells.

    What dead processes left is recovered at the start and whenever there is nothing else to do; a damaged
    batch is put aside as ``invalid_`` and reported, and the others go on.

    Args:
        owner: shown in the name of the batch that this reader is at, for whoever looks into the folder.
        durability: at ``power`` a consumed batch stays consumed after power loss; what was read of the one in
            hand may be handed out again.

    Raises:
        ConfigError: an argument is not usable, or the folder is not this user's alone.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        queue: str = "default",
        owner: object = None,
        *,
        wait: Seconds | bool | None = None,
        durability: Literal["power", "process"] = "power",
        allow_network: bool = False,
        clock: Clock | None = None,
    ) -> None:
        if durability not in ("power", "process"):
            raise ConfigError(f"durability is 'power' or 'process', not {durability!r:.40}")
        self._wait = float("inf") if wait is True else seconds(wait or 0)
        self._owner = os.getpid() if owner is None else owner
        self._power = durability == "power"
        self._clock = clock or SystemClock()
        self.spool = Spool(root, queue, allow_network=allow_network)
        self._memory = Memory()
        self._known: deque[BatchName] = deque()
        self._recovered_at = float("-inf")
        self._held: _Held | None = None
        self._items: Any = iter(())
        self._closed = False
        #: Whether a batch is parted with when its last item is consumed; else ``release`` has to be called.
        self.auto_release = True
        self._recover()
        _alive.add(self)

    @property
    def batch(self) -> str | None:
        """The file name of the batch in hand."""
        return self._held.name.text if self._held else None

    @property
    def place(self) -> tuple[str, int] | None:
        """The id of the batch in hand, and the number of the item in it that comes next."""
        return (self._held.name.id, self._position()) if self._held else None

    @property
    def deaths(self) -> int:
        """How many readers in a row have died with the last item handed out in hand, alone or with its block."""
        held = self._held
        if held is None or not held.name.deaths:
            return 0
        return held.name.deaths if self._position() - 1 == held.name.at else 1

    def get(self, timeout: Seconds = 0) -> Any:
        """Return the next item, or None if none comes within ``timeout`` seconds; None is never an item.

        Raises:
            DatabaseUnavailable: the spool cannot be read now; call again later.
        """
        item = next(self._items, _END)
        while item is _END:
            if not self._next_block(seconds(timeout)):
                return None
            item = next(self._items, _END)
        return item

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(self._runs())

    def blocks(self) -> Iterator[list[Any]]:
        """Yield the items in lists, a block at a time; a block is consumed when the next one is asked for."""
        if left := list(self._items):
            yield left
        while (items := self._next_items(self._wait)) is not None:
            yield items

    def get_block(self, timeout: Seconds = 0) -> list[Any]:
        """Return what is left of the block in hand, or the next one; an empty list if none comes in time."""
        return list(self._items) or self._next_items(seconds(timeout)) or []

    def release(self, unconsumed: int = 0) -> bool:
        """Give the batch in hand back, what was consumed of it kept in mind; return whether there was one.

        ``unconsumed`` says how many of the items last handed out are to come again; a large number means all
        of the batch.
        """
        if self._held is None:
            return False
        self._settle(max(0, self._position() - unconsumed))
        return True

    def put_aside(self, reason: str, unconsumed: int = 0) -> None:
        """Quarantine the batch in hand, what was consumed of it kept in mind."""
        held = self._held
        if held is not None:
            held.batch.save(max(0, self._position() - unconsumed))
            self._put_aside(held, reason)

    def close(self) -> None:
        """Count the last item as consumed and give back what is left. Twice is no harm."""
        if not self._closed:
            self._closed = True
            self.release()
        _alive.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self._held is not None:
            self._settle(max(self._held.begun, self._position() - 1))
        self.close()

    def __del__(self) -> None:
        # Without close nobody said that the last item is done with; the lock goes with the descriptor.
        if getattr(self, "_held", None) is not None:
            self._abandon()

    # Going on

    def _runs(self) -> Iterator[Iterator[Any]]:
        """Yield what is left of the block in hand, then every further one; the same iterators ``get`` takes from."""
        if self._items.__length_hint__():
            yield self._items
        while self._next_block(self._wait):
            yield self._items

    def _next_block(self, patience: float) -> bool:
        """Go on with the next block; return False if none comes in time."""
        items = self._next_items(patience)
        self._items = iter(items or ())
        return items is not None

    def _next_items(self, patience: float) -> list[Any] | None:
        """Count the block in hand as consumed and hand the next one out; return None if none comes in time."""
        if self._closed:
            raise ConfigError("this reader is closed; make another one")
        while True:
            if self._held is None and not self._claim_within(patience):
                return None
            held = self._held
            if held is None:
                continue
            try:
                if held.is_past_suspects():
                    self._rename(held, held.name.become(BatchStatus.UNLOAD, self._owner))
                if (items := held.advance()) is not None:
                    return items
            except Damaged as damage:
                self._put_aside(held, str(damage))
                continue
            if not self.auto_release:
                return None
            self._settle(held.batch.items)

    def _position(self) -> int:
        """Return how many items of the batch in hand have been handed out."""
        held = self._held
        return held.end - self._items.__length_hint__() if held else 0

    def _settle(self, position: int) -> None:
        """Write how far the batch in hand was consumed, and part with it."""
        held = self._held
        if held is None:
            return
        self._held, self._items = None, iter(())
        path = self.spool.path(held.name)
        with translating(path):
            try:
                held.batch.close()
                if position >= held.batch.items:
                    Path(path).unlink()
                    if self._power:
                        self.spool.sync()
                else:
                    held.batch.save(position)
                    self.spool.rename(held.name, held.given_back(position))
            finally:
                os.close(held.handle)
        emit("batch.consumed" if position >= held.batch.items else "batch.released", path=path, items=position)

    def _rename(self, held: "_Held", name: BatchName) -> None:
        with translating(self.spool.folder):
            self.spool.rename(held.name, name)
        held.name, held.batch.path = name, self.spool.path(name)

    def _put_aside(self, held: "_Held", reason: str) -> None:
        self._held, self._items = None, iter(())
        held.batch.close()
        try:
            quarantine(self.spool, held.name, reason)
        finally:
            os.close(held.handle)

    def _abandon(self) -> None:
        held, self._held = self._held, None
        self._items = iter(())
        if held is not None:
            os.close(held.handle)

    # Claiming

    def _claim_within(self, patience: float) -> bool:
        end = self._clock.monotonic() + patience
        pause = _FIRST_WAIT
        while True:
            if self._claim():
                return True
            left = end - self._clock.monotonic()
            if left <= 0:
                return False
            sleep(min(pause * random.uniform(0.5, 1.5), left))
            pause = min(2 * pause, _LONGEST_WAIT)

    def _claim(self) -> bool:
        """Take the oldest batch that nobody has, if there is one."""
        while True:
            while self._known:
                self._held = self._take(self._known.popleft())
                if self._held:
                    return True
            if not self._look():
                return False

    def _look(self) -> bool:
        """Read the folder if anything has changed in it; return whether there is something ready."""
        if self.spool.changed():
            ready = (name for name in self.spool.names() if name.status is BatchStatus.READY)
            self._known.extend(heapq.nsmallest(_KNOWN, ready))
        if self._known:
            return True
        if self._clock.monotonic() - self._recovered_at < _RECOVERY_SECONDS:
            return False
        return self._recover()

    def _recover(self) -> bool:
        # At different times: a hundred readers that wait would all try the same locks at once.
        self._recovered_at = self._clock.monotonic() + random.uniform(0, _RECOVERY_SECONDS / 2)
        return recover_spool(self.spool, power=self._power).ready > 0

    def _take(self, name: BatchName) -> "_Held | None":
        """Claim one batch: own it, then rename it; None when another was quicker or it had to be put aside."""
        with translating(self.spool.folder):
            try:
                handle = self.spool.own(name)
            except Damaged as damage:
                quarantine(self.spool, name, str(damage))
                return None
            if handle is None:
                self.spool.look_again()  # whoever has it may leave it as it is, and no change would tell
                return None
            mine = name
            try:
                mine = name.become(BatchStatus.UNLOAD, self._owner, name.deaths, name.at)
                self.spool.rename(name, mine)
                return _Held(mine, handle, Batch(self.spool.path(mine), handle, self._memory))
            except Damaged as damage:
                quarantine(self.spool, mine, str(damage))
            except FileExistsError:
                quarantine(self.spool, name, "another batch of the same name is being consumed")
            except BaseException:
                if mine is not name:
                    with suppress(OSError):  # nobody has died of it
                        self.spool.rename(mine, name)
                os.close(handle)
                raise
            os.close(handle)
            return None


class _Held:
    """The batch in hand, and how far its blocks have been handed out."""

    def __init__(self, name: BatchName, handle: int, batch: Batch) -> None:
        self.name, self.handle, self.batch = name, handle, batch
        #: Number of the first item that this reader hands out, and of the first after those in hand.
        self.begun = self.end = batch.progress
        #: The blocks after the one in hand.
        self._blocks = deque(block for block in batch.blocks if block.first + block.number > self.begun)
        #: What is left of a block whose items are handed out one by one, and where that block ends.
        self._suspects: deque[Any] = deque()
        self._suspects_end = 0
        if name.deaths and self._blocks:
            self._suspects_end = self._blocks[0].first + self._blocks[0].number

    def advance(self) -> list[Any] | None:
        """Save that what is in hand is consumed and load what comes next; return None when there is nothing.

        Of the last block nothing is saved: the batch is about to be deleted.
        """
        if not (self._suspects or self._blocks):
            return None
        items = [] if self._suspects else self._load(self._blocks[0])
        if self.end > self.begun:
            self.batch.save(self.end)
        if not self._suspects:
            block = self._blocks.popleft()
            if block.first + block.number != self._suspects_end:
                self.end = block.first + block.number
                return items
            self._suspects.extend(items)
        self.end += 1
        return [self._suspects.popleft()]

    def is_past_suspects(self) -> bool:
        """Return whether those of the block are consumed that a reader has died with, and more come after it."""
        return bool(self.name.deaths and self.end > self.begun and self._blocks and not self._suspects)

    def given_back(self, position: int) -> BatchName:
        """Return the name of the batch, ready again, when it was consumed so far and nobody has died."""
        if not self.name.at <= position < self._suspects_end or not self.name.deaths:
            return self.name.become(BatchStatus.READY)
        deaths = self.name.deaths if position == self.name.at else 1
        return self.name.become(BatchStatus.READY, deaths=deaths, at=position)

    def _load(self, block: Block) -> list[Any]:
        items = self.batch.read(block)
        return items[self.end - block.first :] if block.first < self.end else items


def _after_fork() -> None:
    for reader in tuple(_alive):
        reader._abandon()  # the parent goes on with it


os.register_at_fork(after_in_child=_after_fork)
