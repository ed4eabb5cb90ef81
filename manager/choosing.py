"""Commands that choose: filters, pages' order, marks."""

from typing import Any

import persistq

from . import completion, filters
from .pane import TablePane
from .registry import Given, command
from .session import Prompt, Session

JOBS = ("jobs",)


@command("filter", "filter: state:failed queue:mail error:... or a part of the item", "/", typed=False, hint="filter")
def filter_line(s: Session, _given: Given) -> None:
    """Ask for a filter."""
    pane = s.pane
    if pane is s.jobs:
        s.prompt = Prompt(
            "filter: ", lambda text: _narrow(s, text), f"{filters.shown(s.jobs.which)} ".lstrip(),
            completion.Filters(), "filter", leave=lambda: _narrow(s, ""),
        )  # fmt: skip
        completion.learn(s)
    elif isinstance(pane, TablePane):
        s.prompt = Prompt("show rows with: ", lambda text: _sift(s, text), pane.needle, None, "rows",
                          leave=lambda: _sift(s, ""))  # fmt: skip
    else:
        s.say("there is nothing to filter here")


def _narrow(s: Session, text: str) -> None:
    which = filters.parse(text)
    if which != s.jobs.which:
        s.jobs.narrow(which)
        s.look()


def _sift(s: Session, text: str) -> None:
    if isinstance(s.pane, TablePane):
        s.pane.needle = text.strip()
        s.pane.arrange()


@command("next status", "jobs of the next status", "f", on=JOBS, typed=False)
def next_status(s: Session, _given: Given) -> None:
    """Show the jobs of the next status."""
    which = s.jobs.which
    fields: dict[str, Any] = {name: getattr(which, name) for name in filters.FIELDS[1:]}
    s.jobs.narrow(persistq.JobFilter.of(filters.cycled(which), **fields))
    s.look()


@command("sort", "order this page by the next column", "s", typed=False)
def sort(s: Session, _given: Given) -> None:
    """Order the page by the next column, in the end by none."""
    pane = s.pane
    if isinstance(pane, TablePane):
        names: list[str | None] = [None, *(column.name for column in pane.columns)]
        pane.sort = names[(names.index(pane.sort) + 1) % len(names)]
        pane.arrange()


@command("reverse", "the other direction; unsorted jobs: oldest or newest first", "S", typed=False)
def reverse(s: Session, _given: Given) -> None:
    """Turn the order round."""
    pane = s.pane
    if pane is s.jobs and not pane.sort:
        s.jobs.turn()
        s.look()
    elif isinstance(pane, TablePane):
        pane.reverse = not pane.reverse
        pane.arrange()


@command("mark", "mark this job, or take its mark away", "space", on=JOBS, typed=False, hint="mark")
def mark(s: Session, _given: Given) -> None:
    """Mark the row under the cursor."""
    s.jobs.everything = False
    s.jobs.table.toggle()


@command("mark all", "mark every job that the filter matches, on all pages", "*", on=JOBS, typed=False, hint="all")
def mark_all(s: Session, _given: Given) -> None:
    """Mean everything that the filter matches."""
    s.jobs.unmark()
    s.jobs.everything = True


@command("unmark", "take all marks away", "\\", on=JOBS, typed=False)
def unmark(s: Session, _given: Given) -> None:
    """Take every mark away."""
    s.jobs.unmark()
