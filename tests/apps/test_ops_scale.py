"""A page of the dashboard costs the same beside a million jobs as beside ten thousand."""

import logging
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from persistq.ops import access, session
from support.crowd import crowd
from support.databases import SQLite
from support.jobs import WORKER
from support.visits import Visit

import persistq

FEW, MANY = 10_000, 1_000_000
RENDERS, ROUNDS = 7, 5

RENDERED: dict[str, tuple[str, dict[str, str]]] = {
    **{page: (page, {}) for page in ("overview", "jobs", "queues", "consumers", "batches", "shards", "maintenance",
                                     "audit", "health")},
    **{f"jobs, {status}": ("jobs", {"status": status}) for status in (*map(str, persistq.JobStatus), "crashed")},
    **{f"jobs by {name}": ("jobs", {name: value}) for name, value in {
        "queue": "queue-3", "task": "task-1", "consumer": WORKER, "item": "report", "error": "broken", "since": "1h",
        "until": "1m"}.items()},
    **{f"jobs by {name}, none": ("jobs", {name: value}) for name, value in {
        "queue": "nothing", "task": "nothing", "consumer": "nobody", "item": "nothing", "error": "nothing",
        "since": "2100-01-01", "until": "2000-01-01"}.items()},
    "jobs, failed and by queue, none": ("jobs", {"status": "failed", "queue": "nothing"}),
    # The newest job is failed, the one before it that ends like this waits behind everything else or before it.
    "job, failed": ("job", {"id": "-0"}),
    "job, pending, the last in line": ("job", {"id": "-20"}),
    "job, pending, the first in line": ("job", {"id": "23"}),
}  # fmt: skip

LOOKED_THROUGH = {"jobs, failed and by queue, none"}
"""It reads as many rows as one page may, 50,000 that lie apart, where the few have 500 such: a tenth of a second."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[int, Path]:
    """A folder for each of the two queues, in which the dashboard is started."""
    if not request.config.getoption("--long"):
        pytest.skip("a million jobs take a minute: --long")
    found = {}
    for jobs in (FEW, MANY):
        found[jobs] = tmp_path_factory.mktemp(f"jobs-{jobs}")
        Path(SQLite(found[jobs]).fresh()).rename(found[jobs] / "queue.db")
        crowd(found[jobs] / "queue.db", jobs)
    return found


@pytest.fixture(autouse=True)
def looking(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(access, "_rules", None)
    logging.getLogger("streamlit").setLevel(logging.ERROR)
    yield
    session._connect.cache_clear()


@pytest.mark.parametrize("name", RENDERED)
def test_as_fast_as_with_a_hundredth_of_the_jobs(
    name: str, folders: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One round of several will do: a busy machine spoils some, a page that looks at every job all."""
    ratios = []
    for _ in range(ROUNDS):
        few, many = _medians(folders, *RENDERED[name], monkeypatch)
        ratios.append(many / few)
        print(f"{name}: {few:.0f} ms with {FEW:,} jobs, {many:.0f} ms with {MANY:,}: {ratios[-1]:.2f}")
        if ratios[-1] < 1.5:
            break
    assert min(ratios) < (8 if name in LOOKED_THROUGH else 2)


def _medians(
    folders: dict[int, Path], page: str, query: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> tuple[float, ...]:
    """Return the milliseconds that a page takes to be drawn for a new visitor, with few jobs and with many."""
    taken: dict[int, list[float]] = {jobs: [] for jobs in folders}
    for _ in range(RENDERS):
        for jobs, folder in folders.items():  # interleaved, so that a busy machine slows both
            monkeypatch.chdir(folder)
            asked = {key: str(jobs + int(value)) if value.startswith("-") else value for key, value in query.items()}
            began = time.perf_counter()
            visit = Visit(page, **asked)
            taken[jobs].append(1000 * (time.perf_counter() - began))
            assert not visit.at.error
    return tuple(statistics.median(times[1:]) for times in taken.values())
