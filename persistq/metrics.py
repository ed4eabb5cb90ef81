"""Metrics in Prometheus' text form, and whether this process is well, on a port of this machine only.

``python -m persistq.metrics PORT`` asks for the health of a process, as probes do.

The numbers of this process come from ``events.py``; those of the queue are asked of the database when somebody looks.
"""

import http.client
import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from .clock import Clock
from .errors import ConfigError, PersistQError
from .events import subscribe
from .model import Done, Failed

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from .queue import PersistentQSQLAlchemy

HOST = "127.0.0.1"
WELL_SECONDS = 30.0
"""A process that has reached its database within this time is well: each turns its wheel every few seconds."""

_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800)
_LOCAL_NAMES = {"127.0.0.1", "localhost", "[::1]"}


def serve(q: "PersistentQSQLAlchemy", port: int, host: str = HOST) -> Callable[[], None]:
    """Answer ``/metrics`` and ``/healthz`` from now on in threads of their own; the function returned ends that.

    Raises:
        ConfigError: the port is taken, or prometheus-client is not installed.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest
    except ImportError:
        raise ConfigError("metrics need prometheus-client; pip install 'persistq[metrics]'") from None
    registry = CollectorRegistry(auto_describe=True)
    health = Health(q.clock)
    ends = [subscribe(Meters(registry)), subscribe(health)]
    registry.register(QueueCollector(q))
    try:
        server = _Server((host, port), _handler(lambda: generate_latest(registry), health))
    except OSError as error:
        for end in ends:
            end()
        raise ConfigError(f"port {port} of {host} cannot be had: {error.strerror}") from None
    thread = threading.Thread(target=server.serve_forever, args=(0.2,), name="persistq-metrics", daemon=True)
    thread.start()

    def stop() -> None:
        for end in ends:
            end()
        server.shutdown()
        server.server_close()
        thread.join()

    return stop


class Meters:
    """Counts what happens in this process."""

    def __init__(self, registry: "CollectorRegistry") -> None:
        from prometheus_client import Counter, Histogram

        self._jobs = Histogram(
            "persistq_attempt_seconds", "Attempts that ended in this process, by what came of them.",
            ["queue", "task", "outcome"], buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._calls = Histogram(
            "persistq_call_seconds", "Calls to the database.", ["verb"], buckets=_SECONDS, registry=registry
        )
        self._errors = Counter(
            "persistq_call_errors", "Calls to the database that raised.", ["verb", "error"], registry=registry
        )
        self._lost = Counter("persistq_leases_lost", "Jobs taken from this process.", registry=registry)
        self._outages = Counter("persistq_outages", "Turns that did not reach the database.", registry=registry)

    def __call__(self, name: str, fields: dict[str, Any]) -> None:
        """Count one event."""
        if name == "job.performed":
            job, outcome = fields["job"], fields["outcome"]
            word = "done" if isinstance(outcome, Done) else "failed" if isinstance(outcome, Failed) else "released"
            self._jobs.labels(job.queue, job.task or "", word).observe(fields["seconds"])
        elif name.startswith("queue."):
            verb = name.removeprefix("queue.")
            self._calls.labels(verb).observe(fields["seconds"])
            if "error" in fields:
                self._errors.labels(verb, fields["error"]).inc()
        elif name == "job.lost":
            self._lost.inc()
        elif name == "worker.outage":
            self._outages.inc()


class QueueCollector:
    """Asks the database at each look; what cannot be reached is told by ``persistq_database_up`` alone."""

    def __init__(self, q: "PersistentQSQLAlchemy") -> None:
        self._q = q

    def describe(self) -> list["Metric"]:
        """Return nothing, so that to register this asks no database."""
        return []

    def collect(self) -> Iterator["Metric"]:
        """Yield what the queue looks like now."""
        from prometheus_client.core import GaugeMetricFamily

        up = GaugeMetricFamily("persistq_database_up", "Whether the database answers.")
        try:
            queues, consumers, now = self._q.queues(), self._q.consumers(), self._q.database.now().value
        except PersistQError:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        jobs = GaugeMetricFamily("persistq_jobs", "Jobs by queue and status.", labels=["queue", "status"])
        paused = GaugeMetricFamily("persistq_queue_paused", "Whether the queue is paused.", labels=["queue"])
        waiting = GaugeMetricFamily(
            "persistq_queue_waiting_seconds", "How long the job next in line has been due.", labels=["queue"]
        )
        for info in queues:
            for status, number in info.counts.items():
                jobs.add_metric([info.name, status], number)
            paused.add_metric([info.name], info.paused)
            since = info.waiting_since
            waiting.add_metric([info.name], max(0.0, (now - since).total_seconds()) if since else 0)
        alive = GaugeMetricFamily("persistq_consumers", "Consumers by state.", labels=["state"])
        wall = self._q.clock.now()
        states = ["lost" if not info.is_alive(wall) else info.wish or "alive" for info in consumers]
        for state in ("alive", "quiet", "stop", "lost"):
            alive.add_metric([state], states.count(state))
        yield from (up, jobs, paused, waiting, alive)


class Health:
    """Knows when this process last reached its database."""

    def __init__(self, clock: Clock) -> None:
        self._now = clock.monotonic
        self._reached = self._now()

    def __call__(self, name: str, fields: dict[str, Any]) -> None:
        """Take note of a call that succeeded; those of the metrics themselves, which only look, do not count."""
        if name.startswith("queue.") and "error" not in fields and name not in ("queue.queues", "queue.consumers"):
            self._reached = self._now()

    def report(self) -> dict[str, Any]:
        """Return whether the process is well, and the seconds since it last reached its database."""
        ago = self._now() - self._reached
        return {"ok": ago < WELL_SECONDS, "database_reached_seconds_ago": round(ago, 1)}


class _Server(ThreadingHTTPServer):
    daemon_threads = True


def _handler(metrics: Callable[[], bytes], health: Health) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10
        server_version, sys_version = "persistq", ""

        def do_GET(self) -> None:
            """Answer one question."""
            # A page of the web can send a browser here under a name of its own.
            if self.headers.get("Host", "").rpartition(":")[0] not in _LOCAL_NAMES:
                self._answer(403, "text/plain", b"by 127.0.0.1 or localhost only\n")
            elif self.path == "/metrics":
                self._answer(200, "text/plain; version=0.0.4; charset=utf-8", metrics())
            elif self.path == "/healthz":
                report = health.report()
                self._answer(200 if report["ok"] else 503, "application/json", json.dumps(report).encode())
            else:
                self._answer(404, "text/plain", b"/metrics or /healthz\n")

        def log_message(self, *_: Any) -> None:
            """Say nothing: a scrape every few seconds is no news."""

        def _answer(self, code: int, kind: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

    return Handler


def main(arguments: Sequence[str]) -> int:
    """Ask a process of this machine by its metrics port whether it is well; return 0 when it is."""
    connection = http.client.HTTPConnection(HOST, int(arguments[0]), timeout=5)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        sys.stdout.write(f"{answer.read().decode(errors='replace').strip()}\n")
    except OSError as error:
        sys.stdout.write(f"no answer: {error.strerror or error}\n")
        return 1
    finally:
        connection.close()
    return 0 if answer.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
