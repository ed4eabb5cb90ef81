"""Audit: what was decided, by whom, from where, and what came of it."""

from typing import Any

import streamlit as st
from persistq.ops import parts, session, words

import persistq
from persistq import spans
from persistq.actions import AuditEntry

_COLUMNS = ("number", "time", "actor", "from", "action", "result", "scope", "reason")
_CSV = ("id", "at", "actor", "via", "host", "action", "reason", "scope", "counts", "finished_at")
_SIZE = 100


def _row(entry: AuditEntry) -> dict[str, object]:
    result = ", ".join(f"{name} {value}" for name, value in entry.counts.items() if name != "why")
    return {
        "number": entry.id,
        "time": words.moment_text(entry.at, session.zone()),
        "actor": entry.actor,
        "from": f"{entry.via} on {entry.host}",
        "action": entry.action,
        "result": result if entry.finished_at else f"cut off, or going on: {result}",
        "scope": persistq.dumps(entry.scope),
        "reason": entry.reason,
    }


def main() -> None:
    """Draw the page."""
    st.title("Audit")
    with st.grid(min_column_width=160):
        st.text_input("Actor contains", key="actor", bind="query-params")
        st.text_input("Action", key="action", bind="query-params", help="resubmit, cancel, delete, queue_pause ...")
        st.text_input("Since", key="audit_since", bind="query-params", help="24h, 30m, or a date such as 2030-01-31")
        st.number_input("Before number", min_value=0, value=None, key="before_number", bind="query-params")
    asked: dict[str, Any] = {name: st.session_state[name].strip() or None for name in ("actor", "action")}
    since = st.session_state["audit_since"].strip()
    asked |= {"since": spans.moment(since) if since else None, "before": st.session_state["before_number"]}
    found = session.queue().audit(limit=_SIZE, **asked)
    if not found:
        parts.empty(
            "Nothing was decided that matches.", "Resubmitting, cancelling, pausing and the like are noted here."
        )
        return
    parts.table([_row(entry) for entry in found], _COLUMNS, key="audit", alt="Decisions, the newest first")
    with st.container(horizontal=True):
        st.download_button(
            "CSV", lambda: parts.csv_text([entry.to_dict() for entry in found], _CSV), "audit.csv", "text/csv",
            key="csv", on_click="ignore",
        )  # fmt: skip
        if len(found) == _SIZE:
            st.caption(f"For the decisions before these, put {found[-1].id} into the field on the right.")


main()
