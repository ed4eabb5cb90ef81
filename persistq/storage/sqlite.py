"""SQLite: one file, one writer at a time, and a full disk to reckon with."""

import os
import threading
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import URL, Connection

from ..clock import Clock
from ..errors import DatabaseUnavailable, DiskFull, OutcomeUnknown, PersistQError, SchemaMismatch
from ..settings import Settings
from . import migrate, tallies
from .database import Database, Work, driver_error
from .group import Call, Group
from .insert import insert_ones
from .now import Now
from .reserve import GROWTH, Reserve
from .room import Room
from .rows import Run
from .sqlite_connections import BUSY, file_of, in_transaction, make_engine, prepare, sqlite_module, wal_is_sound
from .watch import FileDoorbell

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

Checkpoint = Literal["PASSIVE", "RESTART", "TRUNCATE"]

_LOCKED, _READONLY, _IOERR, _CORRUPT, _FULL, _CANTOPEN, _NOTADB = 6, 8, 10, 11, 13, 14, 26
_NOMEM, _PROTOCOL = 7, 15
_OPENING_BYTES = 64 << 10
_SCHEMA_LOOK_SECONDS = 5.0
_open: "weakref.WeakSet[SQLite]" = weakref.WeakSet()
_inherited: list[Any] = []


class SQLite(Database):
    """A database in a file of this machine."""

    look_first = True
    advice = "install pysqlite3, or a Python whose SQLite is 3.51.3 or newer: older ones can corrupt a shared WAL"

    def __init__(self, url: URL, settings: Settings, clock: Clock) -> None:
        super().__init__(url, settings, clock)
        self._path = file_of(url)
        self._name = str(self._path)  # every call asks for its status, for which a Path takes twice as long
        self.engine = make_engine(url, self._path, settings)
        self._reserve = Reserve(self._path)
        self._room = Room(self._name, self._reserve, clock.monotonic)
        self._identity: tuple[int, int] | None = None
        self._looked_at = float("-inf")
        self._opening = threading.Lock()
        self._group = Group(self._run)
        self._writing = threading.Lock()
        #: The connection that all writing goes through, with the file that it was opened on.
        self._writer: tuple[object, Connection] | None = None
        _open.add(self)

    @property
    def version(self) -> str:
        """The version of the SQLite in use."""
        return f"SQLite {sqlite_module().sqlite_version}"

    def exists(self) -> bool:
        """Return whether there is a database; any other call would make one."""
        return self._path.exists()

    def now(self) -> Now:
        """Return the process's time."""
        return Now(self._clock.now())

    def doorbell(self) -> FileDoorbell:
        """Return a watcher for other connections' commits."""
        return FileDoorbell(self._connect, self._path, lambda: self._identity)

    def _connect(self) -> Any:
        self.ready()
        return self.engine.raw_connection()

    # Writing

    def write(self, work: Work[Any], *, adds_jobs: bool = False, one: Run | None = None) -> Any:
        """Return what ``work`` did once it is committed, together with what other threads asked for meanwhile.

        When the disk is full, a transaction that adds no jobs may use the reserve, so that work
        which was acknowledged can always be finished.
        """
        return self._group.call(work, adds_jobs=adds_jobs, one=one)

    def _run(self, group: Sequence[Call]) -> None:
        with self._writing:
            try:
                self.ready()
            except Exception as error:  # noqa: BLE001 - it is raised again in each caller's thread
                for call in group:
                    call.error, call.over = error, True
                return
            if len(group) > 1 and self._together(group):
                return
            for call in group:
                try:
                    call.result = self._add(call) if call.adds_jobs else self._finish(call.work)
                except Exception as error:  # noqa: BLE001 - it is raised again in the caller's thread
                    call.error = error
                call.over = True

    def _together(self, group: Sequence[Call]) -> bool:
        """Try to run all in one transaction; False says that nothing was kept and each needs one of its own."""
        if not (self._room.is_plentiful() or self._reserve.is_held()):
            return False
        try:
            self._transact(lambda connection: self._each(connection, group))
        except OutcomeUnknown as error:
            for call in group:
                call.error, call.over = error, True
            return True
        except Exception:  # noqa: BLE001 - each will meet it again on its own, where it can be told whose it is
            for call in group:
                call.error = None
            return False
        for call in group:
            call.over = True
        return True

    def _each(self, connection: Connection, group: Sequence[Call]) -> None:
        for alike, calls in groupby(group, lambda call: call.one is not None):  # in the order in which they came
            if alike:
                ones = [(call, call.one) for call in calls if call.one]
                ids = insert_ones(connection, [one for _, one in ones])  # each can fail only as all of them would
                for (call, _), job_id in zip(ones, ids, strict=True):
                    call.result = [job_id]
            else:
                for call in calls:
                    self._apart(connection, call)
        if any(call.adds_jobs for call in group) and not self._needs_no_look(group):
            self._room.look(connection)

    def _apart(self, connection: Connection, call: Call) -> None:
        """Run a call so that what it is refused leaves the others' work alone."""
        cursor = connection.connection.cursor()
        cursor.execute("SAVEPOINT one_call")
        try:
            call.result = call.work(connection)
        except (PersistQError, ValueError) as error:
            call.error = error
            cursor.execute("ROLLBACK TO one_call")
        cursor.execute("RELEASE one_call")

    def _finish(self, work: Work[Any]) -> Any:
        """Run a transaction that work already acknowledged needs, with the reserve if it must be."""
        try:
            result = self._transact(work)
        except DiskFull:
            self._reserve.lend()
            self._write_back("RESTART")
            try:
                result = self._transact(work)
            except PersistQError:
                self._shorten_log()
                raise
        if not self._reserve.is_held():
            self._shorten_log()
        return result

    def _shorten_log(self) -> None:
        """Let the WAL be written from its start again, so that it does not take the space that is left."""
        try:
            self.checkpoint("RESTART")
        except DiskFull:
            # The database has to grow before the log can shrink: that is what the last of the reserve is for.
            self._reserve.give_up()
            self._write_back("TRUNCATE")
            self._reserve.hold()
            self._reserve.lend()
        except PersistQError:
            return

    def _add(self, call: Call) -> Any:
        """Run a transaction that adds jobs, if that leaves enough disk to finish them."""
        if self._needs_no_look([call]):
            return self._transact(call.work)
        if not self._reserve.is_held():
            self._make_room()
        growth = 0

        def leaving_room(connection: Connection) -> Any:
            nonlocal growth
            result = call.work(connection)
            growth = self._room.look(connection)
            return result

        try:
            result = self._transact(leaving_room)
        except DiskFull:
            self._make_room()
            result = self._transact(leaving_room)
        if growth > GROWTH // 2:
            self._write_back("PASSIVE")
        return result

    def _needs_no_look(self, group: Sequence[Call]) -> bool:
        return self._room.is_plentiful() and all(call.one or not call.adds_jobs for call in group)

    def _make_room(self) -> None:
        """Return the WAL's space to the disk, and keep the reserve back again.

        Raises:
            DiskFull: the disk is full of other things.
        """
        self._reserve.give_up()  # what waits in the WAL may need it to be written back
        self._write_back("TRUNCATE")
        if not self._reserve.hold():
            raise DiskFull(f"{self._path.parent} has no room; free some space, then repeat the call")

    def _write_back(self, mode: Checkpoint) -> None:
        """Checkpoint if that can be done now: what was committed before stays so either way."""
        with suppress(PersistQError):
            self.checkpoint(mode)

    def _transact(self, work: Work[Any]) -> Any:
        try:
            connection = self._writing_connection()
            driver: Any = connection.connection.dbapi_connection
            driver.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
            except BaseException:
                self._roll_back(connection, driver)
                raise
            self._commit(connection, driver)
        except self._errors as error:
            if (ours := self.translated(error)) is error:
                raise
            raise ours from error
        return result

    def _commit(self, connection: Connection, driver: Any) -> None:
        try:
            if connection.in_transaction():
                connection.commit()  # SQLAlchemy has to know as well
            else:
                driver.execute("COMMIT")
        except self._errors as error:
            if _code(error) in (BUSY, _LOCKED, _FULL):  # certainly kept nothing; an I/O error may have
                self._roll_back(connection, driver)
                raise
            self._drop_writer()
            raise OutcomeUnknown(str(driver_error(error))) from error

    def _roll_back(self, connection: Connection, driver: Any) -> None:
        try:
            if connection.get_transaction() is not None:  # one whose commit failed as well
                connection.rollback()
            if driver.in_transaction:
                driver.execute("ROLLBACK")
        except self._errors:
            self._drop_writer()

    def _writing_connection(self) -> Connection:
        if self._writer is not None and self._writer[0] != self._identity:
            self._drop_writer()  # it would write to a file that was replaced
        if self._writer is None:
            self._writer = self._identity, self.engine.connect()
        return self._writer[1]

    def _drop_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(Exception):
                writer[1].invalidate()
                writer[1].close()

    # Keeping

    def ready(self) -> None:
        """Make sure that the file is the one we know and has our schema."""
        try:
            self._ready()
        except DiskFull:
            # Not even the files that SQLite opens beside the database have room.
            self._reserve.give_up()
            self._ready()

    def _ready(self) -> None:
        found = file_identity(self._name)
        if found is not None and found == self._identity and self._is_recent():
            return
        with self._opening:
            found = file_identity(self._name)  # another thread may have been here meanwhile
            if found is not None and found == self._identity and self._is_recent():
                return
            if self._identity is not None and found is None:
                raise DatabaseUnavailable(
                    f"{self._path} is gone; put it back, or restart this process to begin with an empty queue"
                )
            if found != self._identity:
                # Connections to a file that was replaced would write to one that has no name any more.
                self.engine.dispose()
            with self.translating():
                migrate.ensure(self.engine)
            self._reserve.hold()
            self._identity = file_identity(self._path)
            self._looked_at = self._clock.monotonic()

    def _is_recent(self) -> bool:
        """Return whether the schema was looked at a moment ago; another process may upgrade it at any time."""
        return self._clock.monotonic() - self._looked_at < _SCHEMA_LOOK_SECONDS

    def upgrade(self) -> str:
        """Bring the schema to this version and return its revision."""
        with self.translating():
            return migrate.upgrade(self.engine)

    def checkpoint(self, mode: Checkpoint = "PASSIVE") -> None:
        """Move what the WAL holds into the database.

        RESTART waits for readers, so that the WAL is written from its start again, and keeps its
        space; TRUNCATE returns that space as well. PASSIVE waits for nobody.
        """
        with self.translating(), self._raw() as cursor:
            cursor.execute(f"PRAGMA wal_checkpoint({mode})")

    def tidy(self) -> None:
        """Write back what waits in the WAL, and fit the reserve to the jobs that are not over."""
        self.checkpoint("PASSIVE")
        unfinished = self.read(tallies.unfinished)
        self._reserve.hold(unfinished)
        self._reserve.shrink(unfinished)

    def check(self) -> list[str]:
        """Return what SQLite's quick check finds wrong; nothing when the file is sound."""
        self.ready()
        with self.translating(), self._raw() as cursor:
            found = [str(row[0]) for row in cursor.execute("PRAGMA quick_check(20)").fetchall()]
        return [] if found == ["ok"] else found

    def durability(self) -> tuple[bool, str]:
        """Return whether a commit survives what the settings ask for, and what decides that."""
        pragmas = self.pragmas()
        return wal_is_sound(), f"{self.version}, journal {pragmas['journal_mode']}"

    def pragmas(self) -> dict[str, object]:
        """Return what decides durability on a connection as it is used."""
        self.ready()
        names = ("journal_mode", "synchronous", "busy_timeout", "mmap_size", "trusted_schema")
        with self.translating(), self._raw() as cursor:
            return {name: cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in names}

    def join(self, connection: Connection) -> None:
        """Make sure that a caller's transaction has begun.

        Python's driver begins one only before the first change, and a savepoint that is made outside
        a transaction commits when it is released.
        """
        super().join(connection)
        driver: Any = connection.dialect.dbapi
        if getattr(driver, "sqlite", driver) is not sqlite_module():  # aiosqlite's is one within
            warnings.warn(_TWO_COPIES, RuntimeWarning, stacklevel=7)
        if not connection.in_transaction():
            connection.begin()
        if not in_transaction(connection):
            connection.exec_driver_sql("BEGIN")

    def _make_async_engine(self) -> "AsyncEngine":
        from .sqlite_async import make_async_engine

        engine = make_async_engine(self._path, sqlite_module(), self._settings)
        prepare(engine.sync_engine, self._path, self._settings)
        return engine

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        with self._writing:
            writer, self._writer = self._writer, None
            if writer is not None:
                writer[1].close()
        self.engine.dispose()

    def after_fork(self) -> None:
        """Forget what the parent uses: the child must neither use nor close it."""
        _inherited.append(self._writer)
        self._writer = None
        self._writing = threading.Lock()
        self._opening = threading.Lock()
        self._group.forget()
        for engine in self._engines():
            _inherited.append(engine.pool)
            engine.dispose(close=False)

    @contextmanager
    def _raw(self) -> Iterator[Any]:
        connection = self.engine.raw_connection()
        try:
            yield connection.cursor()
        finally:
            connection.close()

    def _translate(self, error: Exception) -> PersistQError | None:
        text = str(driver_error(error))
        code = _code(error)
        if code in (BUSY, _LOCKED):
            return DatabaseUnavailable(f"another process has held its lock for {self._settings.queue_busy_seconds:g} s")
        # Where it opens its files, SQLite calls a full disk an I/O error.
        if code == _FULL or (code in (_IOERR, _CANTOPEN) and _is_full(self._path.parent)):
            return DiskFull(str(self._path.parent))
        if code in (_NOMEM, _READONLY, _IOERR, _CORRUPT, _CANTOPEN, _PROTOCOL, _NOTADB):
            return DatabaseUnavailable(text)
        if "no such table" in text or "no such column" in text or "has no column" in text:
            return SchemaMismatch(f"{text}; run 'persistq db upgrade'")
        return None


_TWO_COPIES = (
    "this transaction runs in another copy of SQLite than the queue; two copies in one process undo each other's "
    "locks, and commits get lost: make the Session from the queue's own .engine, for asyncio from await .engine()"
)


def file_identity(path: Path | str) -> tuple[int, int] | None:
    """Return what tells this file from another of the same name, or None when there is none.

    It asks for the status only: to open and close a live database would drop this process's locks on it.
    """
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _code(error: Exception) -> int:
    """Return SQLite's primary result code, 0 when the error has none."""
    return (getattr(driver_error(error), "sqlite_errorcode", 0) or 0) & 0xFF


def _is_full(folder: Path) -> bool:
    """Return whether the disk has no room for the files that SQLite opens beside a database."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < _OPENING_BYTES


def _after_fork() -> None:
    for database in tuple(_open):
        database.after_fork()


os.register_at_fork(after_in_child=_after_fork)
