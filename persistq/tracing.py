"""OpenTelemetry: a span when a job is enqueued, a span when it is performed, both of one trace.

The context travels in the job's history, as the event ``enqueued``. Without OpenTelemetry installed and set up
nothing here runs.
"""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import events
from .errors import PersistQError, describe
from .model import Done, Failed, Job

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from .queue import PersistentQSQLAlchemy

_NAME = "persistq"


def instrument(q: "PersistentQSQLAlchemy") -> Callable[[], None] | None:
    """Trace what this process enqueues and performs from now on; the function returned ends that.

    None when OpenTelemetry is not installed, or nobody has set up where spans go: call this after
    ``trace.set_tracer_provider``, or under ``opentelemetry-instrument``.
    """
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    provider = trace.get_tracer_provider()
    if isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
        return None
    tracer = _Tracer(q)
    ends = [events.carry(tracer.carry), events.subscribe(tracer)]
    return lambda: [end() for end in ends].clear()


class _Tracer:
    def __init__(self, q: "PersistentQSQLAlchemy") -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._q = q
        self._tracer = trace.get_tracer(_NAME)
        self._propagator = TraceContextTextMapPropagator()
        self._here = threading.local()
        self._performing: dict[tuple[int, int], Span] = {}

    def carry(self) -> dict[str, Any]:
        """Begin the span of an enqueue and return what makes others part of its trace."""
        from opentelemetry import trace

        span = self._tracer.start_span("enqueue", kind=trace.SpanKind.PRODUCER)
        self._here.enqueue = span
        carried: dict[str, Any] = {}
        self._propagator.inject(carried, trace.set_span_in_context(span))
        return carried

    def __call__(self, name: str, fields: dict[str, Any]) -> None:
        """Heed one event."""
        if name == "queue.enqueue":
            self._enqueued(fields)
        elif name == "job.started":
            self._started(fields["job"])
        elif name == "job.performed":
            self._performed(fields["job"], fields["outcome"])

    def _enqueued(self, fields: dict[str, Any]) -> None:
        span: Span | None = getattr(self._here, "enqueue", None)
        if span is None:
            return
        self._here.enqueue = None
        span.set_attribute("messaging.system", _NAME)
        span.set_attribute("messaging.batch.message_count", int(fields.get("jobs", 1)))
        if "error" in fields:
            _mark_failed(span, fields["error"])
        span.end()

    def _started(self, job: Job) -> None:
        from opentelemetry import context, trace

        span = self._tracer.start_span(
            f"perform {job.task or job.queue}", context=self._context_of(job), kind=trace.SpanKind.CONSUMER,
            attributes={
                "messaging.system": _NAME,
                "messaging.destination.name": job.queue,
                "messaging.message.id": str(job.id),
                "persistq.task": job.task or "",
                "persistq.attempt": job.attempts,
            },
        )  # fmt: skip
        self._performing[job.id, job.fence] = span
        # What the handler traces itself belongs below. A thread performs one job after the other, and each
        # begins with a context of its own, so that none has to be given back.
        context.attach(trace.set_span_in_context(span, context.Context()))

    def _performed(self, job: Job, outcome: object) -> None:
        span = self._performing.pop((job.id, job.fence), None)
        if span is None:
            return
        if isinstance(outcome, Failed):
            _mark_failed(span, describe(outcome.error)[0])
        elif not isinstance(outcome, Done):
            span.set_attribute("persistq.released", True)
        span.end()

    def _context_of(self, job: Job) -> Any:
        """Return the context in which the job was enqueued, an empty one if it was enqueued without."""
        from opentelemetry import context

        try:
            found = next((event.detail for event in self._q.events(job.id) if event.kind == "enqueued"), {})
        except PersistQError:
            found = {}
        return self._propagator.extract(found, context.Context())


def _mark_failed(span: "Span", why: str) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_status(Status(StatusCode.ERROR, why))
