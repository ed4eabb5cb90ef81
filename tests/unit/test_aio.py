"""What only persistq.aio has: that it is all there, its threads, its forks, and SQLite for AsyncSessions."""

import asyncio
import contextvars
import inspect
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

import persistq
import persistq.aio
from persistq import ConfigError, PersistentQInterface, PersistentQSQLAlchemy, aio
from persistq.aio import AsyncPersistentQ
from persistq.storage.group import Call
from persistq.storage.sqlite import SQLite
from persistq.storage.sqlite_connections import sqlite_module

ROOT = Path(persistq.__file__).parent.parent
OWN = {"engine"}
"""What asyncio has in another form, for its own is awaited."""

PUBLIC = [name for name in dir(PersistentQSQLAlchemy) if not name.startswith("_") and name not in OWN]
METHODS = [name for name in PUBLIC if inspect.isfunction(getattr(PersistentQSQLAlchemy, name))]
JOINING = {"enqueue", "enqueue_many", "complete", "complete_many"}


def run(script: str, *arguments: object) -> str:
    """Run a script in a process of its own and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_loop(q: AsyncPersistentQ, use: Callable[[AsyncPersistentQ], Any]) -> Any:
    async def closed() -> Any:
        async with q:
            return await use(q)

    return asyncio.run(closed())


# The whole door


@pytest.mark.parametrize("name", METHODS)
def test_every_public_method_is_there_with_its_signature(name: str) -> None:
    there, here = (inspect.signature(getattr(kind, name)) for kind in (PersistentQSQLAlchemy, AsyncPersistentQ))
    parameters = [
        one.replace(annotation="AsyncTransaction | None") if one.name == "connection" else one
        for one in list(there.parameters.values())[1:]
    ]
    assert list(here.parameters.values())[1:] == parameters
    assert here.return_annotation == there.return_annotation
    assert inspect.iscoroutinefunction(getattr(AsyncPersistentQ, name)) or name == "close"
    assert ("connection" in here.parameters) == (name in JOINING)


@pytest.mark.parametrize("name", [name for name in METHODS if hasattr(PersistentQInterface, name)])
def test_every_method_says_what_it_promises(name: str) -> None:
    promise = inspect.getdoc(getattr(PersistentQInterface, name))
    assert promise is not None and promise in (inspect.getdoc(getattr(AsyncPersistentQ, name)) or "")


def test_what_is_no_method_is_there_as_well(tmp_path: Path) -> None:
    q = aio.connect(tmp_path / "queue.db", max_attempts=7)
    for name in set(PUBLIC) - set(METHODS):
        assert getattr(q, name) == getattr(q.sync, name)
    assert q.settings.max_attempts == 7


def test_connect_takes_what_the_other_one_takes() -> None:
    here, there = inspect.signature(aio.connect), inspect.signature(persistq.connect)
    assert here.parameters == there.parameters


def test_nobody_pays_for_it_who_does_not_use_it() -> None:
    script = """
        import sys
        import persistq
        q = persistq.connect("queue.db")
        assert "persistq.aio" not in sys.modules
        import persistq.aio
        assert not {"sqlalchemy.ext.asyncio", "greenlet", "aiosqlite"} & set(sys.modules)
    """
    assert run(script) == ""


# Threads


def test_tasks_of_one_moment_share_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    run_group = SQLite._run

    def counting(database: SQLite, group: Sequence[Call]) -> None:
        run_group(database, group)
        sizes.append(len(group))

    monkeypatch.setattr(SQLite, "_run", counting)

    async def use(q: AsyncPersistentQ) -> None:
        await q.counts()
        database: Any = q.sync.database
        with database._writing:  # as if the first were waiting for the disk
            calls = [asyncio.create_task(q.enqueue("x")) for _ in range(20)]
            while len(database._group._waiting) < len(calls) - 1:
                await asyncio.sleep(0)
        await asyncio.gather(*calls)

    in_loop(aio.connect(tmp_path / "queue.db"), use)
    assert sizes == [1, 19]


def test_a_call_runs_in_a_thread_of_the_queue_with_the_task_s_context(tmp_path: Path) -> None:
    request = contextvars.ContextVar("request", default="none")
    seen: list[tuple[str, str]] = []
    persistq.subscribe(lambda name, fields: seen.append((threading.current_thread().name, request.get())))

    async def use(q: AsyncPersistentQ) -> None:
        request.set("mine")
        await q.enqueue("x")

    in_loop(aio.connect(tmp_path / "queue.db"), use)
    assert [(thread.rpartition("_")[0], value) for thread, value in seen] == [("persistq-aio", "mine")]


def test_closing_ends_the_threads(tmp_path: Path) -> None:
    in_loop(aio.connect(tmp_path / "queue.db"), lambda q: q.enqueue("x"))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("persistq-aio")]


FORKING = """
    import asyncio, os, sys
    from persistq import aio
    from sqlalchemy.ext.asyncio import AsyncSession

    async def use(item):
        async with AsyncSession(engine) as session, session.begin():
            await q.enqueue(item, connection=session)
        await asyncio.gather(*(q.enqueue(item) for _ in range(4)))

    q = aio.connect(sys.argv[1])
    engine = asyncio.run(q.engine())
    asyncio.run(use("parent"))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.run(use("child"))
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    asyncio.run(use("parent again"))
    asyncio.run(q.close())
    print(q.sync.counts()["pending"])
"""


def test_a_forked_child_has_threads_of_its_own(tmp_path: Path) -> None:
    assert run(FORKING, tmp_path / "queue.db") == "15\n"


INTERRUPTED = """
    import asyncio, os, signal, sys
    from persistq import aio

    async def use():
        while True:
            ids.append(await q.enqueue("x"))
            if len(ids) == 20:
                os.kill(os.getpid(), signal.SIGINT)

    ids = []
    q = aio.connect(sys.argv[1])
    try:
        asyncio.run(use())
    except KeyboardInterrupt:
        jobs = q.sync.counts()["pending"]
        print("interrupted", len(ids) <= jobs <= len(ids) + 1)
"""


def test_an_interrupt_ends_the_loop_and_loses_nothing(tmp_path: Path) -> None:
    assert run(INTERRUPTED, tmp_path / "queue.db") == "interrupted True\n"


# SQLite for AsyncSessions


def test_its_engine_opens_the_file_as_the_queue_does(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"

    async def use(q: AsyncPersistentQ) -> dict[str, Any]:
        async with (await q.engine()).connect() as connection:
            names = ("journal_mode", "synchronous", "trusted_schema", "mmap_size")
            found = {name: (await connection.execute(text(f"PRAGMA {name}"))).scalar_one() for name in names}
            found["version"] = (await connection.execute(text("SELECT sqlite_version()"))).scalar_one()
            return found

    q = aio.connect(path)
    found = in_loop(q, use)
    assert found.pop("version") == sqlite_module().sqlite_version
    assert found == {name: q.sync.database.pragmas()[name] for name in ("journal_mode", "synchronous", "mmap_size")} | {
        "trusted_schema": 0
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    q.sync.close()


@pytest.mark.skipif(sqlite_module().__name__ == "sqlite3", reason="there is one copy of SQLite here")
def test_a_session_in_another_copy_of_sqlite_warns(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"

    async def use(q: AsyncPersistentQ) -> None:
        await q.counts()
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
        async with AsyncSession(engine) as session:
            with pytest.warns(RuntimeWarning, match=r"another copy of SQLite .* await \.engine\(\)"):
                await q.enqueue("x", connection=session)
            await session.commit()
        await engine.dispose()
        assert len(await q.list_jobs()) == 1

    in_loop(aio.connect(path), use)


def test_a_missing_driver_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiosqlite", None)
    monkeypatch.delitem(sys.modules, "persistq.storage.sqlite_async", raising=False)
    with pytest.raises(ConfigError, match="needs aiosqlite; install it"):
        in_loop(aio.connect(tmp_path / "queue.db"), lambda q: q.engine())
