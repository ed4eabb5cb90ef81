"""Backup and restore of a SQLite database by its own online copy: no file of a living database is ever opened."""

import os
import secrets
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import ConfigError, DatabaseUnavailable, SchemaMismatch
from .database import Database
from .schema import REVISION, VERSION_TABLE
from .sqlite import SQLite
from .sqlite_connections import sqlite_module

_ELSEWHERE = "a server has its own tools: pg_dump and pg_restore, mariadb-dump and mariadb"
_COUNT = "SELECT count(*) FROM jobs"
_PAGES = 1000
"""Copied between two reports of progress; the copy is of one moment all the same, for nobody writes to a snapshot."""

Show = Callable[[int, int], None]
"""Called with how many pages are copied, and of how many."""


def backup(database: Database, target: Path, show: Show = lambda _done, _all: None) -> int:
    """Copy the database as it is at this moment to a new file of mode 0600; return how many jobs it holds.

    Others go on writing meanwhile. The copy is checked and on disk before it gets its name.

    Raises:
        ConfigError: the database is on a server, or the file exists.
        DatabaseUnavailable: the copy could not be made, or is not sound; then there is no file.
    """
    live = _sqlite(database)
    if os.path.lexists(target):
        raise ConfigError(f"{target} exists; choose a name that is free")
    live.ready()
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        jobs = _copy_to(live, part, show)
        _name(part, target)
    except (OSError, sqlite_module().Error) as error:
        raise DatabaseUnavailable(f"the backup was not made: {error}") from None
    finally:
        for left in (part, *(part.with_name(part.name + end) for end in ("-wal", "-shm", "-journal"))):
            left.unlink(missing_ok=True)
    return jobs


def restore(database: Database, source: Path) -> int:
    """Put a backup in the place of what the database holds, in one transaction; return how many jobs there are then.

    Raises:
        ConfigError: the database is on a server, or there is no such file.
        SchemaMismatch: the file is of a newer version, or no backup of a queue.
        DatabaseUnavailable: the file is damaged, or somebody uses the database all the time.
    """
    live = _sqlite(database)
    if not source.is_file():
        raise ConfigError(f"there is no file {source}")
    try:
        with closing(_open_kept(source)) as kept:
            jobs = _examine(kept, source)
            _copy_from(live, kept)
    except sqlite_module().Error as error:
        raise DatabaseUnavailable(f"{source}: {error}; nothing was restored") from None
    finally:
        live.close()
    live.upgrade()
    return jobs


def _sqlite(database: Database) -> SQLite:
    if not isinstance(database, SQLite):
        raise ConfigError(_ELSEWHERE)
    return database


def _copy_to(live: SQLite, part: Path, show: Show) -> int:
    # A connection of our own: SQLite copies what it sees in one read transaction, which a pooled one may be in.
    raw = live.engine.raw_connection()
    try:
        driver: Any = raw.driver_connection
        with closing(sqlite_module().connect(str(part), isolation_level=None)) as copy:
            # A transaction that stays open keeps the snapshot; else a writer would make the copy begin anew.
            driver.execute("BEGIN")
            try:
                driver.execute(_COUNT).fetchone()
                driver.backup(copy, pages=_PAGES, progress=lambda _status, left, total: show(total - left, total))
            finally:
                driver.execute("ROLLBACK")
            copy.execute("PRAGMA journal_mode = DELETE")
            return _sound(copy, part)
    finally:
        raw.close()


def _copy_from(live: SQLite, kept: Any) -> None:
    raw = live.engine.raw_connection()
    try:
        driver: Any = raw.driver_connection
        kept.backup(driver)
    finally:
        raw.close()


def _open_kept(source: Path) -> Any:
    log = source.with_name(source.name + "-wal")
    if log.exists() and log.stat().st_size:
        raise ConfigError(f"{source} has a log beside it, so it is a living database and no backup; use its backup")
    connection = sqlite_module().connect(f"file:{quote(str(source.absolute()))}?mode=ro&immutable=1", uri=True)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


def _examine(kept: Any, source: Path) -> int:
    tables = {row[0] for row in kept.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if VERSION_TABLE not in tables or "jobs" not in tables:
        raise SchemaMismatch(f"{source} is no backup of a queue; nothing was restored")
    found = kept.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()  # noqa: S608
    if found is None or str(found[0]) > REVISION:
        raise SchemaMismatch(f"{source} was made by a newer version; update persistq. Nothing was restored")
    return _sound(kept, source)


def _sound(connection: Any, path: Path) -> int:
    found = [row[0] for row in connection.execute("PRAGMA quick_check(5)").fetchall()]
    if found != ["ok"]:
        raise DatabaseUnavailable(f"{path} is damaged: {found[0]}")
    return int(connection.execute(_COUNT).fetchone()[0])


def _name(part: Path, target: Path) -> None:
    """Give the copy its name once it is on disk, and never another file's."""
    descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.link(part, target)
    folder = os.open(target.absolute().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
