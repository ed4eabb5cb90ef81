"""Operators at work on a living system: cut off amid a bulk action, two at once, telling consumers what to do."""

import pytest
from support.databases import every_kind

from persistq import JobFilter
from persistq.bulk import carry_out

from .yard import Yard, eventually

BULK = """
import sys
from persistq import JobFilter
from persistq.bulk import carry_out

q = persistq.connect(actor=sys.argv[1])
verb, stop_after = sys.argv[2], int(sys.argv[3])
what = q.preview(verb, JobFilter.of(sys.argv[4].split(",")), reason=sys.argv[1])
note(sys.argv[1], "previewed")
wait_for("go")
for number, progress in enumerate(carry_out(q, what), 1):
    for job_id in progress.changed_ids:
        note(sys.argv[1], "changed", job_id)
    for refused in progress.refusals:
        note(sys.argv[1], "told", refused.id)
    if number == stop_after:
        note(sys.argv[1], "half")
        time.sleep(1000)
"""


def failed_jobs(yard: Yard, number: int, error: str = "TimeoutError: late") -> list[int]:
    q = yard.connect(queue_durability="process")
    ids = q.enqueue_many([f"item {n}" for n in range(number)])
    for _ in carry_out(q, q.preview("mark_failed", JobFilter.of("pending"), reason=error)):
        pass
    q.close()
    return ids


def test_a_bulk_action_survives_kill_9_half_way_and_the_rest_is_done_by_another(make_yard, long):
    yard = make_yard(queue_durability="process")
    number = 100_000 if long else 4_000
    failed_jobs(yard, number)
    (late,) = yard.q.enqueue_many(["late"])
    job = yard.q.dequeue("worker")

    first = yard.script(BULK, "cli:alice@x", "resubmit", str(number // 2000), "failed")
    eventually(lambda: any("previewed" in line for line in yard.journal()), "it has seen what there is")
    yard.q.fail(job, "TimeoutError: after the preview", permanent=True)
    yard.open("go")
    eventually(lambda: any(line.endswith("half") for line in yard.journal()), "it is half-way")
    first.kill()

    entry = yard.q.audit(limit=1)[0]
    assert (entry.action, entry.actor, entry.finished_at) == ("resubmit", "alice@x", None)
    assert entry.counts == {"matched": number, "changed": number // 2, "refused": 0}
    assert yard.q.counts()["pending"] == number // 2
    yard.assert_sound()

    done = yard.run("-m", "persistq.admin.admin", "audit", "resume", str(entry.id), "--yes")
    assert done.wait() == 0, done.err
    assert yard.q.get_job(late).error == "TimeoutError: after the preview"
    assert yard.q.counts() == {"pending": number, "processing": 0, "done": 0, "failed": 1, "cancelled": 0}
    entry = yard.q.audit(limit=1)[0]
    assert entry.counts == {"matched": number, "changed": number, "refused": 0}
    assert entry.finished_at is not None
    yard.assert_sound()


def test_the_same_command_again_finishes_what_kill_9_cut_off(make_yard, long):
    yard = make_yard(queue_durability="process")
    number = 100_000 if long else 6_000
    failed_jobs(yard, number)
    command = ("-m", "persistq.admin.admin", "resubmit", "--all", "--error", "TimeoutError", "--yes")
    first = yard.run(*command)
    eventually(lambda: yard.q.counts()["pending"] > 0, "some are done")
    first.kill()
    half = yard.q.counts()["pending"]
    second = yard.run(*command)
    assert second.wait() == 0, second.err
    assert yard.q.counts()["pending"] == number
    newest, *_ = yard.q.audit(limit=2)
    if half < number:  # else it was done before the kill came
        assert newest.counts == {"matched": number - half, "changed": number - half, "refused": 0}
    yard.assert_sound()


CONTEST = """
import sys

q = persistq.connect(actor=sys.argv[1])
what = q.preview(sys.argv[2], ids=range(1, int(sys.argv[3]) + 1))
note(sys.argv[1], "ready", 0)
wait_for("go")
progress = q.begin_bulk(what)
while not progress.over:
    progress = q.advance_bulk(what, progress, size=100)
    for job_id in progress.changed_ids:
        note(sys.argv[1], "changed", job_id)
    for refused in progress.refusals:
        note(sys.argv[1], "told", refused.id)
"""


def contest(yard: Yard, verbs: tuple[str, str], number: int) -> None:
    """Let two administrators do their own to the same jobs at once; each job is changed once, each loser told."""
    ids = set(range(1, number + 1))
    fences = {job.id: job.fence for job in yard.jobs()}
    for verb in verbs:
        yard.script(CONTEST, f"cli:{verb}", verb, str(number))
    eventually(lambda: len(yard.journal()) == 2, "both have seen the same")
    yard.open("go")
    eventually(lambda: len(yard.journal()) >= 2 + 2 * number, "both are through")
    told: dict[tuple[str, str], list[int]] = {}
    for who, what, job_id in (line.split() for line in yard.journal()):
        told.setdefault((who.removeprefix("cli:"), what), []).append(int(job_id))
    won, lost = ([told.get((verb, what), []) for verb in verbs] for what in ("changed", "told"))
    assert sorted(won[0] + won[1]) == sorted(ids)
    assert [set(ids) - set(some) for some in won] == [set(some) for some in lost]
    assert {job.fence - fences[job.id] for job in yard.jobs()} <= {1}
    counts = {entry.actor: entry.counts for entry in yard.q.audit(limit=2)}
    for verb, mine, theirs in zip(verbs, won, lost, strict=True):
        assert counts[verb] == {"matched": number, "changed": len(mine), "refused": len(theirs)}
    yard.assert_sound()


@every_kind
def test_two_administrators_at_once_change_each_job_once_and_each_loser_is_told(make_yard, kind, long):
    yard = make_yard(queue_durability="process")
    number = 5_000 if long else 800
    yard.q.enqueue_many([f"item {n}" for n in range(number)])
    contest(yard, ("cancel", "mark_failed"), number)
    assert {job.status for job in yard.jobs()} <= {"cancelled", "failed"}


@pytest.mark.parametrize("other", ["cancel", "delete"])
def test_one_resubmits_what_another_cancels_or_deletes(make_yard, other, long):
    yard = make_yard(queue_durability="process")
    number = 5_000 if long else 800
    failed_jobs(yard, number)
    contest(yard, ("resubmit", other), number)
    assert {job.status for job in yard.jobs()} <= {"pending"}


def test_consumers_do_what_they_are_told(make_yard):
    yard = make_yard()
    yard.app("@persistq.task\ndef note_it(item):\n    note(item)\n")
    consumer = yard.consumer("--task", "note_it", "--name", "one")
    yard.q.enqueue("before")
    eventually(lambda: yard.journal() == ["before"], "it works")
    (info,) = yard.q.consumers()
    assert "note_it" in (info.tasks or ())
    yard.q.tell_consumer("one", "quiet")
    eventually(lambda: consumer.lines("claim no more"), "it has heard")
    job_id = yard.q.enqueue("meanwhile")
    assert yard.q.explain(job_id).blocker.code == "consumers_quiet"
    yard.q.tell_consumer("one", None)
    eventually(lambda: yard.journal() == ["before", "meanwhile"], "it works again")
    yard.q.tell_consumer("one", "stop")
    assert consumer.wait() == 0
    assert consumer.lines("finish and end")
    assert yard.q.consumers() == []
