"""Changes: asked for by a button, confirmed in a dialog, done by the queue, reported on the page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

import persistq
from persistq import bulk, codec
from persistq.actions import Preview, Refused

from . import parts, session, words

MANY = 20
"""From this many jobs on, and for every deletion, the number has to be typed."""

READ_ONLY = "This dashboard is for looking only; QUEUE_OPS_WRITE or QUEUE_OPS_PASSWORD changes that."
_VERBS = {
    "resubmit": "Resubmit",
    "cancel": "Cancel",
    "mark_failed": "Mark failed",
    "release": "Release",
    "assign": "Assign",
    "edit": "Edit",
    "delete": "Delete",
}
_TOLD = 20

Show = Callable[[float], object]
"""Takes what part is done."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a change."""

    kind: parts.Kind
    headline: str
    #: May hold data.
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """A question that waits for the visitor's answer."""

    headline: str
    #: May hold data.
    lines: Sequence[str]
    do: Callable[[persistq.PersistentQSQLAlchemy, str | None, Show], Result]
    #: What has to be typed first.
    word: str = ""


def button(label: str, *, key: str, help: str | None = None, disabled: bool = False) -> bool:  # noqa: A002
    """Draw a button for a change, and return whether it was pressed."""
    allowed = session.may_write()
    return st.button(label, key=key, disabled=disabled or not allowed, help=help if allowed else READ_ONLY)


def ask(question: Ask) -> None:
    """Open the dialog."""
    st.session_state["ask"] = question
    st.rerun()


def ask_bulk(
    verb: str, which: persistq.JobFilter | None = None, ids: Sequence[int] | None = None, **options: Any
) -> None:
    """Ask about jobs: of a filter as they are now, or of ids."""
    what = session.queue().preview(verb, which, ids=ids, **options)
    if not what.count:
        tell(Result("info", "There is no job that this can be done to."))
        st.rerun()
    lines = [f"{number:,} in queue {queue}" for queue, number in what.by_queue.items()][:8]
    lines += [f"job {job.id} {job.status} {words.cell(_item(job))}" for job in what.samples]
    if what.missing:
        lines.append(f"{len(what.missing):,} of the ids are gone")
    word = str(what.count) if verb == "delete" or what.count > MANY else ""
    ask(Ask(f"{_VERBS[verb]} {what.count:,} {_jobs(what.count)}?", lines, _doing(what), word))


def tell(result: Result) -> None:
    """Let the next page begin with what came of a change."""
    st.session_state["told"] = result
    st.session_state["generation"] = generation() + 1


def generation() -> int:
    """Return how many changes this session has made: what was read before the last one is stale."""
    return int(st.session_state.get("generation", 0))


def show() -> None:
    """Draw the report of the last change, and the dialog if a question is open."""
    told = st.session_state.pop("told", None)
    with st.container():  # always there, so that what stands below is not made anew when the report goes
        if told is not None:
            parts.notice(told.kind, told.headline, told.detail)
    if "ask" in st.session_state:
        _dialog()


def _forget() -> None:
    st.session_state.pop("ask", None)


@st.dialog("Please confirm", width="medium", on_dismiss=_forget)
def _dialog() -> None:
    question = st.session_state.get("ask")
    if question is None:
        return
    st.subheader(question.headline)
    if question.lines:
        st.text(words.block("\n".join(question.lines)))
    reason = st.text_input("Reason, for the audit log", key="ask_reason", max_chars=500) or None
    typed = st.text_input(f"Type {question.word} to go ahead", key="ask_word") if question.word else ""
    with st.container(horizontal=True):
        yes = st.button("Go ahead", key="ask_yes", type="primary")
        if st.button("Leave it", key="ask_no"):
            _forget()
            st.rerun()
    if not yes:
        return
    if question.word and typed.strip().replace(",", "") != question.word:
        st.error("That is not what was to be typed; nothing was done.")
        return
    _forget()
    tell(_answer(question, reason))
    st.rerun()


def _answer(question: Ask, reason: str | None) -> Result:
    bar = st.progress(0.0, "at work")
    try:
        return question.do(session.queue(), reason, bar.progress)
    except persistq.ReadOnly:
        return Result("error", READ_ONLY)
    except persistq.OutcomeUnknown as error:
        return Result("warning", "It is not known whether this was done; look, then repeat it.", str(error))
    except persistq.PersistQError as error:
        return Result("error", "This was not done, or not to its end; the audit log has the rest.", str(error))


def _doing(what: Preview) -> Callable[[persistq.PersistentQSQLAlchemy, str | None, Show], Result]:
    def do(q: persistq.PersistentQSQLAlchemy, reason: str | None, show: Show) -> Result:
        why = codec.storable(reason) if reason else None
        named = replace(what, action=replace(what.action, reason=why))
        refused: list[Refused] = []
        changed = left = 0
        for progress in bulk.carry_out(q, named):
            changed, left = progress.changed, progress.refused
            refused += progress.refusals[: _TOLD - len(refused)]
            show(min(1.0, progress.place / what.count))
        headline = f"{_VERBS[what.action.verb]}: {changed:,} {_jobs(changed)} changed"
        if not left:
            return Result("success", f"{headline}.")
        return Result("warning", f"{headline}, {left:,} left as they are.", "\n".join(one.why for one in refused))

    return do


def _jobs(number: int) -> str:
    return "job" if number == 1 else "jobs"


def _item(job: persistq.Job) -> str:
    return "" if session.hides_items() else job.item
