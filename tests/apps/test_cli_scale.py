"""A command that looks costs the same beside a million jobs as beside ten thousand."""

import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cli import COMMAND, environment, ok
from support.crowd import crowd

LOOKS = {
    "list-jobs": ["list-jobs"],
    "failed": ["list-jobs", "--status", "failed"],
    "pending": ["list-jobs", "--status", "pending"],
    "crashed": ["list-jobs", "--status", "crashed"],
    "of a queue": ["list-jobs", "--queue", "queue-3"],
    "of a task": ["list-jobs", "--task", "task-1"],
    "show-job": ["show-job", "1000"],
    "explain": ["explain", "1000"],
    "stats": ["stats"],
    "queues": ["queues", "list"],
    "consumers": ["consumers", "list"],
}
SEARCHES = {
    "an item, none": ["list-jobs", "--item", "no such report"],
    "an error, the newest": ["list-jobs", "--error", "broken", "--newest"],
    "a status and an error, none": ["list-jobs", "--status", "failed", "--error", "no such error"],
    "errors, none": ["errors", "--error", "no such error"],
}
"""What no index finds: so many jobs are looked through, which takes far less than to start."""


@pytest.fixture(scope="module")
def crowds(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[int, Path]:
    """The queues by their jobs: the few first, then the many."""
    folder = tmp_path_factory.mktemp("crowds")
    found = {}
    for jobs in (10_000, 1_000_000) if request.config.getoption("--long") else (1_000, 50_000):
        found[jobs] = folder / f"{jobs}.db"
        crowd(found[jobs], jobs)
    return found


def compare(name: str, crowds: dict[int, Path], look: Callable[[Path], None], rounds: int) -> None:
    """One round of several will do: a busy machine spoils some, a statement that looks at every job all."""
    ratios: list[float] = []
    while len(ratios) < 5 and min(ratios, default=2.0) >= 2:
        times: dict[int, list[float]] = {jobs: [] for jobs in crowds}
        for _ in range(rounds):
            for jobs, path in crowds.items():  # interleaved, so that a busy machine slows both
                began = time.perf_counter()
                look(path)
                times[jobs].append(time.perf_counter() - began)
        few, many = (statistics.median(one[1:]) for one in times.values())
        ratios.append(many / few)
    print(f"{name}: {', '.join(f'{ratio:.2f}' for ratio in ratios)} times as long, by jobs {list(crowds)}")
    assert min(ratios) < 2, name


def _start(path: Path, *command: str) -> None:
    """Run a command as a person does."""
    done = subprocess.run([*COMMAND, "--db", str(path), *command], capture_output=True, env=environment(), timeout=60)
    assert done.returncode == 0


@pytest.mark.timeout(600)
def test_as_fast_as_with_few(crowds: dict[int, Path]) -> None:
    for name, command in LOOKS.items():
        compare(name, crowds, lambda path, command=command: ok("--db", str(path), *command), 7)  # type: ignore[misc]


@pytest.mark.timeout(600)
def test_a_search_is_bounded(crowds: dict[int, Path], long: bool) -> None:
    if not long:
        pytest.skip("each is a process of its own: --long")
    for name, command in SEARCHES.items():
        compare(name, crowds, lambda path, command=command: _start(path, *command), 5)  # type: ignore[misc]
