"""Jobs: a snapshot of what the filter matches, kept still while it is worked on."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

import streamlit as st
from persistq.ops import acting, parts, session, snapshot, words
from persistq.ops.snapshot import Snapshot

import persistq
from persistq import spans
from persistq.text import HIDDEN

_STATUSES = [*map(str, persistq.JobStatus), "crashed"]
_SIZES = (50, 100, 200)
_TEXTS = ("queue", "task", "consumer", "item", "error", "since", "until")
_COLUMNS = ("id", "status", "queue", "task", "attempts", "created", "error", "item", "consumer")
# So that the error is seen without scrolling; a cell that is cut opens when it is clicked.
_WIDTHS = {"status": 80, "attempts": 75, "created": 110, "error": 280, "item": 220}
_CSV = ("id", "status", "queue", "task", "item", "attempts", "max_attempts", "priority", "consumer_id", "assigned_to",
        "created_at", "run_at", "started_at", "finished_at", "error")  # fmt: skip
_MOST_NEW = 100
_MOST_CSV, _MOST_CSV_TEXT = 10_000, 32 << 20
_PAGE = 500
_VERBS = {
    "resubmit": "Resubmit", "cancel": "Cancel", "mark_failed": "Mark failed", "release": "Release", "delete": "Delete",
}  # fmt: skip


def _filters() -> dict[str, Any]:
    """Draw the filters, which are in the address as well, and return what narrows."""
    st.multiselect("Status", _STATUSES, key="status", bind="query-params")
    # The address counts too: in the first run the fields that it fills are not there yet.
    narrowed = any(st.session_state.get(name) or name in st.query_params for name in _TEXTS)
    with (
        st.expander("More filters", expanded=narrowed),
        st.grid(min_column_width=160),
    ):
        st.text_input("Queue", key="queue", bind="query-params")
        st.text_input("Task", key="task", bind="query-params")
        st.text_input("Consumer", key="consumer", bind="query-params", help="Holds, held or is assigned the job.")
        st.text_input("Item contains", key="item", bind="query-params")
        st.text_input("Error contains", key="error", bind="query-params")
        st.text_input("Created since", key="since", bind="query-params", help="24h, 30m, or a date such as 2030-01-31")
        st.text_input("Created before", key="until", bind="query-params", help="24h, 30m, or a date such as 2030-01-31")
    return {name: st.session_state[name] for name in ("status", *_TEXTS) if st.session_state.get(name)}


def _meant(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return the filter as the queue takes it: spans become times."""
    fields = {name: value.strip() if isinstance(value, str) else value for name, value in asked.items()}
    return fields | {name: spans.moment(fields[name]) for name in ("since", "until") if name in fields}


def _snapshot(asked: Mapping[str, Any], size: int) -> Snapshot:
    before = st.session_state.get("before")
    of = (tuple((name, str(value)) for name, value in asked.items()), before, size, acting.generation())
    kept = st.session_state.get("snapshot")
    if isinstance(kept, Snapshot) and kept.of == of:
        return kept
    q = session.queue()
    newest = snapshot.newest(q)
    found = q.search(_filter(asked), limit=size, newest=True, before=before or newest + 1)
    fresh = Snapshot(of, [snapshot.short(job) for job in found.jobs], q.clock.now(), newest, found.edge)
    st.session_state["snapshot"] = fresh
    return fresh


def _refresh() -> None:
    st.session_state.pop("snapshot", None)
    st.session_state.pop("before", None)


def _from_the_start() -> None:
    st.session_state.pop("before", None)


def _news(shot: Snapshot, asked: Mapping[str, Any]) -> None:
    """Say how many jobs have come since the snapshot, which stays as it is."""
    found = session.queue().search(_filter(asked), after=shot.newest, limit=_MOST_NEW)
    taken = words.moment_text(shot.taken_at, session.zone())
    known = f"{len(found.jobs)}{'' if found.edge is None else '+'}"
    st.caption(f"As of {taken} · {known} new since then")


def _rest(shot: Snapshot, asked: Mapping[str, Any], size: int) -> None:
    """Say what has not been looked through, and do it on request."""
    if len(shot.jobs) >= size or shot.edge is None:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f"Searched from the newest job down to id {shot.edge:,}; older ones were not looked at.")
        if st.button("Search older jobs", key="search_older", help=f"For {snapshot.PATIENCE:g} seconds at most."):
            with st.spinner("searching"):
                found = session.queue().search(
                    _filter(asked), limit=size - len(shot.jobs), newest=True, before=shot.edge,
                    lasting=snapshot.PATIENCE,
                )  # fmt: skip
            jobs = [*shot.jobs, *map(snapshot.short, found.jobs)]
            st.session_state["snapshot"] = replace(shot, jobs=jobs, edge=found.edge)
            st.rerun()


def _row(job: persistq.Job, now: datetime) -> dict[str, Any]:
    return {
        "id": job.id,
        "status": f"{job.status} (crashed)" if job.status == "pending" and job.attempts else str(job.status),
        "queue": job.queue,
        "task": job.task,
        "item": HIDDEN if session.hides_items() else job.item,
        "attempts": f"{job.attempts} of {job.max_attempts}",
        "consumer": job.consumer_id or (f"for {job.assigned_to}" if job.assigned_to else None),
        "created": f"{words.ago(job.created_at, now)} ({words.moment_text(job.created_at, session.zone())})",
        "error": job.error,
    }


def _actions(shot: Snapshot, chosen: Sequence[int], asked: Mapping[str, Any]) -> None:
    ids = [shot.jobs[place].id for place in chosen]
    with st.container(horizontal=True):
        if st.button("Open", key="open", disabled=len(ids) != 1, help="Select one row."):
            st.switch_page("views/job.py", query_params={"id": str(ids[0])})
        for verb, label in _VERBS.items():
            if acting.button(f"{label} selected ({len(ids)})", key=f"{verb}_selected", disabled=not ids):
                acting.ask_bulk(verb, ids=ids)
    st.caption("All that match the filter, on this page or not:")
    with st.container(horizontal=True):
        for verb, label in _VERBS.items():
            if acting.button(f"{label} all matching", key=f"{verb}_all"):
                acting.ask_bulk(verb, which=_filter(asked))
        st.download_button(
            f"CSV, at most {_MOST_CSV:,} rows", lambda: _csv(asked), "jobs.csv", "text/csv", key="csv_all",
            on_click="ignore",
        )  # fmt: skip


def _filter(asked: Mapping[str, Any]) -> persistq.JobFilter:
    fields = _meant(asked)
    return persistq.JobFilter.of(fields.pop("status", None), **fields)


def _csv(asked: Mapping[str, Any]) -> str:
    q, which = session.queue(), _filter(asked)
    rows: list[dict[str, Any]] = []
    before: int | None = None
    size = 0
    while len(rows) < _MOST_CSV and size < _MOST_CSV_TEXT:
        found = q.search(which, limit=min(_PAGE, _MOST_CSV - len(rows)), newest=True, before=before)
        rows += [_plain(job) for job in found.jobs]
        size += sum(len(job.item) for job in found.jobs)
        before = found.edge
        if before is None:
            break
    return str(parts.csv_text(rows, _CSV))


def _page_csv(shot: Snapshot) -> str:
    """Return the jobs on the screen as they are now, whole; those that are gone are left out."""
    q, rows = session.queue(), []
    for job in shot.jobs:
        with suppress(persistq.JobNotFound):
            rows.append(_plain(q.get_job(job.id)))
    return str(parts.csv_text(rows, _CSV))


def _plain(job: persistq.Job) -> dict[str, Any]:
    return job.to_dict() | ({"item": None} if session.hides_items() else {})


def _paging(shot: Snapshot) -> None:
    with st.container(horizontal=True):
        if st.button("Newest", key="newest", disabled="before" not in st.session_state):
            _from_the_start()
            st.rerun()
        if st.button("Older", key="older", disabled=shot.edge is None):
            st.session_state["before"] = shot.edge
            st.rerun()
        st.download_button(
            "CSV of this page", lambda: _page_csv(shot), "jobs.csv", "text/csv", key="csv_page", on_click="ignore",
        )  # fmt: skip


def main() -> None:
    """Draw the page."""
    if wanted := st.query_params.get("job"):
        st.switch_page("views/job.py", query_params={"id": wanted})
    st.title("Jobs")
    asked = _filters()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        size = st.selectbox("Rows", _SIZES, key="rows", width=100, persist_state="session")
        st.button("Refresh", key="refresh_jobs", on_click=_refresh, shortcut="u")
    if st.session_state.get("before") and st.session_state.get("before_of") != asked:
        _from_the_start()
    st.session_state["before_of"] = asked
    shot = _snapshot(asked, size)
    parts.live(lambda: _news(shot, asked))
    if not shot.jobs:
        if shot.edge is not None:
            parts.empty("None of the jobs that were searched matches.", "Older ones may.")
        else:
            parts.empty("No job matches.", "Take filters away, or look again when more has been enqueued.")
        _rest(shot, asked, size)
        return
    rows = [_row(job, shot.taken_at) for job in shot.jobs]
    widths = {name: st.column_config.Column(width=width) for name, width in _WIDTHS.items()}
    chosen = parts.table(rows, _COLUMNS, key=shot.key, alt="Jobs, the newest first", select="multi-row", config=widths)
    _rest(shot, asked, size)
    _actions(shot, chosen, asked)
    _paging(shot)


main()
