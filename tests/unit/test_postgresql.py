"""What only PostgreSQL has: schemas within a database, and poolers that share connections by transaction."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from contract.test_walk import test_no_walk_breaks_a_promise as walk
from process.yard import Yard
from support.databases import Databases, OnServer
from support.servers import OWNER, PgBouncer, Server

import persistq
from persistq import DatabaseUnavailable, Done, SchemaMismatch

pytestmark = pytest.mark.needs("postgresql")


@pytest.fixture
def database(every_database: Databases) -> OnServer:
    found = every_database["postgresql"]
    assert isinstance(found, OnServer)
    return found


# A schema of its own


@pytest.fixture
def in_schema(database: OnServer) -> tuple[Server, str, str]:
    """A server, the URL of the owner and that of the worker, in a schema beside an empty ``public``."""
    server = database.server
    name = f"queue_schemas_{threading.get_native_id()}_{len(server.run('SELECT 1 FROM pg_database'))}"
    server.create(name)
    server.run(f"CREATE SCHEMA jobs_of_mine AUTHORIZATION {OWNER}", database=name)
    options = "?options=-csearch_path%3Djobs_of_mine"
    with closing(persistq.connect(server.url(name, OWNER) + options)) as q:
        q.database.upgrade()
    server.permit(name, "jobs_of_mine")
    return server, server.url(name, OWNER), server.url(name) + options


def test_the_tables_land_in_the_schema_that_the_url_names(in_schema: tuple[Server, str, str]) -> None:
    server, _, url = in_schema
    name = url.rpartition("/")[2].partition("?")[0]
    found = server.run("SELECT DISTINCT schemaname FROM pg_tables WHERE tableowner = 'owner'", database=name)
    assert found == [("jobs_of_mine",)]
    with closing(persistq.connect(url)) as q:
        q.enqueue("x", unique_key="k")
        q.enqueue_many(["y"] * 100)
        job = q.dequeue("me")
        assert job is not None
        q.exchange("me", settled=[Done(job)], limit=5)
        q.pause("other")
        assert q.counts() == {"pending": 95, "processing": 5, "done": 1, "failed": 0, "cancelled": 0}
        assert q.tally_drift() == {}


def test_two_schemas_are_two_queues(in_schema: tuple[Server, str, str]) -> None:
    _, owner, url = in_schema
    with closing(persistq.connect(owner)) as public, closing(persistq.connect(url)) as mine:
        with pytest.raises(SchemaMismatch):
            public.enqueue("x")
        public.database.upgrade()
        assert public.enqueue("public") == mine.enqueue("mine") == 1
        assert [job.item for job in public.list_jobs()] == ["public"]
        assert [job.item for job in mine.dequeue_many("me")] == ["mine"]


def test_a_schema_that_is_not_there_is_a_clear_error(in_schema: tuple[Server, str, str]) -> None:
    _, _, url = in_schema
    with (
        closing(persistq.connect(url.replace("jobs_of_mine", "nowhere"))) as q,
        pytest.raises((SchemaMismatch, DatabaseUnavailable)),
    ):
        q.enqueue("x")


# Behind a pooler


@pytest.fixture
def pooler(database: OnServer) -> Iterator[Server]:
    """PgBouncer with two connections for everybody, given anew for each transaction."""
    with PgBouncer(database.server) as found:
        yield found


class Pooled:
    """The shared database, reached through the pooler."""

    kind = "postgresql"

    def __init__(self, database: OnServer, pooler: Server) -> None:
        self._database, self._pooler = database, pooler

    def fresh(self) -> str:
        return self._through(self._database.fresh())

    def apart(self) -> str:
        return self._through(self._database.apart())

    def _through(self, url: str) -> str:
        return self._pooler.url(url.rpartition("/")[2])


@pytest.mark.needs("pgbouncer")
def test_no_walk_through_a_pooler_breaks_a_promise(database: OnServer, pooler: Server, long: bool) -> None:
    walk(Pooled(database, pooler), long)


@pytest.mark.needs("pgbouncer")
def test_many_clients_share_two_connections(database: OnServer, pooler: Server) -> None:
    target = Pooled(database, pooler).apart()
    with closing(persistq.connect(target)) as q:
        ids = q.enqueue_many([f"item {n}" for n in range(300)])
        assert [q.enqueue("one", "elsewhere", unique_key=str(n % 7)) for n in range(70)][-7:]

    def work(me: str) -> list[int]:
        with closing(persistq.connect(target)) as q:
            done: list[int] = []
            jobs = list(q.dequeue_many(me, "default", limit=3))
            while jobs:
                done += [job.id for job in jobs]
                jobs = list(q.exchange(me, settled=[Done(job, job.item) for job in jobs], queue="default", limit=3))
                q.enqueue("one", "elsewhere")
                q.get_job(ids[0])
            return done

    with ThreadPoolExecutor(8) as threads:
        done = [job_id for mine in threads.map(work, [f"w{n}@h:1:a" for n in range(8)]) for job_id in mine]
    assert sorted(done) == ids
    with closing(persistq.connect(target)) as q:
        assert q.counts("default")["done"] == 300
        assert q.tally_drift() == {}


@pytest.mark.needs("pgbouncer")
def test_consumers_work_through_a_pooler(tmp_path: Path, database: OnServer, pooler: Server) -> None:
    yard = Yard(tmp_path, target=Pooled(database, pooler).apart(), server=database.server)
    try:
        yard.app("@persistq.task\ndef perform(item):\n    note(item, me().id)\n")
        ids = yard.q.enqueue_many(["x"] * 300)
        consumers = [yard.consumer("--task", "perform", "--concurrency", "4", "--drain") for _ in range(3)]
        assert [one.wait() for one in consumers] == [0, 0, 0]
        assert sorted(int(line.split()[1]) for line in yard.journal()) == ids
        assert yard.statuses() == {"done": 300}
        for consumer in consumers:
            assert not consumer.lines("trying again")
    finally:
        yard.clean_up()
