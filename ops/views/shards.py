"""Shards: what waits for which handler's which thread, and who holds it."""

import pandas as pd
import streamlit as st
from persistq.ops import acting, parts, session, words

import persistq
from persistq import beyond

_MOST = 1_000
_MOST_DRAWN = 400
_COLUMNS = ("tube", "state", "ready", "later", "waits", "owner", "tries", "lease until")


def _row(shard: beyond.Shard) -> dict[str, object]:
    now, zone = session.queue().clock.now(), session.zone()
    return {
        "tube": shard.tube,
        "state": shard.state,
        "ready": shard.ready,
        "later": shard.later,
        "waits": words.ago(shard.waiting_at, now) if shard.waiting_at else "",
        "owner": shard.owner or "",
        "tries": shard.tries,
        "lease until": words.moment_text(shard.lease_until, zone) if shard.lease_until else "",
    }


def _heat(rows: list[dict[str, object]]) -> None:
    cells = []
    for row in rows[:_MOST_DRAWN]:
        handler, _, thread = str(row["tube"]).partition("/")
        cells.append({"handler": words.cell(handler), "thread": words.cell(thread), "requests": row["ready"]})
    total = sum(info["requests"] for info in cells)
    parts.heat_map(pd.DataFrame(cells), x="thread", y="handler", value="requests",
                   alt_text=f"{total} ready requests in {len(cells)} threads of handlers")  # fmt: skip


def _releasing(tube: str) -> acting.Ask:
    def do(q: persistq.PersistentQSQLAlchemy, reason: str | None, _show: acting.Show) -> acting.Result:
        if beyond.release_tube(q, tube, reason):
            return acting.Result("success", "Another worker may have it now.", tube)
        return acting.Result("info", "Nobody held it, and it did not rest.", tube)

    return acting.Ask("Take this tube from its holder? What it has begun may be performed again.", [tube], do)


def main() -> None:
    """Draw the page."""
    st.title("Shards")
    rows = [_row(shard) for shard in beyond.shards(session.queue(), _MOST)]
    if not rows:
        parts.empty("No request waits, and nobody holds a shard.", "Queue.register() adds requests.")
        return
    _heat(rows)
    key = f"shards-{hash(tuple(row['tube'] for row in rows))}"
    chosen = parts.table(rows, _COLUMNS, key=key, alt="Tubes with their holders", select="single-row")
    tube = str(rows[chosen[0]]["tube"]) if chosen else None
    with st.container(horizontal=True):
        if acting.button("Release", key="release", disabled=tube is None) and tube:
            acting.ask(_releasing(tube))
        st.button("Refresh", key="refresh_shards", shortcut="u")
    st.caption("Select a tube to act on it.")


main()
