"""PersistQError and its children; the docstring is the message."""

import traceback

from .clock import Seconds


class PersistQError(Exception):
    """persistq could not do what was asked."""

    def __init__(self, detail: str = "") -> None:
        summary = (type(self).__doc__ or "").partition("\n")[0].rstrip(".")
        super().__init__(f"{summary}: {detail}" if detail else f"{summary}.")


class ConfigError(PersistQError):
    """A setting, an option or a name is not usable."""


class PayloadError(PersistQError):
    """This value cannot be kept in a job."""


class UnknownStatus(PersistQError, ValueError):
    """There is no such job status."""


class JobNotFound(PersistQError):
    """There is no such job."""


class IllegalTransition(PersistQError):
    """The job's status does not allow this."""


class ReadOnly(PersistQError):
    """This is for looking only, and nothing was written."""


class LeaseLost(PersistQError):
    """The lease is no longer held, so nothing was written for this job.

    Someone took the job back, cancelled it or finished it meanwhile. What the handler did outside
    the queue stands beside what the new holder does: handlers have to bear being run twice.
    """


class DuplicateJob(PersistQError):
    """A job with this unique key exists already."""

    def __init__(self, detail: str = "", job_id: int = 0) -> None:
        super().__init__(detail)
        self.job_id = job_id


class QueueFull(PersistQError):
    """The queue takes no more jobs now, and nothing was written."""


class DiskFull(QueueFull):
    """The disk is full, and nothing was written."""


class OutcomeUnknown(PersistQError):
    """The commit was cut off, so the database may or may not have kept it.

    Repeat the same call: with a unique key an enqueue gives one job, and a settled job stays settled.
    """


class DatabaseUnavailable(PersistQError):
    """The database cannot be used now, and nothing was written."""


class SchemaMismatch(PersistQError):
    """The database's schema is not the one this version works with."""


class SchemaMissing(SchemaMismatch, DatabaseUnavailable):
    """The database's schema is not there yet."""


class PermanentError(PersistQError):
    """A handler raises this to fail its job for good, without another attempt."""


class Snooze(Exception):
    """A handler raises this to have its job come back after ``delay``, without an attempt being spent.

    For what is nobody's fault: the other side says "later", a lock is taken, the file is not there yet.
    """

    def __init__(self, delay: Seconds) -> None:
        super().__init__(delay)
        #: Seconds, or a timedelta.
        self.delay = delay


def describe(error: BaseException | str) -> tuple[str, str | None]:
    """Return one line that names an error, and its traceback when it has one."""
    if isinstance(error, str):
        return " ".join(error.split()) or "no reason given", None
    try:
        text = " ".join(str(error).split())
        trace = "".join(traceback.format_exception(error)) if error.__traceback__ else None
    except Exception:  # noqa: BLE001 - a handler's exception may fail at anything, even at being printed
        text, trace = "it cannot be printed", None
    return f"{type(error).__name__}: {text}" if text else type(error).__name__, trace
