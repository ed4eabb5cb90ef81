"""SQLite for callers' AsyncSessions, in the queue's own copy of it.

aiosqlite always opens Python's own ``sqlite3``. Where the queue uses another copy, the two would not see
each other's locks, for those belong to the process: both would write at once, and commits would be lost.
"""

from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import aiosqlite
from sqlalchemy import URL
from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_dbapi
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ..settings import Settings

_ERRORS = (
    "Error", "DatabaseError", "IntegrityError", "NotSupportedError", "OperationalError", "ProgrammingError",
    "sqlite_version", "sqlite_version_info",
)  # fmt: skip


def make_async_engine(path: Path, sqlite: ModuleType, settings: Settings) -> AsyncEngine:
    """Return an engine whose connections aiosqlite runs and ``sqlite`` opens."""
    opened = partial(sqlite.connect, str(path), timeout=settings.queue_busy_seconds, check_same_thread=False)

    async def connect() -> Any:
        connection = aiosqlite.Connection(opened, 64)
        thread: Any = getattr(connection, "_thread", connection)
        thread.daemon = True  # as SQLAlchemy has it
        return await connection

    driver = AsyncAdapt_aiosqlite_dbapi(aiosqlite, sqlite)
    for name in _ERRORS:
        setattr(driver, name, getattr(sqlite, name))
    url = URL.create("sqlite+aiosqlite", database=str(path))
    return create_async_engine(url, module=driver, async_creator=connect, hide_parameters=True)
