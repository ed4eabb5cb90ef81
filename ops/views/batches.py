"""Batches: the files of the spool by queue and status; recover, put aside, make ready again."""

from pathlib import Path

import streamlit as st
from persistq.ops import acting, parts, session, words

import persistq
from persistq import batch, beyond

_MOST = 200
_SHOWN = 20
_COLUMNS = ("file", "status", "queue", "items", "consumed", "deaths", "size", "age", "owner", "owner lives", "damage")


def _root() -> Path:
    return Path(session.settings().queue_spool_dir)


def _counts(names: list[str]) -> list[dict[str, object]]:
    rows = []
    for name in names:
        found = batch.counts(_root(), name)
        flat = {f"{status} {kind}".replace(" all", ""): number for status, kinds in found.items()
                for kind, number in kinds.items()}  # fmt: skip
        rows.append({"queue": name, **flat})
    return rows


def _row(info: batch.BatchInfo) -> dict[str, object]:
    return {
        "file": info.file,
        "status": info.status,
        "queue": info.queue,
        "items": "" if info.items is None else str(info.items),
        "consumed": "" if info.consumed is None else str(info.consumed),
        "deaths": str(info.deaths or ""),
        "size": words.size(info.bytes),
        "age": words.ago(info.created_at, session.queue().clock.now()),
        "owner": info.owner,
        "owner lives": "" if info.live is None else "yes" if info.live else "no",
        "damage": info.damage,
    }


def _recovering(names: list[str]) -> acting.Ask:
    def do(q: persistq.PersistentQSQLAlchemy, reason: str | None, _show: acting.Show) -> acting.Result:
        lines = [
            f"{name}: {done.ready} ready, {done.empty} empty, {done.alive} alive, {len(done.invalid)} bad"
            for name, done in beyond.recover_batches(q, names, reason=reason).items()
        ]
        return acting.Result("success", "What dead processes left is ready again.", "\n".join(lines))

    return acting.Ask("Make ready what dead processes left? The living are not touched.", names, do)


def _putting_aside(info: batch.BatchInfo) -> acting.Ask:
    def do(q: persistq.PersistentQSQLAlchemy, reason: str | None, _show: acting.Show) -> acting.Result:
        name = beyond.put_batch_aside(q, info.queue, info.file, reason=reason)
        return acting.Result("success", "The batch is put aside.", name)

    return acting.Ask("Put this batch aside, so that nobody consumes it?", [info.file], do)


def _replaying(info: batch.BatchInfo) -> acting.Ask:
    def do(q: persistq.PersistentQSQLAlchemy, reason: str | None, _show: acting.Show) -> acting.Result:
        name = beyond.replay_batch(q, info.queue, info.file, reason=reason)
        return acting.Result("success", "The batch is ready again.", name)

    return acting.Ask("Make this batch ready, where it stopped?", [info.file], do)


def _items(info: batch.BatchInfo) -> None:
    if info.status == "loading" or info.damage or session.hides_items():
        return
    with st.expander(f"Its first {_SHOWN} items"):
        rows = [{"number": number, "item": text} for number, text in
                batch.show(_root(), info.queue, info.id, 0, _SHOWN)]  # fmt: skip
        parts.table(rows, ("number", "item"), key="items", alt="Items of the batch")


def _acting_on(info: batch.BatchInfo | None, names: list[str]) -> None:
    with st.container(horizontal=True):
        if acting.button("Recover", key="recover"):
            acting.ask(_recovering(names))
        if acting.button("Put aside", key="put_aside", disabled=info is None or info.status != "ready") and info:
            acting.ask(_putting_aside(info))
        if acting.button("Make ready", key="replay", disabled=info is None or info.status != "invalid") and info:
            acting.ask(_replaying(info))
        st.button("Refresh", key="refresh_batches", shortcut="u")
    st.caption("Select a batch to act on it.")


def main() -> None:
    """Draw the page."""
    st.title("Batches")
    names = batch.queues(_root())
    if not names:
        parts.empty("There is no batch.", "A BatchWriter makes them in the folder QUEUE_SPOOL_DIR.")
        return
    rows = _counts(names)
    parts.table(rows, tuple(rows[0]), key="spools", alt="Batches by queue and status")
    status = st.selectbox("Status", ["any", *batch.BatchStatus], key="batch_status", bind="query-params")
    found = batch.listing(_root(), None, None if status == "any" else str(status), _MOST)
    if not found:
        parts.empty("No batch is in this status.", "")
    key = f"batches-{hash(tuple(info.file for info in found))}"
    chosen = parts.table([_row(info) for info in found], _COLUMNS, key=key, alt="Batch files, the oldest first",
                         select="single-row")  # fmt: skip
    if len(found) == _MOST:
        st.caption(f"Only the oldest {_MOST} are shown.")
    info = found[chosen[0]] if chosen else None
    _acting_on(info, names)
    if info:
        _items(info)


main()
