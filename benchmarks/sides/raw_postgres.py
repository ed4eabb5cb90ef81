"""The least that a durable queue with kept rows can do on PostgreSQL: psycopg and prepared statements."""

import sys
from typing import Any

import psycopg
import raw
from common import Work, item, main, repeat, workload

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


raw.Raw(__file__, connect, copy, Turns, tidy=lambda db: db.execute("VACUUM ANALYZE jobs"))


if __name__ == "__main__":
    sys.exit(main())
