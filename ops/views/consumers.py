"""Consumers: who is there, what each performs, and telling them to be quiet or to stop."""

import streamlit as st
from persistq.ops import acting, parts, session, words

import persistq
from persistq import spans
from persistq.text import HIDDEN

_COLUMNS = ("name", "state", "running", "queues", "host", "pid", "seen", "started", "id")
_MOST_JOBS = 100
_WISHES = {
    "quiet": ("Quiet", "Let this consumer finish what it has and claim no more?"),
    "stop": ("Stop", "Let this consumer finish and end? A supervisor starts it anew."),
    None: ("Resume", "Let this consumer claim again?"),
}


def _row(info: persistq.ConsumerInfo) -> dict[str, object]:
    now, zone = session.queue().clock.now(), session.zone()
    return {
        "name": info.name,
        "state": words.consumer_state(info, now),
        "running": f"{info.running} of {info.concurrency}",
        "queues": ", ".join(info.queues) or "all",
        "host": info.host,
        "pid": info.pid,
        "seen": f"{words.ago(info.seen_at, now)} ({words.moment_text(info.seen_at, zone)})",
        "started": words.moment_text(info.started_at, zone),
        "id": info.id,
    }


def _telling(info: persistq.ConsumerInfo, wish: str | None) -> acting.Ask:
    def do(q: persistq.PersistentQSQLAlchemy, reason: str | None, _show: acting.Show) -> acting.Result:
        told = q.tell_consumer(info.id, wish, reason)
        return acting.Result("success", "Told; it reads it with its next sign of life.", "\n".join(told))

    return acting.Ask(_WISHES[wish][1], [info.id], do)


def _pruning(older_than: str) -> acting.Ask:
    age = spans.seconds(older_than)

    def do(q: persistq.PersistentQSQLAlchemy, _reason: str | None, _show: acting.Show) -> acting.Result:
        return acting.Result("success", f"{q.prune_consumers(age):,} consumers are forgotten.")

    return acting.Ask("Forget the consumers that have not been seen for so long?", [older_than], do)


def _jobs_of(info: persistq.ConsumerInfo) -> None:
    held = session.queue().list_jobs("processing", consumer=info.id, limit=_MOST_JOBS)
    st.subheader("What it performs now")
    if not held:
        parts.empty("It holds no job.", "")
        return
    now = session.queue().clock.now()
    rows = [
        {"id": job.id, "queue": job.queue, "task": job.task, "attempt": job.attempts,
         "for": words.ago(job.started_at, now), "item": HIDDEN if session.hides_items() else job.item}
        for job in held
    ]  # fmt: skip
    parts.table(rows, tuple(rows[0]), key="held", alt="Jobs that the consumer holds")


def main() -> None:
    """Draw the page."""
    st.title("Consumers")
    found = session.queue().consumers()
    if not found:
        parts.empty("No consumer has been seen.", "Start one: persistq consumer, or persistq up.")
        return
    key = f"consumers-{hash(tuple(info.id for info in found))}"
    rows = [_row(info) for info in found]
    chosen = parts.table(rows, _COLUMNS, key=key, alt="Consumers with their last sign of life", select="single-row")
    info = found[chosen[0]] if chosen else None
    with st.container(horizontal=True):
        for wish, (label, _) in _WISHES.items():
            if acting.button(label, key=f"wish_{label.lower()}", disabled=info is None) and info:
                acting.ask(_telling(info, wish))
        st.button("Refresh", key="refresh_consumers", shortcut="u")
    st.caption("Select a consumer to act on it and to see its jobs. One that is silent for 30 s counts as lost.")
    if info:
        _jobs_of(info)
    with st.expander("Forget the lost"), st.container(horizontal=True, vertical_alignment="bottom"):
        age = st.text_input("Not seen for", "1h", key="prune_age")
        if acting.button("Forget them", key="prune"):
            acting.ask(_pruning(age))


main()
