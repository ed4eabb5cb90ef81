"""As many jobs as nobody wants to wait for, on SQLite."""

import time
from pathlib import Path

import persistq
from support.jobs import WORKER

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


def crowd(path: Path, jobs: int) -> None:
    """Make a queue with so many jobs, the newest a moment old, in every status and eight queues."""
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
