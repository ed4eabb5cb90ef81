"""What programs read over HTTP: ``/healthz``, ``/metrics``, ``/api/jobs``, ``/api/counts``. Nothing here writes."""

from collections.abc import Callable, Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

import persistq
from persistq import spans

from . import words

MOST_JOBS = 200
_PLAIN = ("queue", "task", "consumer", "item", "error")
_CODES: dict[type[persistq.PersistQError], int] = {
    persistq.JobNotFound: 404,
    persistq.ConfigError: 400,
    persistq.UnknownStatus: 400,
    persistq.PayloadError: 400,
}
_METRICS = "text/plain; version=0.0.4; charset=utf-8"

Endpoint = Callable[[persistq.PersistentQSQLAlchemy, Request], Response]


class Api:
    """The endpoints; ``connect`` gives a queue for looking only."""

    def __init__(self, connect: Callable[[], persistq.PersistentQSQLAlchemy], *, hide_items: bool) -> None:
        self._connect = connect
        self._hidden = {"item": None, "result": None} if hide_items else {}

    def routes(self) -> list[Route]:
        """Return where each of them is."""
        answers = {
            "/api/jobs": self.jobs,
            "/api/jobs/{job_id:int}": self.job,
            "/api/counts": self.counts,
            "/metrics": self.metrics,
        }
        return [Route("/healthz", self.health), *(Route(path, self._safely(work)) for path, work in answers.items())]

    def jobs(self, q: persistq.PersistentQSQLAlchemy, request: Request) -> Response:
        """Answer with a page of jobs, the newest first; ``before`` in the answer asks for the next page.

        A page of what no index finds may hold fewer jobs, for each looks through so many only.
        """
        asked = request.query_params
        if unknown := set(asked) - {*_PLAIN, "status", "since", "until", "limit", "before"}:
            raise persistq.ConfigError(f"there is no parameter {', '.join(sorted(unknown))}")
        fields: dict[str, Any] = {name: asked[name] for name in _PLAIN if asked.get(name)}
        fields |= {name: spans.moment(asked[name]) for name in ("since", "until") if asked.get(name)}
        limit = min(max(_number(asked.get("limit"), 100), 1), MOST_JOBS)
        before = _number(asked.get("before"), None)
        which = persistq.JobFilter.of(asked.getlist("status"), **fields)
        found = q.search(which, limit=limit, newest=True, before=before)
        return JSONResponse({"jobs": [self._shown(job) for job in found.jobs], "before": found.edge})

    def job(self, q: persistq.PersistentQSQLAlchemy, request: Request) -> Response:
        """Answer with one job and its history."""
        job_id = request.path_params["job_id"]
        job, events = q.get_job(job_id), q.events(job_id)
        return JSONResponse({**self._shown(job), "events": [event.to_dict() for event in events]})

    def counts(self, q: persistq.PersistentQSQLAlchemy, _request: Request) -> Response:
        """Answer with the counts of all, and of each queue."""
        return JSONResponse({"counts": q.counts(), "queues": [info.to_dict() for info in q.queues()]})

    def metrics(self, q: persistq.PersistentQSQLAlchemy, _request: Request) -> Response:
        """Answer in Prometheus' text format."""
        return PlainTextResponse("".join(f"{line}\n" for line in _metrics(q)), media_type=_METRICS)

    def health(self, request: Request) -> Response:
        """Answer ``ok``, or 503 while the database does not answer."""
        if self._safely(self.counts)(request).status_code == 200:
            return PlainTextResponse("ok\n")
        return PlainTextResponse("the database does not answer\n", 503)

    def _safely(self, work: Endpoint) -> Callable[[Request], Response]:
        def endpoint(request: Request) -> Response:
            try:
                q = self._connect()
                if not q.database.exists():
                    return _error(503, f"there is no database {q.dbname} yet")
                return work(q, request)
            except persistq.PersistQError as error:
                status = next((code for kind, code in _CODES.items() if isinstance(error, kind)), 503)
                return _error(status, str(error))

        return endpoint

    def _shown(self, job: persistq.Job) -> dict[str, Any]:
        return {**job.to_dict(), **self._hidden}


def _metrics(q: persistq.PersistentQSQLAlchemy) -> Iterator[str]:
    queues, now = q.queues(), q.clock.now()
    yield "# HELP persistq_jobs Jobs by queue and status."
    yield "# TYPE persistq_jobs gauge"
    for info in queues:
        for status, number in info.counts.items():
            yield _sample("persistq_jobs", number, queue=info.name, status=status)
    yield "# HELP persistq_queue_paused Whether a person has paused the queue."
    yield "# TYPE persistq_queue_paused gauge"
    for info in queues:
        yield _sample("persistq_queue_paused", int(info.paused), queue=info.name)
    yield "# HELP persistq_queue_waiting_seconds How long the job that is next in line has been due."
    yield "# TYPE persistq_queue_waiting_seconds gauge"
    for info in queues:
        waited = max(0.0, (now - info.waiting_since).total_seconds()) if info.waiting_since else 0.0
        yield _sample("persistq_queue_waiting_seconds", waited, queue=info.name)
    yield "# HELP persistq_consumers Consumers by state."
    yield "# TYPE persistq_consumers gauge"
    states = [words.consumer_state(info, now) for info in q.consumers()]
    for state in words.CONSUMER_STATES:
        yield _sample("persistq_consumers", states.count(state), state=state)
    timings = q.timings(300)
    yield "# HELP persistq_attempts_per_second Attempts that ended, over the last five minutes."
    yield "# TYPE persistq_attempts_per_second gauge"
    for timing in timings:
        yield _sample("persistq_attempts_per_second", timing.per_second, queue=timing.queue, task=timing.task or "")
    yield "# HELP persistq_attempt_seconds How attempts waited and ran over the last five minutes."
    yield "# TYPE persistq_attempt_seconds gauge"
    for timing in timings:
        for kind, shares in (("wait", timing.wait), ("run", timing.run)):
            for share, value in shares.items():
                labels = {"queue": timing.queue, "task": timing.task or "", "kind": kind}
                yield _sample("persistq_attempt_seconds", value, quantile=f"0.{share[1:]}", **labels)


def _sample(name: str, value: float, **labels: str) -> str:
    pairs = ",".join(f'{label}="{_escape(text)}"' for label, text in labels.items())
    return f"{name}{{{pairs}}} {value:g}" if isinstance(value, float) else f"{name}{{{pairs}}} {value}"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(text: str | None, default: Any) -> Any:
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise persistq.ConfigError(f"{text!r:.40} is no number")
    return int(text)


def _error(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": text}, status)
