"""Recovery: what the dead left is made ready again, what is damaged is put aside, and the living are never touched."""

import logging
import os
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..errors import PersistQError
from ..events import emit
from . import file
from .names import SIDECARS, BatchName, BatchStatus
from .spool import Damaged, Spool, translating

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What one recovery did."""

    #: Batches of dead producers and consumers that are ready now.
    ready: int = 0
    #: Files of dead producers in which nothing was safe yet.
    empty: int = 0
    #: Files put aside, with the reason.
    invalid: dict[str, str] = field(default_factory=dict)
    #: Batches that the living are at work on.
    alive: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def recover(
    root: str | os.PathLike[str],
    queue: str = "default",
    *,
    durability: Literal["power", "process"] = "power",
    allow_network: bool = False,
) -> Recovered:
    """Make ready what dead producers and consumers left, and report what was done.

    Whether an owner is dead the kernel says: its lock ends with the process. So this may be called at any time, by
    anybody; ready batches are not even looked at. A ``recover`` that dies is made up for by the next.

    Raises:
        ConfigError: the folder is not usable.
        DatabaseUnavailable: it cannot be read now.
    """
    return recover_spool(Spool(root, queue, allow_network=allow_network), power=durability == "power")


def recover_spool(spool: Spool, *, power: bool) -> Recovered:
    """Do what ``recover`` does."""
    done = Recovered()
    for name in sorted(spool.names()):
        if name.status in (BatchStatus.LOADING, BatchStatus.UNLOAD):
            done = _recover(spool, name, done)
    for stray in spool.strays():
        with translating(spool.folder), suppress(FileNotFoundError):
            # SQLite's journal of a file that is gone: of no use, but a file that no name describes.
            (spool.folder / stray).unlink()
    if power and (done.ready or done.empty or done.invalid):
        with translating(spool.folder):
            spool.sync()
    if done.ready or done.invalid:
        emit("batch.recovered", queue=spool.queue, ready=done.ready, invalid=len(done.invalid))
    return done


def _recover(spool: Spool, name: BatchName, done: Recovered) -> Recovered:
    try:
        handle = spool.own(name)
        if handle is None:
            return replace(done, alive=done.alive + 1) if spool.is_owned(name) else done
        try:
            if name.status is BatchStatus.LOADING and not _complete(spool, name, handle):
                return replace(done, empty=done.empty + 1)
            plain = ready = name.become(BatchStatus.READY)
            if name.status is BatchStatus.UNLOAD:
                ready = name.after_death(file.read_progress(handle))
            if any(os.path.lexists(spool.path(one)) for one in (plain, ready)):
                raise Damaged("another batch of the same name is ready")
            with translating(spool.folder):
                spool.rename(name, ready)
        finally:
            os.close(handle)
    except Damaged as damage:
        aside = quarantine(spool, name, str(damage))
        return replace(done, invalid={**done.invalid, aside: str(damage)})
    except OSError as error:
        _log.warning("%s was not recovered: %s", name.text, error)
        return done
    return replace(done, ready=done.ready + 1)


def _complete(spool: Spool, name: BatchName, handle: int) -> bool:
    """Complete what a dead producer left; return False, with the file gone, if nothing in it was safe."""
    path = spool.path(name)
    kept = file.salvage(path, handle)
    if any(os.path.lexists(path + end) for end in SIDECARS):
        raise Damaged("SQLite has left a journal that it could not apply")
    with translating(path):
        if kept is None:
            Path(path).unlink()
            return False
        os.fsync(handle)
    return True


def quarantine(spool: Spool, name: BatchName, reason: str) -> str:
    """Put a file aside and tell; return its new name."""
    with translating(spool.folder):
        aside = spool.quarantine(name)
    _log.error("%s is put aside as %s: %s", spool.path(name), aside.text, reason)
    emit("batch.invalid", path=spool.path(aside), reason=reason)
    return aside.text


def counts(root: str | os.PathLike[str], queue: str = "default") -> dict[str, dict[str, int]]:
    """Return how many batches are in each status, of those with an owner split into ``live`` and ``dead``.

    ``{"loading": {"live": 1, "dead": 0}, "ready": {"all": 7}, "unload": {...}, "invalid": {"all": 0}}``
    """
    spool = Spool(root, queue)
    found: Counter[tuple[str, str]] = Counter()
    for name in spool.names():
        owned = name.status in (BatchStatus.LOADING, BatchStatus.UNLOAD)
        found[name.status, "all" if not owned else "live" if spool.is_owned(name) else "dead"] += 1
    return {
        status: {kind: found[status, kind] for kind in kinds}
        for status, kinds in (
            ("loading", ("live", "dead")), ("ready", ("all",)), ("unload", ("live", "dead")), ("invalid", ("all",))
        )
    }  # fmt: skip


def queues(root: str | os.PathLike[str]) -> list[str]:
    """Return the names of the queues that have a spool below ``root``."""
    try:
        found = sorted(entry.name for entry in Path(root).iterdir() if entry.is_dir() and not entry.is_symlink())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise PersistQError(f"{root}: {error.strerror}") from error
    return found
