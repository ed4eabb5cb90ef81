"""Door: the one way to the database, one transaction and one span a call."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from .clock import Clock, SystemClock, default_actor
from .errors import ReadOnly
from .events import span
from .retry import Backoff
from .settings import Settings
from .storage.database import connection_of
from .storage.engine import open_database, parse_url

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from .interface import Transaction
    from .storage.database import Doorbell
    from .storage.rows import Run

T = TypeVar("T")


class Door:
    """A database with the settings and the clock that its users share."""

    def __init__(
        self,
        target: str | os.PathLike[str],
        settings: Settings,
        *,
        clock: Clock | None = None,
        actor: str | None = None,
        read_only: bool = False,
    ) -> None:
        self.settings = settings
        #: Whether every method that writes is refused.
        self.read_only = read_only
        self.clock = clock or SystemClock()
        #: Who the history names for what a person does through this object.
        self.actor = actor or default_actor()
        #: The database itself: schema, checks, upkeep.
        self.database = open_database(parse_url(target), settings, self.clock)
        self._backoff = Backoff(settings.queue_backoff_seconds, settings.queue_backoff_max_seconds)

    @property
    def engine(self) -> "Engine":
        """The SQLAlchemy engine, for Sessions whose transaction a job is to join; the schema is there."""
        self.database.ready()  # later the caller's own transaction would stand in the way
        return self.database.engine

    def prepare(self) -> None:
        """Look at the schema and the time now, so that the next call need not."""
        self.database.ready()
        self.database.now()

    @property
    def dbtype(self) -> str:
        """The kind of database, such as ``sqlite``."""
        return self.database.url.get_backend_name()

    @property
    def dbname(self) -> str:
        """The database's name: on SQLite the file's path."""
        return self.database.url.database or ""

    def close(self) -> None:
        """Close the pooled connections. The object may be used again."""
        self.database.close()

    def doorbell(self) -> "Doorbell":
        """Return a watcher that tells when another process or thread has committed something."""
        return self.database.doorbell()

    def _read(self, verb: str, work: "Callable[[Connection], T]") -> T:
        with span(f"queue.{verb}"):
            return self.database.read(work)

    def _write(
        self,
        verb: str,
        work: "Callable[[Connection], T]",
        connection: "Transaction | None" = None,
        *,
        adds_jobs: bool = False,
        one: "Run | None" = None,
        **fields: Any,
    ) -> T:
        if self.read_only:
            raise ReadOnly(f"{verb} needs a queue that was connected without read_only")
        with span(f"queue.{verb}", **fields):
            if connection is None:
                return self.database.write(work, adds_jobs=adds_jobs, one=one)
            self.database.ready()
            joined = connection_of(connection)
            with self.database.joining(joined):
                return work(joined)
