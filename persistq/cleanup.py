"""Deletes the files of jobs that are over, and no other file."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import jobfiles
from .errors import ConfigError
from .model import TERMINAL, Job, JobStatus

if TYPE_CHECKING:
    from .queue import PersistentQSQLAlchemy

_PAGE = 500


@dataclass(frozen=True, slots=True)
class FileReport:
    """What became of one job file."""

    id: int
    item: str
    #: ``deleted``, ``would be deleted``, or why it was kept.
    outcome: str
    deleted: bool


def job_root(q: "PersistentQSQLAlchemy") -> Path:
    """Return the folder of the job files.

    Raises:
        ConfigError: the database is in it, so that a job could name the database as its file.
    """
    root = Path(q.settings.queue_job_dir).absolute()
    if _is_below(os.path.realpath(q.dbname), Path(os.path.realpath(root))):
        raise ConfigError(f"QUEUE_JOB_DIR: {root} holds the database itself; give the job files a folder of their own")
    return root


def job_files(q: "PersistentQSQLAlchemy", directory: Path, *, dry_run: bool) -> Iterator[FileReport]:
    """Delete the files below ``directory`` that jobs which are over name, and report on each that is there.

    A file has to be in ``QUEUE_JOB_DIR`` too, whatever directory is asked for: an item is text that
    anybody who may enqueue has written. It is reached by folder descriptors, never through a link,
    and kept while a pending or processing job names it, in whatever spelling.
    """
    root = job_root(q)
    if not root.is_dir():
        return
    live = {_path(root, job) for job in _every(q, (JobStatus.PENDING, JobStatus.PROCESSING))}
    for job in _every(q, TERMINAL):
        path = _path(root, job)
        if path and _is_below(path, root) and _is_below(path, directory.absolute()) and os.path.lexists(path):
            yield _delete(q, root, job, path, kept=path in live, dry_run=dry_run)


def _delete(q: "PersistentQSQLAlchemy", root: Path, job: Job, path: str, *, kept: bool, dry_run: bool) -> FileReport:
    # Asked again: the job may have been resubmitted since the live ones were listed.
    if kept or q.has_live_job(job.item):
        return FileReport(job.id, path, "kept: a job that is not over names it", deleted=False)
    try:
        (jobfiles.check if dry_run else jobfiles.delete)(root, path)
    except jobfiles.NotAJobFile as error:
        return FileReport(job.id, path, f"kept: {error}", deleted=False)
    return FileReport(job.id, path, "would be deleted" if dry_run else "deleted", deleted=not dry_run)


def _every(q: "PersistentQSQLAlchemy", statuses: Iterable[JobStatus]) -> Iterator[Job]:
    after = 0
    while page := q.list_jobs(sorted(statuses), limit=_PAGE, after=after):
        yield from page
        after = page[-1].id


def _path(root: Path, job: Job) -> str:
    return os.path.normpath(root / job.item) if "\0" not in job.item else ""


def _is_below(path: str, folder: Path) -> bool:
    return path.startswith(os.path.normpath(folder).rstrip("/") + "/")
