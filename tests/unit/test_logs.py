"""The log: a line for each job that is done, as long as there are not too many."""

import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from persistq import Done, Failed, batch, logs


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> "Lines":
    """What the observer logs, by a clock of the test's own."""
    caplog.set_level(logging.INFO, logger="persistq")
    made = Lines(caplog)
    monkeypatch.setattr(logs, "_quotas", {name: logs._Quota(quota._what) for name, quota in logs._quotas.items()})
    monkeypatch.setattr(logs, "_clock", SimpleNamespace(monotonic=lambda: made.now))
    return made


class Lines:
    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self.now = 1000.0

    def perform(self, number: int, outcome: Any = None) -> None:
        job: Any = SimpleNamespace(id=7, attempts=1, max_attempts=3)
        for _ in range(number):
            logs._observe("job.performed", {"job": job, "outcome": outcome or Done(job), "seconds": 0.001})

    def batches(self, number: int, event: str = "batch.ready") -> None:
        for _ in range(number):
            logs._observe(event, {"path": "/spool/q/ready_1_2.db", "items": 10_000})

    def idle(self) -> None:
        logs._observe("worker.idle", {})

    def take(self) -> list[str]:
        """Return the lines since the last time."""
        found = [record.getMessage() for record in self._caplog.records]
        self._caplog.clear()
        return found


def test_a_few_jobs_have_a_line_each(lines: Lines) -> None:
    lines.perform(logs.ROUTINE_LINES)
    lines.idle()
    assert lines.take() == ["job 7 (attempt 1 of 3) done in 0.001 s"] * logs.ROUTINE_LINES


def test_of_many_jobs_the_rest_is_counted_when_the_second_is_over(lines: Lines) -> None:
    lines.perform(1000)
    assert len(lines.take()) == logs.ROUTINE_LINES
    lines.now += 1
    lines.perform(1)
    assert lines.take() == [f"{1000 - logs.ROUTINE_LINES} more jobs done", "job 7 (attempt 1 of 3) done in 0.001 s"]


def test_the_rest_is_counted_when_there_is_nothing_more_to_do(lines: Lines) -> None:
    lines.perform(1000)
    lines.take()
    lines.idle()
    lines.idle()
    assert lines.take() == [f"{1000 - logs.ROUTINE_LINES} more jobs done"]


def test_what_did_not_go_well_always_has_its_line(lines: Lines) -> None:
    job: Any = SimpleNamespace(id=7, attempts=1, max_attempts=3)
    lines.perform(1000)
    lines.take()
    lines.perform(150, Failed(job, ValueError("x")))
    lines.perform(150, Done(job, dropped="no JSON value"))
    assert len(lines.take()) == 300


BATCHES: dict[str, tuple[dict[str, Any], str, str]] = {
    "batch.ready": (
        {"path": "/spool/q/ready_17_ab.db", "items": 10_000},
        "INFO", "batch ready_17_ab.db is ready with 10,000 items",
    ),
    "batch.consumed": (
        {"path": "/spool/q/unload_17_ab_me.db", "items": 7},
        "INFO", "batch unload_17_ab_me.db is consumed, all 7 items",
    ),
    "batch.released": (
        {"path": "/spool/q/unload_17_ab_me.db", "items": 3},
        "INFO", "batch unload_17_ab_me.db is given back after 3 items",
    ),
    "batch.recovered": (
        {"queue": "mail", "ready": 2, "invalid": 1},
        "WARNING", "queue mail: 2 batches that the dead left are ready again, 1 are put aside",
    ),
    "batch.item_failed": (
        {"item": "ab:7", "attempt": 2, "error": "ValueError: bad"},
        "WARNING", "ab:7: attempt 2 failed, ValueError: bad",
    ),
    "batch.promoted": (
        {"item": "ab:7", "unique_key": "batch:ab:7", "error": "ValueError: bad"},
        "WARNING", "ab:7 failed for good and is the job with the key batch:ab:7 now, ValueError: bad",
    ),
}  # fmt: skip


@pytest.mark.parametrize("event", BATCHES)
def test_each_event_of_batches_has_its_line(lines: Lines, caplog: pytest.LogCaptureFixture, event: str) -> None:
    fields, level, text = BATCHES[event]
    logs._observe(event, fields)
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == (level, text)
    assert record.fields == {"event": event, **fields}  # type: ignore[attr-defined]


def test_every_event_of_batches_is_told_once() -> None:
    """The one without a line here is an error in the log of whoever puts a batch aside."""
    calls = re.findall(r"\bemit\(.*", "\n".join(path.read_text() for path in Path(batch.__file__).parent.glob("*.py")))
    emitted = set(re.findall(r'"(batch\.\w+)"', "\n".join(calls)))
    assert emitted - logs._LINES.keys() == {"batch.invalid"}
    assert set(BATCHES) == {name for name in logs._LINES if name.startswith("batch.")}


def test_of_many_batches_the_rest_is_counted(lines: Lines) -> None:
    lines.batches(250)
    lines.batches(130, "batch.consumed")
    lines.batches(150, "batch.released")
    assert len(lines.take()) == 2 * logs.ROUTINE_LINES + 150
    lines.idle()
    assert lines.take() == ["150 more batches ready", "30 more batches consumed"]
