"""A job's row: from what a caller asks for, and back to the value that a caller gets."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC
from functools import lru_cache
from itertools import groupby
from typing import Any

from .. import codec
from ..errors import ConfigError
from ..model import Job, JobStatus, NewJob, check_span, check_time
from ..settings import Settings
from .now import Now
from .schema import micros, time_of


@dataclass(frozen=True, slots=True)
class Run:
    """New jobs that differ in nothing but their items, or one with a unique key."""

    #: The columns that they share, as the database keeps them.
    shared: dict[str, Any]
    items: list[str]
    unique_key: str | None = None

    @property
    def queue(self) -> str:
        """The queue they go to."""
        return str(self.shared["queue"])


_shape = operator.attrgetter("queue", "task", "priority", "delay", "run_at", "max_attempts", "timeout", "unique_key")


def runs_of(new: Sequence[NewJob], settings: Settings, now: Now) -> list[Run]:
    """Return the jobs, checked and completed by the settings, in runs that one statement can insert.

    Raises:
        ConfigError: an option is not usable.
        PayloadError: an item cannot be kept.
    """
    runs: list[Run] = []
    for _, group in groupby(new, _shape):
        together = list(group)
        run = run_of([one.item for one in together], together[0], settings, now)
        runs += [run] if run.unique_key is None else [Run(run.shared, [item], run.unique_key) for item in run.items]
    return runs


def run_of(items: Sequence[str], shape: NewJob, settings: Settings, now: Now) -> Run:
    """Return the run of many items that share a shape; its own item counts for nothing.

    Raises:
        ConfigError: an option is not usable.
        PayloadError: an item cannot be kept.
    """
    shared = _shared(shape, settings, now)
    checked = codec.check_texts("an item", items, settings.queue_max_item_bytes)
    key = None if shape.unique_key is None else codec.check_text("a unique key", shape.unique_key, 255)
    return Run(shared, checked, key)


def _shared(new: NewJob, settings: Settings, now: Now) -> dict[str, Any]:
    if new.delay is not None and new.run_at is not None:
        raise ConfigError("give delay or run_at, not both")
    timeout = None if new.timeout is None else check_span("timeout", new.timeout)
    if timeout == 0:
        raise ConfigError("timeout is more than 0; None is no bound")
    run_at = now.micros
    if new.run_at is not None:
        check_time("run_at", new.run_at)
        run_at = micros(new.run_at.astimezone(UTC))
    elif new.delay is not None:
        run_at += round(check_span("delay", new.delay) * 1_000_000)
    attempts = codec.check_int("max_attempts", settings.max_attempts if new.max_attempts is None else new.max_attempts)
    if attempts < 1:
        raise ConfigError(f"max_attempts is at least 1, not {attempts}")
    return {
        "queue": codec.check_name("queue", new.queue),
        "task": new.task if new.task is None else codec.check_name("task", new.task),
        "priority": codec.check_int("priority", new.priority),
        "max_attempts": attempts,
        "timeout": timeout,
        "delayed": int(run_at > now.micros),
        "run_at": run_at,
        "created_at": now.micros,
    }


def jobs_of(rows: Sequence[Sequence[Any]], columns: Sequence[str], **known: Any) -> list[Job]:
    """Return the jobs whose ``columns`` are given, as the database keeps them; ``known`` holds for all of them."""
    common = dict.fromkeys(_NAMES)
    for name, kept in known.items():
        common[name] = _CONVERTERS[name](kept) if name in _CONVERTERS and kept is not None else kept
    special = [(name, _CONVERTERS[name]) for name in columns if name in _CONVERTERS]
    found = []
    for row in rows:
        # Past __init__, which calls object.__setattr__ for each of so many fields.
        job = object.__new__(Job)
        values = vars(job)
        values.update(common)
        values.update(zip(columns, row, strict=True))
        for name, convert in special:
            if values[name] is not None:
                values[name] = convert(values[name])
        found.append(job)
    return found


_NAMES = [field.name for field in fields(Job)]
_TIMES = [name for name in _NAMES if name.endswith("_at") or name == "lease_until"]
_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "status": JobStatus, "suspect": bool, "result": codec.loads,
    # Nearly all times of a batch are the same few.
    **dict.fromkeys(_TIMES, lru_cache(time_of)),
}  # fmt: skip
