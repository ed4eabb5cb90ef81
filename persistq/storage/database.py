"""Database: runs a function of a Connection as one transaction, and says what became of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, scoped_session

from ..clock import Clock, JumpGuard
from ..errors import ConfigError, DatabaseUnavailable, PersistQError
from ..settings import Settings
from . import migrate
from .now import Now
from .rows import Run
from .statements import kind_of

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")
Work = Callable[[Connection], T]


class Doorbell:
    """Tells that somebody may have committed something. This one cannot: its owner looks now and then."""

    #: Whether ``rung`` can tell anything, so that asking often is worth it.
    hears = False

    def fileno(self) -> int | None:
        """Return a descriptor that becomes readable when something may have been committed, if there is one."""
        return None

    def rung(self) -> bool:
        """Return whether anything may have been committed since the last call. Trouble counts as a ring: look."""
        return False

    def close(self) -> None:
        """Stop listening."""


class Database(ABC):
    """One database. Threads may share it; a forked child may go on using it."""

    #: The engine that callers may make Sessions from.
    engine: Engine
    #: Whether a claim that finds nothing is in the way of others, so that a mere look should come before it.
    look_first = False
    #: What to do when a commit does not survive what it should.
    advice: str

    def __init__(self, url: URL, settings: Settings, clock: Clock) -> None:
        self.url = url
        self._settings = settings
        self._clock = clock
        self._guard = JumpGuard(clock)

    @property
    @abstractmethod
    def version(self) -> str:
        """The name and version of the database's own software."""

    def exists(self) -> bool:
        """Return whether there is a database; with SQLite any other call would make one."""
        return True

    @abstractmethod
    def now(self) -> Now:
        """Return the time that judges what is due or expired."""

    def is_calm(self, seconds: float) -> bool:
        """Return whether the clock that judges leases has not been set for so long."""
        return self._guard.quiet_for(seconds)

    def doorbell(self) -> Doorbell:
        """Return a watcher for other connections' commits."""
        return Doorbell()

    @abstractmethod
    def ready(self) -> None:
        """Make sure that the schema is the one we know."""

    def read(self, work: Work[T]) -> T:
        """Return what ``work`` reads in one short transaction.

        Raises:
            DatabaseUnavailable, SchemaMismatch
        """
        self.ready()
        with self.translating(), self.engine.connect() as connection:
            connection = connection.execution_options(persistq_reading=True)
            with connection.begin():
                return work(connection)

    @abstractmethod
    def write(self, work: Work[T], *, adds_jobs: bool = False, one: Run | None = None) -> T:
        """Return what ``work`` did once it is committed. It may be called again after a failure.

        ``one`` is the job that it adds and whose id, in a list, it returns, when that is all it does: one statement
        on a server, which needs no transaction around it; on SQLite one for all who add theirs at the same moment.

        Raises:
            DatabaseUnavailable, SchemaMismatch, QueueFull: nothing was written.
            OutcomeUnknown: the commit was cut off.
        """

    @abstractmethod
    def upgrade(self) -> str:
        """Bring the schema to this version and return its revision."""

    def revision(self) -> str | None:
        """Return the revision of the database's schema, None when it is empty."""
        with self.translating(), self.engine.connect() as connection:
            return migrate.current(connection.execution_options(persistq_reading=True))

    def history(self) -> list[migrate.Revision]:
        """Return the revisions of the schema, oldest first, and which of them this database has."""
        with self.translating():
            return migrate.history(self.engine)

    @abstractmethod
    def tidy(self) -> None:
        """Do what maintenance has to do for this kind of database."""

    @abstractmethod
    def check(self) -> list[str]:
        """Return what the database finds wrong with itself; nothing when it is sound."""

    @abstractmethod
    def durability(self) -> tuple[bool, str]:
        """Return whether a commit survives what the settings ask for, and what decides that."""

    @contextmanager
    def joining(self, connection: Connection) -> Iterator[None]:
        """Make the block part of a caller's own transaction, in which it leaves nothing behind when it raises.

        Raises:
            ConfigError: the connection leads to another kind of database.
        """
        with self.translating(connection):
            self.join(connection)
            savepoint = connection.begin_nested()
            try:
                yield
            except BaseException as error:
                try:
                    savepoint.rollback()
                except DBAPIError:
                    # A deadlock on MariaDB, or a lost connection, has ended the savepoint with all the rest.
                    if isinstance(error, PersistQError):
                        raise
                    if not isinstance(error, Exception):
                        connection.invalidate()  # its driver gave it up when its task was cancelled amid a statement
                raise
            savepoint.commit()

    def join(self, connection: Connection) -> None:
        """Prepare a caller's connection for work of ours in the caller's own transaction."""
        if kind_of(connection) != kind_of(self.engine):
            raise ConfigError(
                f"the caller's transaction is on {connection.dialect.name}, the queue on {self.engine.dialect.name}; "
                "a job can only join a transaction on the queue's own database"
            )

    @cached_property
    def async_engine(self) -> "AsyncEngine":
        """The engine that callers may make AsyncSessions from."""
        try:
            return self._make_async_engine()
        except ImportError as error:
            raise ConfigError(f"an AsyncSession on this database needs {error.name or error}; install it") from None

    @abstractmethod
    def _make_async_engine(self) -> "AsyncEngine": ...

    def _engines(self) -> list[Engine]:
        """Return the engines that there are so far."""
        made: AsyncEngine | None = self.__dict__.get("async_engine")
        return [self.engine] if made is None else [self.engine, made.sync_engine]

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        self.engine.dispose()

    @contextmanager
    def translating(self, joined: Connection | None = None) -> Iterator[None]:
        """Turn the errors of driver and pool into ours; those of a joined connection's driver as well."""
        theirs: list[Any] = [] if joined is None else [joined.dialect.loaded_dbapi.Error]
        try:
            yield
        except (*self._errors, *theirs) as error:
            ours = self.translated(error)
            if ours is error:
                raise
            raise ours from error
        except PoolTimeout as error:
            raise DatabaseUnavailable("every pooled connection is in use") from error

    def translated(self, error: Exception) -> Exception:
        """Return our error for one of the driver's or SQLAlchemy's; the same when it is a defect of ours."""
        ours = self._translate(error)
        if ours is None and getattr(error, "connection_invalidated", False):
            return DatabaseUnavailable(str(driver_error(error)))
        return ours or error

    @property
    def _errors(self) -> tuple[type[Exception], ...]:
        return DBAPIError, self.engine.dialect.loaded_dbapi.Error

    @abstractmethod
    def _translate(self, error: Exception) -> PersistQError | None:
        """Return our error for the driver's, or None when it is a defect of ours."""


def driver_error(error: Exception) -> BaseException:
    """Return the driver's own error, which SQLAlchemy wraps when it ran the statement."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def connection_of(caller: object) -> Connection:
    """Return the connection on which a caller's own transaction runs.

    Raises:
        ConfigError: it is nothing that has one, or has it for asyncio.
    """
    if isinstance(caller, Connection):
        return caller
    if isinstance(caller, (Session, scoped_session)):
        return caller.connection()
    name = type(caller).__name__
    if hasattr(caller, "run_sync"):
        raise ConfigError(
            f"connection= is of type {name}, which goes with a queue that persistq.aio.connect() makes; within "
            "its run_sync(), connection= takes what that gives"
        )
    raise ConfigError(f"connection= is of type {name}; it takes a Session or Connection of SQLAlchemy")
