"""The least that a durable queue with kept rows can do on PostgreSQL: psycopg and prepared statements."""

import sys
from typing import Any

import common
import psycopg
from common import BATCH, Handler, Work, item, items, main, race, repeat, this, until_empty, workload

TABLE = """CREATE TABLE jobs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, queue text NOT NULL, task text, item text NOT NULL,
    status smallint NOT NULL DEFAULT 0, priority int NOT NULL DEFAULT 0, attempts int NOT NULL DEFAULT 0,
    max_attempts int NOT NULL DEFAULT 3, run_at timestamptz NOT NULL DEFAULT now(), lease_until timestamptz,
    owner text, created_at timestamptz NOT NULL DEFAULT now(), finished_at timestamptz)"""
INDEX = "CREATE INDEX jobs_ready ON jobs (queue, priority DESC, id) WHERE status = 0"
INSERT = "INSERT INTO jobs (queue, task, item) VALUES ('default', 'noop', %s) RETURNING id"
COPY = "COPY jobs (queue, task, item) FROM STDIN"
CLAIM = """UPDATE jobs SET status = 1, attempts = attempts + 1, owner = %s, lease_until = now() + interval '60 s'
    WHERE id IN (SELECT id FROM jobs WHERE status = 0 AND queue = 'default'
                 ORDER BY priority DESC, id LIMIT %s FOR UPDATE SKIP LOCKED)
    RETURNING id, item, attempts"""
SETTLE = """UPDATE jobs SET status = 2, finished_at = now(), lease_until = NULL
    WHERE id = ANY(%s) AND status = 1 AND owner = %s"""


def connect(work: Work) -> psycopg.Connection[Any]:
    db = psycopg.connect(work.url, autocommit=True, prepare_threshold=1)
    if not db.execute("SELECT to_regclass('jobs')").fetchone()[0]:
        db.execute(TABLE)
        db.execute(INDEX)
    return db


def copy(db: psycopg.Connection[Any], texts: list[str]) -> None:
    with db.cursor().copy(COPY) as into:
        for text in texts:
            into.write_row(("default", "noop", text))


class Turns:
    """Acknowledges the previous jobs and claims the next in one transaction."""

    def __init__(self, db: psycopg.Connection[Any], batch: int, owner: str = "raw") -> None:
        self._db, self._batch, self._owner = db, batch, owner
        self.held: list[Any] = []

    def take(self, batch: int | None = None) -> int:
        limit = self._batch if batch is None else batch
        with self._db.transaction():
            if self.held:
                self._db.execute(SETTLE, ([one[0] for one in self.held], self._owner))
            self.held = self._db.execute(CLAIM, (self._owner, limit)).fetchall() if limit else []
        return len(self.held)


@workload
def enqueue(work: Work) -> dict:
    """One prepared INSERT, committed by itself."""
    db = connect(work)
    return repeat(work, lambda n: db.execute(INSERT, (item(n),)).fetchone())


@workload
def enqueue_transaction(work: Work) -> dict:
    """BEGIN, INSERT, COMMIT: what a library has to send that runs more than one statement."""
    db = connect(work)

    def call(n: int) -> None:
        with db.transaction():
            db.execute(INSERT, (item(n),)).fetchone()

    return repeat(work, call)


@workload
def enqueue_many(work: Work) -> dict:
    db = connect(work)
    return repeat(work, lambda n: copy(db, items(BATCH, n * BATCH)), BATCH)


@workload
def exchange(work: Work) -> dict:
    db = connect(work)
    copy(db, items(work.jobs))
    return until_empty(work, Turns(db, work.batch).take)


@workload
def consume(work: Work) -> dict:
    copy(connect(work), items(work.jobs))
    return race(work, this(__file__, "consume_child", work))


@workload
def consume_child(work: Work) -> dict:
    db = connect(work)
    handler = Handler()
    handler.wait()
    turns = Turns(db, work.batch, handler.name)
    while turns.take():
        for _ in turns.held:
            handler.noop()
    return {}


@workload
def fill(work: Work) -> dict:
    db = connect(work)
    for start in range(0, work.rows, 100 * BATCH):
        copy(db, items(min(100 * BATCH, work.rows - start), start))
    if work.state == "finished":
        turns = Turns(db, 10 * BATCH)
        while turns.take():
            pass
    db.execute("VACUUM ANALYZE jobs")
    return {}


@workload
def grown(work: Work) -> dict:
    db = connect(work)
    return common.grown(work, lambda texts: copy(db, texts), Turns(db, work.batch).take)


@workload
def churn(work: Work) -> dict:
    db = connect(work)
    return common.churn(work, lambda texts: copy(db, texts), Turns(db, work.batch).take)


if __name__ == "__main__":
    sys.exit(main())
