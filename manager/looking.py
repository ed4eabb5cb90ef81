"""Commands that look: the screens, into what is under the cursor and out again, the cursor."""

import persistq

from .pane import TablePane
from .registry import FILTERS, Given, chosen, command, number
from .session import Session
from .views.audit import EntryPane
from .views.consumers import ConsumersPane
from .views.errors import ErrorsPane
from .views.job import JobPane
from .views.jobs import Place
from .views.queues import QueuesPane

JOBS = ("jobs",)
_ORDER = ("overview", "jobs", "job", "queues", "consumers", "batches", "shards", "errors", "audit")
_WIDEST_SPREADSHEET = 32_000


def _job_pane(s: Session) -> JobPane:
    pane = s.panes["job"]
    assert isinstance(pane, JobPane)  # noqa: S101 - for the type checker
    return pane


# Screens


@command("stats", "the overview: counts, throughput, what needs a person", "1", hint="overview")
def overview(s: Session, _given: Given) -> None:
    """Show the overview."""
    s.show("overview")


@command("list-jobs", "the jobs", "2", options=(*FILTERS, "newest"), hint="jobs")
def list_jobs(s: Session, given: Given) -> None:
    """Show the jobs; typed, with the filters that were typed."""
    s.show("jobs")
    if given.options or given.statuses:
        s.jobs.narrow(chosen(given))
        s.look()


@command("show-job", "one job: why it is where it is, fields, attempts", "3", takes="[ID]", words=(0, 1), hint="job")
def show_job(s: Session, given: Given) -> None:
    """Show the job of an id, or the one under the cursor."""
    if given.words:
        _job_pane(s).show(number(given.words[0]))
        s.show("job", deeper=True)
        return
    if s.pane is s.jobs and s.jobs.current:
        _job_pane(s).show(s.jobs.current.thing.id)
    s.show("job")


@command("explain", "why a job does not run", takes="ID", words=(1, 1))
def explain(s: Session, given: Given) -> None:
    """Show the job: its first lines explain it."""
    show_job(s, given)


@command("queues list", "queues and their tasks", "4", hint="queues")
def queues(s: Session, _given: Given) -> None:
    """Show the queues."""
    s.show("queues")


@command("consumers list", "consumers", "5", hint="consumers")
def consumers(s: Session, _given: Given) -> None:
    """Show the consumers."""
    s.show("consumers")


@command("batches list", "batch files", "6", hint="batches")
def batches(s: Session, _given: Given) -> None:
    """Show the batches."""
    s.show("batches")


@command("shards list", "tubes of requests, and who holds them", "7", hint="shards")
def shards(s: Session, _given: Given) -> None:
    """Show the shards."""
    s.show("shards")


@command("errors", "failures that look alike", "8", hint="errors")
def errors(s: Session, _given: Given) -> None:
    """Show the groups of failures."""
    s.show("errors")


@command("audit list", "who decided what", "9", hint="audit")
def audit(s: Session, _given: Given) -> None:
    """Show the audit log."""
    s.show("audit")


@command("audit show", "one decision", takes="NUMBER", words=(1, 1))
def audit_show(s: Session, given: Given) -> None:
    """Show one decision."""
    _entry(s, number(given.words[0]))


@command("help", "this list", "?", hint="help")
def show_help(s: Session, _given: Given) -> None:
    """Show the help."""
    if s.current != "help":
        s.show("help", deeper=True)


@command("next screen", "the next screen", "tab", typed=False)
def next_screen(s: Session, _given: Given) -> None:
    """Show the next screen."""
    _turn(s, 1)


@command("last screen", "the screen before it", "s-tab", typed=False)
def last_screen(s: Session, _given: Given) -> None:
    """Show the screen before this one."""
    _turn(s, -1)


def _turn(s: Session, by: int) -> None:
    place = _ORDER.index(s.current) if s.current in _ORDER else 0
    s.show(_ORDER[(place + by) % len(_ORDER)])


@command("open", "what is under the cursor", "enter", typed=False, hint="open")
def enter(s: Session, _given: Given) -> None:
    """Show what is under the cursor."""
    pane = s.pane
    if not pane.opens:
        return
    row = pane.current if isinstance(pane, TablePane) else None
    if isinstance(pane, TablePane) and row is None:
        return
    narrowed: persistq.JobFilter | None = None
    if row is not None and pane is s.jobs:
        _job_pane(s).show(row.thing.id)
    elif row is not None and pane.opens == "entry":
        _entry(s, row.thing.id)
        return
    elif row is not None and isinstance(pane, QueuesPane):
        narrowed = persistq.JobFilter(queue=row.thing.queue, task=row.thing.task)
    elif row is not None and isinstance(pane, ConsumersPane):
        narrowed = persistq.JobFilter(consumer=row.thing.id)
    elif row is not None and isinstance(pane, ErrorsPane):
        group = row.thing
        failed = (persistq.JobStatus.FAILED,)
        part = max((group.error, *group.message.split("#")), key=len).strip() or None
        narrowed = persistq.JobFilter(status=failed, queue=group.queue, task=group.task, error=part)
    s.show(pane.opens, deeper=True)
    if narrowed is not None:
        s.jobs.go(Place(narrowed))
        s.look()


@command("back", "where Enter was pressed; or end the filter", "escape", typed=False, hint="back")
def back(s: Session, _given: Given) -> None:
    """Go back; where there is nothing to go back to, end the filter."""
    if s.back():
        return
    if s.pane is s.jobs and s.jobs.which != persistq.JobFilter():
        s.jobs.narrow(persistq.JobFilter())
        s.look()
    elif isinstance(s.pane, TablePane) and s.pane.needle:
        s.pane.needle = ""
        s.pane.arrange()


def _entry(s: Session, entry: int) -> None:
    pane = s.panes["entry"]
    assert isinstance(pane, EntryPane)  # noqa: S101 - for the type checker
    pane.show(entry)
    s.show("entry", deeper=True)


# The cursor


@command("down", "a row down", "j", "down", typed=False)
def down(s: Session, _given: Given) -> None:
    """Move down."""
    s.pane.move(1)


@command("up", "a row up", "k", "up", typed=False)
def up(s: Session, _given: Given) -> None:
    """Move up."""
    s.pane.move(-1)


@command("page down", "a screen down", "pagedown", "c-f", typed=False)
def page_down(s: Session, _given: Given) -> None:
    """Move a page down."""
    s.pane.move(s.pane.page)


@command("page up", "a screen up", "pageup", "c-b", typed=False)
def page_up(s: Session, _given: Given) -> None:
    """Move a page up."""
    s.pane.move(-s.pane.page)


@command("first", "the first row", "g g", "home", typed=False)
def first(s: Session, _given: Given) -> None:
    """Move to the top."""
    s.pane.to(0)


@command("last", "the last row", "G", "end", typed=False)
def last(s: Session, _given: Given) -> None:
    """Move to the bottom."""
    s.pane.to(-1)


@command("next page", "the next page of jobs or decisions", "n", on=("jobs", "audit"), typed=False)
def next_page(s: Session, _given: Given) -> None:
    """Turn a page forward."""
    _leaf(s, forward=True)


@command("page before", "the page before it", "N", on=("jobs", "audit"), typed=False)
def page_before(s: Session, _given: Given) -> None:
    """Turn a page back."""
    _leaf(s, forward=False)


def _leaf(s: Session, *, forward: bool) -> None:
    pages = s.pages()
    if pages is None:
        return
    if pages.leaf(forward=forward):
        s.look()
    else:
        s.say("this is the last page" if forward else "this is the first page")
