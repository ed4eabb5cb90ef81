"""What operators see of batches and shards and do to them: each decision is in the queue's audit log first.

So it is refused where the connection is read-only, whichever window asks.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from . import batch
from .batch import manage
from .model import jsonable

if TYPE_CHECKING:
    from .queue import PersistentQSQLAlchemy
    from .sharded.serve import Drivers

T = TypeVar("T")
Folder = str | os.PathLike[str] | None
"""A spool; None is the one of the settings."""


# Batches


def recover_batches(
    q: "PersistentQSQLAlchemy", queues: list[str] | None = None, *, root: Folder = None, reason: str | None = None
) -> dict[str, batch.Recovered]:
    """Make ready what dead processes left, of these queues or of all; return what was done, by queue.

    Raises:
        ReadOnly: the connection only looks.
    """
    spool = _spool(q, root)
    names = batch.queues(spool) if queues is None else queues
    q.note("batches_recover", {"queues": names}, reason)
    return {name: batch.recover(spool, name, durability=q.settings.queue_durability) for name in names}


def put_batch_aside(
    q: "PersistentQSQLAlchemy", queue: str, which: str, *, root: Folder = None, reason: str | None = None
) -> str:
    """Put a ready batch aside until it is replayed, and return its new file name.

    Raises:
        ReadOnly, BatchNotFound, IllegalTransition
    """
    q.note("batch_put_aside", {"queue": queue, "file": which}, reason)
    return batch.put_aside(_spool(q, root), queue, which)


def replay_batch(
    q: "PersistentQSQLAlchemy",
    queue: str,
    which: str,
    *,
    from_start: bool = False,
    root: Folder = None,
    reason: str | None = None,
) -> str:
    """Make a batch that was put aside ready again, if it is sound, and return its new file name.

    Raises:
        ReadOnly, BatchNotFound, IllegalTransition
    """
    q.note("batch_replay", {"queue": queue, "file": which, "from_start": from_start}, reason)
    return batch.replay(_spool(q, root), queue, which, from_start=from_start)


def delete_batch(
    q: "PersistentQSQLAlchemy", queue: str, which: str, *, root: Folder = None, reason: str | None = None
) -> batch.BatchInfo:
    """Delete a batch that is ready or was put aside, with every item in it, and return what it was.

    Raises:
        ReadOnly, BatchNotFound, IllegalTransition
    """
    spool = _spool(q, root)
    lost = manage.to_delete(spool, queue, which)
    scope = {"queue": queue, "file": lost.file, "items": lost.items, "consumed": lost.consumed}
    q.note("batch_delete", scope, reason)
    manage.delete(spool, queue, lost.file)
    return lost


def _spool(q: "PersistentQSQLAlchemy", root: Folder) -> str | os.PathLike[str]:
    return q.settings.queue_spool_dir if root is None else root


# Shards


@dataclass(frozen=True, slots=True)
class Shard:
    """One tube: what waits in it, and who holds it."""

    tube: str
    #: ``held``, ``resting`` after an error, ``waiting``, ``later`` (all is deferred) or ``empty``.
    state: str
    ready: int
    later: int
    owner: str | None
    tries: int
    #: Since when it has waited for its turn.
    waiting_at: datetime | None
    bound_at: datetime | None
    lease_until: datetime | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values, times in ISO 8601."""
        return jsonable(self)


def shards(q: "PersistentQSQLAlchemy", limit: int = 1000) -> list[Shard]:
    """Return the tubes that hold requests or are held, by name."""
    return by_drivers(q, lambda drivers: _shards(drivers, limit))


def release_tube(q: "PersistentQSQLAlchemy", tube: str, reason: str | None = None) -> bool:
    """Take a tube from its holder, or end its rest; return whether there was anything to take.

    Raises:
        ReadOnly: the connection only looks.
    """
    q.note("shard_release", {"tube": tube}, reason)
    return by_drivers(q, lambda drivers: drivers.coordinator().release(tube))


def by_drivers(q: "PersistentQSQLAlchemy", what: "Callable[[Drivers], Awaitable[T]]") -> T:
    """Return what a coroutine finds by the drivers that the settings choose."""
    # They take longer to import than most commands take to run.
    from .sharded import serve

    async def run() -> T:
        async with serve.opened(q) as drivers:
            return await what(drivers)

    return asyncio.run(run())


async def _shards(drivers: "Drivers", limit: int) -> list[Shard]:
    infos = {info.tube: info for info in await drivers.storage.overview(limit)}
    leases = {lease.tube: lease for lease in await drivers.coordinator().leases(limit)}
    found = []
    for tube in sorted({*infos, *leases})[:limit]:
        info, lease = infos.get(tube), leases.get(tube)
        state = "empty" if info is None else "waiting" if info.ready else "later"
        if lease is not None:
            state = "held" if lease.owner else "resting"
        found.append(
            Shard(
                tube=tube,
                state=state,
                ready=info.ready if info else 0,
                later=info.later if info else 0,
                owner=(lease.owner or None) if lease else None,
                tries=lease.tries if lease else 0,
                waiting_at=info.waiting_since if info else None,
                bound_at=lease.bound_at if lease else None,
                lease_until=lease.lease_until if lease else None,
            )
        )
    return found
