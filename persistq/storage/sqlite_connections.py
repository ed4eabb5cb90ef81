"""Connections to a SQLite file: by which copy of SQLite, with which mode and pragmas, how transactions begin."""

import os
import sqlite3
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event

from ..clock import tries_within
from ..errors import ConfigError, DatabaseUnavailable
from ..mounts import is_network
from ..settings import Settings

FIXED_SQLITE = (3, 51, 3)
"""Older ones can corrupt a WAL that several processes write (sqlite.org, "Write-Ahead Logging")."""

BUSY = 5
"""SQLite's primary result code for somebody else's lock."""

_WAL_BYTES_KEPT = 16 << 20


def file_of(url: URL) -> Path:
    """Return the absolute path of a SQLite database.

    Raises:
        ConfigError: the URL names none.
    """
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ConfigError("a queue in memory would lose acknowledged jobs; give the path of a file")
    return Path(url.database).expanduser().absolute()


def sqlite_module() -> ModuleType:
    """Return Python's own sqlite3 when its SQLite is sound, else the wheel's, else Python's own after all."""
    if sqlite3.sqlite_version_info >= FIXED_SQLITE:
        return sqlite3
    try:
        from pysqlite3 import dbapi2
    except ImportError:
        return sqlite3
    module: ModuleType = dbapi2
    return module if module.sqlite_version_info >= FIXED_SQLITE else sqlite3


def wal_is_sound() -> bool:
    """Return whether the SQLite in use may keep a WAL that several processes write."""
    return bool(sqlite_module().sqlite_version_info >= FIXED_SQLITE)


def in_transaction(connection: Connection) -> bool:
    """Return whether SQLite itself has begun a transaction."""
    driver: Any = connection.connection.driver_connection  # aiosqlite's, below the adapter that runs it from here
    return bool(driver.in_transaction)


def make_engine(url: URL, path: Path, settings: Settings) -> Engine:
    """Return an engine for the file at ``path``.

    Raises:
        ConfigError: it is on a network file system.
    """
    if is_network(path.parent):
        raise ConfigError(f"{path} is on a network file system, where SQLite's locks do not hold; use a local disk")
    engine = create_engine(
        url.set(drivername="sqlite+pysqlite", database=str(path)),
        module=sqlite_module(),
        connect_args={"timeout": settings.queue_busy_seconds},
        hide_parameters=True,
    )
    prepare(engine, path, settings)
    return engine


def prepare(engine: Engine, path: Path, settings: Settings) -> None:
    """Have an engine make the file private, set each connection up, and begin transactions as SQLite needs it."""
    event.listen(engine, "do_connect", lambda *_: _create_private(path))
    event.listen(engine, "connect", _configure(settings))
    event.listen(engine, "begin", _begin)


def _create_private(path: Path) -> None:
    """Create the database as 0600 before SQLite would by the umask; -wal and -shm inherit the mode."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise DatabaseUnavailable(f"{path}: {error.strerror}") from None


def _configure(settings: Settings) -> Callable[[Any, Any], None]:
    sound = wal_is_sound()
    if not sound:
        warnings.warn(
            f"SQLite {sqlite_module().sqlite_version} can corrupt a WAL with several writers, so a slower journal "
            "is used; install pysqlite3 or a Python with SQLite 3.51.3 or newer",
            RuntimeWarning,
            stacklevel=4,
        )
    power = settings.queue_durability == "power"
    # Without WAL only EXTRA also syncs the folder, and with it the journal's removal.
    durability = ("FULL" if power else "NORMAL") if sound else ("EXTRA" if power else "FULL")

    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun by _begin, not guessed by the driver
        cursor = connection.cursor()
        _set_journal_mode(cursor, "wal" if sound else "delete", settings.queue_busy_seconds)
        cursor.execute(f"PRAGMA synchronous = {durability}")
        cursor.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES_KEPT}")
        cursor.execute("PRAGMA trusted_schema = OFF")
        cursor.execute("PRAGMA cell_size_check = ON")
        cursor.execute("PRAGMA mmap_size = 0")
        cursor.close()

    return configure


def _set_journal_mode(cursor: Any, mode: str, patience: float) -> None:
    """Set the mode unless it is set. Alone among statements this one fails at once when others are at it."""
    cursor.execute("PRAGMA journal_mode")
    if cursor.fetchone()[0] == mode:
        return
    for last in tries_within(patience):
        try:
            cursor.execute(f"PRAGMA journal_mode = {mode}")
        except sqlite_module().OperationalError as error:
            if last or getattr(error, "sqlite_errorcode", 0) & 0xFF != BUSY:
                raise
        else:
            return


def _begin(connection: Connection) -> None:
    if in_transaction(connection):
        return  # our own writing connection begins before SQLAlchemy has anything to run
    # A read that turns into a write cannot wait for the lock, it fails at once: so writers take it first.
    reading = connection.get_execution_options().get("persistq_reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
