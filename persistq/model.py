"""The frozen values that the library hands out or takes; no I/O."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from .clock import LONGEST_SPAN, Seconds, seconds
from .errors import ConfigError, UnknownStatus

CRASHED = "crashed"
"""A filter, not a status: pending jobs that have been delivered before."""


ALIVE_SECONDS = 30.0
"""A consumer says every few seconds that it lives; silent for this long, it is taken for lost."""


class JobStatus(StrEnum):
    """Where a job stands. ``docs/states.md`` draws how it gets from one to the next."""

    PENDING = "pending"
    PROCESSING = "processing"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @classmethod
    def parse(cls, word: str) -> Self:
        """Return the status that a word of any of our vocabularies means.

        Raises:
            UnknownStatus: no vocabulary has the word.
        """
        plain = word.strip().lower().replace(" ", "_").replace("-", "_")
        try:
            return cls(_ALIASES.get(plain, plain))
        except ValueError:
            known = ", ".join([*cls, CRASHED, *_ALIASES])
            raise UnknownStatus(f"{word!r}; known words are {known}") from None


_ALIASES = {
    "unprocessed": "pending",
    "queued": "pending",
    "ready": "pending",
    "under_process": "processing",
    "running": "processing",
    "processed": "done",
    "completed": "done",
    "manual_intervention": "failed",
    "dead": "failed",
    "canceled": "cancelled",
}

TERMINAL = frozenset({JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED})
"""The statuses that a job leaves only when a person asks for it."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job as it stood when it was read. Times are UTC-aware."""

    id: int
    #: Queue it waits in.
    queue: str
    #: Registered task that performs it; None for a plain item.
    task: str | None
    #: The opaque string that was enqueued; JSON arguments when there is a task.
    item: str
    status: JobStatus
    #: Higher comes first.
    priority: int
    #: Deliveries so far in this budget; counted before the handler starts.
    attempts: int
    max_attempts: int
    #: Seconds one attempt may take; None is no bound.
    timeout: float | None
    #: Grows with every delivery and every intervention; a lease holds only with the newest.
    fence: int
    #: Consumer that holds the lease, or held it when the job ended.
    consumer_id: str | None
    #: Only this consumer (id or name) may claim the job.
    assigned_to: str | None
    #: Not before this time.
    run_at: datetime
    lease_until: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    #: The last attempt's error, one line.
    error: str | None
    result: Any
    unique_key: str | None
    #: Its last consumer died holding it, so it is performed with nothing beside it.
    suspect: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values, times in ISO 8601."""
        return jsonable(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to be enqueued; what is None takes the queue's default."""

    item: str
    task: str | None = None
    queue: str = "default"
    priority: int = 0
    delay: Seconds | None = None
    run_at: datetime | None = None
    max_attempts: int | None = None
    timeout: Seconds | None = None
    unique_key: str | None = None

    def evolve(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Done:
    """The outcome of an attempt that succeeded. ``result`` is any JSON value."""

    job: Job
    result: Any = None
    #: Why the handler's return value was not kept, when it was not.
    dropped: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The outcome of an attempt that did not succeed.

    The job comes back after ``delay`` (None: the back-off), unless ``permanent`` or out of attempts.
    """

    job: Job
    error: BaseException | str = ""
    permanent: bool = False
    delay: Seconds | None = None


@dataclass(frozen=True, slots=True)
class Released:
    """The outcome of an attempt that was given back: it did not count, and the job is pending again.

    It comes back after ``delay`` (None: at once).
    """

    job: Job
    delay: Seconds | None = None
    #: Why, in a word such as ``snoozed``, for the job's history.
    reason: str | None = None


Outcome = Done | Failed | Released


class Exchanged(list[Job]):
    """The jobs claimed by an exchange, with what became of the leases that were presented."""

    def __init__(self, claimed: Iterable[Job] = (), renewed: Sequence[Job] = (), lost: Sequence[Job] = ()) -> None:
        super().__init__(claimed)
        #: The jobs of ``renew`` with their new leases.
        self.renewed = list(renewed)
        #: The jobs of ``settled`` and ``renew`` whose lease was no longer held.
        self.lost = list(lost)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs are meant. Every field narrows; the default means all."""

    status: tuple[JobStatus, ...] = ()
    #: Only jobs delivered before and pending again.
    crashed: bool = False
    queue: str | None = None
    task: str | None = None
    #: Holds, held or is assigned the job: a consumer's id or name.
    consumer: str | None = None
    #: Part of the item.
    item: str | None = None
    #: Part of the error.
    error: str | None = None
    #: Created at or after.
    since: datetime | None = None
    #: Created before.
    until: datetime | None = None

    @classmethod
    def of(cls, status: str | Iterable[str] | None = None, **fields: Any) -> Self:
        """Return a filter from words of any vocabulary, ``crashed`` among them.

        Raises:
            UnknownStatus: no vocabulary has the word.
        """
        words = [status] if isinstance(status, str) else list(status or ())
        crashed = [word for word in words if word.strip().lower() == CRASHED]
        if crashed and len(words) > 1:
            raise UnknownStatus("'crashed' stands alone: it means pending jobs that were delivered before")
        for name in ("since", "until"):
            if fields.get(name) is not None:
                check_time(name, fields[name])
        statuses = tuple(JobStatus.parse(word) for word in words if word not in crashed)
        unknown = fields.keys() - cls.__dataclass_fields__.keys()
        if unknown:
            raise ConfigError(f"there is no filter {', '.join(sorted(unknown))}")
        return cls(status=statuses, crashed=bool(crashed), **fields)

    def to_dict(self) -> dict[str, Any]:
        """Return what narrows, as JSON values."""
        return {name: value for name, value in jsonable(self).items() if value}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Return the filter that ``to_dict`` made this of."""
        times = {name: datetime.fromisoformat(fields[name]) for name in ("since", "until") if name in fields}
        status = tuple(JobStatus(word) for word in fields.get("status", ()))
        return cls(**{**fields, **times, "status": status})


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A page of jobs, and how far was looked for it."""

    jobs: list[Job]
    #: Whether another job that matches is known to follow.
    more: bool
    #: The last id that was looked at, where the next page begins; None when nothing is left to look at.
    edge: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of a job's history."""

    at: datetime
    kind: str
    #: Consumer or person that did it.
    actor: str | None
    attempt: int | None
    detail: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values, times in ISO 8601."""
        return jsonable(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerInfo:
    """What a consumer last said of itself. For eyes only: recovery never needs it."""

    id: str
    name: str
    host: str
    pid: int
    #: Queues it serves; empty means all.
    queues: tuple[str, ...]
    concurrency: int
    running: int
    started_at: datetime
    seen_at: datetime
    #: Tasks it can perform; None when it did not say.
    tasks: tuple[str, ...] | None = None
    #: What an operator wants of it: ``quiet`` is to claim no more, ``stop`` to finish and end.
    wish: str | None = None

    def is_alive(self, now: datetime) -> bool:
        """Return whether it has given a sign of life lately."""
        return (now - self.seen_at).total_seconds() < ALIVE_SECONDS

    def evolve(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values, times in ISO 8601."""
        return jsonable(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueInfo:
    """One queue at a glance."""

    name: str
    paused: bool
    counts: dict[str, int]
    #: When the job that is next in line became due; None when none waits.
    waiting_since: datetime | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values, times in ISO 8601."""
        return jsonable(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How the attempts of one task in one queue went within a span of time."""

    queue: str
    #: None for plain items.
    task: str | None
    #: Attempts that succeeded, and that did not.
    done: int
    failed: int
    #: Both, a second.
    per_second: float
    #: Seconds from being due to the start, and from the start to the end: ``p50``, ``p95``, ``p99``, within an eighth.
    wait: dict[str, float]
    run: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return jsonable(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Minute:
    """How many attempts ended within one minute."""

    #: When it began.
    at: datetime
    done: int
    failed: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values, times in ISO 8601."""
        return jsonable(self)


def check_time(name: str, value: object) -> None:
    """Return when ``value`` is a time that says which zone it means.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ConfigError(f"{name} is a datetime with a time zone, such as datetime.now(UTC) gives, not {value!r:.40}")


def check_span(name: str, span: object) -> float:
    """Return a span of time in seconds.

    Raises:
        ConfigError: it is no number or timedelta, negative, NaN, or more than a century.
    """
    try:
        length = math.nan if isinstance(span, bool | str) else seconds(span)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        length = math.nan
    if 0 <= length <= LONGEST_SPAN:
        return length
    raise ConfigError(f"{name} is 0 to a century, in seconds or as a timedelta, not {shown(span)}")


def shown(value: object) -> str:
    """Return the beginning of what ``repr`` says of any value, such as a handler's, which may fail even at that."""
    try:
        return f"{value!r:.40}"
    except Exception:  # noqa: BLE001
        return f"this {type(value).__name__}"


def jsonable(value: Any) -> dict[str, Any]:
    """Return a frozen value's fields as JSON values, times in ISO 8601."""
    plain = asdict(value)
    return {key: item.isoformat() if isinstance(item, datetime) else item for key, item in plain.items()}
