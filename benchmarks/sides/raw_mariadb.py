"""The least that a durable queue with kept rows can do on MariaDB or MySQL: PyMySQL and nothing above it."""

import sys
from typing import Any

import pymysql
import raw
from common import BATCH, Work, item, main, repeat, workload

TABLE = """CREATE TABLE IF NOT EXISTS jobs (
    id bigint AUTO_INCREMENT PRIMARY KEY, queue varchar(64) NOT NULL, task varchar(64), item text NOT NULL,
    status tinyint NOT NULL DEFAULT 0, priority int NOT NULL DEFAULT 0, attempts int NOT NULL DEFAULT 0,
    max_attempts int NOT NULL DEFAULT 3, run_at datetime(6) NOT NULL DEFAULT now(6), lease_until datetime(6),
    owner varchar(64), created_at datetime(6) NOT NULL DEFAULT now(6), finished_at datetime(6),
    KEY jobs_ready (status, queue, priority, id)) ENGINE=InnoDB"""
INSERT = "INSERT INTO jobs (queue, task, item) VALUES ('default', 'noop', %s)"
# There is no RETURNING on UPDATE: look first, with the rows locked, then write.
FIND = """SELECT id, item, attempts FROM jobs WHERE status = 0 AND queue = 'default'
    ORDER BY priority, id LIMIT %s FOR UPDATE SKIP LOCKED"""
CLAIM = "UPDATE jobs SET status = 1, attempts = attempts + 1, owner = %s, lease_until = now(6) + interval 60 second"
SETTLE = "UPDATE jobs SET status = 2, finished_at = now(6), lease_until = NULL WHERE status = 1 AND owner = %s"


def connect(work: Work) -> Any:
    """Open the database of ``mysql://user@localhost/name?unix_socket=path``."""
    place, _, socket = work.url.partition("?unix_socket=")
    user, _, rest = place.partition("://")[2].partition("@")
    db = pymysql.connect(user=user, database=rest.partition("/")[2], unix_socket=socket, autocommit=True)
    # Otherwise a claim locks the gaps between rows and producers wait for consumers.
    db.cursor().execute("SET SESSION transaction_isolation = 'READ-COMMITTED'" if _is_mysql(db) else
                        "SET SESSION tx_isolation = 'READ-COMMITTED'")  # fmt: skip
    db.cursor().execute(TABLE)
    return db


def _is_mysql(db: Any) -> bool:
    return "MariaDB" not in db.get_server_info()


def add(db: Any, texts: list[str]) -> None:
    db.begin()
    db.cursor().executemany(INSERT, [(text,) for text in texts])
    db.commit()


class Turns:
    """Acknowledges the previous jobs and claims the next in one transaction."""

    def __init__(self, db: Any, batch: int, owner: str = "raw") -> None:
        self._db, self._batch, self._owner = db, batch, owner
        self.held: list[Any] = []

    def take(self, batch: int | None = None) -> int:
        limit = self._batch if batch is None else batch
        cursor = self._db.cursor()
        self._db.begin()
        if self.held:
            cursor.execute(f"{SETTLE} AND id IN ({_ids(self.held)})", (self._owner,))
        self.held = []
        if limit:
            cursor.execute(FIND, (limit,))
            self.held = list(cursor.fetchall())
        if self.held:
            cursor.execute(f"{CLAIM} WHERE id IN ({_ids(self.held)})", (self._owner,))
        self._db.commit()
        return len(self.held)


def _ids(held: list[Any]) -> str:
    return ",".join(str(one[0]) for one in held)


@workload
def enqueue(work: Work) -> dict:
    cursor = connect(work).cursor()
    return repeat(work, lambda n: cursor.execute(INSERT, (item(n),)))


@workload
def enqueue_transaction(work: Work) -> dict:
    db = connect(work)
    cursor = db.cursor()

    def call(n: int) -> None:
        db.begin()
        cursor.execute(INSERT, (item(n),))
        db.commit()

    return repeat(work, call)


raw.Raw(__file__, connect, add, Turns, tidy=lambda db: db.cursor().execute("ANALYZE TABLE jobs"), at_once=10 * BATCH)


if __name__ == "__main__":
    sys.exit(main())
