"""Maintenance: what tidies the queue up, each after a confirmation."""

from pathlib import Path

import streamlit as st
from persistq.ops import acting, parts, session, words

import persistq
from persistq import cleanup, spans, upkeep

_ENDED = ["done", "failed", "cancelled"]
_MOST_FILES = 1_000


def _recovering() -> acting.Ask:
    def do(q: persistq.PersistentQSQLAlchemy, reason: str | None, _show: acting.Show) -> acting.Result:
        q.note("recover", {}, reason)
        return acting.Result("success", f"{q.recover():,} jobs of expired leases are taken back.")

    return acting.Ask("Take back the jobs whose leases have expired?", [], do)


def _purging(status: str, older_than: str) -> acting.Ask:
    age = spans.seconds(older_than)

    def do(q: persistq.PersistentQSQLAlchemy, _reason: str | None, _show: acting.Show) -> acting.Result:
        return acting.Result("success", f"{q.purge(age, status):,} jobs are deleted.")

    lines = [f"status {status}, ended more than {older_than} ago"]
    return acting.Ask("Delete old jobs with their history?", lines, do, word="purge")


def _deleting_all() -> acting.Ask:
    def do(q: persistq.PersistentQSQLAlchemy, _reason: str | None, _show: acting.Show) -> acting.Result:
        return acting.Result("success", f"{q.delete_jobs():,} jobs are deleted; running ones are left.")

    total = sum(session.queue().counts().values())
    return acting.Ask(f"Delete all {total:,} jobs but the running ones?", [], do, word="delete")


def _deleting_files() -> acting.Ask:
    q = session.queue()
    root = cleanup.job_root(q)
    found = [report for report, _ in zip(cleanup.job_files(q, root, dry_run=True), range(_MOST_FILES), strict=False)]
    gone = [report.item for report in found if report.outcome == "would be deleted"]

    def do(q: persistq.PersistentQSQLAlchemy, reason: str | None, _show: acting.Show) -> acting.Result:
        q.note("delete_job_files", {"folder": str(root)}, reason)
        deleted = sum(report.deleted for report in cleanup.job_files(q, root, dry_run=False))
        return acting.Result("success", f"{deleted:,} files are deleted.")

    lines = [f"{words.count(len(gone), _MOST_FILES)} files in {root}", *gone[:8]]
    return acting.Ask("Delete the files of jobs that are over?", lines, do, word="files")


def _backing_up() -> acting.Ask:
    q = session.queue()
    stamp = f"{q.clock.now():%Y%m%d-%H%M%S}"
    target = Path(f"{q.dbname}.backup-{stamp}")

    def do(q: persistq.PersistentQSQLAlchemy, reason: str | None, show: acting.Show) -> acting.Result:
        q.note("backup", {"file": str(target)}, reason)
        held = upkeep.make_backup(q, target, lambda done, total: show(min(1.0, done / max(total, 1))))
        return acting.Result("success", f"The backup holds {held:,} jobs, and was checked.", str(target))

    return acting.Ask("Copy the database beside itself?", [str(target)], do)


def _mending() -> acting.Ask:
    drift = session.queue().tally_drift()

    def do(q: persistq.PersistentQSQLAlchemy, reason: str | None, _show: acting.Show) -> acting.Result:
        q.note("mend_counts", {}, reason)
        q.mend_tallies()
        return acting.Result("success", "The counts are right now.")

    lines = [f"{status} in {queue} is off by {by}" for (queue, status), by in drift.items()][:20]
    return acting.Ask("Set the counts right?", lines or ["they are right already"], do)


def _vacuuming() -> acting.Ask:
    def do(q: persistq.PersistentQSQLAlchemy, reason: str | None, _show: acting.Show) -> acting.Result:
        q.note("vacuum", {}, reason)
        upkeep.vacuum(q)
        return acting.Result("success", "The space of deleted jobs is given back.")

    return acting.Ask("Give the space of deleted jobs back? Others wait meanwhile.", [], do)


def _upkeep() -> None:
    st.subheader("Upkeep")
    with st.container(horizontal=True):
        if acting.button("Recover expired leases", key="recover"):
            acting.ask(_recovering())
        if acting.button("Back up", key="backup", disabled=session.queue().dbtype != "sqlite"):
            acting.ask(_backing_up())
        if acting.button("Set counts right", key="mend", help="Counts every job first."):
            acting.ask(_mending())
        if acting.button("Give space back", key="vacuum"):
            acting.ask(_vacuuming())


def _deletion() -> None:
    st.subheader("Deletion")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        status = st.selectbox("Status", _ENDED, key="purge_status", width=160)
        age = st.text_input("Ended longer ago than", "7d", key="purge_age", width=200)
        if acting.button("Purge", key="purge"):
            acting.ask(_purging(str(status), age))
    with st.container(horizontal=True):
        if acting.button("Delete all jobs", key="delete_all"):
            acting.ask(_deleting_all())
        if acting.button("Delete job files", key="delete_files"):
            acting.ask(_deleting_files())


def main() -> None:
    """Draw the page."""
    st.title("Maintenance")
    parts.counts(session.queue().counts())
    _upkeep()
    _deletion()


main()
