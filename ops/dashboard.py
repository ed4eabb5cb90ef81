"""The frame around every page: title, navigation, what the visitor has chosen, and what is shown in trouble."""

from pathlib import Path

import streamlit as st
from persistq.ops import acting, parts, session

import persistq

_VIEWS = Path(__file__).with_name("views")


def _page(name: str, title: str, icon: str, *, default: bool = False) -> st.Page:
    return st.Page(_VIEWS / f"{name}.py", title=title, icon=f":material/{icon}:", default=default)


def _pages() -> dict[str, list[st.Page]]:
    return {
        "Jobs": [
            _page("overview", "Overview", "monitoring", default=True),
            _page("jobs", "Jobs", "list"),
            _page("job", "Job", "task"),
            _page("queues", "Queues and tasks", "stacks"),
        ],
        "Streams": [_page("batches", "Batches", "inventory_2"), _page("shards", "Shards", "grid_view")],
        "Fleet": [
            _page("consumers", "Consumers", "group"),
            _page("maintenance", "Maintenance", "build"),
            _page("audit", "Audit", "history"),
            _page("health", "Health", "health_and_safety"),
        ],
    }


def _sidebar() -> None:
    own = session.settings()
    with st.sidebar:
        if own.queue_ops_environment:
            # The operator's own word, shown as text all the same.
            st.text(own.queue_ops_environment, help="QUEUE_OPS_ENVIRONMENT")
        st.badge("may write" if session.may_write() else "read-only", color="orange" if session.may_write() else "gray")
        st.selectbox("Refresh", list(session.REFRESH), index=2, key="refresh", persist_state="session")
        st.selectbox("Time zone", ["UTC", "browser"], key="zone", persist_state="session")
        st.caption("Signed in as")
        st.text(session.visitor())
        st.caption("Database")
        st.text(Path(session.queue().dbname).name)


def main() -> None:
    """Draw the page that was asked for."""
    st.set_page_config(page_title="persistq", page_icon="🗂️", layout="wide")
    page = st.navigation(_pages())
    try:
        _sidebar()
        session.reachable_queue()
        acting.show()
        page.run()
    except persistq.PersistQError as error:
        parts.trouble(error)


main()
