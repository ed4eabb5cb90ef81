"""persistq through its public door alone, on whatever database the URL names."""

import json
import os
import sys
from pathlib import Path

import common
from common import BATCH, Work, from_threads, idle_latency, item, items, main, race, repeat, until_empty, workload

import persistq
from persistq import upkeep

HERE = Path(__file__).parent
ROOT = Path(persistq.__file__).parents[1]


def connect(work: Work) -> persistq.PersistentQSQLAlchemy:
    q = persistq.connect(target(work), queue_durability=work.durability)
    if work.url:
        q.database.upgrade()
    q.counts()
    return q


def target(work: Work) -> str:
    return work.url or str(work.path / "queue.db")


def consumer(work: Work, *options: str) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment of the real consumer."""
    command = [sys.executable, "-m", "consumer.consumer", "--app", "app_persistq", *options]
    where = {"QUEUE_DB_URL": work.url} if work.url else {"QUEUE_DB_FILE": target(work)}
    path = os.pathsep.join(filter(None, (str(HERE), str(ROOT), os.environ.get("PYTHONPATH", ""))))
    return command, {**where, "QUEUE_DURABILITY": work.durability, "PYTHONPATH": path}


class Turns:
    def __init__(self, q: persistq.PersistentQSQLAlchemy, batch: int) -> None:
        self._q, self._batch = q, batch
        self._held: list[persistq.Job] = []

    def take(self, batch: int | None = None) -> int:
        limit = self._batch if batch is None else batch
        self._held = list(self._q.exchange("bench", settled=[persistq.Done(job) for job in self._held], limit=limit))
        return len(self._held)


@workload
def enqueue(work: Work) -> dict:
    q = connect(work)
    return repeat(work, lambda n: q.enqueue(item(n)))


@workload
def enqueue_threads(work: Work) -> dict:
    q = connect(work)
    return from_threads(work, lambda n: q.enqueue(item(n)))


@workload
def enqueue_many(work: Work) -> dict:
    q = connect(work)
    return repeat(work, lambda n: q.enqueue_many(items(BATCH, n * BATCH)), BATCH)


@workload
def exchange(work: Work) -> dict:
    q = connect(work)
    q.enqueue_many(items(work.jobs))
    return until_empty(work, Turns(q, work.batch).take)


@workload
def consume(work: Work) -> dict:
    q = connect(work)
    for start in range(0, work.jobs, 10 * BATCH):
        texts = items(min(10 * BATCH, work.jobs - start), start)
        q.enqueue_many([persistq.NewJob(item=json.dumps({"text": text}), task="noop") for text in texts])
    command, environment = consumer(work, "--drain")
    found = race(work, command, **environment)
    if found["performed"] >= work.jobs and (counts := q.counts())["done"] != work.jobs:
        raise RuntimeError(f"performed {work.jobs} jobs, but counts() says {counts}")
    return found


@workload
def latency(work: Work) -> dict:
    q = connect(work)
    command, environment = consumer(work)
    return idle_latency(
        work, command, lambda sent: q.enqueue(json.dumps({"sent": sent}), task="arrived"), **environment
    )


@workload
def fill(work: Work) -> dict:
    q = connect(work)
    for start in range(0, work.rows, 10 * BATCH):
        q.enqueue_many(items(min(10 * BATCH, work.rows - start), start))
    if work.state == "finished":
        turns = Turns(q, BATCH)
        while turns.take():
            pass
    if work.url:
        upkeep.vacuum(q)  # as the raw sides do: else the server goes on with it while the next side is measured
    return {}


@workload
def grown(work: Work) -> dict:
    q = connect(work)
    return common.grown(work, q.enqueue_many, Turns(q, work.batch).take)


@workload
def churn(work: Work) -> dict:
    q = connect(work)
    return common.churn(work, q.enqueue_many, Turns(q, work.batch).take)


if __name__ == "__main__":
    sys.exit(main())
