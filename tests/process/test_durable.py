"""The order in which the producer makes a job durable, as the kernel sees it."""

import re

import pytest

pytestmark = pytest.mark.needs("strace")


def test_file_then_folder_then_commit(make_yard):
    yard = make_yard()
    yard.q.enqueue("an existing database")
    folder = yard.folder / "jobs"
    folder.mkdir()
    synced = _syncs(yard)
    (path,) = folder.iterdir()
    assert yard.jobs()[-1].item == str(path)

    file, name = synced.index(str(path)), synced.index(str(folder))
    commits = [place for place, what in enumerate(synced) if what == f"{yard.database}-wal"]
    assert commits, f"the commit was not synced: {synced}"
    assert file < name < min(commits), synced


def test_a_new_job_folder_is_itself_made_durable_before_the_commit(make_yard):
    yard = make_yard(queue_job_dir="new/jobs")
    yard.q.enqueue("an existing database")
    synced = _syncs(yard)
    commit = synced.index(f"{yard.database}-wal")
    # A file's name is safe when its folder is synced, and so is the folder's own name in the one above.
    folders = {str(yard.folder / "new" / "jobs"), str(yard.folder / "new"), str(yard.folder)}
    assert folders <= set(synced[:commit]), synced


def test_the_stamp_is_durable_before_the_job_is_done(make_yard):
    yard = make_yard()
    assert yard.producer("--count", "1").wait() == 0
    (path,) = (yard.folder / "jobs").iterdir()
    yard.q.get_job(1)  # keeps the database open, so that nobody's closing checkpoint is among the calls
    strace = ("strace", "-f", "-y", "-o", "trace", "-e", "trace=fsync,fdatasync,renameat,rename")
    assert yard.consumer("--drain", before=strace).wait() == 0
    calls = (yard.folder / "trace").read_text().splitlines()
    stamp = next(n for n, call in enumerate(calls) if "sync(" in call and f"{path.parent}/.persistq-tmp-" in call)
    rename = next(n for n, call in enumerate(calls) if "rename" in call and path.name in call)
    folder = next(n for n, call in enumerate(calls) if "sync(" in call and f"<{path.parent}>" in call)
    settled = max(n for n, call in enumerate(calls) if "sync(" in call and "queue.db-wal" in call)
    assert stamp < rename < folder < settled, calls


def _syncs(yard) -> list[str]:
    """Run one producer step and return the paths that it synced, in their order."""
    strace = ("strace", "-f", "-y", "-o", "trace", "-e", "trace=fsync,fdatasync")
    assert yard.producer("--count", "1", "--interval", "0", before=strace).wait() == 0
    trace = (yard.folder / "trace").read_text()
    return re.findall(r"f(?:data)?sync\(\d+<([^>]*)>", trace)
