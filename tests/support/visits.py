"""The dashboard's pages as one visitor sees them, drawn without a browser."""

from typing import Any

from streamlit.components.v2.component_manager import BidiComponentManager
from streamlit.runtime.scriptrunner.script_cache import ScriptCache
from streamlit.testing.v1 import AppTest, app_test

from support.generated import ROOT

# Each AppTest would look for components, of which no page has one, in every package that is installed, and compile
# the pages in each run: that takes several times as long as the pages themselves.
_COMPONENTS = BidiComponentManager()
_SCRIPTS = ScriptCache()
app_test.ScriptCache = lambda: _SCRIPTS


class Visit:
    """One visitor, on one page."""

    def __init__(self, page: str = "overview", *, script: str = "dashboard.py", **query: str) -> None:
        self.at = AppTest.from_file(str(ROOT / "ops" / script), default_timeout=60)
        self.at._bidi_component_manager = _COMPONENTS
        self.at.session_state["refresh"] = "off"
        for name, value in query.items():
            self.at.query_params[name] = value
        self.at.switch_page(f"views/{page}.py")
        self.run()

    def run(self) -> "Visit":
        self.at.run()
        assert not self.at.exception, self.at.exception
        return self

    def table(self, place: int = 0) -> list[dict[str, Any]]:
        return self.at.dataframe[place].value.to_dict("records")

    def select(self, *rows: int, table: int = 0) -> "Visit":
        key = self.at.dataframe[table].proto.id.split("-", 2)[2]
        self.at.session_state[key] = {"selection": {"rows": list(rows), "columns": [], "cells": []}}
        return self.run()

    def press(self, key: str) -> "Visit":
        self.at.button(key=key).click()
        return self.run()

    def confirm(self, word: str = "", reason: str = "") -> "Visit":
        if word:
            self.at.text_input(key="ask_word").set_value(word)
        if reason:
            self.at.text_input(key="ask_reason").set_value(reason)
        return self.press("ask_yes")

    def said(self) -> list[str]:
        """Return what the page says, besides its captions."""
        kinds = (self.at.success, self.at.warning, self.at.error, self.at.info, self.at.text, self.at.subheader)
        return [one.value for kind in kinds for one in kind] + [one.value for one in self.at.markdown]

    def says(self, part: str) -> bool:
        return any(part in text for text in self.said())
