"""Logging: one event = one line, whatever the data."""

import io
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from .clock import SystemClock
from .errors import describe
from .events import subscribe
from .model import Done, Failed, Job, Released
from .text import shorten

_log = logging.getLogger("persistq")
_clock = SystemClock()

ROUTINE_LINES = 100
"""A second, for jobs that were simply done, and for batches; of more only the number is logged. The database knows
them all, and a line takes longer than claiming, performing and settling a short job."""


class _OneLine(logging.Formatter):
    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        """Return the record, its traceback included, as a single line."""
        return shorten(super().format(record), _LONGEST)


class _OneObject(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return the record, its traceback included, as one JSON object on one line."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "text": record.getMessage()[:_LONGEST],
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)[:_LONGEST]
        return json.dumps(line, default=str)  # ASCII only, so that nothing in the data steers a terminal


_LONGEST = 4000
_FORM = "%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s"


def configure(level: int = logging.INFO, *, stream: TextIO | None = None, as_json: bool = False) -> None:
    """Write the program's log to stdout, where supervisord collects it, and job events into it.

    ``as_json`` makes each line one JSON object with the fields ``at``, ``level``, ``logger`` and ``text``; lines
    of job events have those of the event besides.
    """
    out = sys.stdout if stream is None else stream
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(errors="backslashreplace")  # a line must not vanish where the stream is not UTF-8
    handler = logging.StreamHandler(out)
    handler.setFormatter(_OneObject() if as_json else _OneLine(_FORM, "%Y-%m-%dT%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    _log.setLevel(level)
    logging.raiseExceptions = False  # a full or rotated log disk must never fail a job
    subscribe(_observe, "worker.idle", *_LINES)


class _Quota:
    """Lets so many lines a second through and counts the others, which were ``what``. Threads share it."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._second = self._lines = self._more = 0

    def takes(self) -> bool:
        """Return whether one more line may be written."""
        second = int(_clock.monotonic())
        if second != self._second:
            self.sum_up()
        with self._lock:
            if second != self._second:
                self._second, self._lines = second, 0
            if self._lines < ROUTINE_LINES:
                self._lines += 1
                return True
            self._more += 1
            return False

    def sum_up(self) -> None:
        """Log how many lines were not written since the last time, if any."""
        with self._lock:
            more, self._more = self._more, 0
        if more:
            _log.info("%d more %s", more, self._what)


_quotas = {
    "job.performed": _Quota("jobs done"),
    "batch.ready": _Quota("batches ready"),
    "batch.consumed": _Quota("batches consumed"),
}


def _observe(name: str, fields: dict[str, Any]) -> None:
    quota = _quotas.get(name)
    if quota and _is_routine(fields.get("outcome")) and not quota.takes():
        return
    if name == "worker.idle":
        for quota in _quotas.values():
            quota.sum_up()
    if line := _LINES.get(name):
        level, text = line(fields)
        _log.log(level, "%s", text, extra={"fields": {"event": name, **_plain(fields)}})


def _is_routine(outcome: object) -> bool:
    return outcome is None or (type(outcome) is Done and outcome.dropped is None)


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of an event that a machine can use: of a job what names it, of the rest what is plain."""
    plain = {key: value for key, value in fields.items() if isinstance(value, (str, int, float)) or value is None}
    job = fields.get("job")
    if isinstance(job, Job):
        plain |= {"job": job.id, "queue": job.queue, "task": job.task, "attempt": job.attempts}
        plain |= {"outcome": type(fields["outcome"]).__name__.lower()} if "outcome" in fields else {}
    return plain


def _performed(fields: dict[str, Any]) -> tuple[int, str]:
    job, outcome, took = fields["job"], fields["outcome"], fields["seconds"]
    match outcome:
        case Done(dropped=None):
            return logging.INFO, f"{_name(job)} done in {took:.3f} s"
        case Done(dropped=reason):
            return logging.WARNING, f"{_name(job)} done in {took:.3f} s; its result was not kept: {reason}"
        case Failed(error=error):
            return logging.WARNING, f"{_name(job)} failed after {took:.3f} s, {describe(error)[0]}"
        case Released(delay=float() as delay):
            return logging.INFO, f"{_name(job)} snoozed for {delay:g} s"
        case Released():
            return logging.INFO, f"{_name(job)} released"
    return logging.INFO, f"{_name(job)} ended"


def _name(job: Job) -> str:
    return f"job {job.id} (attempt {job.attempts} of {job.max_attempts})"


def _file(fields: dict[str, Any]) -> str:
    return f"batch {Path(fields['path']).name}"


_WISHES = {"quiet": "claim no more", "stop": "finish and end", None: "go on"}
_LINES: dict[str, Callable[[dict[str, Any]], tuple[int, str]]] = {
    "job.performed": _performed,
    "job.lost": lambda f: (logging.WARNING, f"{_name(f['job'])} is no longer leased to this consumer"),
    "worker.unwritten": lambda f: (
        logging.ERROR,
        f"{_name(f['job'])} ended, but that could not be written: it comes again",
    ),
    "worker.outage": lambda f: (logging.ERROR, f"{f['error']} (failure {f['failures']}; trying again)"),
    "worker.recovered": lambda f: (logging.INFO, f"the database is back after {f['failures']} failures"),
    "worker.stopping": lambda f: (logging.INFO, f"stopping: {f['running']} jobs have {f['grace']:g} s to finish"),
    "worker.told": lambda f: (
        logging.WARNING,
        f"an operator told this consumer to {_WISHES[f['wish']]}",
    ),
    "worker.stuck": lambda f: (
        logging.ERROR,
        f"{f['threads']} handlers hang past their timeout; leaving for a restart",
    ),
    "batch.ready": lambda f: (logging.INFO, f"{_file(f)} is ready with {f['items']:,} items"),
    "batch.consumed": lambda f: (logging.INFO, f"{_file(f)} is consumed, all {f['items']:,} items"),
    "batch.released": lambda f: (logging.INFO, f"{_file(f)} is given back after {f['items']:,} items"),
    "batch.recovered": lambda f: (
        logging.WARNING,
        f"queue {f['queue']}: {f['ready']} batches that the dead left are ready again, {f['invalid']} are put aside",
    ),
    "batch.item_failed": lambda f: (logging.WARNING, f"{f['item']}: attempt {f['attempt']} failed, {f['error']}"),
    "batch.promoted": lambda f: (
        logging.WARNING,
        f"{f['item']} failed for good and is the job with the key {f['unique_key']} now, {f['error']}",
    ),
}
# Not batch.invalid: where a batch is put aside that is logged as an error, whoever listens to events.
