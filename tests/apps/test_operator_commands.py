"""The operator's commands: many at once, why, who did it, and what completes."""

import csv
import io
import json
from pathlib import Path

import pytest
from persistq.admin.admin import app
from support.cli import Terminal, invoke, ok, run
from support.jobs import WORKER, claim
from typer.testing import CliRunner

import persistq
from persistq import JobFilter


@pytest.fixture
def failed(q: persistq.PersistentQSQLAlchemy) -> list[int]:
    """Twelve failed jobs of two kinds."""
    ids = q.enqueue_many([f"item {n}" for n in range(12)])
    for job in q.dequeue_many(WORKER):
        q.fail(job, "TimeoutError: late" if job.id % 2 else "KeyError: 'x'", permanent=True)
    return ids


def test_a_dry_run_says_how_many_and_shows_some(failed: list[int], q: persistq.PersistentQSQLAlchemy) -> None:
    result = invoke("resubmit", "--all", "--error", "TimeoutError", "--dry-run")
    assert (result.exit_code, result.stdout) == (0, "6\n")
    assert "6 jobs match: 6 in default" in result.stderr
    assert "and 1 more" in result.stderr
    document = json.loads(ok("resubmit", "--all", "--error", "TimeoutError", "--dry-run", "--json"))
    assert (document["action"], document["matched"], document["by_queue"]) == ("resubmit", 6, {"default": 6})
    assert [job["id"] for job in document["samples"]] == failed[:10:2]
    assert q.counts()["failed"] == 12


def test_all_that_match_are_done_after_a_yes(failed: list[int], q: persistq.PersistentQSQLAlchemy) -> None:
    refused = invoke("resubmit", "--all", "--error", "TimeoutError", stdin="n\n")
    assert refused.exit_code == 1
    assert "resubmit 6 jobs in" in refused.stderr
    assert q.counts()["failed"] == 12
    result = invoke("resubmit", "--all", "--error", "TimeoutError", "--reason", "it answers again", stdin="y\n")
    operation, *rest = result.stdout.split()
    assert rest == ["resubmit", "6", "6", "0"]
    assert q.counts()["failed"] == q.counts()["pending"] == 6
    (entry,) = json.loads(ok("audit", "list", "--json"))
    assert (entry["id"], entry["via"], entry["reason"]) == (int(operation), "cli", "it answers again")
    assert entry["counts"] == {"matched": 6, "changed": 6, "refused": 0}
    assert "it answers again" in ok("audit", "show", operation)


def test_what_changed_meanwhile_is_told_and_partly_done_is_six(
    failed: list[int], q: persistq.PersistentQSQLAlchemy, monkeypatch: pytest.MonkeyPatch
) -> None:
    preview = persistq.PersistentQSQLAlchemy.preview

    def then_somebody_else(self, *args, **options):  # type: ignore[no-untyped-def]
        found = preview(self, *args, **options)
        q.delete_job(failed[3])
        return found

    monkeypatch.setattr(persistq.PersistentQSQLAlchemy, "preview", then_somebody_else)
    result = invoke("resubmit", "--all", "--yes")
    assert result.exit_code == 6
    assert result.stdout.split()[1:] == ["resubmit", "12", "11", "1"]
    assert f"persistq: job {failed[3]} is gone" in result.stderr


def test_one_that_was_cut_off_says_how_to_go_on(
    failed: list[int], q: persistq.PersistentQSQLAlchemy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise persistq.DatabaseUnavailable("gone")

    what = q.preview("resubmit", JobFilter.of("failed"))
    progress = q.advance_bulk(what, q.begin_bulk(what), size=5)
    with monkeypatch.context() as broken:
        broken.setattr(persistq.PersistentQSQLAlchemy, "advance_bulk", unreachable)
        result = invoke("audit", "resume", str(progress.operation), "--yes")
    assert result.exit_code == 5
    assert f"persistq audit resume {progress.operation} does the rest" in result.stderr
    assert ok("audit", "resume", str(progress.operation), "--yes").split()[1:] == ["resubmit", "7", "12", "0"]
    assert invoke("audit", "resume", str(progress.operation), "--yes").exit_code == 4


@pytest.mark.parametrize("command", ["purge --older-than 0 --status failed", "delete-db-jobs --status failed"])
def test_a_deletion_that_was_cut_off_says_how_to_go_on(
    failed: list[int], q: persistq.PersistentQSQLAlchemy, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    advance = persistq.PersistentQSQLAlchemy.advance_bulk

    def five_and_away(self, what, so_far, *, size):  # type: ignore[no-untyped-def]
        if so_far.place:
            raise persistq.DatabaseUnavailable("gone")
        return advance(self, what, so_far, size=5)

    with monkeypatch.context() as broken:
        broken.setattr(persistq.PersistentQSQLAlchemy, "advance_bulk", five_and_away)
        result = invoke(*command.split(), "--yes")
    assert (result.exit_code, result.stdout) == (5, "")
    (entry,) = json.loads(ok("audit", "list", "--json"))
    assert f"cut off after 5 changes; persistq audit resume {entry['id']} does the rest" in result.stderr
    assert q.counts()["failed"] == 7
    assert ok("audit", "resume", str(entry["id"]), "--yes").split()[1:] == ["delete", "7", "12", "0"]
    assert q.counts()["failed"] == 0


def test_what_changed_before_it_was_deleted_is_told(
    failed: list[int], q: persistq.PersistentQSQLAlchemy, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = persistq.PersistentQSQLAlchemy.begin_bulk

    def somebody_first(self, what, **options):  # type: ignore[no-untyped-def]
        q.resubmit(failed[3])
        return begin(self, what, **options)

    monkeypatch.setattr(persistq.PersistentQSQLAlchemy, "begin_bulk", somebody_first)
    result = invoke("delete-db-jobs", "--yes")
    assert (result.exit_code, result.stdout) == (6, "11\n")
    assert result.stderr == f"persistq: job {failed[3]} changed meanwhile: it is pending now\n"
    assert [job.id for job in q.list_jobs()] == [failed[3]]


def test_explain_prints_what_the_library_says(one_of_each: dict[str, int], q: persistq.PersistentQSQLAlchemy) -> None:
    for job_id in one_of_each.values():
        document = json.loads(ok("explain", str(job_id), "--json"))
        assert document["reasons"][0]["code"] == q.explain(job_id).blocker.code
        assert ok("explain", str(job_id)).splitlines()[0] == f"Job {job_id} is {document['status']}."


def test_errors_are_grouped(failed: list[int]) -> None:
    groups = json.loads(ok("errors", "--json"))
    assert [(one["error"], one["message"], one["count"]) for one in groups] == [
        ("KeyError", "#", 6),
        ("TimeoutError", "late", 6),
    ]
    assert len(json.loads(ok("errors", "--error", "keyerror", "--json"))) == 1


def test_stats_tell_throughput_and_percentiles(q: persistq.PersistentQSQLAlchemy) -> None:
    q.enqueue("x")
    q.complete(claim(q))
    (timing,) = json.loads(ok("stats", "--json"))["timings"]
    assert (timing["queue"], timing["done"], timing["failed"]) == ("default", 1, 0)
    assert timing["run"].keys() == timing["wait"].keys() == {"p50", "p95", "p99"}
    assert json.loads(ok("stats", "--queue", "nobody", "--json"))["timings"] == []
    assert "run_p95" in ok("--format", "table", "stats")


def test_fields_of_choice_in_every_format(failed: list[int]) -> None:
    rows = json.loads(ok("--fields", "error,id", "list-jobs", "--limit", "1", "--json"))
    assert rows == [{"error": "TimeoutError: late", "id": failed[0]}]
    assert ok("--fields", "error,id", "list-jobs", "--limit", "1") == f"TimeoutError: late\t{failed[0]}\n"
    (row,) = csv.DictReader(io.StringIO(ok("--fields", "id", "--format", "csv", "list-jobs", "--limit", "1")))
    assert row == {"id": str(failed[0])}


def test_a_paused_queue_is_drained(one_of_each: dict[str, int], q: persistq.PersistentQSQLAlchemy) -> None:
    late = invoke("queues", "drain", "default", "--timeout", "0")
    assert late.exit_code == 1
    assert "1 jobs of queue default still run; it stays paused" in late.stderr
    q.release_job(one_of_each["processing"])
    assert "nothing of queue default runs" in invoke("queues", "drain", "default").stderr
    assert q.dequeue(WORKER) is None
    (row,) = json.loads(ok("queues", "show", "default", "--json"))
    assert (row["paused"], row["pending"]) == (True, 2)


def test_consumers_are_shown_with_what_they_hold(
    one_of_each: dict[str, int], q: persistq.PersistentQSQLAlchemy
) -> None:
    now = q.clock.now()
    info = persistq.ConsumerInfo(
        id=WORKER, name="worker", host="host", pid=1, queues=("mail",), concurrency=2, running=1, started_at=now,
        seen_at=now,
    )  # fmt: skip
    q.beat(info)
    (row,) = json.loads(ok("consumers", "show", "worker", "--json"))
    assert (row["state"], row["queues"]) == ("alive", "mail")
    assert [job["id"] for job in row["jobs"]] == [one_of_each["processing"]]
    assert ok("consumers", "quiet", "worker") == f"{WORKER}\n"
    assert json.loads(ok("consumers", "list", "--json"))[0]["state"] == "quiet"
    assert ok("consumers", "resume", "worker") == f"{WORKER}\n"
    assert q.beat(info) is None


def test_a_list_is_watched_until_ctrl_c(failed: list[int], terminal) -> None:  # type: ignore[no-untyped-def]
    shown: Terminal = terminal("list-jobs", "--watch", "0.1")
    shown.type_when("item 11", b"\x03")
    assert shown.wait() == 130
    assert shown.sent.count(b"\x1b[2J") >= 1
    assert "TimeoutError" in shown.text()


def test_a_long_action_shows_its_progress_on_a_terminal(failed: list[int], terminal) -> None:  # type: ignore[no-untyped-def]
    shown: Terminal = terminal("resubmit", "--all", "--yes")
    assert shown.wait() == 0
    assert b"12 of 12" in shown.sent
    assert "12 of 12" not in shown.text(), "the bar is gone in the end"


COMPLETIONS = {
    "commands": ("persistq resub", {"resubmit"}),
    "ids": ("persistq show-job 1", {"1", "10", "11", "12"}),
    "queues": ("persistq queues pause de", {"default"}),
    "statuses": ("persistq list-jobs --status ", {"pending", "processing", "done", "failed", "cancelled", "crashed"}),
    "queues of a filter": ("persistq list-jobs --queue d", {"default"}),
    "nothing of the kind": ("persistq queues pause zzz", set()),
}


@pytest.mark.parametrize(("line", "words"), COMPLETIONS.values(), ids=COMPLETIONS.keys())
def test_ids_and_names_complete(failed: list[int], line: str, words: set[str]) -> None:
    asked = {
        "_PERSISTQ_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
    }
    result = CliRunner().invoke(app, [], env=asked, prog_name="persistq")
    assert set(result.stdout.split()) == words, result.output


def test_completion_makes_no_database_and_is_silent_in_trouble(tmp_path: Path) -> None:
    variables = {"_PERSISTQ_COMPLETE": "complete_bash", "COMP_WORDS": "persistq show-job ", "COMP_CWORD": "2"}
    done = run(**variables)
    assert (done.stdout.strip(), done.stderr) == (b"", b"")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "queue.db").write_text("no database at all, " * 100)
    done = run(**variables)
    assert (done.stdout.strip(), done.stderr) == (b"", b"")
