"""Errors: failures that look alike, in groups."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from persistq import spans
from persistq.actions import ErrorGroup

from ..pane import TablePane
from ..poller import Queue
from ..table import Column, Row


@dataclass(frozen=True)
class ErrorsLook:
    """The failed jobs, in groups."""

    def read(self, q: Queue) -> tuple[list[ErrorGroup], bool]:
        """Return the groups, and whether older failures were left out."""
        return q.errors()


def _ago(when: datetime, now: datetime) -> str:
    return spans.ago(when, now)


class ErrorsPane(TablePane):
    """Groups of failures, the largest first."""

    name, title, key = "errors", "Errors", "8"
    opens = "jobs"
    columns = (
        Column("jobs", 8, right=True),
        Column("error", 20, elastic=True, style=lambda _error: "class:failed"),
        Column("message", 30, elastic=True),
        Column("queue", 12, yields=3),
        Column("task", 14, yields=4),
        Column("newest", 8, right=True, yields=5),
        Column("ended", 7, right=True, yields=2, show=_ago),
    )

    def look(self) -> ErrorsLook:
        """Return what the poller is to look at."""
        return ErrorsLook()

    def rows(self, data: Any) -> list[Row]:
        """Return a row for each group."""
        return [
            Row(
                (one.error, one.message, one.queue, one.task),
                (one.count, one.error, one.message, one.queue, one.task, one.newest_id, one.newest_at),
                one,
            )
            for one in data[0]
        ]

    def heading(self) -> str:
        """Return what the line above the table says."""
        left_out = "only the newest failures" if self.seen is not None and self.seen.data[1] else ""
        return "  ".join(filter(None, [left_out, super().heading()]))

    def empty(self) -> str:
        """Return what is said instead of rows."""
        return "nothing matches" if self.needle else "no job is failed"
