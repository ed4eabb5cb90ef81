"""persistq: a persistent job queue that starts as one SQLite file and ends as a fleet.

These names are the public door; scripts may rely on them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .clock import default_actor
    from .codec import dumps, loads
    from .errors import (
        ConfigError,
        DatabaseUnavailable,
        DuplicateJob,
        IllegalTransition,
        JobNotFound,
        LeaseLost,
        OutcomeUnknown,
        PayloadError,
        PermanentError,
        PersistQError,
        QueueFull,
        ReadOnly,
        SchemaMismatch,
        SchemaMissing,
        Snooze,
        UnknownStatus,
    )
    from .events import subscribe
    from .model import (
        ConsumerInfo,
        Done,
        Event,
        Exchanged,
        Failed,
        Found,
        Job,
        JobFilter,
        JobStatus,
        Minute,
        NewJob,
        QueueInfo,
        Released,
        Timing,
    )

    __version__: str
    from .interface import PersistentQInterface
    from .queue import PersistentQSQLAlchemy, connect, db_connect
    from .retry import Retry
    from .settings import Settings
    from .tasks import cancelled, current_job, task

    persistentQ = connect  # noqa: N816 - the seed document's name

    PENDING, PROCESSING, DONE, FAILED, CANCELLED = JobStatus

# Each is imported when it is first asked for: most programs need a few, and SQLAlchemy and pydantic, which some bring
# along, take longer to import than most commands take to run.
_HOMES = {
    "clock": "default_actor",
    "codec": "dumps loads",
    "errors": "ConfigError DatabaseUnavailable DuplicateJob IllegalTransition JobNotFound LeaseLost OutcomeUnknown "
    "PayloadError PermanentError PersistQError QueueFull ReadOnly SchemaMismatch SchemaMissing Snooze UnknownStatus",
    "events": "subscribe",
    "model": "ConsumerInfo Done Event Exchanged Failed Found Job JobFilter JobStatus Minute NewJob QueueInfo Released "
    "Timing",
    "interface": "PersistentQInterface",
    "queue": "PersistentQSQLAlchemy connect db_connect persistentQ",
    "retry": "Retry",
    "settings": "Settings",
    "tasks": "cancelled current_job task",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}
_STATUSES = ("PENDING", "PROCESSING", "DONE", "FAILED", "CANCELLED")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("persistq")
    if name in _STATUSES:
        value: Any = import_module(".model", __name__).JobStatus[name]
    elif name in _HOME_OF:
        home = import_module(f".{_HOME_OF[name]}", __name__)
        value = getattr(home, "connect" if name == "persistentQ" else name)
    elif name in _HOMES:
        return import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


__all__ = [
    "CANCELLED", "DONE", "FAILED", "PENDING", "PROCESSING", "ConfigError", "ConsumerInfo", "DatabaseUnavailable",
    "Done", "DuplicateJob", "Event", "Exchanged", "Failed", "Found", "IllegalTransition", "Job", "JobFilter",
    "JobNotFound", "JobStatus", "LeaseLost", "Minute", "NewJob", "OutcomeUnknown", "PayloadError", "PermanentError",
    "PersistQError", "PersistentQInterface", "PersistentQSQLAlchemy", "QueueFull", "QueueInfo", "ReadOnly",
    "Released", "Retry", "SchemaMismatch", "SchemaMissing", "Settings", "Snooze", "Timing", "UnknownStatus",
    "__version__", "cancelled", "connect", "current_job", "db_connect", "default_actor", "dumps", "loads",
    "persistentQ", "subscribe", "task",
]  # fmt: skip
