"""Overview: how much there is, how fast it goes, what fails, what nobody performs."""

import pandas as pd
import streamlit as st
from persistq.ops import parts, session, words

import persistq

_WINDOWS = {"15 min": 15, "1 h": 60, "6 h": 360, "24 h": 1_440, "7 d": 10_080}
_CHART_MINUTES = 360
_GROUPS = 50


def _figures() -> None:
    q = session.queue()
    parts.counts(q.counts())
    queues, alive = q.queues(), [info for info in q.consumers() if info.is_alive(q.clock.now())]
    waiting = min((info.waiting_since for info in queues if info.waiting_since and not info.paused), default=None)
    with st.container(horizontal=True):
        oldest = words.span((q.clock.now() - waiting).total_seconds()) if waiting else "nothing waits"
        st.metric("longest wait now", oldest)
        st.metric("consumers alive", len(alive))
        st.metric("queues paused", sum(info.paused for info in queues))
    stuck = [info for info in queues if info.counts["pending"] and not info.paused and not _served(info.name, alive)]
    if stuck:
        number = sum(info.counts["pending"] for info in stuck)
        parts.notice(
            "warning",
            f"{number:,} pending jobs are in queues that no live consumer serves.",
            words.listed([info.name for info in stuck]) + "\nstart one: persistq consumer, or persistq up",
        )
    paused = [info.name for info in queues if info.paused and info.counts["pending"]]
    if paused:
        parts.notice("info", "Jobs wait in paused queues.", words.listed(paused))


def _served(queue: str, alive: list[persistq.ConsumerInfo]) -> bool:
    return any(info.wish is None and (not info.queues or queue in info.queues) for info in alive)


def _flow() -> None:
    q, minutes = session.queue(), _WINDOWS[st.session_state.get("window") or "1 h"]
    shown = min(minutes, _CHART_MINUTES)
    ended, arrived = q.throughput(shown), q.arrivals(shown)
    rows = [
        {"at": minute.at, "what": what, "jobs": jobs}
        for minute, number in zip(ended, arrived, strict=True)
        for what, jobs in (("enqueued", number), ("done", minute.done), ("failed attempts", minute.failed))
    ]
    sums = (sum(arrived), sum(minute.done for minute in ended), sum(minute.failed for minute in ended))
    st.caption(f"In the last {shown} minutes: {sums[0]:,} enqueued, {sums[1]:,} done, {sums[2]:,} failed attempts.")
    parts.lines_chart(
        pd.DataFrame(rows), x="at", y="jobs", colour="what",
        alt_text=f"Jobs a minute over {shown} minutes: {sums[0]} enqueued, {sums[1]} done, {sums[2]} failed attempts",
    )  # fmt: skip
    timings = q.timings(60 * minutes)
    if not timings:
        parts.empty("No attempt ended in this time.", "Wait and run times appear here, by queue and task.")
        return
    parts.table([_speed(timing) for timing in timings], tuple(_speed(timings[0])), key="speeds",
                alt="Attempts by queue and task with percentiles of waiting and running")  # fmt: skip


def _speed(timing: persistq.Timing) -> dict[str, object]:
    row: dict[str, object] = {"queue": timing.queue, "task": timing.task or "(plain items)", "done": timing.done}
    row |= {"failed": timing.failed, "a minute": round(60 * timing.per_second, 1)}
    spans = (("wait", timing.wait), ("run", timing.run))
    return row | {f"{kind} {share}": words.span(found.get(share)) for kind, found in spans for share in ("p50", "p95")}


def _failures() -> None:
    groups, more = session.queue().errors()
    if not groups:
        parts.empty("No job is failed.", "Failures that look alike are grouped here.")
        return
    now = session.queue().clock.now()
    rows = [
        {"jobs": group.count, "error": group.error, "message": group.message, "queue": group.queue,
         "task": group.task, "newest": words.ago(group.newest_at, now), "newest job": group.newest_id}
        for group in groups[:_GROUPS]
    ]  # fmt: skip
    # Of other groups the old selection would mean others, so they are another table.
    key = f"failures-{hash(tuple((group.error, group.message, group.queue, group.task) for group in groups[:_GROUPS]))}"
    chosen = parts.table(rows, tuple(rows[0]), key=key, alt="Failed jobs grouped by error", select="single-row")
    if more:
        st.caption("Only the newest 3,000 failures were looked at.")
    if chosen:
        group = groups[chosen[0]]
        if st.button("Show these jobs", key="show_group"):
            asked = {"status": "failed", "queue": group.queue, "error": group.error}
            st.switch_page("views/jobs.py", query_params={name: value for name, value in asked.items() if value})


st.title("Overview")
parts.live(_figures)
st.subheader("Flow")
st.selectbox("Attempts that ended within", list(_WINDOWS), index=1, key="window", width=240, persist_state="session")
parts.live(_flow)
st.subheader("Failures")
_failures()
