"""The checks that decide whether jobs are safe and move, each with its remedy."""

import configparser
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .errors import PersistQError
from .mounts import is_network

if TYPE_CHECKING:
    from .model import QueueInfo
    from .queue import PersistentQSQLAlchemy

LOW_DISK_BYTES = 256 << 20
LARGE_LOG_BYTES = 256 << 20
CLOCK_SECONDS = 5.0
LONG_WAIT_SECONDS = 3600.0
STALE_ACTION_SECONDS = 600.0
"""A bulk action of this age that is not over was cut off; a younger one may go on."""

_SET_CLOCK = "let a time daemon keep it: leases and delays go by it"
SUPERVISOR_CONF = Path("supervisor/supervisord.conf")


class Check(NamedTuple):
    """One finding."""

    name: str
    ok: bool
    detail: str
    fix: str


def examine(q: "PersistentQSQLAlchemy") -> list[Check]:
    """Return every check's finding; a check that cannot be made is a bad one."""
    return [finding for check in _CHECKS for finding in _guarded(check, q)]


def _guarded(check: "Callable[[PersistentQSQLAlchemy], Iterator[Check]]", q: "PersistentQSQLAlchemy") -> list[Check]:
    name = check.__name__.removeprefix("_")
    try:
        return list(check(q))
    except (PersistQError, OSError) as error:
        return [Check(name, False, str(error), "docs/operating.md lists what to do about each message")]


def _database(q: "PersistentQSQLAlchemy") -> Iterator[Check]:
    sound, detail = q.database.durability()
    yield Check("database", True, f"{q.dbname}, schema revision {q.database.revision()}", "")
    yield Check(q.dbtype, sound, detail, q.database.advice)
    if q.dbtype != "sqlite":
        return  # a server's own settings decide, and they have just been asked
    promised = q.settings.queue_durability
    kept = "power loss" if promised == "power" else "the death of processes, not power loss"
    yield Check("durability", True, f"{promised}: an acknowledged job survives {kept}", "")


def _schema(q: "PersistentQSQLAlchemy") -> Iterator[Check]:
    missing = [step.revision for step in q.database.history() if not step.applied]
    yield Check(
        "schema",
        not missing,
        f"revisions {', '.join(missing)} are missing" if missing else "it is the one of this version",
        "persistq db upgrade",
    )


def _file_system(q: "PersistentQSQLAlchemy") -> Iterator[Check]:
    folders = [Path(q.settings.queue_spool_dir)]
    folders += [path.absolute().parent for path in _database_file(q)]
    for folder in folders:
        if folder.exists():
            far = is_network(folder)
            yield Check(
                "file system",
                not far,
                f"{folder} is on {'a network' if far else 'a local'} file system",
                "locks do not hold on a network's; use a local disk, or PostgreSQL or MariaDB",
            )


def _log(q: "PersistentQSQLAlchemy") -> Iterator[Check]:
    for path in _database_file(q):
        log = path.with_name(path.name + "-wal")
        size = log.stat().st_size if log.exists() else 0
        yield Check(
            "log",
            size < LARGE_LOG_BYTES,
            f"the database's log has {size >> 20:,} MiB",
            "some program keeps a transaction open, or maintenance does not run: python -m persistq.maintenance",
        )


def _clock(q: "PersistentQSQLAlchemy") -> Iterator[Check]:
    """Yield whether this machine's clock agrees with the one that judges leases, and with what was written."""
    if q.dbtype != "sqlite":
        apart = abs((q.clock.now() - q.database.now().value).total_seconds())
        yield Check(
            "clock", apart < CLOCK_SECONDS, f"{apart:.1f} s apart from the server's, which judges leases", _SET_CLOCK
        )
        return
    newest = [info.seen_at for info in q.consumers()] + [job.created_at for job in q.list_jobs(limit=1, newest=True)]
    ahead = max(((at - q.clock.now()).total_seconds() for at in newest), default=0.0)
    detail = f"it has been set back by {ahead:.0f} s" if ahead >= CLOCK_SECONDS else "it has not been set back"
    yield Check("clock", ahead < CLOCK_SECONDS, detail, _SET_CLOCK)


def _folders(q: "PersistentQSQLAlchemy") -> Iterator[Check]:
    """Yield whether the folders of jobs and batches can be written, and each is on one device with what it renames."""
    for name, text in (("QUEUE_JOB_DIR", q.settings.queue_job_dir), ("QUEUE_SPOOL_DIR", q.settings.queue_spool_dir)):
        folder = Path(text)
        if not folder.exists():
            continue
        usable = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
        detail = f"{folder} can{'' if usable else 'not'} be written"
        yield Check(
            "folder", usable, f"{name}: {detail}", f"make it a folder of this user: chown, chmod u+rwx {folder}"
        )
        inside = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink()] if usable else []
        others = [entry for entry in inside if entry.stat().st_dev != folder.stat().st_dev]
        if others:
            yield Check(
                "device", False, f"{others[0]} is on another device than {folder}",
                "a file is moved there by renaming, which stays on one device: mount the whole folder instead",
            )  # fmt: skip


def _integrity(q: "PersistentQSQLAlchemy") -> Iterator[Check]:
    if q.dbtype != "sqlite":
        return  # a server looks after its own files
    found = q.database.check()
    yield Check("integrity", not found, found[0] if found else "quick check passed", "restore a backup")


def _counts(q: "PersistentQSQLAlchemy") -> Iterator[Check]:
    drift = q.tally_drift()
    yield Check(
        "counts",
        not drift,
        f"{len(drift)} counts are off" if drift else "counts are right",
        "persistq db check --fix; if nobody wrote to the tables by hand, please report it",
    )


def _files(q: "PersistentQSQLAlchemy") -> Iterator[Check]:
    beside = [path.with_name(path.name + end) for path in _database_file(q) for end in ("", "-wal", "-shm")]
    for path in (*beside, Path(q.settings.queue_job_dir), Path(q.settings.queue_spool_dir), Path(".env")):
        if path.exists():
            mode = stat.S_IMODE(path.stat().st_mode)
            yield Check("permissions", not mode & 0o077, f"{path} has mode {mode:o}", f"chmod go= {path}")


def _disk(q: "PersistentQSQLAlchemy") -> Iterator[Check]:
    for path in _database_file(q):
        free = shutil.disk_usage(path.absolute().parent).free
        yield Check("disk", free >= LOW_DISK_BYTES, f"{free >> 20:,} MiB free beside the database", "free some space")


def _database_file(q: "PersistentQSQLAlchemy") -> list[Path]:
    """Return the file that holds the queue, if one of ours does."""
    return [Path(q.dbname)] if q.dbtype == "sqlite" else []


def _settings(q: "PersistentQSQLAlchemy") -> Iterator[Check]:
    unknown = q.settings.unknown()
    yield Check(
        "settings",
        not unknown,
        f"unknown: {', '.join(unknown)}" if unknown else "every QUEUE_ variable is known",
        "correct the name; 'persistq config show' lists them all",
    )


def _supervisor(q: "PersistentQSQLAlchemy") -> Iterator[Check]:
    if not SUPERVISOR_CONF.exists():
        return
    parser = configparser.RawConfigParser(strict=False, inline_comment_prefixes=(";", "#"))
    parser.read(SUPERVISOR_CONF)
    wait = parser.getfloat("program:consumer", "stopwaitsecs", fallback=10.0)
    yield Check(
        "supervisor",
        wait > q.settings.queue_grace_seconds,
        f"consumers have {wait:g} s to stop",
        f"set stopwaitsecs above QUEUE_GRACE_SECONDS ({q.settings.queue_grace_seconds:g}) in {SUPERVISOR_CONF}",
    )


def _pool(q: "PersistentQSQLAlchemy") -> Iterator[Check]:
    pool = q.database.engine.pool
    size = getattr(pool, "size", None)
    if q.dbtype == "sqlite" or size is None:
        return
    most = size() + max(0, getattr(pool, "_max_overflow", 0))
    wanted = q.settings.queue_concurrency
    yield Check(
        "pool",
        wanted <= most,
        f"up to {most} connections for {wanted} jobs at once",
        "handlers that use the queue themselves would wait for one another: lower QUEUE_CONCURRENCY, start more",
    )


def _movement(q: "PersistentQSQLAlchemy") -> Iterator[Check]:
    now, infos, queues = q.clock.now(), q.consumers(), q.queues()
    alive = [info for info in infos if info.is_alive(now)]
    pending = sum(info.counts["pending"] for info in queues)
    yield Check(
        "consumers",
        bool(alive) or not pending,
        f"{len(alive)} alive, {pending:,} jobs pending",
        "start one: persistq consumer, or persistq up",
    )
    lost = [info.name for info in infos if not info.is_alive(now)]
    yield Check(
        "lost",
        not lost,
        f"silent: {', '.join(lost[:5])}" if lost else "no consumer has fallen silent",
        "look at their logs; persistq consumers prune --older-than 1m takes them off the list",
    )
    paused = [info.name for info in queues if info.paused]
    yield Check("queues", True, f"paused: {', '.join(paused)}" if paused else "none is paused", "")
    awake = [info for info in alive if info.wish is None]
    for info in queues if alive else ():
        served = any(not one.queues or info.name in one.queues for one in awake)
        if info.counts["pending"] and not info.paused and not served:
            yield Check(
                "served", False, f"queue {info.name} has {info.counts['pending']:,} pending jobs and no consumer",
                f"persistq consumer --queue {info.name}; persistq consumers list shows who is quiet",
            )  # fmt: skip
    yield from _waiting(q, queues)


def _waiting(q: "PersistentQSQLAlchemy", queues: "list[QueueInfo]") -> Iterator[Check]:
    """Yield how long the job that is next in line has been due, where that is longest."""
    now = q.database.now().value
    waits = [((now - info.waiting_since).total_seconds(), info.name) for info in queues
             if info.waiting_since and not info.paused]  # fmt: skip
    longest, name = max(waits, default=(0.0, ""))
    yield Check(
        "waiting",
        longest < LONG_WAIT_SECONDS,
        f"the next job of queue {name} has been due for {longest:,.0f} s" if name else "nothing waits",
        "more consumers, or persistq explain ID of the job: persistq list-jobs --status pending",
    )


def _unfinished(q: "PersistentQSQLAlchemy") -> Iterator[Check]:
    before = q.database.now().after(-STALE_ACTION_SECONDS)
    cut = [entry for entry in q.audit(limit=100) if entry.finished_at is None and entry.at < before]
    resumable = [entry for entry in cut if "at" in entry.scope]
    yield Check(
        "actions",
        not resumable,
        f"bulk action {resumable[0].id} ({resumable[0].action}) was not finished" if resumable else "none was cut off",
        f"persistq audit resume {resumable[0].id}" if resumable else "",
    )


def _user(_q: "PersistentQSQLAlchemy") -> Iterator[Check]:
    detail = "this is root: handlers could do anything" if os.geteuid() == 0 else f"uid {os.geteuid()}"
    yield Check("user", True, detail, "")


_CHECKS = (
    _database, _schema, _integrity, _counts, _file_system, _files, _folders, _disk, _log, _clock, _settings,
    _supervisor, _pool, _movement, _unfinished, _user,
)  # fmt: skip
