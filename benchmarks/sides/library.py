"""The copy of SQLite that persistq takes, so that the bare driver is measured on the same one."""

import sqlite3
from types import ModuleType

SOUND = (3, 51, 3)


def sqlite_module() -> ModuleType:
    """Return Python's own sqlite3 when it is new enough, else the wheel's."""
    if sqlite3.sqlite_version_info >= SOUND:
        return sqlite3
    try:
        from pysqlite3 import dbapi2
    except ImportError:
        return sqlite3
    return dbapi2
