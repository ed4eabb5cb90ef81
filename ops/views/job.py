"""Job: one job from all sides: why it is where it is, its attempts, its item, and what can be done about it."""

from datetime import datetime

import streamlit as st
from persistq.ops import acting, parts, session, words

import persistq

_ONE = {
    "resubmit": ("Resubmit", ("failed", "cancelled")),
    "cancel": ("Cancel", ("pending", "processing")),
    "mark_failed": ("Mark failed", ("pending", "processing")),
    "release": ("Release", ("processing",)),
    "delete": ("Delete", ("pending", "done", "failed", "cancelled")),
}


def _wanted() -> int | None:
    text = st.text_input("Job id", key="id", bind="query-params", max_chars=19).strip()
    if not text:
        parts.empty("Which job?", "Type its id, or open one from the list of jobs.")
        return None
    if not (text.isascii() and text.isdigit()):
        parts.notice("error", "An id is a number.")
        return None
    return int(text)


def _facts(job: persistq.Job) -> list[tuple[str, str]]:
    zone, now = session.zone(), session.queue().clock.now()
    times = {"created": job.created_at, "not before": job.run_at, "started": job.started_at,
             "finished": job.finished_at, "lease until": job.lease_until}  # fmt: skip
    rows = [
        ("status", str(job.status)),
        ("queue", job.queue),
        ("task", job.task or "(plain item)"),
        ("attempts", f"{job.attempts} of {job.max_attempts}"),
        ("priority", str(job.priority)),
        ("timeout", words.span(job.timeout) if job.timeout else "none"),
        ("consumer", job.consumer_id or ""),
        ("assigned to", job.assigned_to or ""),
        ("unique key", job.unique_key or ""),
        ("fence", str(job.fence)),
    ]
    rows += [(name, f"{words.moment_text(at, zone)} ({words.ago(at, now)})") for name, at in times.items() if at]
    return [(name, words.cell(value)) for name, value in rows if value]


def _story(job: persistq.Job, events: list[persistq.Event]) -> list[dict[str, object]]:
    """Return what happened, oldest first; the happy path is on the job itself, the rest in its events."""
    lines: list[tuple[datetime, str, int | None, str | None, str]] = [(job.created_at, "enqueued", None, None, "")]
    for event in events:
        said = [f"{name}: {value}" for name, value in event.detail.items() if name != "traceback"]
        lines.append((event.at, event.kind, event.attempt, event.actor, "; ".join(said)))
    if job.started_at:
        lines.append((job.started_at, "started", job.attempts, job.consumer_id, ""))
    if job.finished_at and job.status == "done":
        lines.append((job.finished_at, "done", job.attempts, job.consumer_id, job.error or ""))
    zone = session.zone()
    return [
        {"time": words.moment_text(at, zone), "what": what, "attempt": "" if attempt is None else str(attempt),
         "who": who, "detail": detail}
        for at, what, attempt, who, detail in sorted(lines, key=lambda line: line[0])
    ]  # fmt: skip


def _actions(job: persistq.Job) -> None:
    with st.container(horizontal=True):
        for verb, (label, statuses) in _ONE.items():
            if acting.button(label, key=verb, disabled=job.status not in statuses):
                acting.ask_bulk(verb, ids=[job.id])
        if acting.button("Resubmit by force", key="force", disabled=job.status != "done"):
            acting.ask_bulk("resubmit", ids=[job.id], force=True)
    with st.expander("Assign, or change the priority"), st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.text_input("Consumer, by name or id", key="assign_to", max_chars=255).strip()
        if acting.button("Assign", key="assign", disabled=not name):
            acting.ask_bulk("assign", ids=[job.id], consumer=name)
        priority = st.number_input("Priority", value=job.priority, step=1, key="priority")
        if acting.button("Set priority", key="edit", disabled=job.status != "pending"):
            acting.ask_bulk("edit", ids=[job.id], priority=int(priority))
        if acting.button("Run now", key="run_now", disabled=job.status != "pending"):
            acting.ask_bulk("edit", ids=[job.id], run_at=session.queue().clock.now())


def _text(title: str, text: str) -> None:
    st.subheader(title)
    shown, language = words.pretty(text)
    st.code(shown, language=language, wrap_lines=True)


def _draw(job_id: int) -> None:
    q = session.queue()
    job, events, why = q.get_job(job_id), q.events(job_id), q.explain(job_id)
    st.subheader(f"Job {job.id} is {job.status}")
    st.text(words.block("\n".join(why.lines()[1:])))
    _actions(job)
    parts.table(_story(job, events), ("time", "what", "attempt", "detail", "who"), key="story",
                alt="What happened to the job, oldest first")  # fmt: skip
    if session.hides_items():
        parts.notice("info", "Items and results are hidden here (QUEUE_OPS_HIDE_ITEMS).")
    else:
        _text("Item", job.item)
        if job.result is not None:
            _text("Result", persistq.dumps(job.result))
    if job.error:
        _text("Error", job.error)
    for event in reversed(events):
        if trace := event.detail.get("traceback"):
            with st.expander(f"Traceback of attempt {event.attempt}", expanded=job.status == "failed"):
                st.code(words.block(str(trace)), language=None, wrap_lines=True)
    st.subheader("Fields")
    rows = [{"field": name, "value": value} for name, value in _facts(job)]
    parts.table(rows, ("field", "value"), key="facts", alt="The job's fields")


def main() -> None:
    """Draw the page."""
    st.title("Job")
    job_id = _wanted()
    if job_id is None:
        return
    try:
        _draw(job_id)
    except persistq.JobNotFound:
        parts.notice("warning", f"There is no job {job_id}.", "It was never enqueued here, or has been deleted.")


main()
