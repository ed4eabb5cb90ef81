"""Server: what PostgreSQL and MariaDB have in common, a network between us and the database first of all."""

import os
import random
import select
import threading
import time
import weakref
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DisconnectionError

from ..clock import Clock, SystemClock
from ..errors import ConfigError, DatabaseUnavailable, OutcomeUnknown, PersistQError
from ..settings import Settings
from . import migrate, tallies
from .database import Database, Work
from .now import Now, ServerClock
from .rows import Run

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

_RETRY_SECONDS = 0.02
_RETRY_CAP_SECONDS = 1.0
_SCHEMA_LOOK_SECONDS = 5.0
_CALLS_BETWEEN_FOLDS = 1_000
_KEPT = 8
_REAL = SystemClock()
"""For waits on what happens outside this process, which no test's clock can hurry."""
_open: "weakref.WeakSet[Server]" = weakref.WeakSet()
_inherited: list[Any] = []


class Server(Database):
    """A database that other hosts use as well."""

    #: Whether adding one job is one statement there, which needs no transaction around it.
    commits_by_itself = False
    #: SQLAlchemy's name of our driver, and the extra that installs it.
    driver: str
    extra: str
    #: SQLAlchemy's name of the driver for callers' AsyncSessions.
    async_driver: str

    def __init__(self, url: URL, settings: Settings, clock: Clock) -> None:
        super().__init__(url, settings, clock)
        self.engine = self._make_engine(url.set(drivername=self.driver), settings)
        event.listen(self.engine, "checkout", self._is_alive)
        #: Every open connection of ours.
        self._drivers: weakref.WeakSet[Any] = weakref.WeakSet()
        event.listen(self.engine, "connect", lambda driver, _record: self._drivers.add(driver))
        # A test's own clock is obeyed; otherwise all hosts go by the server's.
        self._time = ServerClock(self._ask_time, clock) if isinstance(clock, SystemClock) else clock
        self._opening = threading.Lock()
        self._looked_at = float("-inf")
        self._added = 0
        self._kept: deque[Connection] = deque()
        _open.add(self)

    def _make_engine(self, url: URL, settings: Settings) -> Engine:
        try:
            return create_engine(
                url,
                isolation_level="READ COMMITTED",
                hide_parameters=True,
                pool_use_lifo=True,  # what is not needed falls idle, and ends
                pool_recycle=1800,
                pool_size=_KEPT + 4,
                connect_args={k: v for k, v in self._connect_args(settings).items() if k not in url.query},
            )
        except ImportError:
            raise ConfigError(
                f"{url.get_backend_name()} needs its driver; pip install 'persistq[{self.extra}]'"
            ) from None

    def _make_async_engine(self) -> "AsyncEngine":
        from sqlalchemy.ext.asyncio import create_async_engine

        return create_async_engine(
            self.url.set(drivername=self.async_driver),
            isolation_level="READ COMMITTED",
            hide_parameters=True,
            pool_pre_ping=True,
            pool_recycle=1800,
        )

    @abstractmethod
    def _connect_args(self, settings: Settings) -> dict[str, Any]:
        """Return what the driver is told, where the URL does not say otherwise."""

    @abstractmethod
    def _socket_of(self, driver_connection: Any) -> int:
        """Return the descriptor of a connection's socket; negative when it is closed."""

    def _is_alive(self, driver_connection: Any, _record: Any, _proxy: Any) -> None:
        """Refuse a pooled connection that the server has closed, which costs no question to the server.

        Nothing is expected on an idle connection, so whatever can be read there is its end.
        """
        descriptor = self._socket_of(driver_connection)
        if descriptor < 0:
            raise DisconnectionError
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if poll.poll(0):
            raise DisconnectionError

    # Time

    def now(self) -> Now:
        """Return the server's time."""
        return Now(self._time.now())

    def is_calm(self, seconds: float) -> bool:
        """Return whether the clock that judges leases has not been set for so long; the server's is taken to be."""
        return isinstance(self._time, ServerClock) or super().is_calm(seconds)

    def _ask_time(self) -> int:
        with self.translating(), self.engine.connect() as connection:
            return int(connection.exec_driver_sql(self._time_sql).scalar_one())

    #: Asks for the server's time in microseconds.
    _time_sql: str

    # Writing

    def write(self, work: Work[Any], *, adds_jobs: bool = False, one: Run | None = None) -> Any:
        """Return what ``work`` did once it is committed; it is repeated when another transaction stood in the way."""
        self.ready()
        result = self._patiently(work, one_statement=one is not None and self.commits_by_itself)
        if adds_jobs:
            self._added += 1
            if self._added % _CALLS_BETWEEN_FOLDS == 0:
                self._fold()
            self._ring()
        return result

    def read(self, work: Work[Any]) -> Any:
        """Return what ``work`` reads in one short transaction."""
        self.ready()
        try:
            return self._patiently(work, reading=True)
        except OutcomeUnknown as error:
            raise DatabaseUnavailable(str(error)) from error  # nothing was to be kept

    def _patiently(self, work: Work[Any], *, one_statement: bool = False, reading: bool = False) -> Any:
        """Run a transaction, again if another one stood in its way, for as long as a call may wait for a lock."""
        until = _REAL.monotonic() + self._settings.queue_busy_seconds
        for attempt in count(1):
            try:
                with self.translating():
                    return self._transact(work, one_statement=one_statement, reading=reading)
            except _Again as error:
                wait = random.uniform(0, min(_RETRY_CAP_SECONDS, _RETRY_SECONDS * 2**attempt))
                if _REAL.monotonic() + wait > until and attempt > 1:
                    raise DatabaseUnavailable(f"other transactions stood in the way {attempt} times") from error
                time.sleep(wait)
        raise AssertionError("unreachable")

    def _transact(self, work: Work[Any], *, one_statement: bool, reading: bool) -> Any:
        with self._connected() as connection:
            if not one_statement:
                self._begin(connection, reading=reading)
            try:
                result = work(connection)
            except self._errors as error:
                lost = self._is_disconnect(connection, error)
                if lost:
                    connection.invalidate()
                else:
                    self._roll_back(connection)
                if lost and one_statement:
                    raise OutcomeUnknown(_first_line(error)) from error
                if lost or self._is_transient(error):
                    raise _Again from error
                raise
            except BaseException:
                self._roll_back(connection)
                raise
            if not one_statement:
                self._commit(connection)
            return result

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """Lend a connection that is kept for writing: to take one from the pool and put it back costs two trips."""
        connection = self._kept_connection() or self._take()
        try:
            yield connection
        except BaseException:
            self._give_back(connection)
            raise
        if connection.invalidated or len(self._kept) >= _KEPT:
            self._give_back(connection)
        else:
            if connection.get_transaction() is not None:  # one that only SQLAlchemy believes in
                connection.rollback()
            self._kept.append(connection)

    def _kept_connection(self) -> Connection | None:
        while self._kept:
            try:
                connection = self._kept.pop()  # the last one used, so that the rest fall idle
            except IndexError:
                return None
            try:
                self._is_alive(connection.connection.dbapi_connection, None, None)
            except DisconnectionError:
                connection.invalidate()
                connection.close()
            else:
                return connection
        return None

    def _take(self) -> Connection:
        """Take a connection from the pool, which callers' Sessions share, for our own work."""
        return self.engine.connect()

    def _give_back(self, connection: Connection) -> None:
        connection.close()

    def _begin(self, connection: Connection, *, reading: bool) -> None:
        del reading
        connection.begin()

    def _roll_back(self, connection: Connection) -> None:
        with suppress(*self._errors):
            connection.rollback()

    def _commit(self, connection: Connection) -> None:
        try:
            self._send_commit(connection)
        except self._errors as error:
            if self._is_disconnect(connection, error):
                connection.invalidate()
                raise OutcomeUnknown(_first_line(error)) from error
            self._roll_back(connection)
            if self._is_transient(error):
                raise _Again from error
            raise

    def _send_commit(self, connection: Connection) -> None:
        connection.commit()

    def _is_disconnect(self, connection: Connection, error: Exception) -> bool:
        cause: Any = getattr(error, "orig", None) or error
        return bool(getattr(error, "connection_invalidated", False)) or bool(
            connection.dialect.is_disconnect(cause, connection.connection.dbapi_connection, None)
        )

    @abstractmethod
    def _is_transient(self, error: Exception) -> bool:
        """Return whether another transaction was the cause, so that the work may well succeed if repeated."""

    def _ring(self) -> None:
        """Tell consumers that there are new jobs, where the server can."""

    # Keeping

    def ready(self) -> None:
        """Make sure that the schema is the one we know; another process may upgrade it at any time."""
        if self._is_recent():
            return
        with self._opening:
            if not self._is_recent():
                with self.translating():
                    migrate.refuse_unknown(self.engine)
                self._looked_at = self._clock.monotonic()

    def _is_recent(self) -> bool:
        return self._clock.monotonic() - self._looked_at < _SCHEMA_LOOK_SECONDS

    def upgrade(self) -> str:
        """Bring the schema to this version and return its revision. Two at once wait for each other."""
        with self.translating():
            return migrate.upgrade(self.engine, lock=self._lock_schema)

    @abstractmethod
    def _lock_schema(self, connection: Connection) -> None:
        """Wait until nobody else upgrades this database."""

    def tidy(self) -> None:
        """Fold the changes of the counts into their sums."""
        while self.write(tallies.fold) >= tallies.PAGE:
            continue

    def _fold(self) -> None:
        # Only a producer that runs where no maintenance does needs this, and can do without it for once.
        with suppress(PersistQError):
            self._patiently(tallies.fold)

    def check(self) -> list[str]:
        """Return nothing: a server looks after its own files."""
        self.ready()
        return []

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        while (connection := self._kept_connection()) is not None:
            self._give_back(connection)
        super().close()

    def after_fork(self) -> None:
        """Forget what the parent uses: the child must neither use nor close it."""
        self._opening = threading.Lock()
        _inherited.append(self._kept)
        self._kept = deque()
        if isinstance(self._time, ServerClock):
            self._time.after_fork()
        for engine in self._engines():
            _inherited.append(engine.pool)
            engine.dispose(close=False)


class _Again(Exception):
    """The transaction was undone, and may be repeated."""


def _silence(descriptor: int) -> None:
    """Let what is written to a descriptor go nowhere from now on."""
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(nowhere, descriptor, inheritable=False)
    os.close(nowhere)


def _first_line(error: Exception) -> str:
    return (str(getattr(error, "orig", None) or error).splitlines() or [""])[0]


def _after_fork() -> None:
    for database in tuple(_open):
        database.after_fork()


os.register_at_fork(after_in_child=_after_fork)
