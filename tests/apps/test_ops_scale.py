"""A page of the dashboard costs the same beside a million jobs as beside ten thousand."""

import logging
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from persistq.ops import access, session
from support.databases import SQLite
from support.jobs import WORKER, Queue
from support.visits import Visit

import persistq

FEW, MANY = 10_000, 1_000_000
RENDERS, ROUNDS = 7, 5

# One in twenty is failed, one cancelled, two are pending; some are processing, and the rest is done.
JOBS = """
INSERT INTO jobs (queue, task, item, status, priority, attempts, max_attempts, fence, "delayed", suspect, run_at,
                  created_at, started_at, finished_at, lease_until, consumer_id, error)
WITH RECURSIVE
  n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {jobs}),
  s(i, at, status) AS (
    SELECT i, {now} - ({jobs} - i) * 100000,
           CASE WHEN i % 20 = 0 THEN 'failed' WHEN i % 20 = 1 THEN 'cancelled' WHEN i % 20 < 4 THEN 'pending'
                WHEN i % 1000 = 5 THEN 'processing' ELSE 'done' END
    FROM n)
SELECT 'queue-' || (i / 20 % 8), CASE WHEN i % 3 THEN 'task-' || (i % 3) END,
       '{{"report": ' || i || ', "text": "' || hex(zeroblob(100)) || '"}}', status, i % 5,
       status <> 'pending', 3, 1, 0, 0, at, at,
       CASE WHEN status IN ('processing', 'done', 'failed') THEN at + 1000 END,
       CASE WHEN status IN ('done', 'failed', 'cancelled') THEN at + 2000 END,
       CASE WHEN status = 'processing' THEN {now} + 3600000000 END,
       CASE WHEN status IN ('processing', 'done', 'failed') THEN '{worker}' END,
       CASE WHEN status = 'failed' THEN 'ValueError: report ' || i || ' is broken' END
FROM s
"""
EVENTS = """
INSERT INTO events (job_id, at, kind, attempt, detail)
SELECT id, finished_at, 'failed', 1, '{"error": "broken", "traceback": "Traceback ..."}' FROM jobs
WHERE status = 'failed'
"""
COUNTED = """
INSERT INTO tallies (queue, slot, pending, processing, done, failed, cancelled)
SELECT queue, 0, sum(status = 'pending'), sum(status = 'processing'), sum(status = 'done'), sum(status = 'failed'),
       sum(status = 'cancelled') FROM jobs GROUP BY queue
"""

RENDERED: dict[str, tuple[str, dict[str, str]]] = {
    **{page: (page, {}) for page in ("overview", "jobs", "queues", "consumers", "batches", "shards", "maintenance",
                                     "audit", "health")},
    **{f"jobs, {status}": ("jobs", {"status": status}) for status in (*map(str, persistq.JobStatus), "crashed")},
    **{f"jobs by {name}": ("jobs", {name: value}) for name, value in {
        "queue": "queue-3", "task": "task-1", "consumer": WORKER, "item": "report", "error": "broken", "since": "1h",
        "until": "1m"}.items()},
    **{f"jobs by {name}, none": ("jobs", {name: value}) for name, value in {
        "queue": "nothing", "task": "nothing", "consumer": "nobody", "item": "nothing", "error": "nothing",
        "since": "2100-01-01", "until": "2000-01-01"}.items()},
    "jobs, failed and by queue, none": ("jobs", {"status": "failed", "queue": "nothing"}),
    # The newest job is failed, the one before it that ends like this waits behind everything else or before it.
    "job, failed": ("job", {"id": "-0"}),
    "job, pending, the last in line": ("job", {"id": "-20"}),
    "job, pending, the first in line": ("job", {"id": "23"}),
}  # fmt: skip


def made(path: Path, jobs: int) -> Queue:
    """Return a queue with so many jobs, the newest a moment old, in every status and eight queues."""
    q = persistq.connect(path, queue_durability="process")
    with q.engine.begin() as connection:
        connection.exec_driver_sql(JOBS.format(jobs=jobs, worker=WORKER, now=time.time_ns() // 1000))
        connection.exec_driver_sql(EVENTS)
        connection.exec_driver_sql(COUNTED)
    q.database.checkpoint()
    # What has ended of late is counted elsewhere than with the jobs.
    for job in q.dequeue_many(WORKER, limit=100):
        q.complete(job)
    now = q.clock.now()
    q.beat(persistq.ConsumerInfo(
        id=WORKER, name="worker", host="host", pid=1, queues=(), concurrency=4, running=1, started_at=now, seen_at=now,
    ))  # fmt: skip
    q.close()
    return q


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[int, Path]:
    """A folder for each of the two queues, in which the dashboard is started."""
    if not request.config.getoption("--long"):
        pytest.skip("a million jobs take a minute: --long")
    found = {}
    for jobs in (FEW, MANY):
        found[jobs] = tmp_path_factory.mktemp(f"jobs-{jobs}")
        Path(SQLite(found[jobs]).fresh()).rename(found[jobs] / "queue.db")
        made(found[jobs] / "queue.db", jobs)
    return found


@pytest.fixture(autouse=True)
def looking(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(access, "_rules", None)
    logging.getLogger("streamlit").setLevel(logging.ERROR)
    yield
    session._connect.cache_clear()


@pytest.mark.parametrize("name", RENDERED)
def test_as_fast_as_with_a_hundredth_of_the_jobs(
    name: str, folders: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One round of several will do: a busy machine spoils some, a page that looks at every job all."""
    ratios = []
    for _ in range(ROUNDS):
        few, many = _medians(folders, *RENDERED[name], monkeypatch)
        ratios.append(many / few)
        print(f"{name}: {few:.0f} ms with {FEW:,} jobs, {many:.0f} ms with {MANY:,}: {ratios[-1]:.2f}")
        if ratios[-1] < 1.5:
            break
    assert min(ratios) < 2


def _medians(
    folders: dict[int, Path], page: str, query: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> tuple[float, ...]:
    """Return the milliseconds that a page takes to be drawn for a new visitor, with few jobs and with many."""
    taken: dict[int, list[float]] = {jobs: [] for jobs in folders}
    for _ in range(RENDERS):
        for jobs, folder in folders.items():  # interleaved, so that a busy machine slows both
            monkeypatch.chdir(folder)
            asked = {key: str(jobs + int(value)) if value.startswith("-") else value for key, value in query.items()}
            began = time.perf_counter()
            visit = Visit(page, **asked)
            taken[jobs].append(1000 * (time.perf_counter() - began))
            assert not visit.at.error
    return tuple(statistics.median(times[1:]) for times in taken.values())
