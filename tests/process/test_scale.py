"""A million jobs that are finished, or wait, cost nothing."""

import statistics
import time

import pytest
from support.databases import OnServer, every_kind

import persistq

# How a database makes so many numbers.
NUMBERS = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) SELECT i FROM n",
    "postgresql": "SELECT i FROM generate_series(1, {count}) AS n(i)",
    "mariadb": "SELECT seq AS i FROM seq_1_to_{count}",
}
CROWDS = {
    "done": """
INSERT INTO jobs (queue, item, status, priority, attempts, max_attempts, fence, {delayed}, suspect, run_at,
                  created_at, started_at, finished_at, consumer_id)
SELECT 'default', 'an item', 'done', 0, 1, 3, 1, 0, 0, i, i, i, i, 'somebody@host:1:00000000' FROM ({numbers}) AS n
""",
    "pending": """
INSERT INTO jobs (queue, item, status, priority, attempts, max_attempts, fence, {delayed}, suspect, run_at, created_at)
SELECT 'default', 'an item', 'pending', 0, 0, 3, 0, 0, 0, i, i FROM ({numbers}) AS n
""",
}
COUNTED = """
INSERT INTO tallies (queue, slot, pending, processing, done, failed, cancelled)
VALUES ('default', 0, {pending}, 0, {done}, 0, 0)
"""


OPERATIONS = {
    "counts": lambda q: q.counts(),
    "list_jobs": lambda q: q.list_jobs(status="pending"),
    "list the newest": lambda q: q.list_jobs(status="pending", newest=True),
    "due_in": lambda q: q.due_in("me"),
    "claim": lambda q: q.dequeue("me"),
    "settle": lambda q: q.complete(q.dequeue("me")),
    "unfinished": lambda q: q.unfinished("me"),
    "recover": lambda q: q.recover(),
    "queues": lambda q: q.queues(),
}


@every_kind
@pytest.mark.timeout(600)
@pytest.mark.parametrize("status", CROWDS)
def test_each_operation_is_as_fast_as_on_an_empty_database(kind, status, every_database, long):
    """One round of several will do: a busy machine spoils some, a statement that looks at them all every one."""
    count = 1_000_000 if long else 200_000 if status == "done" else 100_000
    full, empty = _queues(every_database[kind], count, status)
    try:
        assert full.counts()[status] == empty.counts()[status] + count
        assert empty.counts()["pending"] == 1000
        for name, operation in OPERATIONS.items():
            ratios = []
            while len(ratios) < 10 and min(ratios, default=2.0) >= 1.5:
                ratios.append(_ratio(full, empty, operation))
            print(f"{name}: {', '.join(f'{ratio:.2f}' for ratio in ratios)} times as long beside them as alone")
            assert min(ratios) < 1.5, name
    finally:
        full.close()
        empty.close()


def _queues(database, count, status):
    """Return two queues with 1,000 pending jobs: one beside so many more jobs of the status, one beside none."""
    # Without the wait for the disk, which would hide what the statements cost.
    full, empty = (persistq.connect(database.apart(), queue_durability="process") for _ in range(2))
    full.counts()
    quote = full.engine.dialect.identifier_preparer.quote
    numbers = NUMBERS[database.kind].format(count=count)
    with full.engine.begin() as connection:
        connection.exec_driver_sql(CROWDS[status].format(numbers=numbers, delayed=quote("delayed")))
        counts = {one: count if one == status else 0 for one in CROWDS}
        connection.exec_driver_sql(COUNTED.format(**counts))
    if isinstance(database, OnServer):
        database.server.gather_statistics(full.dbname)
    else:
        full.database.checkpoint()
    for q in (full, empty):
        q.enqueue_many(["item"] * 1000)
    return full, empty


def _ratio(full, empty, operation):
    """Return how much longer the operation takes beside the finished rows, by the medians of one round."""
    times = ([], [])
    for _ in range(30):
        for q, taken in zip((full, empty), times, strict=True):  # interleaved, so that a busy machine slows both
            began = time.perf_counter()
            operation(q)
            taken.append(time.perf_counter() - began)
    return statistics.median(times[0][5:]) / statistics.median(times[1][5:])
