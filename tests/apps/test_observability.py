"""Metrics, health, traces and JSON logs, all of them made from events: off unless asked for."""

import http.client
import io
import json
import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from process.yard import Yard, eventually
from prometheus_client.parser import text_string_to_metric_families
from support.cli import environment
from support.clock import FakeClock
from support.jobs import claim

import persistq
from persistq import ConfigError, events, logs, metrics, tracing
from persistq.metrics import Health, Meters
from persistq.worker import JobSource, Loop, Threads


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def ask(port: int, path: str, host: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers={"Host": host} if host else {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Return what Prometheus' own parser reads, by name and label values in the labels' order."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def port(q: persistq.PersistentQSQLAlchemy) -> Iterator[int]:
    found = free_port()
    stop = metrics.serve(q, found)
    yield found
    stop()


def test_metrics_say_what_the_queue_and_this_process_do(q: persistq.PersistentQSQLAlchemy, port: int) -> None:
    q.enqueue_many(["a", "b", "c"])
    q.pause("mail")
    with pytest.raises(persistq.JobNotFound):
        q.get_job(4711)
    events.emit("job.performed", job=claim(q), outcome=persistq.Failed(q.get_job(1), "no"), seconds=0.2)
    code, text = ask(port, "/metrics")
    found = samples(text)
    assert code == 200
    assert found["persistq_database_up",] == 1
    assert found["persistq_jobs", "default", "pending"] == 2
    assert found["persistq_jobs", "default", "processing"] == 1
    assert (found["persistq_queue_paused", "mail"], found["persistq_queue_paused", "default"]) == (1, 0)
    assert found["persistq_attempt_seconds_count", "failed", "default", ""] == 1
    assert found["persistq_call_seconds_count", "enqueue"] == 1
    assert found["persistq_call_errors_total", "JobNotFound", "get_job"] == 1


def test_hostile_names_break_no_line_of_the_metrics(q: persistq.PersistentQSQLAlchemy, port: int) -> None:
    job = claim_of(q, "x")
    hostile = persistq.Failed(job, 'a"b\nc\\d{}')
    events.emit("queue.x", error='a"b\nc\\d{}', seconds=1.0)
    events.emit("job.performed", job=job, outcome=hostile, seconds=1.0)
    assert samples(ask(port, "/metrics")[1])["persistq_call_errors_total", 'a"b\nc\\d{}', "x"] == 1


def claim_of(q: persistq.PersistentQSQLAlchemy, item: str) -> persistq.Job:
    q.enqueue(item)
    return claim(q)


@pytest.mark.parametrize(
    ("path", "host", "code"),
    [
        ("/healthz", None, 200),
        ("/healthz", "localhost:1", 200),
        ("/", None, 404),
        ("/metrics/../../etc/passwd", None, 404),
        ("/metrics", "evil.example:80", 403),
        ("/metrics", "127.0.0.1.evil.example:80", 403),
    ],
)
def test_it_answers_two_questions_under_local_names_only(port: int, path: str, host: str | None, code: int) -> None:
    assert ask(port, path, host)[0] == code


def test_it_listens_on_this_machine_only(port: int) -> None:
    with socket.socket() as other:
        other.settimeout(5)
        with pytest.raises(OSError, match="refused"):
            other.connect(("127.0.0.2", port))


def test_a_probe_says_whether_a_process_is_well(
    q: persistq.PersistentQSQLAlchemy, port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert metrics.main([str(port)]) == 0
    monkeypatch.setattr(metrics, "WELL_SECONDS", 0)
    assert metrics.main([str(port)]) == 1
    assert metrics.main([str(free_port())]) == 1
    assert "no answer" in capsys.readouterr().out


def test_a_port_that_is_taken_is_told(q: persistq.PersistentQSQLAlchemy, port: int) -> None:
    observers = len(events._observers)
    with pytest.raises(ConfigError, match=f"port {port}"):
        metrics.serve(q, port)
    assert len(events._observers) == observers


def test_without_the_library_it_says_what_to_install(
    q: persistq.PersistentQSQLAlchemy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigError, match=r"persistq\[metrics\]"):
        metrics.serve(q, free_port())


def test_a_process_that_does_not_reach_its_database_is_not_well(clock: FakeClock) -> None:
    health = Health(clock)
    assert health.report()["ok"]
    clock.advance(29)
    health("queue.beat", {"seconds": 0.1, "error": "DatabaseUnavailable"})
    health("queue.queues", {"seconds": 0.1})
    clock.advance(2)
    assert health.report() == {"ok": False, "database_reached_seconds_ago": 31}
    health("queue.beat", {"seconds": 0.1})
    assert health.report()["ok"]


def test_a_database_out_of_reach_leaves_the_rest_of_the_metrics(
    q: persistq.PersistentQSQLAlchemy, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object) -> None:
        raise persistq.DatabaseUnavailable("gone")

    q.counts()
    monkeypatch.setattr(persistq.PersistentQSQLAlchemy, "queues", unreachable)
    code, text = ask(port, "/metrics")
    assert (code, samples(text)["persistq_database_up",]) == (200, 0)
    assert ("persistq_call_seconds_count", "counts") in samples(text)


def test_a_consumer_shows_its_metrics_when_asked(make_yard: Any) -> None:
    yard: Yard = make_yard()
    yard.app("@persistq.task\ndef note_it(item):\n    note(item)\n")
    port = free_port()
    consumer = yard.consumer("--task", "note_it", "--metrics-port", str(port), queue_log_format="json")
    yard.q.enqueue("item")
    eventually(lambda: yard.all_done() and yard.journal(), "it is done")
    found = samples(ask(port, "/metrics")[1])
    assert found["persistq_attempt_seconds_count", "done", "default", ""] == 1
    assert found["persistq_consumers", "alive"] == 1
    assert json.loads(ask(port, "/healthz")[1])["ok"]
    assert metrics.main([str(port)]) == 0
    lines = [json.loads(line) for line in consumer.out.splitlines()]
    (done,) = [line for line in lines if line.get("event") == "job.performed"]
    assert (done["job"], done["queue"], done["outcome"], done["level"]) == (1, "default", "done", "INFO")


def test_maintenance_shows_its_metrics_when_asked(make_yard: Any) -> None:
    yard: Yard = make_yard()
    port = free_port()
    yard.run("-m", "persistq.maintenance", "--metrics-port", str(port))

    def answers() -> bool:
        try:
            return ask(port, "/healthz")[0] == 200
        except OSError:
            return False

    eventually(answers, "it answers")
    eventually(lambda: ("persistq_call_seconds_count", "recover") in samples(ask(port, "/metrics")[1]), "it works")


@pytest.fixture
def make_yard(tmp_path) -> Iterator[Any]:  # type: ignore[no-untyped-def]
    yards: list[Yard] = []

    def make(**settings: Any) -> Yard:
        yards.append(Yard(tmp_path, **settings))
        return yards[-1]

    yield make
    for yard in yards:
        yard.clean_up()


def test_a_meter_nobody_asked_for_costs_nothing(q: persistq.PersistentQSQLAlchemy) -> None:
    assert events._observers == []
    q.enqueue("x")
    assert q.events(1) == []
    assert callable(Meters)


# Traces


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return exporter


def drain(q: persistq.PersistentQSQLAlchemy, task: str) -> None:
    source = JobSource(q, name="w", queues=(), default_task=task, concurrency=1)
    assert Loop(source, Threads(1), grace=5, drain=True).run() == 0


@pytest.mark.parametrize("is_async", [False, True], ids=["function", "coroutine"])
def test_enqueue_perform_and_what_the_handler_does_are_one_trace(
    q: persistq.PersistentQSQLAlchemy, spans: InMemorySpanExporter, is_async: bool
) -> None:
    tracer = trace.get_tracer("app")

    @persistq.task(name="work")
    def work(item: str) -> None:
        with tracer.start_as_current_span("within"):
            pass

    @persistq.task(name="work_async")
    async def work_async(item: str) -> None:
        with tracer.start_as_current_span("within"):
            pass

    stop = tracing.instrument(q)
    assert stop is not None
    with tracer.start_as_current_span("request"):
        job_id = q.enqueue("item")
    drain(q, "work_async" if is_async else "work")
    stop()
    found = {span.name: span for span in spans.get_finished_spans()}
    assert found.keys() == {"request", "enqueue", "perform default", "within"}
    assert len({span.context.trace_id for span in found.values()}) == 1
    parents = [("enqueue", "request"), ("perform default", "enqueue"), ("within", "perform default")]
    for child, parent in parents:
        assert found[child].parent.span_id == found[parent].context.span_id  # type: ignore[union-attr]
    assert found["perform default"].attributes["messaging.message.id"] == str(job_id)  # type: ignore[index]
    assert [event.kind for event in q.events(job_id)] == ["enqueued"]


def test_a_failed_attempt_is_a_failed_span_and_a_refused_enqueue_too(
    q: persistq.PersistentQSQLAlchemy, spans: InMemorySpanExporter
) -> None:
    @persistq.task(name="bad")
    def bad(item: str) -> None:
        raise persistq.PermanentError("no good")

    assert tracing.instrument(q)
    q.enqueue_many(["a", "b"], unique_key=None)
    q.enqueue("c", unique_key="k")
    q.enqueue("c", unique_key="k")
    with pytest.raises(persistq.DuplicateJob):
        q.enqueue("c", unique_key="k", on_duplicate="raise")
    drain(q, "bad")
    found = spans.get_finished_spans()
    assert [span.status.is_ok for span in found if span.name == "enqueue"] == [True, True, True, False]
    performed = [span for span in found if span.name.startswith("perform")]
    assert len(performed) == 3
    assert all("no good" in str(span.status.description) for span in performed)
    assert [event.kind for event in q.events(3)] == ["enqueued", "crashed", "failed"], "a repeated key adds nothing"


def test_a_job_that_was_enqueued_without_a_trace_begins_one(
    q: persistq.PersistentQSQLAlchemy, spans: InMemorySpanExporter
) -> None:
    @persistq.task(name="fine")
    def fine(item: str) -> None: ...

    q.enqueue_many(["a", "b"])
    assert tracing.instrument(q)
    drain(q, "fine")
    one, two = spans.get_finished_spans()
    assert one.parent is two.parent is None
    assert one.context.trace_id != two.context.trace_id


def test_without_a_provider_or_the_library_nothing_is_traced(
    q: persistq.PersistentQSQLAlchemy, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tracing.instrument(q) is None
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert tracing.instrument(q) is None
    assert (events._carriers, events._observers) == ([], [])


def test_a_carrier_that_raises_keeps_no_job_from_being_enqueued(q: persistq.PersistentQSQLAlchemy) -> None:
    def broken() -> dict[str, Any]:
        raise RuntimeError("no")

    stop = events.carry(broken)
    assert q.enqueue("x") == 1
    stop()
    assert events._carriers == []


# Logs


def test_a_json_line_is_one_object_whatever_the_data(
    q: persistq.PersistentQSQLAlchemy, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr(logging.getLogger("persistq"), "level", logging.INFO)
    monkeypatch.setattr(logging, "raiseExceptions", True)
    out = io.StringIO()
    logs.configure(stream=out, as_json=True)
    hostile = "\x1b[2J\n\u202eforged\u2028 \x9b"
    job = claim_of(q, hostile)
    try:
        raise RuntimeError(hostile)
    except RuntimeError as error:
        events.emit("job.performed", job=job, outcome=persistq.Failed(job, error), seconds=0.5)
        logging.getLogger("persistq").exception("it broke: %s", hostile)
    text = out.getvalue()
    assert text.isascii()
    assert not [char for char in text if not char.isprintable() and char != "\n"]
    failed, broke = map(json.loads, text.splitlines())
    assert (failed["event"], failed["outcome"], failed["job"], failed["seconds"]) == ("job.performed", "failed", 1, 0.5)
    assert hostile in broke["text"]
    assert "RuntimeError" in broke["traceback"]


def test_a_consumer_needs_none_of_the_libraries() -> None:
    script = (
        "import sys\nsys.modules['prometheus_client'] = sys.modules['opentelemetry'] = None\n"
        "from persistq.consumer.consumer import main\nsys.exit(main(['--drain']))"
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
