"""Batches: the files in the spool, by queue and status."""

from dataclasses import dataclass
from typing import Any

import persistq
from persistq import batch

from ..pane import TablePane
from ..poller import Queue
from ..table import Column, Row

KINDS = (
    ("loading", "live"), ("loading", "dead"), ("ready", "all"), ("unload", "live"), ("unload", "dead"),
    ("invalid", "all"),
)  # fmt: skip


Counts = dict[str, dict[str, int]]


@dataclass(frozen=True)
class BatchesLook:
    """The batches of every queue in the spool."""

    def read(self, q: Queue) -> list[tuple[str, Counts | str]]:
        """Return the counts of each queue, or why they cannot be had."""
        root = q.settings.queue_spool_dir
        return [(name, _counts(root, name)) for name in batch.queues(root)]


def _counts(root: str, queue: str) -> Counts | str:
    try:
        return batch.counts(root, queue)
    except persistq.PersistQError as error:
        return str(error)


class BatchesPane(TablePane):
    """How many batches each queue has, by status, those of the dead apart."""

    name, title, key = "batches", "Batches", "6"
    columns = (
        Column("queue", 16, elastic=True),
        Column("loading", 7, right=True),
        Column("left", 6, right=True, style=lambda number: "class:warn" if number else ""),
        Column("ready", 7, right=True),
        Column("unload", 7, right=True),
        Column("left ", 6, right=True, style=lambda number: "class:warn" if number else ""),
        Column("invalid", 7, right=True, style=lambda number: "class:bad" if number else ""),
    )

    def look(self) -> BatchesLook:
        """Return what the poller is to look at."""
        return BatchesLook()

    def rows(self, data: Any) -> list[Row]:
        """Return a row for each queue."""
        return [_row(name, found) for name, found in data]

    def heading(self) -> str:
        """Return what the line above the table says."""
        return "  ".join(filter(None, ["files; left: by the dead, R makes them ready", super().heading()]))

    def empty(self) -> str:
        """Return what is said instead of rows."""
        return "no queue has a spool of batches here"


def _row(name: str, found: Counts | str) -> Row:
    if isinstance(found, str):
        return Row(name, (f"{name}: {found}", *(None for _ in KINDS)), name, "class:bad")
    return Row(name, (name, *(found[word][kind] for word, kind in KINDS)), name)
