"""``streamlit run ops/ops.py`` = ``persistq ops``: the dashboard with its door, and what programs read over HTTP."""

import runpy
from functools import lru_cache
from pathlib import Path

import streamlit as st
from persistq.ops import access, api
from starlette.middleware import Middleware
from streamlit import config
from streamlit.runtime.scriptrunner import get_script_run_ctx

import persistq

_DASHBOARD = Path(__file__).with_name("dashboard.py")
_PAGE = Path(st.__file__).with_name("static") / "index.html"
_settings = persistq.Settings.load()
_rules = access.stand_guard(access.Rules.of(_settings))
# Streamlit checks the websocket's Host once more, by a list of its own.
config.set_option("server.allowedHosts", sorted(_rules.hosts))


@lru_cache(maxsize=1)
def _queue() -> persistq.PersistentQSQLAlchemy:
    return persistq.connect(settings=_settings, read_only=True)


app = st.App(
    _DASHBOARD,
    routes=api.Api(_queue, hide_items=_settings.queue_ops_hide_items).routes(),
    middleware=[Middleware(access.Guard, rules=_rules, page=_PAGE.read_text(encoding="utf-8"))],
)

if get_script_run_ctx(suppress_warning=True) is not None:
    # Run as a page and not as a server, as Streamlit's own test harness does.
    runpy.run_path(str(_DASHBOARD), run_name="__main__")
