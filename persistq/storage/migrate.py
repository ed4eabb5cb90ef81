"""Alembic, driven from inside: which revision a database has, and the way to ours."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, text

from ..errors import SchemaMismatch, SchemaMissing
from .schema import REVISION, VERSION_TABLE

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory


def current(connection: Connection) -> str | None:
    """Return the revision of the schema, None when there is none yet.

    Raises:
        SchemaMismatch: the database holds tables of something else under our names.
    """
    if not inspect(connection).has_table(VERSION_TABLE):
        if inspect(connection).has_table("jobs"):
            raise SchemaMismatch("it has a table 'jobs' that persistq did not make; use a database of its own")
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608


def ensure(engine: Engine) -> None:
    """Return when the schema is ours; make it, or bring it here, when it is empty or older.

    Raises:
        SchemaMismatch: it is newer than this version, or not ours.
    """
    with engine.connect().execution_options(persistq_reading=True) as connection:
        if current(connection) == REVISION:
            return
    upgrade(engine)


def refuse_unknown(engine: Engine) -> None:
    """Return when the schema is ours. On a server it is made and changed only when somebody says so.

    Raises:
        SchemaMissing: there is none, or an older one; it may well be upgraded at this moment, step by step.
        SchemaMismatch: it is newer than this version, or not ours.
    """
    with engine.connect() as connection:
        found = current(connection)
    if found is None:
        raise SchemaMissing("the database is empty; run 'persistq db upgrade'")
    stands = f"it is at revision {found!r}, this version works with {REVISION!r}"
    if found < REVISION:
        raise SchemaMissing(f"{stands}; run 'persistq db upgrade'")
    if found != REVISION:
        raise SchemaMismatch(f"{stands}; update persistq")


@dataclass(frozen=True, slots=True)
class Revision:
    """One step of the schema."""

    revision: str
    description: str
    applied: bool


def history(engine: Engine) -> list[Revision]:
    """Return the revisions that this version knows, oldest first, and which of them the database has.

    Raises:
        SchemaMismatch: the tables are not ours.
    """
    with engine.connect().execution_options(persistq_reading=True) as connection:
        found = current(connection)
    scripts = list(reversed(list(_scripts().walk_revisions())))
    known = [script.revision for script in scripts]
    reached = known.index(found) if found in known else len(known) if found else -1
    return [
        Revision(script.revision, script.doc.partition("\n")[0], place <= reached)
        for place, script in enumerate(scripts)
    ]


def upgrade(engine: Engine, lock: Callable[[Connection], None] = lambda _connection: None) -> str:
    """Bring the schema to this version under the database's lock, and return its revision.

    Raises:
        SchemaMismatch: it is newer than this version, or not ours.
    """
    from alembic import command

    config = _config()
    known = {script.revision for script in _scripts().walk_revisions()}
    with engine.connect() as connection, connection.begin():
        lock(connection)
        found = current(connection)
        if found is not None and found not in known:
            raise SchemaMismatch(f"it is at revision {found!r}, this version knows up to {REVISION!r}; update persistq")
        if found != REVISION:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    return REVISION


# Alembic takes longer to import than most commands take to run, so only what needs it pays for it.
def _config() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "persistq.storage:migrations")
    config.set_main_option("path_separator", "os")
    return config


def _scripts() -> "ScriptDirectory":
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_config())
