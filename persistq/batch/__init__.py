"""The fast path: items packed in batch files, millions a second, each handed out by whoever owns its batch."""

from .ledger import Ledger
from .manage import BatchInfo, BatchNotFound, listing, put_aside, replay, show
from .names import BatchName, BatchStatus
from .reader import BatchReader
from .recovery import Recovered, counts, queues, recover
from .turbo import Dequeue, Enqueue, Startup, dequeue, enqueue
from .writer import BatchWriter

__all__ = [
    "BatchInfo", "BatchName", "BatchNotFound", "BatchReader", "BatchStatus", "BatchWriter", "Dequeue", "Enqueue",
    "Ledger", "Recovered", "Startup", "counts", "dequeue", "enqueue", "listing", "put_aside", "queues", "recover",
    "replay", "show",
]  # fmt: skip
