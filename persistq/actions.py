"""The frozen values of the operator service: an action, its preview, its progress, its line in the audit log."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Self

from . import codec
from .errors import ConfigError
from .model import TERMINAL, Job, JobFilter, JobStatus, check_time, jsonable
from .states import TRANSITIONS

VIAS = ("cli", "tui", "dashboard", "supervisor", "maintenance")
"""The windows that an actor may name, as in ``cli:user@host``; any other actor is a program with the library."""

_OPTIONS: dict[str, set[str]] = {
    "resubmit": {"force"},
    "cancel": set(),
    "mark_failed": set(),
    "assign": {"consumer"},
    "release": set(),
    "edit": {"priority", "run_at"},
    "delete": {"force"},
}
"""What an operator can do to jobs, and which options each takes besides a reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What is to be done to jobs. Make one with ``Action.of``."""

    verb: str
    #: Why; kept in each job's history and in the audit log.
    reason: str | None = None
    #: To resubmit jobs that are done as well, to delete those that run as well.
    force: bool = False
    consumer: str | None = None
    priority: int | None = None
    run_at: datetime | None = None

    @classmethod
    def of(cls, verb: str, **options: Any) -> Self:
        """Return an action whose options are checked.

        Raises:
            ConfigError: there is no such action, it takes no such option, or one is not usable.
            PayloadError: the consumer's name cannot be kept.
        """
        if verb not in _OPTIONS:
            raise ConfigError(f"there is no action {verb!r:.40}; known: {', '.join(_OPTIONS)}")
        given = {name: value for name, value in options.items() if value is not None}
        if unknown := given.keys() - _OPTIONS[verb] - {"reason"}:
            raise ConfigError(f"{verb} takes no {', '.join(sorted(unknown))}")
        if "reason" in given:
            given["reason"] = codec.storable(str(given["reason"])) or None
        if verb == "assign":
            codec.check_text("a consumer", given.get("consumer"), 255)
        if "priority" in given:
            codec.check_int("priority", given["priority"])
        if "run_at" in given:
            check_time("run_at", given["run_at"])
        if verb == "edit" and not given.keys() - {"reason"}:
            raise ConfigError("edit changes priority or run_at; give one of them")
        return cls(verb=verb, **given)

    @property
    def event(self) -> str | None:
        """The move of ``states.py`` that it makes, if it makes one."""
        if self.verb == "resubmit" and self.force:
            return "force_resubmit"
        return self.verb if self.verb in TRANSITIONS else None

    @property
    def sources(self) -> frozenset[JobStatus]:
        """The statuses that a job may have for this."""
        if self.event is not None:
            return TRANSITIONS[self.event].sources
        if self.verb == "edit":
            return frozenset({JobStatus.PENDING})
        return frozenset(JobStatus) if self.force else frozenset({*TERMINAL, JobStatus.PENDING})

    def meant(self, which: JobFilter) -> JobFilter | None:
        """Return the filter of the jobs that this can be done to, or None when it is for none of them.

        To resubmit everything means what has failed: what a person called off stays so unless it is named.
        """
        wanted = set(which.status) or ({JobStatus.FAILED} if self.verb == "resubmit" else set(JobStatus))
        if which.crashed:
            wanted = {JobStatus.PENDING}
        status = tuple(sorted(wanted & self.sources))
        return replace(which, status=status) if status else None

    def refusal(self, job_id: int, status: JobStatus) -> str:
        """Return why this cannot be done to a job of that status."""
        legal = ", ".join(sorted(self.sources))
        return f"job {job_id} is {status}; '{self.event or self.verb}' is for {legal} jobs"

    def to_dict(self) -> dict[str, Any]:
        """Return its options as JSON values; the verb and the reason stand apart."""
        return {name: value for name, value in jsonable(self).items() if name in _OPTIONS[self.verb] and _is_set(value)}

    @classmethod
    def from_dict(cls, verb: str, found: Mapping[str, Any], reason: str | None) -> Self:
        """Return the action whose options ``to_dict`` returned."""
        options = {name: found[name] for name in _OPTIONS[verb] if name in found}
        if "run_at" in options:
            options["run_at"] = datetime.fromisoformat(options["run_at"])
        return cls(verb=verb, reason=reason, **options)


def _is_set(value: object) -> bool:
    return value is not None and value is not False


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The jobs that an action is for, as they stood at one moment. Only these will be touched, and only unchanged."""

    action: Action
    #: The filter; None when ids were given.
    which: JobFilter | None
    #: The newest job that existed then, and the moment.
    cutoff: int
    at: datetime
    #: Ids, and the fence that each job had: it grows with every move that is not its holder's own.
    ids: tuple[int, ...] = field(repr=False)
    fences: tuple[int, ...] = field(repr=False)
    by_queue: dict[str, int]
    by_status: dict[str, int]
    samples: tuple[Job, ...]
    #: Ids that were given and that no job has.
    missing: tuple[int, ...] = ()
    #: What the operation has done before, when this is the rest of one that was cut off.
    so_far: "Progress | None" = None

    @property
    def count(self) -> int:
        """How many jobs there are."""
        return len(self.ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A job that was left as it is, and why."""

    id: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a bulk action has come."""

    #: Its number in the audit log; 0 when there was nothing to do.
    operation: int
    #: Jobs of the preview that have been looked at.
    place: int = 0
    changed: int = 0
    refused: int = 0
    #: The last job's id.
    cursor: int = 0
    #: Of the last step: what was changed, and what was left as it is.
    changed_ids: tuple[int, ...] = ()
    refusals: tuple[Refused, ...] = ()
    #: Whether nothing is left to do.
    over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One decision in the audit log."""

    id: int
    at: datetime
    #: ``user@host`` or a program's name.
    actor: str
    #: The kind of program: ``cli``, ``tui``, ``dashboard``, ``supervisor``, ``maintenance``, ``library``.
    via: str
    #: The machine that it was made on.
    host: str
    action: str
    reason: str | None
    #: The options, and the ids or the filter with its bounds.
    scope: dict[str, Any]
    #: ``matched``, ``changed``, ``refused``, as far as they apply.
    counts: dict[str, Any]
    #: When it was over; None when it was cut off, or goes on.
    finished_at: datetime | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values, times in ISO 8601."""
        return jsonable(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorGroup:
    """Failures that look alike."""

    #: The error's class, or the first words of one that is no exception.
    error: str
    #: The message, numbers and the like replaced by ``#``.
    message: str
    queue: str
    task: str | None
    count: int
    #: The newest job of the group.
    newest_id: int
    newest_at: datetime | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values, times in ISO 8601."""
        return jsonable(self)
