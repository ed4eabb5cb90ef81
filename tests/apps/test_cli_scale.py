"""A command that looks costs the same beside a million jobs as beside ten thousand."""

import statistics
import time
from pathlib import Path

import pytest
from support.cli import ok
from support.crowd import crowd

LOOKS = {
    "list-jobs": ["list-jobs"],
    "failed": ["list-jobs", "--status", "failed"],
    "pending": ["list-jobs", "--status", "pending"],
    "crashed": ["list-jobs", "--status", "crashed"],
    "of a queue": ["list-jobs", "--queue", "queue-3"],
    "of a task": ["list-jobs", "--task", "task-1"],
    "an item, none": ["list-jobs", "--item", "no such report"],
    "an error, the newest": ["list-jobs", "--error", "broken", "--newest"],
    "a status and an error, none": ["list-jobs", "--status", "failed", "--error", "no such error"],
    "errors, none": ["errors", "--error", "no such error"],
    "show-job": ["show-job", "1000"],
    "explain": ["explain", "1000"],
    "stats": ["stats"],
    "queues": ["queues", "list"],
    "consumers": ["consumers", "list"],
}


@pytest.mark.timeout(600)
def test_as_fast_as_with_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: bool) -> None:
    """One round of several will do: a busy machine spoils some, a statement that looks at every job all."""
    few, many = (10_000, 1_000_000) if long else (1_000, 50_000)
    for jobs in (few, many):
        crowd(tmp_path / f"{jobs}.db", jobs)
    for name, command in LOOKS.items():
        ratios: list[float] = []
        while len(ratios) < 5 and min(ratios, default=2.0) >= 2:
            times: dict[int, list[float]] = {few: [], many: []}
            for _ in range(7):
                for jobs in times:  # interleaved, so that a busy machine slows both
                    monkeypatch.setenv("QUEUE_DB_FILE", str(tmp_path / f"{jobs}.db"))
                    began = time.perf_counter()
                    ok(*command)
                    times[jobs].append(time.perf_counter() - began)
            ratios.append(statistics.median(times[many][1:]) / statistics.median(times[few][1:]))
        print(f"{name}: {', '.join(f'{ratio:.2f}' for ratio in ratios)} times as long with {many:,} as with {few:,}")
        assert min(ratios) < 2, name
