"""Job: one job with everything that is known of it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import persistq
from persistq import spans
from persistq.explain import Explanation
from persistq.text import HIDDEN

from ..pane import TextPane
from ..poller import Queue, Seen
from ..widgets import Line, fit, join, wrap

_LABEL = 14
_HEAD = ("id", "status", "queue", "task", "item")


@dataclass(frozen=True)
class Known:
    """A job, its history, and why it is where it is; of a job that is gone, nothing."""

    job: persistq.Job | None = None
    events: list[persistq.Event] = field(default_factory=list)
    explanation: Explanation | None = None


@dataclass(frozen=True)
class JobLook:
    """One job."""

    id: int | None

    def read(self, q: Queue) -> Known:
        """Return what is known of it."""
        if self.id is None:
            return Known()
        try:
            return Known(q.get_job(self.id), q.events(self.id), q.explain(self.id))
        except persistq.JobNotFound:
            return Known()


class JobPane(TextPane):
    """One job: why it is where it is, its fields, its attempts."""

    name, title, key = "job", "Job", "3"

    def __init__(self) -> None:
        super().__init__()
        self.id: int | None = None

    def look(self) -> JobLook:
        """Return what the poller is to look at."""
        return JobLook(self.id)

    def show(self, job_id: int | None) -> None:
        """Show another job."""
        if job_id != self.id:
            self.id, self.seen = job_id, None
            self.to(0)

    @property
    def job(self) -> persistq.Job | None:
        """The job that is shown, as it was last seen."""
        return None if self.seen is None else self.seen.data.job

    def _seen_of(self, job: persistq.Job) -> persistq.Job:
        """Return as much of a job as may be shown."""
        if not self.hides_items:
            return job
        return replace(job, item=HIDDEN, result=None if job.result is None else HIDDEN)

    def build(self, seen: Seen, width: int, now: datetime) -> list[Line]:
        """Return every line."""
        known: Known = seen.data
        if known.job is None:
            text = " no job is chosen: Enter on one, or :show-job ID" if self.id is None else f" job {self.id} is gone"
            return [join([("class:warn", text)], width)]
        lines = [
            join([("class:name", f" Job {known.job.id}  "), (f"class:{known.job.status}", known.job.status)], width)
        ]
        if known.explanation:
            for text in known.explanation.lines()[1:]:
                lines += [join([("", f" {part}")], width) for part in wrap(text, width - 2)]
        lines += [[], *_fields(self._seen_of(known.job), width, now), []]
        for event in known.events:
            lines += _event(event, width)
        if not known.events:
            lines.append(join([("class:dim", " nothing but the happy path has happened to it")], width))
        return lines


def _fields(job: persistq.Job, width: int, now: datetime) -> Iterator[Line]:
    values = vars(job)
    for name in (*_HEAD, *(name for name in values if name not in _HEAD)):
        value = values[name]
        if value is None or value is False:
            continue
        if isinstance(value, datetime):
            text = f"{value:%Y-%m-%d %H:%M:%S} UTC, {_when(value, now)}"
        else:
            text = _readable(value) if name in ("item", "result") else str(value)
        yield from labelled(name, text, width)


def labelled(name: str, text: str, width: int) -> Iterator[Line]:
    """Yield a name and a value, over as many lines as it takes."""
    for number, part in enumerate(wrap(text, max(10, width - _LABEL - 2))):
        yield join([("class:dim", f" {fit('' if number else name, _LABEL)}"), ("", part)], width)


def _when(value: datetime, now: datetime) -> str:
    text = spans.ago(value, now)
    return text if text.startswith("in ") else f"{text} ago"


def _readable(value: Any) -> str:
    """Return JSON as a person reads it, and anything else as it is."""
    if isinstance(value, str):
        if not value.startswith(("{", "[")):
            return value
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return str(value)
    return json.dumps(value, indent=2, ensure_ascii=False)


def _event(event: persistq.Event, width: int) -> Iterator[Line]:
    by = f" by {fit(event.actor, 40).rstrip()}" if event.actor else ""
    attempt = f", attempt {event.attempt}" if event.attempt else ""
    head = f" {event.at:%Y-%m-%d %H:%M:%S} UTC  {fit(event.kind, 20).rstrip()}{by}{attempt}"
    yield join([("class:name", head)], width)
    for name, value in event.detail.items():
        if value is None:
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        for part in wrap(text if name == "traceback" else f"{name}: {text}", max(10, width - 5)):
            yield join([("class:failed" if name == "error" else "", f"    {part}")], width)
