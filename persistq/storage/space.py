"""How much space a database takes, and how to give some back."""

from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import text

from .database import Database
from .schema import Base
from .statements import kind_of

_TABLES = tuple(sorted(Base.metadata.tables))


def sizes(database: Database) -> dict[str, int]:
    """Return the bytes that the database takes: all in all, in SQLite's log, and those that are free within."""
    match kind_of(database.engine):
        case "sqlite":
            path = Path(str(database.url.database)).absolute()
            log = path.with_name(path.name + "-wal")
            with database.translating(), closing(database.engine.raw_connection()) as connection:
                cursor = connection.cursor()
                free, page = (
                    int(cursor.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("freelist_count", "page_size")
                )
            return {
                "bytes": _size(path),
                "log_bytes": _size(log),
                "free_bytes": free * page,
            }
        case "postgresql":
            query = "SELECT pg_database_size(current_database())"
        case _:
            query = (
                "SELECT COALESCE(sum(data_length + index_length), 0) FROM information_schema.tables "
                "WHERE table_schema = database()"
            )
    return {"bytes": int(database.read(lambda connection: connection.execute(text(query)).scalar_one()))}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # the last to close a database removes its log
        return 0


def vacuum(database: Database) -> None:
    """Give the space of deleted rows back; on SQLite it waits for the lock and needs as much room again meanwhile."""
    if kind_of(database.engine) == "sqlite":
        with database.translating(), closing(database.engine.raw_connection()) as connection:
            connection.cursor().execute("VACUUM")
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return
    names = ", ".join(_TABLES)
    statement = f"VACUUM (ANALYZE) {names}" if kind_of(database.engine) == "postgresql" else f"OPTIMIZE TABLE {names}"
    with database.translating(), database.engine.connect() as connection:
        free: Any = connection.execution_options(isolation_level="AUTOCOMMIT")
        free.execute(text(statement)).close()
