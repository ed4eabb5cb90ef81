"""Bulk: what was previewed is what is done, chunk by chunk, and whatever changed meanwhile is left alone and told."""

from datetime import timedelta
from typing import Any

import pytest
from support.clock import FakeClock
from support.jobs import OTHER, WORKER, MakeQueue, Queue, claim, job_in

from persistq import ConfigError, IllegalTransition, JobFilter, JobNotFound, PayloadError
from persistq.actions import Preview, Progress
from persistq.bulk import carry_out, preview_purge


def fail_all(q: Queue, number: int, error: str = "TimeoutError: late", queue: str = "default") -> list[int]:
    ids = q.enqueue_many([f"item {n}" for n in range(number)], queue)
    for job in q.dequeue_many(WORKER, queue, limit=number):
        q.fail(job, error, permanent=True)
    return ids


def last(q: Queue, what: Preview, **options: Any) -> Progress:
    return list(carry_out(q, what, **options))[-1]


def test_a_preview_counts_shows_and_changes_nothing(queue: Queue) -> None:
    ids = fail_all(queue, 7) + fail_all(queue, 2, queue="mail")
    queue.enqueue("waits")
    what = queue.preview("resubmit", JobFilter.of(error="timeout"))
    assert (what.count, what.ids, what.missing) == (9, tuple(ids), ())
    assert (what.by_queue, what.by_status) == ({"default": 7, "mail": 2}, {"failed": 9})
    assert [job.id for job in what.samples] == ids[:5]
    assert queue.counts()["failed"] == 9
    assert queue.audit() == []


def test_what_was_previewed_is_done_in_chunks(queue: Queue) -> None:
    ids = fail_all(queue, 7)
    what = queue.preview("resubmit", JobFilter.of("failed"), reason="the server is back")
    first = queue.begin_bulk(what)
    assert queue.counts()["failed"] == 7
    second = queue.advance_bulk(what, first, size=4)
    assert (second.place, second.changed, second.changed_ids, second.over) == (4, 4, tuple(ids[:4]), False)
    third = queue.advance_bulk(what, second, size=4)
    assert (third.place, third.changed, third.changed_ids, third.over) == (7, 7, tuple(ids[4:]), True)
    assert queue.advance_bulk(what, third) == third
    assert queue.counts() == {"pending": 7, "processing": 0, "done": 0, "failed": 0, "cancelled": 0}
    assert queue.tally_drift() == {}
    assert queue.events(ids[0])[-1].detail == {"reason": "the server is back"}


@pytest.mark.parametrize(
    ("verb", "options", "before", "after"),
    [
        ("resubmit", {}, "failed", "pending"),
        ("resubmit", {"force": True}, "done", "pending"),
        ("cancel", {}, "pending", "cancelled"),
        ("cancel", {}, "processing", "cancelled"),
        ("mark_failed", {}, "pending", "failed"),
        ("assign", {"consumer": "one"}, "pending", "pending"),
        ("release", {}, "processing", "pending"),
        ("edit", {"priority": 9}, "pending", "pending"),
        ("delete", {}, "done", None),
        ("delete", {"force": True}, "processing", None),
    ],
)
def test_each_action_does_to_many_what_it_does_to_one(
    queue: Queue, verb: str, options: dict[str, Any], before: str, after: str | None
) -> None:
    found = [job_in(queue, before) for _ in range(3)]
    neighbour = queue.enqueue("neighbour", "neighbours")
    result = last(queue, queue.preview(verb, JobFilter.of(before, queue=f"to-{before}"), **options))
    assert (result.changed, result.refused) == (3, 0)
    for job in found:
        if after is None:
            with pytest.raises(JobNotFound):
                queue.get_job(job.id)
        else:
            now = queue.get_job(job.id)
            assert now.status == after
            assert now.fence > job.fence
            assert queue.events(job.id)
    assert queue.get_job(neighbour).fence == 0
    assert queue.tally_drift() == {}


def test_what_came_or_failed_after_the_preview_is_untouched(queue: Queue, clock: FakeClock) -> None:
    fail_all(queue, 3)
    runs = queue.enqueue("runs")
    job = claim(queue)
    what = queue.preview("resubmit", JobFilter.of("failed"))
    clock.advance(1)
    queue.fail(job, "TimeoutError: late", permanent=True)
    fail_all(queue, 2)
    assert last(queue, what).changed == 3
    assert queue.get_job(runs).status == "failed"
    assert queue.counts()["failed"] == 3


@pytest.mark.parametrize("by_id", [True, False])
def test_a_job_that_changed_meanwhile_is_told_and_not_clobbered(queue: Queue, clock: FakeClock, by_id: bool) -> None:
    again, gone, cancelled, same = fail_all(queue, 4)
    which: dict[str, Any] = {"ids": [again, gone, cancelled, same]} if by_id else {"which": JobFilter.of("failed")}
    what = queue.preview("resubmit", **which)
    clock.advance(1)
    queue.resubmit(again)  # and it fails once more, so that it looks the same
    queue.fail(claim(queue), "once more", permanent=True)
    queue.delete_job(gone)
    queue.resubmit(cancelled)
    queue.cancel(cancelled)
    result = last(queue, what)
    assert (result.changed_ids, result.changed, result.refused) == ((same,), 1, 3)
    told = {refused.id: refused.why for refused in result.refusals}
    assert told == {
        again: f"job {again} changed meanwhile: it is failed now",
        gone: f"job {gone} is gone",
        cancelled: f"job {cancelled} changed meanwhile: it is cancelled now",
    }
    assert queue.get_job(again).error == "once more"
    assert queue.get_job(cancelled).status == "cancelled"


def test_ids_in_any_status_are_answered_each(queue: Queue) -> None:
    done, failed, waits = (job_in(queue, status).id for status in ("done", "failed", "pending"))
    what = queue.preview("cancel", ids=[waits, 4711, done, failed, waits, 1 << 70])
    assert what.missing == (-1, 4711)
    result = last(queue, what)
    assert result.changed_ids == (waits,)
    assert [one.why for one in result.refusals] == [
        f"job {done} is done; 'cancel' is for pending, processing jobs",
        f"job {failed} is failed; 'cancel' is for pending, processing jobs",
    ]


def test_to_resubmit_all_leaves_what_a_person_called_off(queue: Queue) -> None:
    job_in(queue, "cancelled")
    failed = job_in(queue, "failed")
    assert queue.preview("resubmit").ids == (failed.id,)
    assert queue.preview("resubmit", JobFilter.of(["failed", "cancelled"])).count == 2


def test_a_filter_that_the_action_is_not_for_matches_nothing(queue: Queue) -> None:
    job_in(queue, "done")
    what = queue.preview("cancel", JobFilter.of("done"))
    assert what.count == 0
    assert last(queue, what) == Progress(operation=0, over=True)
    assert queue.audit() == []


def test_crashed_jobs_are_a_filter_of_bulk_too(queue: Queue) -> None:
    queue.enqueue_many(["crashes", "waits"])
    queue.fail(claim(queue), "once", delay=0)
    assert queue.preview("cancel", JobFilter.of("crashed")).ids == (1,)


def test_another_number_than_expected_is_refused_before_anything_is_done(queue: Queue) -> None:
    fail_all(queue, 3)
    what = queue.preview("resubmit")
    with pytest.raises(IllegalTransition, match="3 jobs match now, where 2 were expected"):
        last(queue, what, expected=2)
    assert queue.counts()["failed"] == 3
    assert queue.audit() == []
    assert last(queue, what, expected=3).changed == 3


def test_one_that_was_cut_off_is_finished_within_its_own_bounds(
    queue: Queue, make_queue: MakeQueue, clock: FakeClock
) -> None:
    fail_all(queue, 5)
    runs = queue.enqueue("runs")
    job = claim(queue)
    what = queue.preview("resubmit", JobFilter.of("failed"), reason="outage over")
    began = queue.begin_bulk(what)
    queue.advance_bulk(what, began, size=2)
    clock.advance(1)
    queue.fail(job, "late", permanent=True)  # after the preview

    second = make_queue(actor="cli:other@there")
    rest = second.preview_rest(began.operation)
    assert (rest.count, rest.action.reason, rest.ids) == (3, "outage over", (3, 4, 5))
    result = last(second, rest)
    assert (result.operation, result.changed, result.over) == (began.operation, 5, True)
    assert second.get_job(runs).status == "failed"
    (entry,) = second.audit()
    assert entry.counts == {"matched": 5, "changed": 5, "refused": 0}
    assert entry.finished_at == clock.now()
    with pytest.raises(IllegalTransition, match="was finished"):
        second.preview_rest(began.operation)


class Killed(BaseException):
    """Stands for the death of the process."""


@pytest.fixture
def cut_off(make_queue: MakeQueue, monkeypatch: pytest.MonkeyPatch) -> Queue:
    """A queue whose bulk actions take two jobs at a time, and die of the second chunk."""
    q = make_queue(actor="cli:alice@x")
    advance, chunks = q.advance_bulk, []

    def two(what: Preview, so_far: Progress, *, size: int) -> Progress:
        if chunks:
            raise Killed
        chunks.append(size)
        return advance(what, so_far, size=2)

    monkeypatch.setattr(q, "advance_bulk", two)
    return q


@pytest.mark.parametrize("again", [False, True], ids=["by its number", "by the same call again"])
@pytest.mark.parametrize("what", ["delete_jobs", "purge"])
def test_a_deletion_that_was_cut_off_is_finished(
    cut_off: Queue, make_queue: MakeQueue, clock: FakeClock, what: str, again: bool
) -> None:
    old = fail_all(cut_off, 5)
    clock.advance(100)

    def delete(q: Queue) -> int:
        return q.purge(50, "failed") if what == "purge" else q.delete_jobs(JobFilter.of("failed"))

    with pytest.raises(Killed):
        delete(cut_off)
    clock.advance(10)
    (young,) = fail_all(cut_off, 1)
    second = make_queue()
    (entry,) = second.audit()
    assert (entry.finished_at, entry.counts) == (None, {"matched": 5, "changed": 2, "refused": 0})
    assert [job.id for job in second.list_jobs()] == [*old[2:], young]
    if again and what == "delete_jobs":
        assert delete(second) == 4  # the young one as well: it is there now
        assert second.list_jobs() == []
    elif again:
        assert delete(second) == 3
        assert [job.id for job in second.list_jobs()] == [young]
    else:
        assert last(second, second.preview_rest(entry.id)).changed == 5
        assert [job.id for job in second.list_jobs()] == [young]
        (entry,) = second.audit()
        assert entry.finished_at == clock.now()
    assert second.tally_drift() == {}


def test_a_purge_leaves_what_was_resubmitted_meanwhile_even_if_it_is_over_again(queue: Queue, clock: FakeClock) -> None:
    first, again, waits = fail_all(queue, 3)
    clock.advance(100)
    what = preview_purge(queue, 50, "failed")
    assert (what.count, queue.counts()["failed"]) == (3, 3)
    queue.resubmit(again)
    queue.fail(claim(queue), "once more", permanent=True)
    queue.resubmit(waits)
    result = last(queue, what)
    assert (result.changed_ids, [one.id for one in result.refusals]) == ((first,), [again, waits])
    assert {job.id: job.status for job in queue.list_jobs()} == {again: "failed", waits: "pending"}


def test_jobs_that_did_not_change_for_long_can_be_meant_by_any_action(queue: Queue, clock: FakeClock) -> None:
    waits = queue.enqueue("waits", priority=-1)
    old = fail_all(queue, 1)
    clock.advance(60)
    runs = job_in(queue, "processing").id
    fail_all(queue, 1)
    assert queue.preview("cancel", unchanged_for=30).ids == (waits,)
    assert queue.preview("resubmit", unchanged_for=30).ids == tuple(old)
    assert queue.preview("resubmit", unchanged_for=60).ids == ()
    assert queue.preview("release", unchanged_for=0).ids == ()
    clock.advance(1)
    assert queue.preview("release", unchanged_for=0).ids == (runs,)
    with pytest.raises(ConfigError):
        queue.preview("resubmit", unchanged_for=-1)


def test_one_by_ids_that_was_cut_off_goes_on_too(queue: Queue) -> None:
    ids = fail_all(queue, 4)
    what = queue.preview("edit", ids=ids, priority=3)
    assert queue.preview("mark_failed", ids=ids).count == 4
    queue.advance_bulk(what, began := queue.begin_bulk(what), size=3)
    rest = queue.preview_rest(began.operation)
    assert (rest.ids, rest.action.priority) == ((ids[3],), 3)


def test_an_unknown_number_cannot_be_gone_on_with(queue: Queue) -> None:
    queue.enqueue("x")
    queue.cancel(1)
    for operation in (1, 99):  # the first is a decision in one step
        with pytest.raises(JobNotFound, match=f"no bulk action {operation}"):
            queue.preview_rest(operation)


SENSELESS: list[tuple[str, dict[str, Any]]] = [
    ("explode", {}),
    ("cancel", {"force": True}),
    ("resubmit", {"priority": 3}),
    ("edit", {}),
    ("edit", {"reason": "nothing to change"}),
    ("edit", {"priority": 1 << 40}),
    ("edit", {"priority": "high"}),
    ("edit", {"run_at": "tomorrow"}),
    ("assign", {}),
    ("assign", {"consumer": "x" * 256}),
    ("assign", {"consumer": "a\0b"}),
]


def test_an_action_that_makes_no_sense_is_refused(queue: Queue) -> None:
    queue.enqueue("x")
    for verb, options in SENSELESS:
        with pytest.raises((ConfigError, PayloadError)):
            pytest.fail(f"{verb} {options}: {queue.preview(verb, **options)}")


def test_ids_and_a_filter_together_are_refused(queue: Queue) -> None:
    with pytest.raises(ConfigError, match="give a filter, or"):
        queue.preview("cancel", JobFilter(), ids=[1])
    with pytest.raises(ConfigError, match="give a filter, or"):
        queue.preview("cancel", ids=[1], unchanged_for=1)


# One job: what the older methods did not do


def test_release_takes_a_job_back_without_costing_an_attempt(queue: Queue) -> None:
    job = job_in(queue, "processing")
    back = queue.release_job(job.id, "its machine is on fire")
    assert (back.status, back.attempts, back.consumer_id, back.lease_until) == ("pending", 0, None, None)
    assert back.fence > job.fence
    assert queue.audit()[0].reason == "its machine is on fire"
    assert [(event.kind, event.detail) for event in queue.events(job.id)] == [("released", {})]
    with pytest.raises(IllegalTransition, match="'release' is for processing jobs"):
        queue.release_job(job.id)
    assert claim(queue, OTHER).id == job.id


def test_edit_changes_when_and_in_which_order(queue: Queue, clock: FakeClock) -> None:
    first, second, third = queue.enqueue_many(["first", "second", "third"])
    queue.edit_job(third, priority=5)
    later = clock.now() + timedelta(seconds=30)
    assert queue.edit_job(first, run_at=later, reason="not now").run_at == later
    assert [job.id for job in queue.dequeue_many(OTHER)] == [third, second]
    clock.advance(30)
    assert claim(queue).id == first
    assert [event.kind for event in queue.events(first)] == ["edited"]
    assert queue.events(first)[0].detail == {"run_at": later.isoformat(), "reason": "not now"}


def test_edit_brings_a_delayed_job_forward(queue: Queue, clock: FakeClock) -> None:
    job_id = queue.enqueue("x", delay=3600)
    queue.edit_job(job_id, run_at=clock.now())
    assert claim(queue).id == job_id


@pytest.mark.parametrize("status", ["processing", "done", "failed", "cancelled"])
def test_only_a_waiting_job_is_edited(queue: Queue, status: str) -> None:
    job = job_in(queue, status)
    with pytest.raises(IllegalTransition, match=f"job {job.id} is {status}; 'edit' is for pending jobs"):
        queue.edit_job(job.id, priority=1)
    assert queue.get_job(job.id) == job


def test_delete_takes_one_job_with_its_history(queue: Queue) -> None:
    job = job_in(queue, "failed")
    assert queue.delete_job(job.id) == job
    with pytest.raises(JobNotFound):
        queue.get_job(job.id)
    runs = job_in(queue, "processing")
    with pytest.raises(IllegalTransition, match="is processing"):
        queue.delete_job(runs.id)
    queue.delete_job(runs.id, force=True)
    assert sum(queue.counts().values()) == 0
