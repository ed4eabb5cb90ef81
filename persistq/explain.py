"""explain(): why a job does not run, from what the database knows; pure."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from .clock import name_of
from .model import ConsumerInfo, Job, JobStatus, jsonable


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One thing that keeps a job from running, or that one should know about it."""

    #: A word that scripts can rely on, such as ``queue_paused``.
    code: str
    text: str
    #: What to do about it; empty when nothing has to be done.
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a job is where it is. The first reason is the blocker; the others would stand in the way after it."""

    job_id: int
    status: str
    reasons: tuple[Reason, ...]

    @property
    def blocker(self) -> Reason:
        """The reason that counts."""
        return self.reasons[0]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return jsonable(self)

    def lines(self) -> list[str]:
        """Return it as every window prints it."""
        lines = [f"Job {self.job_id} is {self.status}."]
        for reason in self.reasons:
            lines += [reason.text, *([f"  -> {reason.fix}"] if reason.fix else [])]
        return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the database knows about a job and its surroundings, read in one transaction."""

    job: Job
    #: The time that judges leases and what is due; and the time that consumers tell of themselves by.
    now: datetime
    wall: datetime
    paused_at: datetime | None
    consumers: Sequence[ConsumerInfo]
    #: Ready jobs of the queue that come first, counted up to ``MOST_AHEAD``.
    ahead: int


MOST_AHEAD = 10_000


def explain(facts: Facts) -> Explanation:
    """Return why the job is not running, or what it is doing."""
    reasons = tuple(_REASONS[facts.job.status](facts))
    return Explanation(job_id=facts.job.id, status=str(facts.job.status), reasons=reasons)


def _pending(facts: Facts) -> Iterator[Reason]:
    found = [reason for check in _OBSTACLES for reason in check(facts)]
    yield from found or _in_line(facts)
    if facts.job.unique_key is not None:
        yield Reason(
            code="unique_key",
            text=f"It holds the unique key {facts.job.unique_key!r}: whoever enqueues that again in queue "
            f"{facts.job.queue} is given this job.",
        )


def _paused(facts: Facts) -> Iterator[Reason]:
    if facts.paused_at is not None:
        yield Reason(
            code="queue_paused",
            text=f"Queue {facts.job.queue} has been paused since {_at(facts.paused_at)}.",
            fix=f"persistq queues resume {facts.job.queue}",
        )


def _not_due(facts: Facts) -> Iterator[Reason]:
    job = facts.job
    if job.run_at <= facts.now:
        return
    when = f"{_at(job.run_at)}, in {_span(job.run_at - facts.now)}"
    if job.attempts:
        why = f" ({job.error})" if job.error else ""
        yield Reason(
            code="backing_off",
            text=f"Attempt {job.attempts} of {job.max_attempts} did not succeed{why}; it comes again at {when}.",
            fix=f"persistq edit-job {job.id} --run-at now",
        )
    else:
        yield Reason(
            code="not_due", text=f"It is not to run before {when}.", fix=f"persistq edit-job {job.id} --run-at now"
        )


def _assigned(facts: Facts) -> Iterator[Reason]:
    wanted = facts.job.assigned_to
    if wanted is None:
        return
    alive = [info for info in _alive(facts) if wanted in (info.id, info.name)]
    if alive:
        yield from _serving(facts, alive, f"It is reserved for consumer {wanted}, which")
        return
    seen = max((info.seen_at for info in facts.consumers if wanted in (info.id, info.name)), default=None)
    last = f"was last seen {_span(facts.wall - seen)} ago" if seen else "is not on the list of consumers"
    yield Reason(
        code="assigned_consumer_gone",
        text=f"It is reserved for consumer {wanted}, which {last}.",
        fix=f"start it: persistq consumer --name {name_of(wanted)}; or reserve the job for another: "
        f"persistq assign-job {facts.job.id} NAME",
    )


def _nobody(facts: Facts) -> Iterator[Reason]:
    if facts.job.assigned_to is not None:
        return
    alive = _alive(facts)
    if not alive:
        lost = f"; {len(facts.consumers)} on the list are silent" if facts.consumers else ""
        yield Reason(code="no_consumer", text=f"No consumer is alive{lost}.", fix="persistq consumer, or persistq up")
        return
    yield from _serving(facts, alive, f"Of {len(alive)} live consumers, none")


def _serving(facts: Facts, alive: Sequence[ConsumerInfo], who: str) -> Iterator[Reason]:
    """Yield what keeps all of these consumers from taking the job."""
    job = facts.job
    serving = [info for info in alive if not info.queues or job.queue in info.queues]
    if not serving:
        yield Reason(
            code="queue_not_served",
            text=f"{who} {'serves' if who.endswith('none') else 'does not serve'} queue {job.queue}.",
            fix=f"persistq consumer --queue {job.queue}",
        )
        return
    awake = [info for info in serving if info.wish is None]
    if not awake:
        yield Reason(
            code="consumers_quiet",
            text=f"Every consumer that could take it was told to be quiet or to stop: {_names(serving)}.",
            fix=f"persistq consumers resume {serving[0].name}",
        )
        return
    able = [info for info in awake if job.task is None or info.tasks is None or job.task in info.tasks]
    if not able:
        yield Reason(
            code="task_unknown",
            text=f"No live consumer of queue {job.queue} has the task {job.task}; one that took it would fail it.",
            fix="start a consumer with the task's module: persistq consumer --app MODULE",
        )


def _in_line(facts: Facts) -> Iterator[Reason]:
    """Yield what a job waits for that nothing keeps from running."""
    job = facts.job
    able = [info for info in _alive(facts) if (not info.queues or job.queue in info.queues) and info.wish is None]
    if job.suspect and all(info.running for info in able):
        yield Reason(
            code="suspect_waits",
            text="Its last consumer died holding it, so it is performed with nothing beside it, and every consumer "
            "is busy now.",
        )
        return
    busy = able and all(info.running >= info.concurrency for info in able)
    many = f"{MOST_AHEAD:,} or more" if facts.ahead >= MOST_AHEAD else f"{facts.ahead:,}"
    if facts.ahead or busy:
        line = f"{many} jobs of queue {job.queue} come first" if facts.ahead else "It is next in line"
        state = "every consumer is busy" if busy else "consumers are at work"
        yield Reason(
            code="in_line",
            text=f"{line}, and {state}: {_names(able)}.",
            fix=f"more consumers; or persistq edit-job {job.id} --priority {job.priority + 1}" if facts.ahead else "",
        )
        return
    yield Reason(code="due", text="Nothing keeps it: it is next in line and due, and will be taken within seconds.")


def _processing(facts: Facts) -> Iterator[Reason]:
    job = facts.job
    until = job.lease_until
    if until is not None and until <= facts.now:
        yield Reason(
            code="lease_expired",
            text=f"The lease of {job.consumer_id} ended at {_at(until)}, {_span(facts.now - until)} ago, and nobody "
            "has taken the job back.",
            fix="start a consumer or python -m persistq.maintenance: either takes it back",
        )
        return
    holder = next((info for info in facts.consumers if info.id == job.consumer_id), None)
    held = f"{job.consumer_id} holds it, attempt {job.attempts} of {job.max_attempts}"
    started = f", for {_span(facts.now - job.started_at)} now" if job.started_at else ""
    lease = f"; its lease lasts until {_at(until)}, for {_span(until - facts.now)}" if until else ""
    if holder is not None and not holder.is_alive(facts.wall):
        yield Reason(
            code="holder_silent",
            text=f"{held}{started}{lease}, but was last seen {_span(facts.wall - holder.seen_at)} ago.",
            fix=f"wait for the lease to end, or persistq release {job.id}",
        )
        return
    yield Reason(code="running", text=f"{held}{started}{lease}.")


def _failed(facts: Facts) -> Iterator[Reason]:
    job = facts.job
    error = f": {job.error}" if job.error else ""
    when = f" at {_at(job.finished_at)}" if job.finished_at else ""
    fix = f"persistq resubmit {job.id}"
    if job.attempts >= job.max_attempts:
        yield Reason(
            code="attempts_spent",
            text=f"All {job.max_attempts} attempts are spent; the last one ended{when}{error}.",
            fix=fix,
        )
    else:
        yield Reason(
            code="given_up",
            text=f"It was given up{when} after {job.attempts} of {job.max_attempts} attempts{error}.",
            fix=fix,
        )


def _over(facts: Facts) -> Iterator[Reason]:
    job = facts.job
    when = f" at {_at(job.finished_at)}" if job.finished_at else ""
    if job.status is JobStatus.CANCELLED:
        yield Reason(code="cancelled", text=f"It was called off{when}.", fix=f"persistq resubmit {job.id}")
    else:
        yield Reason(code="done", text=f"It was done{when}, by {job.consumer_id} in attempt {job.attempts}.")


def _alive(facts: Facts) -> list[ConsumerInfo]:
    return [info for info in facts.consumers if info.is_alive(facts.wall)]


def _names(consumers: Sequence[ConsumerInfo]) -> str:
    shown = [f"{info.name} ({info.running} of {info.concurrency} running)" for info in consumers[:5]]
    return ", ".join(shown) + (f" and {len(consumers) - 5} more" if len(consumers) > 5 else "")


def _at(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def _span(span: timedelta) -> str:
    left = max(0, round(span.total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if left >= 2 * length:
            return f"{left / length:.0f} {unit}"
    return f"{left} s"


_OBSTACLES: tuple[Callable[[Facts], Iterator[Reason]], ...] = (_paused, _not_due, _assigned, _nobody)
_REASONS: dict[JobStatus, Callable[[Facts], Iterator[Reason]]] = {
    JobStatus.PENDING: _pending,
    JobStatus.PROCESSING: _processing,
    JobStatus.FAILED: _failed,
    JobStatus.CANCELLED: _over,
    JobStatus.DONE: _over,
}
