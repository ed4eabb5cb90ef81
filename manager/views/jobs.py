"""Jobs: a page of the jobs that a filter matches."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import persistq
from persistq import spans
from persistq.clock import name_of
from persistq.text import HIDDEN

from .. import filters
from ..pane import TablePane
from ..poller import Queue
from ..table import Column, Row

PAGE = 200
"""Jobs that are read at once."""

_SHOWN_BYTES = 4_000


@dataclass(frozen=True)
class JobsLook:
    """A page of jobs; ``edge`` is where the page before it ended."""

    which: persistq.JobFilter
    newest: bool = True
    edge: int | None = None

    def read(self, q: Queue) -> persistq.Found:
        """Return the page."""
        if self.newest:
            return q.search(self.which, limit=PAGE, newest=True, before=self.edge)
        return q.search(self.which, limit=PAGE, after=self.edge or 0)


@dataclass
class Place:
    """Where among the jobs one is: the filter, the direction and the pages gone through."""

    which: persistq.JobFilter = field(default_factory=persistq.JobFilter)
    newest: bool = True
    edges: list[int] = field(default_factory=list)
    cursor: Any = None


def _ago(when: datetime, now: datetime) -> str:
    return spans.ago(when, now)


COLUMNS = (
    Column("id", 20, right=True),
    Column("status", 10, style=lambda status: f"class:{status}"),
    Column("queue", 12, yields=5),
    Column("task", 14, yields=7),
    Column("tries", 5, right=True, yields=4),
    Column("prio", 5, right=True, yields=9),
    Column("age", 7, right=True, yields=6, show=_ago),
    Column("consumer", 14, yields=8),
    Column("item", 24, elastic=True),
    Column("error", 20, elastic=True, yields=3, style=lambda _error: "class:failed"),
)


class JobsPane(TablePane):
    """The jobs."""

    name, title, key = "jobs", "Jobs", "2"
    opens = "job"
    columns = COLUMNS

    def __init__(self) -> None:
        super().__init__()
        self.place = Place()
        #: Whether every job that the filter matches is meant, and not only those of this page.
        self.everything = False
        #: What was found when the rows were put where they are.
        self.found: persistq.Found | None = None

    @property
    def which(self) -> persistq.JobFilter:
        """The filter."""
        return self.place.which

    @property
    def all_marked(self) -> bool:
        """Whether everything that matches is marked."""
        return self.everything

    def look(self) -> JobsLook:
        """Return what the poller is to look at."""
        return JobsLook(self.which, self.place.newest, self.place.edges[-1] if self.place.edges else None)

    def arrange(self) -> None:
        """Show the page that was seen."""
        super().arrange()
        self.found = None if self.seen is None else self.seen.data

    def go(self, place: Place) -> None:
        """Be somewhere else among the jobs, with nothing marked."""
        self.place = place
        self.unmark()
        self.seen = self.found = None
        self.table.replace([])
        self.table.to(0)
        if place.cursor is not None:
            self.table.go(place.cursor)

    def narrow(self, which: persistq.JobFilter) -> None:
        """Show the jobs of another filter, from their first page."""
        self.go(Place(which, self.place.newest))

    def turn(self) -> None:
        """Show them in the other direction."""
        self.go(Place(self.which, not self.place.newest))

    def leaf(self, *, forward: bool) -> bool:
        """Turn a page; return whether there was one."""
        edges = self.place.edges
        if forward and self.found is not None and self.found.edge is not None:
            self.go(Place(self.which, self.place.newest, [*edges, self.found.edge]))
        elif not forward and edges:
            self.go(Place(self.which, self.place.newest, edges[:-1]))
        else:
            return False
        return True

    def unmark(self) -> None:
        """Take every mark away."""
        self.everything = False
        self.table.marks.clear()

    @property
    def marked(self) -> bool:
        """Whether anything is marked."""
        return self.everything or bool(self.table.marks)

    def heading(self) -> str:
        """Return where among the jobs one is."""
        words = ["newest first" if self.place.newest else "oldest first", f"page {len(self.place.edges) + 1}"]
        words.append(f"{len(self.table.rows):,} jobs{self._rest()}")
        if self.everything:
            words.append("ALL THAT MATCH are marked")
        narrowed = filters.shown(self.which)
        return "  ".join([*words, *([f"filter: {narrowed}"] if narrowed else [])])

    def _rest(self) -> str:
        """Return what is to be had behind this page."""
        if self.found is None or self.found.edge is None:
            return ""
        return ", more behind n" if self.found.more else f", looked as far as {self.found.edge}, n goes on"

    def empty(self) -> str:
        """Return what is said instead of rows."""
        if self.found is not None and self.found.edge is not None:
            return f"none as far as job {self.found.edge}; n looks further"
        return "no job matches the filter" if self.which != persistq.JobFilter() else "no jobs yet"

    def rows(self, data: persistq.Found) -> list[Row]:
        """Return a row for each job."""
        return [
            Row(
                job.id,
                (
                    job.id, str(job.status), job.queue, job.task, f"{job.attempts}/{job.max_attempts}", job.priority,
                    job.created_at, _holder(job), self._item(job), job.error,
                ),
                job,
            )
            for job in data.jobs
        ]  # fmt: skip

    def _item(self, job: persistq.Job) -> str:
        return HIDDEN if self.hides_items else job.item[:_SHOWN_BYTES]


def _holder(job: persistq.Job) -> str | None:
    if job.assigned_to and not job.consumer_id:
        return f"→{name_of(job.assigned_to)}"
    return name_of(job.consumer_id) if job.consumer_id else None
