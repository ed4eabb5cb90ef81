"""Loading: the file of a batch that is being filled."""

import os
from pathlib import Path

from . import file
from .names import BatchName, BatchStatus
from .spool import Spool, translating


class Loading:
    """The file of the batch that is being filled, owned by this process."""

    def __init__(self, spool: Spool, created: int) -> None:
        self._spool = spool
        with translating(spool.folder):
            handle = None
            while handle is None:
                self.name = BatchName.new(created)
                handle = spool.create(self.name)
        self._handle = handle
        self._ledger = file.Ledger()
        self.complete = False
        #: Whether all that was written is safe.
        self.safe = True
        #: Whether somebody was told that something is safe.
        self.promised = False

    def write(self, packed: list[file.Packed], *, complete: bool, careful: bool) -> None:
        """Write blocks, and the footer if that was all."""
        self.safe = careful and bool(self._ledger.blocks)
        path = self._spool.path(self.name)
        if self._ledger.blocks:
            self._ledger = file.append(path, self._ledger, packed, complete=complete, careful=careful)
        else:
            with translating(path):
                self._ledger = file.create(self._handle, packed, complete=complete)
        self.complete = complete

    def make_safe(self, power: bool) -> None:
        """Return when what was written survives what it has to."""
        if power and not self.safe:
            with translating(self._spool.folder):
                os.fsync(self._handle)
                self._spool.sync()
        self.safe = self.promised = True

    def publish(self, power: bool) -> str:
        """Give a complete batch its name as a ready one, and give it up."""
        ready = self.name.become(BatchStatus.READY)
        with translating(self._spool.folder):
            self._spool.rename(self.name, ready)
            self.close()
            if power:
                self._spool.sync()
        return self._spool.path(ready)

    def discard(self) -> None:
        """Remove a file that nothing was written into."""
        with translating(self._spool.folder):
            Path(self._spool.path(self.name)).unlink()
            self.close()

    def close(self) -> None:
        """Give the file up."""
        os.close(self._handle)
