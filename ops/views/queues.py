"""Queues and tasks: depth and speed of each queue, and the pause."""

import streamlit as st
from persistq.ops import acting, parts, session, words

import persistq

_MINUTES = 60


def _rows(queues: list[persistq.QueueInfo], timings: list[persistq.Timing]) -> list[dict[str, object]]:
    now = session.queue().clock.now()
    speeds: dict[str, float] = {}
    for timing in timings:
        speeds[timing.queue] = speeds.get(timing.queue, 0.0) + 60 * timing.per_second
    return [
        {"queue": info.name, "state": "paused" if info.paused else "open", **info.counts,
         "waits for": words.span((now - info.waiting_since).total_seconds()) if info.waiting_since else "",
         "attempts a minute": round(speeds.get(info.name, 0.0), 1)}
        for info in queues
    ]  # fmt: skip


def _tasks(timings: list[persistq.Timing]) -> list[dict[str, object]]:
    shares = ("p50", "p95", "p99")
    return [
        {"task": timing.task or "(plain items)", "queue": timing.queue, "done": timing.done, "failed": timing.failed,
         **{f"wait {share}": words.span(timing.wait.get(share)) for share in shares},
         **{f"run {share}": words.span(timing.run.get(share)) for share in shares}}
        for timing in timings
    ]  # fmt: skip


def _set_paused(name: str, *, paused: bool) -> acting.Ask:
    def do(q: persistq.PersistentQSQLAlchemy, reason: str | None, _show: acting.Show) -> acting.Result:
        (q.pause if paused else q.resume)(name, reason)
        return acting.Result("success", "The queue is paused." if paused else "The queue is open again.", name)

    return acting.Ask("Pause this queue?" if paused else "Resume this queue?", [name], do)


def main() -> None:
    """Draw the page."""
    st.title("Queues and tasks")
    q = session.queue()
    queues, timings = q.queues(), q.timings(60 * _MINUTES)
    if not queues:
        parts.empty("There is no queue yet.", "The first job makes one.")
        return
    rows = _rows(queues, timings)
    key = f"queues-{hash(tuple(info.name for info in queues))}"
    chosen = parts.table(rows, tuple(rows[0]), key=key, alt="Queues with their counts", select="single-row")
    info = queues[chosen[0]] if chosen else None
    with st.container(horizontal=True):
        if acting.button("Pause", key="pause", disabled=info is None or info.paused) and info:
            acting.ask(_set_paused(info.name, paused=True))
        if acting.button("Resume", key="resume", disabled=info is None or not info.paused) and info:
            acting.ask(_set_paused(info.name, paused=False))
        if st.button("Show its jobs", key="show_jobs", disabled=info is None) and info:
            st.switch_page("views/jobs.py", query_params={"queue": info.name})
        st.button("Refresh", key="refresh_queues", shortcut="u")
    st.caption("Select a queue to act on it.")
    st.subheader("Tasks, in the last hour")
    if timings:
        tasks = _tasks(timings)
        parts.table(tasks, tuple(tasks[0]), key="tasks", alt="Tasks with percentiles of waiting and running")
    else:
        parts.empty("No attempt ended in the last hour.", "Wait and run times appear here.")


main()
