"""One visitor's session: who it is, what it may do, and the queue that it looks at."""

import os
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import streamlit as st

import persistq
from persistq import Settings

from . import access

_BUSY_SECONDS, _STATEMENT_SECONDS = 3.0, 15.0
"""A page does not wait longer than this for a lock, or for one statement of a server."""

REFRESH = {"1 s": 1, "2 s": 2, "5 s": 5, "15 s": 15, "off": None}


def settings() -> Settings:
    """Return the settings as they were when the session began."""
    found = st.session_state.get("settings")
    if not isinstance(found, Settings):
        found = st.session_state["settings"] = Settings.load()
    return found


def visitor() -> str:
    """Return the visitor's name, for the audit log."""
    return access.visitor_of(st.context.headers.get(access.VISITOR_HEADER))


def may_write() -> bool:
    """Return whether the visitor may change anything. Buttons show it; the queue itself refuses."""
    return (access.guarded_by() or access.Rules.of(settings())).writing


def queue() -> persistq.PersistentQSQLAlchemy:
    """Return the queue: for looking only, unless the visitor may write."""
    return _connect(settings(), f"dashboard:{visitor()}", not may_write(), os.getcwd())  # noqa: PTH109 - part of a key


def reachable_queue() -> persistq.PersistentQSQLAlchemy:
    """Return the queue if there is one; looking must not make it.

    Raises:
        DatabaseUnavailable: there is none yet.
    """
    q = queue()
    if not q.database.exists():
        raise persistq.DatabaseUnavailable(f"there is no database {q.dbname} yet; 'persistq enqueue hello' makes one")
    return q


def zone() -> ZoneInfo:
    """Return the time zone that times are shown in."""
    if st.session_state.get("zone") != "browser":
        return ZoneInfo("UTC")
    try:
        return ZoneInfo(st.context.timezone or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")


def refresh_seconds() -> int | None:
    """Return the chosen interval between two looks, or None for none."""
    return REFRESH[st.session_state.get("refresh") or "5 s"]


def hides_items() -> bool:
    """Return whether items and results are not to be shown."""
    return settings().queue_ops_hide_items


@lru_cache(maxsize=32)
def _connect(own: Settings, actor: str, read_only: bool, _folder: str) -> persistq.PersistentQSQLAlchemy:
    quick = own.model_copy(
        update={
            "queue_busy_seconds": min(own.queue_busy_seconds, _BUSY_SECONDS),
            "queue_statement_seconds": min(own.queue_statement_seconds, _STATEMENT_SECONDS),
        }
    )
    return persistq.connect(settings=quick, actor=actor, read_only=read_only)
