"""What a person sees of batches and may do with them; every window calls these."""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import ConfigError, IllegalTransition, JobNotFound
from .file import Batch
from .names import SIDECARS, BatchName, BatchStatus
from .recovery import quarantine, queues
from .spool import Damaged, Spool, translating


class BatchNotFound(JobNotFound):
    """There is no such batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchInfo:
    """One batch file as it stood when it was looked at."""

    queue: str
    status: str
    created_at: datetime
    id: str
    #: Who unloads it.
    owner: str | None
    #: Whether a living process owns it; None where nobody has to.
    live: bool | None
    #: None where that is not known: the batch is being filled, or damaged.
    items: int | None
    #: Items consumed.
    consumed: int | None
    #: Consumers in a row that have died with it in hand.
    deaths: int
    bytes: int
    #: Why it is no sound batch, if so.
    damage: str | None
    file: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values, times in ISO 8601."""
        return {**asdict(self), "created_at": self.created_at.isoformat()}


def listing(
    root: str | os.PathLike[str], queue: str | None = None, status: str | None = None, limit: int = 100
) -> list[BatchInfo]:
    """Return the oldest batches of one queue or of all, each looked into.

    Raises:
        ConfigError: there is no such status, or a folder is not usable.
    """
    if status is not None and status not in list(BatchStatus):
        raise ConfigError(f"a batch is {', '.join(BatchStatus)}, not {status!r:.40}")
    found: list[BatchInfo] = []
    for name in [queue] if queue else queues(root):
        if not (Path(root) / name).is_dir():
            continue
        spool = Spool(root, name)
        chosen = sorted(one for one in spool.names() if status in (None, one.status))
        found += filter(None, (_look(spool, batch) for batch in chosen[: limit - len(found)]))
    return found


def show(
    root: str | os.PathLike[str], queue: str, which: str, first: int = 0, limit: int = 100
) -> list[tuple[int, str]]:
    """Return numbers and JSON texts of items of one batch, named by its file or its id.

    Raises:
        BatchNotFound: there is no such batch.
        IllegalTransition: it is being filled, or damaged.
    """
    spool, name = _find(root, queue, which)
    if name.status is BatchStatus.LOADING:
        raise IllegalTransition(f"{name.text} is being filled; its items show once it is ready")
    with _sound(name):
        batch = _opened(spool.path(name))
        try:
            return list(batch.shown(first, limit))
        finally:
            batch.close()


def replay(root: str | os.PathLike[str], queue: str, which: str, *, from_start: bool = False) -> str:
    """Make a batch that was put aside, or is ready, ready to be consumed where it stopped, and return its file's name.

    ``from_start`` hands out again what was consumed of it already.

    Raises:
        BatchNotFound: there is no such batch.
        IllegalTransition: somebody is at work on it, or it is damaged.
    """
    spool, name = _find(root, queue, which)
    with _owned(spool, name) as handle, _sound(name):
        batch = Batch(spool.path(name), handle)
        try:
            for block in batch.blocks:
                batch.read(block)
            if from_start:
                batch.save(0)
        finally:
            batch.close()
        ready = name.become(BatchStatus.READY)
        if ready.text != name.text:
            with translating(spool.folder):
                spool.rename(name, ready)
                spool.sync()
        return ready.text


def put_aside(root: str | os.PathLike[str], queue: str, which: str) -> str:
    """Put a ready batch aside, so that nobody consumes it until ``replay``, and return its file's name.

    Raises:
        BatchNotFound: there is no such batch.
        IllegalTransition: somebody is at work on it.
    """
    spool, name = _find(root, queue, which)
    if name.status is BatchStatus.INVALID:
        return name.text
    with _owned(spool, name):
        return quarantine(spool, name, "a person asked for it")


def to_delete(root: str | os.PathLike[str], queue: str, which: str) -> BatchInfo:
    """Return what ``delete`` would take away.

    Raises:
        BatchNotFound: there is no such batch.
        IllegalTransition: it is neither ready nor put aside.
    """
    spool, name = _deletable(root, queue, which)
    found = _look(spool, name)
    if found is None:
        raise _not_found(queue, which)
    return found


def delete(root: str | os.PathLike[str], queue: str, which: str) -> str:
    """Delete a batch that is ready or was put aside, with every item in it, and return its file's name.

    Raises:
        BatchNotFound: there is no such batch.
        IllegalTransition: it is neither, or somebody is at work on it.
    """
    spool, name = _deletable(root, queue, which)
    with ExitStack() as held, translating(spool.folder):
        with suppress(Damaged):  # then what stands there is no batch, and nobody can be at work on it
            held.enter_context(_owning(spool, name))
        path = Path(spool.path(name))
        if path.is_dir() and not path.is_symlink():
            raise IllegalTransition(f"{name.text} is a folder; look into it, and remove it yourself")
        for end in ("", *SIDECARS):
            Path(f"{path}{end}").unlink(missing_ok=True)
        spool.sync()
    return name.text


def _deletable(root: str | os.PathLike[str], queue: str, which: str) -> tuple[Spool, BatchName]:
    spool, name = _find(root, queue, which)
    if name.status not in (BatchStatus.READY, BatchStatus.INVALID):
        raise IllegalTransition(
            f"{name.text} is {name.status}; 'delete' is for ready and invalid batches, and 'recover' makes ready what "
            "the dead left"
        )
    return spool, name


def _look(spool: Spool, name: BatchName) -> BatchInfo | None:
    path = Path(spool.path(name))
    items = consumed = damage = None
    try:
        size = path.lstat().st_size
    except FileNotFoundError:
        return None
    if name.status is not BatchStatus.LOADING:
        try:
            batch = _opened(str(path))
            items, consumed = batch.items, batch.progress
            batch.close()
        except Damaged as found:
            damage = str(found)
    owned = name.status in (BatchStatus.LOADING, BatchStatus.UNLOAD)
    return BatchInfo(
        queue=spool.queue, status=str(name.status), created_at=datetime.fromtimestamp(name.created / 1e9, UTC),
        id=name.id, owner=name.owner, live=spool.is_owned(name) if owned else None, items=items, consumed=consumed,
        deaths=name.deaths, bytes=size, damage=damage, file=name.text,
    )  # fmt: skip


def _opened(path: str) -> Batch:
    """Open a batch to look into it. A named pipe, which anybody may call so, would wait for its other end."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise Damaged("not a plain file")
    return Batch(path)


def _find(root: str | os.PathLike[str], queue: str, which: str) -> tuple[Spool, BatchName]:
    if (Path(root) / queue).is_dir():
        spool = Spool(root, queue)
        for name in spool.names():
            if which in (name.text, name.id):
                return spool, name
    raise _not_found(queue, which)


def _not_found(queue: str, which: str) -> BatchNotFound:
    return BatchNotFound(f"{which!r:.120} in queue {queue!r:.80}")


@contextmanager
def _owned(spool: Spool, name: BatchName) -> Iterator[int]:
    with _sound(name), _owning(spool, name) as handle:
        yield handle


@contextmanager
def _owning(spool: Spool, name: BatchName) -> Iterator[int]:
    """Own a batch.

    Raises:
        Damaged: there is something under the name that can be no batch.
        IllegalTransition: a process is at work on it.
    """
    with translating(spool.folder):
        handle = spool.own(name)
    if handle is None:
        raise IllegalTransition(f"a process is at work on {name.text}")
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def _sound(name: BatchName) -> Iterator[None]:
    try:
        yield
    except Damaged as damage:
        raise IllegalTransition(f"{name.text} is damaged: {damage}") from damage
