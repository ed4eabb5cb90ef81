"""The transition table: which status may follow which, by whose act."""

from dataclasses import dataclass

from .model import JobStatus

PENDING, PROCESSING, DONE, FAILED, CANCELLED = JobStatus


@dataclass(frozen=True, slots=True)
class Transition:
    """One legal move of a job."""

    sources: frozenset[JobStatus]
    target: JobStatus
    #: What it is for, as docs/states.md prints it.
    meaning: str


def _from(*sources: JobStatus, to: JobStatus, meaning: str) -> Transition:
    return Transition(frozenset(sources), to, meaning)


TRANSITIONS: dict[str, Transition] = {
    "claim": _from(PENDING, to=PROCESSING, meaning="a consumer takes it: attempts + 1"),
    "complete": _from(PROCESSING, to=DONE, meaning="the handler returned"),
    "crash": _from(PROCESSING, to=PENDING, meaning="error, timeout or dead consumer, with attempts left"),
    "release": _from(PROCESSING, to=PENDING, meaning="given back unperformed: attempts - 1"),
    "fail": _from(PROCESSING, to=FAILED, meaning="attempts spent, or a permanent error"),
    "mark_failed": _from(PENDING, PROCESSING, to=FAILED, meaning="a person gives it up"),
    "cancel": _from(PENDING, PROCESSING, to=CANCELLED, meaning="a person calls it off"),
    "assign": _from(PENDING, PROCESSING, to=PENDING, meaning="a person reserves it for one consumer"),
    "resubmit": _from(FAILED, CANCELLED, to=PENDING, meaning="a person gives it a new budget"),
    "force_resubmit": _from(FAILED, CANCELLED, DONE, to=PENDING, meaning="the same, done work included"),
}
"""Every move there is. ``storage.jobs.transition()`` makes its guarded UPDATE from a row of this table.

A move made by the lease's holder is guarded by its fence. Every other move raises the fence, so that
the holder, should there be one, is refused from then on.
"""


def allowed(event: str, status: JobStatus) -> bool:
    """Return whether a job in this status may make the move."""
    return status in TRANSITIONS[event].sources


def mermaid() -> str:
    """Return the machine as a Mermaid state diagram."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for event, move in TRANSITIONS.items():
        for source in sorted(move.sources):
            arrows.setdefault((source, move.target), []).append(event)
    lines = ["stateDiagram-v2", "    [*] --> pending : enqueue"]
    lines += [f"    {source} --> {target} : {', '.join(events)}" for (source, target), events in arrows.items()]
    lines += [f"    {status} --> [*] : purge, delete" for status in (DONE, FAILED, CANCELLED)]
    return "\n".join(lines)


def table() -> str:
    """Return the machine as a Markdown table: what each event does in each status."""
    head = "| event | " + " | ".join(JobStatus) + " | meaning |\n" + "|---" * (len(JobStatus) + 2) + "|"
    rows = [
        f"| `{event}` | "
        + " | ".join(f"→ {move.target}" if status in move.sources else "refused" for status in JobStatus)
        + f" | {move.meaning} |"
        for event, move in TRANSITIONS.items()
    ]
    return "\n".join([head, *rows])
