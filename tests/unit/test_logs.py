"""The log: a line for each job that is done, as long as there are not too many."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from persistq import Done, Failed, logs


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> "Lines":
    """What the observer logs, by a clock of the test's own."""
    caplog.set_level(logging.INFO, logger="persistq")
    made = Lines(caplog)
    monkeypatch.setattr(logs, "_quota", logs._Quota())
    monkeypatch.setattr(logs.time, "monotonic", lambda: made.now)
    return made


class Lines:
    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self.now = 1000.0

    def perform(self, number: int, outcome: Any = None) -> None:
        job: Any = SimpleNamespace(id=7, attempts=1, max_attempts=3)
        for _ in range(number):
            logs._observe("job.performed", {"job": job, "outcome": outcome or Done(job), "seconds": 0.001})

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
