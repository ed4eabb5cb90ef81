"""Health: the checks of ``persistq doctor``, the settings with their sources, versions, the database."""

import platform
from importlib.metadata import version

import streamlit as st
from persistq.ops import parts, session, words

import persistq
from persistq import doctor, upkeep


def _checks() -> None:
    with st.spinner("checking"):
        found = doctor.examine(session.queue())
    bad = sum(not check.ok for check in found)
    if bad:
        parts.notice("error", f"{bad} of {len(found)} checks are bad.")
    else:
        parts.notice("success", f"All {len(found)} checks are good.")
    rows = [
        {"result": "good" if check.ok else "BAD", "check": check.name, "finding": check.detail,
         "remedy": "" if check.ok else check.fix}
        for check in sorted(found, key=lambda check: check.ok)
    ]  # fmt: skip
    parts.table(rows, tuple(rows[0]), key="checks", alt="Checks with their findings")


def _database() -> None:
    found = upkeep.info(session.queue())
    rows = [
        {"what": name.replace("_", " "), "value": words.size(value) if name.endswith("bytes") else str(value)}
        for name, value in found.items()
    ]
    parts.table(rows, ("what", "value"), key="database", alt="The database")


def main() -> None:
    """Draw the page."""
    st.title("Health")
    if st.toggle("Check everything, which reads every job", key="examine"):
        _checks()
    st.subheader("Database")
    _database()
    st.subheader("Settings")
    rows = [
        {"name": setting.name, "value": "" if setting.value is None else str(setting.value), "source": setting.source}
        for setting in session.settings().sources()
    ]
    parts.table(rows, ("name", "value", "source"), key="settings_table", alt="Settings with their sources")
    st.subheader("Versions")
    versions = {"persistq": persistq.__version__, "Python": platform.python_version()}
    versions |= {name: version(name) for name in ("streamlit", "SQLAlchemy", "pydantic")}
    parts.table(
        [{"what": name, "version": text} for name, text in versions.items()], ("what", "version"), key="versions",
        alt="Versions",
    )  # fmt: skip


main()
