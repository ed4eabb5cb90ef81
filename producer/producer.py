"""``python -m producer.producer``: writes job files and enqueues them, one every INTERVAL_TIME seconds."""

import argparse
import logging
import secrets
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

import persistq
from persistq import jobfiles, logs
from persistq.batch import BatchWriter
from persistq.retry import Backoff

EXIT_CONFIG = 78
T = TypeVar("T")

_log = logging.getLogger("persistq.producer")


class Producer:
    """Makes jobs until stopped. A job that the database would not take is kept and offered again."""

    def __init__(self, settings: persistq.Settings, interval: float | None, *, batches: bool = False) -> None:
        self._fixed_interval = interval
        self._writes_batches = batches
        self._batches: BatchWriter | None = None
        self._orders: SimpleQueue[str] = SimpleQueue()
        self._stopped = False
        self._apply(settings)

    def order(self, word: str) -> None:
        """Take ``stop`` or ``reload``, also from a signal handler."""
        self._orders.put(word)

    def run(self, count: int | None) -> int:
        """Make ``count`` jobs, or jobs without end, and return how many were acknowledged."""
        made = 0
        while not self._stopped and (count is None or made < count):
            made += self._make()
            if count is None or made < count:
                self._rest(self._interval)
        return made

    def close(self) -> None:
        """Hand over what is still in hand."""
        if self._batches:
            self._batches.close()

    def _make(self) -> bool:
        """Write one file and enqueue it; return whether it was acknowledged before a stop."""
        if self._writes_batches:
            return self._make_in_batch()
        path = self._insist(self._write_file, f"no job file could be written in {self._settings.queue_job_dir}")
        # The path is its own unique key, so a call whose outcome is unknown can be repeated.
        job_id = path and self._insist(lambda: self._q.enqueue(path, unique_key=path), f"{path} was not enqueued yet")
        if job_id:
            _log.info("job %d: %s", job_id, path)
        return bool(job_id)

    def _make_in_batch(self) -> bool:
        """Write one file and add its path to a batch; return whether it was taken before a stop."""
        path = self._insist(self._write_file, f"no job file could be written in {self._settings.queue_job_dir}")
        return bool(path and self._insist(lambda: self._batch().add(path), f"{path} was not added yet"))

    def _batch(self) -> BatchWriter:
        if self._batches is None:
            settings = self._settings
            self._batches = BatchWriter(
                settings.queue_spool_dir,
                max_items=settings.queue_batch_items,
                max_age=settings.queue_batch_seconds,
                max_ready_files=settings.queue_batch_ready or None,
                on_full="raise",
                durability=settings.queue_durability,
                compression=settings.queue_batch_compression,
                max_item_bytes=settings.queue_max_item_bytes,
            )
        return self._batches

    def _write_file(self) -> str:
        return str(jobfiles.create(Path(self._settings.queue_job_dir), secrets.token_urlsafe(48) + "\n"))

    def _insist(self, act: Callable[[], T], trouble: str) -> T | None:
        """Return what ``act`` returns, trying again through any outage; None when told to stop meanwhile."""
        failures = 0
        while not self._stopped:
            try:
                return act()
            except (OSError, persistq.DatabaseUnavailable, persistq.OutcomeUnknown, persistq.QueueFull) as error:
                failures += 1
                _log.error("%s: %s (trying again)", trouble, error)
                self._rest(max(0.1, Backoff(base=0.2, cap=15).delay(failures)))
        return None

    def _rest(self, seconds: float) -> None:
        """Wait, unless an order comes or has come."""
        if self._stopped:
            return
        try:
            word = self._orders.get(timeout=seconds) if seconds else self._orders.get_nowait()
        except Empty:
            return
        if word == "stop":
            self._stopped = True
        else:
            self._reload()

    def _reload(self) -> None:
        old = self._q
        try:
            self._apply(persistq.Settings.load())
        except persistq.ConfigError as error:
            _log.error("the new settings are not used: %s", error)
        else:
            old.close()
            _log.info("settings read again: one job every %g s", self._interval)

    def _apply(self, settings: persistq.Settings) -> None:
        self._q = persistq.connect(settings=settings)
        self._settings = settings
        self._interval = settings.interval_time if self._fixed_interval is None else self._fixed_interval


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a producer and return the process's exit code."""
    options = _parser().parse_args(arguments)
    logs.configure()
    try:
        producer = Producer(persistq.Settings.load(), options.interval, batches=options.batches)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: producer.order("stop"))
        signal.signal(signal.SIGHUP, lambda *_: producer.order("reload"))
        made = producer.run(options.count)
        producer.close()
    except (persistq.ConfigError, persistq.SchemaMismatch) as error:
        print(error, file=sys.stderr)  # noqa: T201 - supervisord's stderr log
        return EXIT_CONFIG
    _log.info("stopped after %d jobs", made)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="producer",
        description="Write job files into QUEUE_JOB_DIR and enqueue them. SIGHUP reads .env again, SIGTERM ends.",
    )
    parser.add_argument("--interval", type=_seconds, metavar="S", help="seconds between two jobs (INTERVAL_TIME)")
    parser.add_argument(
        "--batches", action="store_true", help="hand the files over in batch files in QUEUE_SPOOL_DIR, not as jobs"
    )
    parser.add_argument("--count", type=int, metavar="N", help="end after N jobs")
    return parser


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < 86_400 * 366:
        raise argparse.ArgumentTypeError("0 or more seconds")
    return number


if __name__ == "__main__":
    sys.exit(main())
