"""What operators do to the database as a whole: backup, restore, vacuum, export, import, and what it looks like."""

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import IllegalTransition, ReadOnly
from .storage import audit, backup, space, transfer

if TYPE_CHECKING:
    from .queue import PersistentQSQLAlchemy


def make_backup(
    q: "PersistentQSQLAlchemy", target: Path, show: Callable[[int, int], None] = lambda _done, _all: None
) -> int:
    """Copy the database to a new file while others go on, and return how many jobs the copy holds.

    Raises:
        ConfigError: it is on a server, or the file exists.
        DatabaseUnavailable: the copy could not be made or is not sound; then there is no file.
    """
    return backup.backup(q.database, target, show)


def restore(q: "PersistentQSQLAlchemy", source: Path, *, force: bool = False) -> int:
    """Put a backup in the place of all that the database holds, and return how many jobs there are then.

    Raises:
        IllegalTransition: consumers are at work, and ``force`` does not say to ignore them.
        ConfigError, SchemaMismatch, DatabaseUnavailable: it cannot be restored, and nothing was changed.
    """
    _refuse_looking(q)
    if q.database.exists() and not force:
        alive = [info.name for info in q.consumers() if info.is_alive(q.clock.now())]
        if alive:
            raise IllegalTransition(f"consumers are at work: {', '.join(alive[:5])}; stop them first, or say --force")
    found = backup.restore(q.database, source)
    _record(q, "restore", {"file": str(source)}, {"jobs": found})
    return found


def vacuum(q: "PersistentQSQLAlchemy") -> None:
    """Give the space of deleted rows back, as the database can.

    Raises:
        DatabaseUnavailable: others use it all the time; try when less is going on.
    """
    _refuse_looking(q)
    q.database.ready()
    space.vacuum(q.database)


def info(q: "PersistentQSQLAlchemy") -> dict[str, Any]:
    """Return what the database is, which schema it has, and how much space it takes, in bytes."""
    place = os.path.abspath(q.dbname) if q.dbtype == "sqlite" else q.database.url.render_as_string()  # noqa: PTH100
    return {
        "kind": q.dbtype,
        "place": place,
        "version": q.database.version,
        "revision": q.database.revision(),
        "durability": q.settings.queue_durability,
        "jobs": sum(q.counts().values()),
        **space.sizes(q.database),
    }


def export(q: "PersistentQSQLAlchemy") -> Iterator[str]:
    """Yield every job with its history, and every pause, as lines of JSON without the newline.

    Page by page: what changes meanwhile is in it as of its own page.
    """
    yield transfer.header()
    yield from q.database.read(transfer.paused)
    after = 0
    while True:
        lines, after = q.database.read(partial(transfer.page, after=after))
        if not lines:
            return
        yield from lines


def take_in(q: "PersistentQSQLAlchemy", lines: Callable[[], Iterable[str]]) -> int:
    """Add an export to a database without jobs, all or nothing; return how many jobs there were.

    ``lines`` is called anew for each try of the transaction.

    Raises:
        ConfigError: the database holds jobs already.
        PayloadError: a line is no line of an export.
    """
    _refuse_looking(q)
    added = q.database.write(lambda connection: transfer.take_in(connection, lines()))
    _record(q, "import", {}, {"jobs": added})
    return added


def _refuse_looking(q: "PersistentQSQLAlchemy") -> None:
    if q.read_only:
        raise ReadOnly("connect without read_only")


def _record(q: "PersistentQSQLAlchemy", action: str, scope: dict[str, Any], counts: dict[str, Any]) -> None:
    now = q.database.now()
    q.database.write(lambda connection: audit.record(connection, now, q.actor, action, scope, counts))
