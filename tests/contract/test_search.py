"""Looking for what no index finds: a bounded number of jobs at a time, and none left out."""

from datetime import timedelta
from typing import Any

import pytest
from support.clock import FakeClock
from support.jobs import MakeQueue, Queue, claim

from persistq import ConfigError, Found, JobFilter
from persistq.storage import jobs, search


@pytest.fixture(autouse=True)
def _few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "SPAN", 10)


def looked(found: Found) -> tuple[list[int], bool, int | None]:
    return [job.id for job in found.jobs], found.more, found.edge


def fail(q: Queue, job_id: int, error: str) -> None:
    q.mark_failed(job_id, error)


def test_so_many_jobs_are_looked_through_and_then_it_says_where_to_go_on(queue: Queue) -> None:
    queue.enqueue_many(["hay"] * 24 + ["needle"])
    which = JobFilter(item="needle")
    assert looked(queue.search(which)) == ([], False, 10)
    assert looked(queue.search(which, after=10)) == ([], False, 20)
    assert looked(queue.search(which, after=20)) == ([25], False, None)
    assert looked(queue.search(which, newest=True)) == ([25], False, 16)
    assert looked(queue.search(which, newest=True, before=16)) == ([], False, 6)
    assert looked(queue.search(which, newest=True, before=6)) == ([], False, None)
    assert looked(queue.search(which, newest=True, after=22)) == ([25], False, None)


def test_jobs_of_one_status_are_found_by_an_index_and_of_two_by_looking(queue: Queue) -> None:
    queue.enqueue_many(["x"] * 24)
    for job_id in range(1, 13):
        queue.cancel(job_id)
    assert looked(queue.search(JobFilter.of("pending"))) == (list(range(13, 25)), False, None)
    which = JobFilter.of(["pending", "cancelled"])
    assert looked(queue.search(which)) == (list(range(1, 11)), False, 10)
    assert looked(queue.search(which, after=10)) == (list(range(11, 23)), False, 22)
    assert looked(queue.search(which, after=22)) == ([23, 24], False, None)


@pytest.mark.parametrize("few", [0, 1_000])
@pytest.mark.parametrize("newest", [False, True])
def test_pending_jobs_are_all_found_however_many_they_are(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, newest: bool, few: int
) -> None:
    monkeypatch.setattr(jobs, "FEW", few)
    ids = [queue.enqueue("x", delay=3600 if number % 4 == 1 else None) for number in range(36)]
    for job_id in ids[::3]:
        queue.cancel(job_id)
    pending = [job_id for number, job_id in enumerate(ids) if number % 3]
    assert [job.id for job in queue.list_jobs(status="pending")] == pending
    assert [job.id for job in queue.list_jobs(status=["pending", "cancelled"])] == ids
    seen: list[int] = []
    edge: int | None = 2**62 if newest else 0
    while edge is not None:
        place: dict[str, Any] = {"before": edge} if newest else {"after": edge}
        page = queue.search(JobFilter.of("pending"), limit=5, newest=newest, **place)
        seen += [job.id for job in page.jobs]
        edge = page.edge
    assert seen == (pending[::-1] if newest else pending)
    assert queue.preview("cancel", JobFilter.of("pending")).ids == tuple(pending)


def test_ids_that_are_gone_are_not_counted(queue: Queue) -> None:
    queue.enqueue_many(["gone"] * 40 + ["hay", "needle"])
    queue.delete_jobs(JobFilter(item="gone"))
    assert looked(queue.search(JobFilter(item="needle"))) == ([42], False, None)


def test_a_full_page_ends_where_the_next_begins(queue: Queue) -> None:
    queue.enqueue_many(["needle"] * 8)
    which = JobFilter(item="needle")
    assert looked(queue.search(which, limit=3)) == ([1, 2, 3], True, 3)
    assert looked(queue.search(which, limit=3, newest=True)) == ([8, 7, 6], True, 6)
    assert looked(queue.search(which, limit=8)) == (list(range(1, 9)), False, None)


@pytest.mark.parametrize("newest", [False, True])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_page_after_page_finds_each_job_once(queue: Queue, size: int, newest: bool) -> None:
    ids = queue.enqueue_many(["needle" if number % 7 in (0, 1, 2) else "hay" for number in range(45)])
    wanted = [job_id for job_id, number in zip(ids, range(45), strict=True) if number % 7 in (0, 1, 2)]
    seen: list[int] = []
    edge: int | None = 0 if not newest else 2**62
    while edge is not None:
        place: dict[str, Any] = {"before": edge} if newest else {"after": edge}
        page = queue.search(JobFilter(item="needle"), limit=size, newest=newest, **place)
        seen += [job.id for job in page.jobs]
        edge = page.edge
    assert seen == (wanted[::-1] if newest else wanted)


def test_of_a_status_only_the_jobs_of_that_status_are_looked_through(queue: Queue) -> None:
    queue.enqueue_many(["hay"] * 40)
    for job_id in (3, 39):
        fail(queue, job_id, "TimeoutError")
    queue.cancel(20)
    assert looked(queue.search(JobFilter.of("failed", error="timeout"))) == ([3, 39], False, None)
    assert looked(queue.search(JobFilter.of(["failed", "cancelled"], error="timeout"))) == ([3, 39], False, None)
    assert looked(queue.search(JobFilter.of(["failed", "pending"], error="timeout"))) == ([3], False, 11)


def test_what_an_index_finds_is_found_at_once(queue: Queue) -> None:
    queue.enqueue_many(["x"] * 30)
    fail(queue, 30, "broken")
    assert looked(queue.search(JobFilter.of("failed"))) == ([30], False, None)
    assert looked(queue.search(limit=100)) == (list(range(1, 31)), False, None)


def test_crashed_jobs_are_looked_for_among_those(queue: Queue) -> None:
    queue.enqueue_many(["x"] * 9)
    queue.fail(claim(queue), "TimeoutError", delay=100)
    assert looked(queue.search(JobFilter.of("crashed"))) == ([1], False, None)
    assert looked(queue.search(JobFilter.of("crashed", error="timeout"))) == ([1], False, None)


def test_a_longer_search_goes_on_until_its_time_is_over(make_queue: MakeQueue) -> None:
    class Ticking(FakeClock):
        def monotonic(self) -> float:
            self.advance(1)
            return super().monotonic()

    q = make_queue(clock=Ticking())
    q.enqueue_many(["hay"] * 200 + ["needle"])
    which = JobFilter(item="needle")
    assert looked(q.search(which, lasting=timedelta(hours=1))) == ([201], False, None)
    edge = q.search(which, lasting=20).edge
    assert edge is not None
    assert 10 < edge < 200


def test_a_longer_search_ends_when_its_page_is_full(queue: Queue) -> None:
    queue.enqueue_many((["needle"] + ["hay"] * 9) * 4)
    assert looked(queue.search(JobFilter(item="needle"), limit=2, lasting=60)) == ([1, 11], False, 20)
    assert looked(queue.search(JobFilter(item="needle"), limit=3, after=20, lasting=60)) == ([21, 31], False, None)


@pytest.mark.parametrize(
    "options", [{"limit": 0}, {"limit": -1}, {"lasting": -1}, {"after": "x"}, {"before": 1.5}], ids=str
)
def test_a_search_that_makes_no_sense_is_refused(queue: Queue, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        queue.search(**options)


def test_a_bulk_action_is_for_all_of_them_however_far_apart(queue: Queue) -> None:
    queue.enqueue_many(["needle" if number in (1, 25, 26, 49) else "hay" for number in range(1, 51)])
    what = queue.preview("cancel", JobFilter(item="needle"))
    assert what.ids == (1, 25, 26, 49)
    assert queue.delete_jobs(JobFilter(item="hay")) == 46
    assert [job.id for job in queue.list_jobs()] == [1, 25, 26, 49]


def test_failures_are_grouped_among_the_newest(queue: Queue) -> None:
    queue.enqueue_many(["x"] * 30)
    for job_id in range(1, 13):
        fail(queue, job_id, "OldError: x" if job_id < 3 else "NewError: y")
    groups, left_out = queue.errors(JobFilter(error="error"))
    assert ([(group.error, group.count) for group in groups], left_out) == ([("NewError", 10)], True)
