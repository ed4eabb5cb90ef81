"""open_database(): the only file that asks which database it is."""

import os

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from ..clock import Clock
from ..errors import ConfigError
from ..settings import Settings
from .database import Database


def parse_url(target: str | os.PathLike[str]) -> URL:
    """Return the URL of a path, or of a URL in SQLAlchemy's form.

    Raises:
        ConfigError: it is not usable; the message never repeats a URL, which may hold a password.
    """
    text = os.fspath(target)
    if "://" not in text:
        return URL.create("sqlite", database=text or ":memory:")
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ConfigError("the database URL cannot be read; it looks like dialect://user:password@host/name") from None
    if "@" in (url.host or ""):
        # A driver would name the host in its error, and with it a part of the password.
        raise ConfigError("the database URL has two '@'; write the one in the password as %40")
    return url


def open_database(url: URL, settings: Settings, clock: Clock) -> Database:
    """Return the database at a URL; nothing is opened before its first call.

    Raises:
        ConfigError: this database, or the place of its file, cannot carry a queue, or its driver is missing.
    """
    # Each brings its driver along, so only the one that is used is imported.
    match url.get_backend_name():
        case "sqlite":
            from .sqlite import SQLite

            return SQLite(url, settings, clock)
        case "postgresql":
            from .postgresql import PostgreSQL

            return PostgreSQL(url, settings, clock)
        case "mysql" | "mariadb":
            from .mariadb import MariaDB

            return MariaDB(url, settings, clock)
        case other:
            raise ConfigError(
                f"there is no support for {other!r:.40}; use a path, sqlite:///path, postgresql://… or mariadb://…"
            )
