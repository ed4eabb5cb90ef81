"""Databases to run a suite on: each gives the target of a queue whose schema is in place."""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import pytest

import persistq
from support.servers import KINDS, OWNER, Server

EVERY_KIND = ["sqlite", *(pytest.param(kind, marks=pytest.mark.needs(kind)) for kind in KINDS)]
"""The kinds of database, as the params of a fixture."""

every_kind = pytest.mark.parametrize("kind", EVERY_KIND, indirect=True)
"""Runs a test that uses the fixture ``kind``, if only through others, on each of them."""

each_server = pytest.mark.parametrize("kind", EVERY_KIND[1:], indirect=True)
"""The same without SQLite."""


class Database(Protocol):
    """A kind of database."""

    kind: str

    def fresh(self) -> str:
        """Return what ``connect`` takes to reach an empty database, which may be the last one, emptied."""
        ...

    def apart(self) -> str:
        """Return what ``connect`` takes to reach an empty database that nobody else will be given."""
        ...


class SQLite:
    """Each database is a copy of one empty file: making the schema anew would take most of the suite's time."""

    kind = "sqlite"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count()
        self._empty = folder / "empty.db"
        q = persistq.connect(self._empty)
        q.counts()
        q.close()

    def fresh(self) -> str:
        path = self._folder / f"queue-{next(self._numbers)}.db"
        shutil.copy(self._empty, path)
        return str(path)

    apart = fresh


class OnServer:
    """Databases on a server. Whoever is given one has no more rights than to read and write rows."""

    def __init__(self, server: Server) -> None:
        self.kind = server.kind
        self.server = server
        self._numbers = count()
        self._template = "queue_template"
        server.create(self._template)
        upgrade(server, self._template)
        self._shared: str | None = None
        self._connection: Any = None
        self._empty: Callable[[Any], None] = lambda _connection: None

    def fresh(self) -> str:
        """Return the one database of this kind, emptied; a new one would cost a hundred times as much."""
        if self._shared is None:
            self._shared = self._copy()
            self._empty = self.server.emptying(self._shared)
            self._connection = self.server.connect(self._shared)
        self._empty(self._connection)
        return self.server.url(self._shared)

    def apart(self) -> str:
        return self.server.url(self._copy())

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _copy(self) -> str:
        name = f"queue_{next(self._numbers)}"
        self.server.copy(self._template, name)
        return name


class Databases:
    """Every kind of database for a test run; a server is started when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: dict[str, Database] = {}
        self._running = ExitStack()

    def __getitem__(self, kind: str) -> Database:
        if kind not in self._found:
            self._found[kind] = self._open(kind)
        return self._found[kind]

    def close(self) -> None:
        self._found.clear()
        self._running.close()

    def _open(self, kind: str) -> Database:
        if kind == "sqlite":
            return SQLite(self._folder)
        database = OnServer(self._running.enter_context(KINDS[kind]()))
        self._running.callback(database.close)
        return database


def upgrade(server: Server, database: str) -> None:
    """Make the schema as its owner would, and let the worker use it."""
    q = persistq.connect(server.url(database, OWNER))
    try:
        q.database.upgrade()
    finally:
        q.close()
    server.permit(database)
