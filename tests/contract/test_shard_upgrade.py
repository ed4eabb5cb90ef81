"""A database from before there were shards is upgraded with everything in it."""

from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import text
from support.databases import EVERY_KIND, Databases, OnServer
from support.servers import OWNER
from support.shards import Note, asynchronous, make_handler, numbers, quick

import persistq
from persistq.sharded import Queue, SQLAlchemyCoordinator, SQLAlchemyStorage, Worker
from persistq.storage import migrate, schema

every_kind = pytest.mark.parametrize("kind", EVERY_KIND, indirect=True)

JOB = (
    "INSERT INTO jobs (queue, item, status, priority, max_attempts, run_at, created_at)"
    " VALUES ('mail', :item, 'pending', 0, 3, 1, 1)"
)
TALLY = (
    "INSERT INTO tallies (queue, slot, pending, processing, done, failed, cancelled) VALUES ('mail', 0, :n, 0, 0, 0, 0)"
)


@every_kind
@asynchronous
async def test_jobs_survive_and_shards_work(kind: str, every_database: Databases, tmp_path: Path) -> None:
    database, name = every_database[kind], "queue_before_shards"
    target = str(tmp_path / "queue.db")
    if isinstance(database, OnServer):
        database.server.create(name)
        target = database.server.url(name, OWNER)
    q = persistq.connect(target)
    config = migrate._config()
    with q.database.engine.connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    with q.database.engine.begin() as connection:
        connection.execute(text(JOB), [{"item": f"job {n}"} for n in range(500)])
        connection.execute(text(TALLY), {"n": 500})
    assert q.database.revision() == "0001"
    if isinstance(database, OnServer):
        with pytest.raises(persistq.SchemaMismatch, match="db upgrade"):
            q.counts()
        q.database.upgrade()
    assert q.counts("mail")["pending"] == 500
    assert q.database.revision() == schema.REVISION
    assert [job.item for job in q.list_jobs(limit=3)] == ["job 0", "job 1", "job 2"]
    assert q.tally_drift() == {}

    handler, noted = make_handler()
    storage = SQLAlchemyStorage(q, settings=quick())
    await Queue(storage).register(handler, Note(0, 1), Note(0, 2))
    assert await Worker(SQLAlchemyCoordinator(storage, settings=quick()), Queue(storage)).loop(2) == 2
    assert numbers(noted) == [1, 2]
    await storage.close()
    q.close()
