"""One pass: recover, purge, prune, checkpoint; ``python -m persistq.maintenance`` repeats it."""

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from . import jobfiles, logs, metrics
from .errors import ConfigError, DatabaseUnavailable, OutcomeUnknown, QueueFull, SchemaMismatch
from .queue import PersistentQSQLAlchemy, connect

LOST_CONSUMER_SECONDS = 3600.0
"""A consumer not seen for this long is taken off the list."""

LEFT_FILE_SECONDS = 3600.0
"""A temporary file of this age belongs to a consumer that was killed."""

_log = logging.getLogger("persistq.maintenance")


@dataclass(frozen=True, slots=True)
class Report:
    """What one pass did."""

    recovered: int
    purged: int
    pruned: int


def run_once(q: PersistentQSQLAlchemy) -> Report:
    """Make one pass. Several processes may do so at once.

    Raises:
        DatabaseUnavailable, OutcomeUnknown: what was done stands; the next pass does the rest.
    """
    report = Report(
        recovered=q.recover(),
        purged=q.retire(),
        pruned=q.prune_consumers(LOST_CONSUMER_SECONDS),
    )
    q.fold_timings()
    q.database.tidy()
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a pass every QUEUE_RECOVERY_SECONDS until SIGTERM and return the exit code."""
    parser = argparse.ArgumentParser(prog="maintenance", description="Recover, purge and prune until told to stop.")
    parser.add_argument("--metrics-port", type=int, default=0, metavar="PORT",
                        help="show /metrics and /healthz on this port of 127.0.0.1")  # fmt: skip
    options = parser.parse_args(arguments)
    stop: SimpleQueue[None] = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.put(None))
    try:
        q = connect(actor="maintenance")
        logs.configure(as_json=q.settings.queue_log_format == "json")
        if options.metrics_port:
            metrics.serve(q, options.metrics_port)
        jobfiles.sweep(Path(q.settings.queue_job_dir), q.clock.now().timestamp() - LEFT_FILE_SECONDS)
        while True:
            _pass(q)
            try:
                stop.get(timeout=q.settings.queue_recovery_seconds)
            except Empty:
                continue
            return 0
    except (ConfigError, SchemaMismatch) as error:
        print(error, file=sys.stderr)  # noqa: T201 - supervisord's stderr log
        return 78


def _pass(q: PersistentQSQLAlchemy) -> None:
    try:
        report = run_once(q)
    except (DatabaseUnavailable, OutcomeUnknown, QueueFull, OSError) as error:
        _log.error("%s (trying again)", error)
        return
    if report != Report(0, 0, 0):
        _log.info("recovered %d, purged %d, pruned %d consumers", report.recovered, report.purged, report.pruned)


if __name__ == "__main__":
    sys.exit(main())
