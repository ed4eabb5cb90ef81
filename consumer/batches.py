"""``--batches``: a consumer that performs the items of batch files instead of jobs."""

import argparse
import logging
import signal

import persistq
from persistq.batch.source import BatchSource
from persistq.retry import Backoff
from persistq.worker import Loop, Threads

_log = logging.getLogger("persistq.consumer")


def consume(q: persistq.PersistentQSQLAlchemy, options: argparse.Namespace) -> int:
    """Perform items until told to stop and return the exit code. An item that fails for good becomes a failed job."""
    settings = q.settings
    if len(options.queue) > 1:
        raise persistq.ConfigError("a consumer of batches serves one queue; start another one for another queue")
    queue = options.queue[0] if options.queue else "default"

    def promote(job: persistq.NewJob, reason: str) -> None:
        job_id = q.enqueue_many([job.evolve(queue=queue)])[0]
        if q.get_job(job_id).status == persistq.PENDING:  # not a repeat of what a person has dealt with since
            q.mark_failed(job_id, reason)
        _log.warning("item %s failed for good and is job %d now: %s", job.unique_key, job_id, reason)

    source = BatchSource(
        settings.queue_spool_dir,
        queue,
        name=options.name,
        task=options.task,
        concurrency=options.concurrency,
        promote=promote,
        max_attempts=settings.max_attempts,
        backoff=Backoff(settings.queue_backoff_seconds, settings.queue_backoff_max_seconds),
        poll=settings.queue_poll_seconds,
        durability=settings.queue_durability,
        clock=q.clock,
    )
    loop = Loop(source, Threads(options.concurrency), grace=settings.queue_grace_seconds, drain=options.drain)

    def stop(*_: object) -> None:
        source.stop()
        loop.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    _log.info("%s serves batches of %s in %s", source.consumer, queue, settings.queue_spool_dir)
    code = loop.run()
    _log.info("%s leaves with exit code %d", source.consumer, code)
    return code
