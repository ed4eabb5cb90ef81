"""Fixtures: a queue in the test's folder, jobs in every state, terminals that are closed in the end."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cli import COMMAND, Terminal
from support.databases import SQLite
from support.jobs import WORKER, claim
from support.tui import Manager

import persistq


@pytest.fixture(autouse=True)
def no_terminal_in_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables by which Rich and we judge a terminal are those of no particular one."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TERM"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> SQLite:
    """Empty databases, ready made."""
    return SQLite(tmp_path_factory.mktemp("databases"))


@pytest.fixture
def q(tmp_path: Path, databases: SQLite) -> Iterator[persistq.PersistentQSQLAlchemy]:
    """The queue that the commands of this test find: queue.db in its folder."""
    Path(databases.fresh()).rename(tmp_path / "queue.db")
    (tmp_path / "queue.db").chmod(0o600)
    queue = persistq.connect(tmp_path / "queue.db")
    yield queue
    queue.close()


@pytest.fixture
def one_of_each(q: persistq.PersistentQSQLAlchemy) -> dict[str, int]:
    """The id of one job in each status."""
    done, failed, processing, cancelled, pending = q.enqueue_many(
        ["done", "failed", "processing", "cancelled", "pending"]
    )
    q.complete(claim(q, WORKER))
    q.fail(claim(q, WORKER), "broken", permanent=True)
    claim(q, WORKER)
    q.cancel(cancelled)
    return {"done": done, "failed": failed, "processing": processing, "cancelled": cancelled, "pending": pending}


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Start commands on pseudo-terminals; at the end none is left."""
    opened: list[Terminal] = []

    def start(*arguments: str, **options: object) -> Terminal:
        opened.append(Terminal([*COMMAND, *arguments], **options))  # type: ignore[arg-type]
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Manager]]:
    """Start full-screen managers on the test's queue, or ``on`` another; at the end none is left."""
    started: list[Manager] = []

    def begin(
        columns: int = 100, rows: int = 30, *, on: Path | None = None, read_only: bool = False, **options: Any
    ) -> Manager:
        q = persistq.connect(
            on or tmp_path / "queue.db", actor="tui:me@here", read_only=read_only, queue_busy_seconds=0.2
        )
        started.append(Manager(q, columns, rows, **options))
        return started[-1]

    yield begin
    for one in started:
        one.close()
        one.q.close()
