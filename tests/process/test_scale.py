"""A million finished jobs cost nothing."""

import statistics
import time

import pytest
from support.databases import EVERY_KIND, OnServer

import persistq

# How a database makes so many numbers, and how many it gets: a server's take longer to make.
NUMBERS = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) SELECT i FROM n",
    "postgresql": "SELECT i FROM generate_series(1, 200000) AS n(i)",
    "mariadb": "SELECT seq AS i FROM seq_1_to_200000",
}
FINISHED = """
INSERT INTO jobs (queue, item, status, priority, attempts, max_attempts, fence, {delayed}, suspect, run_at,
                  created_at, started_at, finished_at, consumer_id)
SELECT 'default', 'an item', 'done', 0, 1, 3, 1, 0, 0, i, i, i, i, 'somebody@host:1:00000000' FROM ({numbers}) AS n
"""
COUNTED = """
INSERT INTO tallies (queue, slot, pending, processing, done, failed, cancelled)
SELECT 'default', 0, 0, 0, count(*), 0, 0 FROM jobs
"""


OPERATIONS = {
    "counts": lambda q: q.counts(),
    "list_jobs": lambda q: q.list_jobs(status="pending"),
    "due_in": lambda q: q.due_in("me"),
    "claim": lambda q: q.dequeue("me"),
    "settle": lambda q: q.complete(q.dequeue("me")),
    "unfinished": lambda q: q.unfinished("me"),
    "recover": lambda q: q.recover(),
    "queues": lambda q: q.queues(),
}


@pytest.fixture(scope="module", params=EVERY_KIND)
def pair(request, every_database):
    """Two queues with 1,000 pending jobs: one beside so many finished rows, one beside none."""
    database = every_database[request.param]
    # Without the wait for the disk, which would hide what the statements cost.
    full, empty = (persistq.connect(database.apart(), queue_durability="process") for _ in range(2))
    full.counts()
    quote = full.engine.dialect.identifier_preparer.quote
    with full.engine.begin() as connection:
        connection.exec_driver_sql(FINISHED.format(numbers=NUMBERS[request.param], delayed=quote("delayed")))
        connection.exec_driver_sql(COUNTED)
    if isinstance(database, OnServer):
        database.server.gather_statistics(full.dbname)
    else:
        full.database.checkpoint()
    for q in (full, empty):
        q.enqueue_many(["item"] * 1000)
    yield full, empty
    full.close()
    empty.close()


def test_the_finished_ones_are_there(pair):
    full, empty = pair
    assert full.counts()["done"] >= 200_000
    assert full.counts()["pending"] == empty.counts()["pending"] == 1000


@pytest.mark.parametrize("name", OPERATIONS)
def test_as_fast_as_on_an_empty_database(pair, name):
    """One round of several will do: a busy machine spoils some, a statement that looks at finished rows all."""
    operation = OPERATIONS[name]
    ratios = []
    for _ in range(10):
        ratios.append(_ratio(*pair, operation))
        if ratios[-1] < 1.5:
            break
    print(f"{name}: {', '.join(f'{ratio:.2f}' for ratio in ratios)} times as long beside them as alone")
    assert min(ratios) < 1.5


def _ratio(full, empty, operation):
    """Return how much longer the operation takes beside the finished rows, by the medians of one round."""
    times = ([], [])
    for _ in range(30):
        for q, taken in zip((full, empty), times, strict=True):  # interleaved, so that a busy machine slows both
            began = time.perf_counter()
            operation(q)
            taken.append(time.perf_counter() - began)
    return statistics.median(times[0][5:]) / statistics.median(times[1][5:])
