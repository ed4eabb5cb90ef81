"""Enqueue and Dequeue: batches by the names of turbo-queue, in all the vocabularies that it has had."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigError
from .names import BatchStatus
from .reader import BatchReader
from .recovery import Recovered, recover
from .spool import Spool
from .writer import BatchWriter, OnFull

_REPLAY_ALL = 1 << 62


class _Named:
    """Where the queue is; set these before the first call."""

    def __init__(self) -> None:
        self.root_path: str | os.PathLike[str] = "spool"
        self.queue_name = "default"
        self.max_ready_files = 1
        self.max_events_per_file = 80_000
        #: Seconds after its first item that a batch becomes ready however few it has; None is never.
        self.max_batch_age: float | None = 10
        self.durability: Literal["power", "process"] = "power"
        self._spool: Spool | None = None

    @property
    def max_avail_files(self) -> int:
        """An older name of ``max_ready_files``."""
        return self.max_ready_files

    @max_avail_files.setter
    def max_avail_files(self, number: int) -> None:
        self.max_ready_files = number

    def get_ready_length(self) -> int:
        """Return how many batches stand ready."""
        return self._folder().count(BatchStatus.READY)

    get_avail_length = get_ready_length

    def get_next_ready_file(self) -> str | None:
        """Return the path of the oldest batch that stands ready."""
        spool = self._folder()
        oldest = min((name for name in spool.names() if name.status is BatchStatus.READY), default=None)
        return oldest and spool.path(oldest)

    get_next_available_file = get_next_ready_file

    def setup_logging(
        self, logger_name: str = "persistq.batch", level: int = logging.WARNING, log_file: str | None = None
    ) -> None:
        """Log to a file. Not needed: without it, the program's own logging has all there is to say."""
        logger = logging.getLogger(logger_name)
        logger.setLevel(level)
        if log_file:
            logger.addHandler(logging.FileHandler(Path(log_file), encoding="utf-8"))

    def _folder(self) -> Spool:
        if self._spool is None:
            self._spool = Spool(self.root_path, self.queue_name)
        return self._spool


class Enqueue(_Named):
    """The producer's side: ``start()``, then ``add(item)`` as long as ``enqueue_active``."""

    def __init__(self) -> None:
        super().__init__()
        #: Whether there is room for another ready batch, as of the last ``update_enqueue_active_state``.
        self.enqueue_active = False
        #: What ``add`` does without room: ``block``, ``raise`` or ``refuse``. Nothing is ever dropped.
        self.on_full: OnFull = "block"
        self._writer: BatchWriter | None = None

    def start(self) -> None:
        """Open the queue, with the attributes as they are now, and recover what dead processes left in it."""
        self.close()
        recover(self.root_path, self.queue_name, durability=self.durability)
        self._writer = BatchWriter(
            self.root_path, self.queue_name, self.max_events_per_file, self.max_batch_age, self.max_ready_files,
            self.on_full, durability=self.durability,
        )  # fmt: skip
        self._spool = self._writer.spool
        self.enqueue_active = self.get_ready_length() < self.max_ready_files

    def add(self, item: Any) -> bool:
        """Take one item; see ``BatchWriter.add``."""
        return self._started().add(item)

    def update_enqueue_active_state(self) -> None:
        """Set ``enqueue_active``: False while ``max_ready_files`` batches stand ready. Cheap enough for every item."""
        if self._started().spool.changed():
            self.enqueue_active = self.get_ready_length() < self.max_ready_files

    def roll(self) -> bool:
        """Make the batch ready however few items it has."""
        return self._started().roll()

    def flush(self) -> None:
        """Return when every item that was added is safe."""
        self._started().flush()

    def close(self) -> None:
        """Make what there is ready. The end of the program does so as well."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _started(self) -> BatchWriter:
        if self._writer is None:
            raise ConfigError("call start() first")
        return self._writer


class Dequeue(_Named):
    """The consumer's side: ``next(dequeue.get())`` is the next item, or None when there is none now."""

    def __init__(self, proc_num: int | None = None) -> None:
        super().__init__()
        self.proc_num = proc_num
        #: Whether a batch is deleted when its last item is consumed; else ``clean_up`` does.
        self.auto_cleanup = True
        self._reader: BatchReader | None = None
        self._gets = self._batches = 0
        self._last: str | None = None

    def get(self) -> Iterator[Any]:
        """Yield item after item, and None whenever there is none now; asked again it looks again, for ever.

        A second generator goes on where the first one stopped.
        """
        while True:
            reader = self._opened()
            item = reader.get()
            if item is not None:
                self._gets += 1
                if reader.batch != self._last:
                    self._last, self._batches = reader.batch, self._batches + 1
            yield item

    def clean_up(self) -> None:
        """Part with the batch in hand: delete it if it was consumed to its end, else give the rest of it back."""
        if self._reader:
            self._reader.release()

    def roll_back(self) -> bool:
        """Give the batch in hand back as if nothing of it had been consumed; return whether there was one."""
        return bool(self._reader and self._reader.release(_REPLAY_ALL))

    def close(self) -> None:
        """Count the last item as consumed and give the rest of the batch back."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def total_gets(self) -> int:
        """Return how many items were handed out."""
        return self._gets

    def total_batch(self) -> int:
        """Return how many batches these were in."""
        return self._batches

    def _opened(self) -> BatchReader:
        if self._reader is None:
            self._reader = BatchReader(self.root_path, self.queue_name, self.proc_num, durability=self.durability)
            self._spool = self._reader.spool
        self._reader.auto_release = self.auto_cleanup
        return self._reader


class Startup(_Named):
    """What is done once when an installation starts; readers and ``Enqueue.start`` do it by themselves."""

    def on_start_cleanup(self) -> Recovered:
        """Make ready what dead processes left; the living are not touched."""
        return recover(self.root_path, self.queue_name, durability=self.durability)


enqueue = Enqueue
dequeue = Dequeue
