"""The parts that pages are made of. Data is drawn as text, in tables and in charts: never as Markdown or HTML."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import Any, Literal

import altair as alt
import pandas as pd
import streamlit as st

import persistq

from . import session, words

Kind = Literal["info", "success", "warning", "error"]
_RETRY_SECONDS = 3
_COLOURS = {"enqueued": "#4c78a8", "done": "#2e8b57", "failed attempts": "#c0392b"}


def notice(kind: Kind, headline: str, detail: str = "") -> None:
    """Say something: the headline is ours, the detail may hold data and is drawn as it is."""
    getattr(st, kind)(headline)
    if detail:
        st.text(words.block(detail))


def empty(headline: str, hint: str) -> None:
    """Say that there is nothing here, and what would change that."""
    with st.container(border=True):
        st.markdown(f"**{headline}**")
        st.caption(hint)


def table(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    key: str,
    alt: str,
    select: Literal["multi-row", "single-row"] | None = None,
    config: dict[str, Any] | None = None,
) -> list[int]:
    """Draw rows and return the numbers of those that the visitor has selected."""
    frame = pd.DataFrame([{name: _cell(row.get(name)) for name in columns} for row in rows], columns=list(columns))
    options: dict[str, Any] = {"hide_index": True, "column_config": config, "key": key, "alt": alt}
    if select is None:
        st.dataframe(frame, **options)
        return []
    chosen = st.dataframe(frame, on_select="rerun", selection_mode=select, **options)
    return [place for place in chosen["selection"]["rows"] if place < len(rows)]


def live(draw: Callable[[], None]) -> None:
    """Draw now and again every so often, as the visitor has chosen; trouble is shown in its place."""

    def drawing() -> None:
        try:
            draw()
        except persistq.PersistQError as error:
            notice("error", "This could not be read now; the next look tries again.", str(error))

    st.fragment(drawing, run_every=session.refresh_seconds())()


def trouble(error: persistq.PersistQError) -> None:
    """Show why there is no page; if the database is the reason, come back by itself when it is there again."""
    if isinstance(error, persistq.ConfigError | persistq.UnknownStatus | persistq.PayloadError | persistq.JobNotFound):
        notice("error", "This cannot be shown.", str(error))
        return
    notice("error", "The queue cannot be read now. This page comes back by itself.", str(error))
    looks = count()

    def again() -> None:
        if not next(looks):
            return  # the page has just looked
        try:
            session.reachable_queue().counts()
        except persistq.PersistQError:
            return
        st.rerun()

    st.fragment(again, run_every=_RETRY_SECONDS)()


def counts(numbers: Mapping[str, int]) -> None:
    """Draw one figure for each status."""
    with st.grid(min_column_width=130):
        for status, number in numbers.items():
            st.metric(status, words.count(number), border=True)


def lines_chart(frame: pd.DataFrame, *, x: str, y: str, colour: str, alt_text: str) -> None:
    """Draw lines over time, one for each value of ``colour``."""
    utc = session.zone().key == "UTC"
    chart = (
        alt.Chart(frame)
        .mark_line()
        .encode(
            x=alt.X(
                f"{x}:T", title=None, scale=alt.Scale(type="utc" if utc else "time"), axis=alt.Axis(format="%H:%M")
            ),
            y=alt.Y(f"{y}:Q", title=None, axis=alt.Axis(tickMinStep=1)),
            color=alt.Color(
                f"{colour}:N",
                title=None,
                legend=alt.Legend(orient="top"),
                scale=alt.Scale(domain=list(_COLOURS), range=list(_COLOURS.values())),
            ),
            strokeDash=alt.StrokeDash(f"{colour}:N", title=None, legend=None),
            tooltip=[f"{colour}:N", f"{y}:Q"],
        )
        .properties(height=220)
    )
    st.altair_chart(chart, alt=alt_text)


def heat_map(frame: pd.DataFrame, *, x: str, y: str, value: str, alt_text: str) -> None:
    """Draw a rectangle for each pair, the darker the more."""
    chart = (
        alt.Chart(frame)
        .mark_rect()
        .encode(
            x=alt.X(f"{x}:N"),
            y=alt.Y(f"{y}:N"),
            color=alt.Color(f"{value}:Q", scale=alt.Scale(scheme="blues")),
            tooltip=[f"{y}:N", f"{x}:N", f"{value}:Q"],
        )
    )
    st.altair_chart(chart, alt=alt_text)


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Return rows as a CSV file that no spreadsheet takes for formulas."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    writer.writerows([words.csv_cell(row.get(name)) for name in columns] for row in rows)
    return out.getvalue()


def _cell(value: Any) -> Any:
    return value if isinstance(value, bool | int | float) else words.cell(value)
