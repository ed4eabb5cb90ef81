"""The least that a durable queue with kept rows can do on SQLite: one table, one partial index, the driver itself."""

import sys
import threading
import time
from typing import Any

import raw
from common import Work, from_threads, item, main, repeat, workload
from library import sqlite_module

TABLE = """CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, task TEXT, item TEXT NOT NULL, status INT NOT NULL,
    priority INT NOT NULL, attempts INT NOT NULL, max_attempts INT NOT NULL, run_at REAL NOT NULL, lease_until REAL,
    owner TEXT, created_at REAL NOT NULL, finished_at REAL)"""
INDEX = "CREATE INDEX ready ON jobs (queue, priority DESC, id) WHERE status = 0"
INSERT = """INSERT INTO jobs (queue, task, item, status, priority, attempts, max_attempts, run_at, created_at)
    VALUES ('default', 'noop', ?, 0, 0, 0, 3, ?, ?)"""
CLAIM = """UPDATE jobs SET status = 1, attempts = attempts + 1, lease_until = ?, owner = ? WHERE id IN
    (SELECT id FROM jobs WHERE status = 0 AND queue = 'default' ORDER BY priority DESC, id LIMIT ?)
    RETURNING id, item, attempts"""
SETTLE = "UPDATE jobs SET status = 2, finished_at = ?, lease_until = NULL WHERE id = ? AND status = 1 AND owner = ?"


def connect(work: Work) -> Any:
    """Open the database; make the table when it is not there."""
    db = sqlite_module().connect(str(work.path / "raw.db"), isolation_level=None, timeout=30, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {'FULL' if work.durability == 'power' else 'NORMAL'}")
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'jobs'").fetchone():
        db.execute(TABLE)
        db.execute(INDEX)
    return db


def add(db: Any, texts: list[str]) -> None:
    now = time.time()
    db.execute("BEGIN IMMEDIATE")
    db.executemany(INSERT, [(text, now, now) for text in texts])
    db.execute("COMMIT")


class Turns:
    """Acknowledges the previous jobs and claims the next in one transaction."""

    def __init__(self, db: Any, batch: int, owner: str = "raw") -> None:
        self._db, self._batch, self._owner = db, batch, owner
        self.held: list[tuple[int, str, int]] = []

    def take(self, batch: int | None = None) -> int:
        limit = self._batch if batch is None else batch
        now = time.time()
        self._db.execute("BEGIN IMMEDIATE")
        if self.held:
            self._db.executemany(SETTLE, [(now, one[0], self._owner) for one in self.held])
        self.held = self._db.execute(CLAIM, (now + 60, self._owner, limit)).fetchall()
        self._db.execute("COMMIT")
        return len(self.held)


class Waiter:
    """A thread that waits for its job to be on disk."""

    def __init__(self, text: str) -> None:
        self.text, self.leads, self.gate = text, False, threading.Lock()
        self.gate.acquire()


@workload
def enqueue(work: Work) -> dict:
    db = connect(work)

    def call(n: int) -> None:
        now = time.time()
        db.execute(INSERT, (item(n), now, now))

    return repeat(work, call)


@workload
def enqueue_threads(work: Work) -> dict:
    """Group commit in its plainest form: one thread writes what all have brought, then hands the lead on."""
    db = connect(work)
    lock = threading.Lock()
    waiting: list[Waiter] = []
    led = False

    def call(n: int) -> None:
        nonlocal led
        me = Waiter(item(n))
        with lock:
            waiting.append(me)
            me.leads, led = not led, True
        if not me.leads:
            me.gate.acquire()
            if not me.leads:
                return
        with lock:
            group, waiting[:] = waiting[:], []
        add(db, [one.text for one in group])
        with lock:
            led = bool(waiting)
            if led:
                waiting[0].leads = True
                waiting[0].gate.release()
        for one in group:
            if one is not me:
                one.gate.release()

    return from_threads(work, call)


raw.Raw(__file__, connect, add, Turns)


if __name__ == "__main__":
    sys.exit(main())
