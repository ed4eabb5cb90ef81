"""The rows that stand on a visitor's screen. Here and not in a page, whose classes are made anew at each run."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import persistq


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A page of jobs as it was read. Actions go by its ids, whatever has happened in the queue since."""

    #: What it was read by; with another filter, page or after a change it is read anew.
    of: tuple[Any, ...]
    #: Their items and errors cut short.
    jobs: Sequence[persistq.Job]
    taken_at: datetime
    #: The newest job there was, of any kind.
    newest: int

    @property
    def key(self) -> str:
        """A name for the table of these rows and no others, so that no selection outlives them."""
        return f"jobs-{hash((self.of, tuple((job.id, job.fence) for job in self.jobs)))}"
