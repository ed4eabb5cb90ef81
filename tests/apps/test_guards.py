"""What keeps a person from harm: the read-only window, prompts, and what may not be asked."""

import os
import subprocess
from pathlib import Path

import pytest
from persistq.admin.admin import app
from support.cli import invoke, run
from typer.main import get_command

import persistq

WRITING = {
    "enqueue": "enqueue item",
    "enqueue from stdin": "enqueue -",
    "cancel": "cancel {pending}",
    "resubmit": "resubmit {failed}",
    "resubmit by force": "resubmit {done} --force",
    "mark-failed": "mark-failed {pending}",
    "assign-job": "assign-job {pending} somebody",
    "release": "release {processing}",
    "edit-job": "edit-job {pending} --priority 1",
    "delete-job": "delete-job {done} --yes",
    "cancel all": "cancel --all --yes",
    "resubmit all": "resubmit --all --yes",
    "queues pause": "queues pause default",
    "queues resume": "queues resume default",
    "queues drain": "queues drain default --timeout 0",
    "consumers quiet": "consumers quiet worker",
    "consumers resume": "consumers resume worker",
    "consumers stop": "consumers stop worker",
    "consumers prune": "consumers prune --yes",
    "audit resume": "audit resume 1",
    "workers add": "workers add",
    "workers stop": "workers stop consumer_00",
    "restore": "restore copy.db --yes",
    "db vacuum": "db vacuum",
    "db import": "db import jobs.jsonl",
    "purge": "purge --older-than 0 --yes",
    "delete-db-jobs": "delete-db-jobs --yes",
    "delete-db-jobs by force": "delete-db-jobs --force --yes",
    "delete-job-files": "delete-job-files --directory . --yes",
    "db init": "db init",
    "db upgrade": "db upgrade",
    "up": "up",
    "consumer": "consumer --drain --queue nobody",
    "producer": "producer --count 1 --interval 0",
}
READING = {
    "list-jobs": "list-jobs",
    "show-job": "show-job {pending}",
    "explain": "explain {pending}",
    "stats": "stats",
    "errors": "errors",
    "queues list": "queues list",
    "queues show": "queues show default",
    "consumers list": "consumers list",
    "consumers show": "consumers show nobody",
    "audit list": "audit list",
    "audit show": "audit show 4711",
    "workers status": "workers status",
    "db history": "db history",
    "backup": "backup copy.db",
    "db info": "db info",
    "db export": "db export",
    "cancel in a dry run": "cancel --all --dry-run",
    "edit-job in a dry run": "edit-job {pending} --priority 1 --dry-run",
    "monitor-activity": "monitor-activity --count 1",
    "doctor": "doctor",
    "config show": "config show",
    "db check": "db check",
    "delete-db-jobs in a dry run": "delete-db-jobs --dry-run",
    "delete-job-files in a dry run": "delete-job-files --directory . --dry-run",
}


ELSEWHERE = {"batches", "ops", "shards", "tui"}
"""Commands that have tables of their own beside their other tests."""


def test_every_command_is_in_one_of_the_two_tables() -> None:
    commands = {name: one for name, one in get_command(app).commands.items() if name not in ELSEWHERE}  # type: ignore[attr-defined]
    names = {f"{name} {sub}".strip() for name, one in commands.items() for sub in getattr(one, "commands", [""])}
    tried = {*WRITING.values(), *READING.values()}
    assert {name for name in names if not any(f"{words} ".startswith(f"{name} ") for words in tried)} == set()


@pytest.mark.parametrize("command", WRITING.values(), ids=WRITING.keys())
def test_a_read_only_window_refuses_what_writes(
    one_of_each: dict[str, int],
    q: persistq.PersistentQSQLAlchemy,
    tmp_path: Path,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Consumer and producer would take this process's place.
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("it was not refused"))
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("it was not refused"))
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "done").touch()  # the done job's file
    before = _everything(q)
    result = invoke("--read-only", *command.format(**one_of_each).split(), stdin="line\n")
    assert _everything(q) == before
    assert result.exit_code == 4, result.output
    assert (result.stdout, len(result.stderr.splitlines())) == ("", 1)
    assert (tmp_path / "jobs" / "done").exists()
    assert not (tmp_path / "supervisor").exists()


@pytest.mark.parametrize("command", READING.values(), ids=READING.keys())
def test_a_read_only_window_shows_everything(
    one_of_each: dict[str, int], q: persistq.PersistentQSQLAlchemy, command: str
) -> None:
    before = _everything(q)
    result = invoke("--read-only", *command.format(**one_of_each).split())
    assert result.exit_code in (0, 1, 3)  # the doctor finds no consumer, and there is none to be shown
    assert "read-only" not in result.stderr
    assert _everything(q) == before


ASKING = {
    "purge": "purge --older-than 0",
    "cancel --all": "cancel --all --status pending",
    "delete-job": "delete-job 1",
    "delete-db-jobs": "delete-db-jobs",
    "delete-job-files": "delete-job-files --directory .",
}
ANSWERS = {
    "y": ("y\n", 0),
    "yes": ("yes\n", 0),
    "Y": ("Y\n", 0),
    "n": ("n\n", 1),
    "no": ("no\n", 1),
    "only Enter": ("\n", 1),
    "end of file": ("", 1),
    "nonsense, then no": ("perhaps\nn\n", 1),
    "nonsense, then end of file": ("perhaps\n", 1),
}


@pytest.fixture
def done_file(tmp_path: Path, one_of_each: dict[str, int]) -> Path:
    """The file of the done job."""
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "done").touch()
    return tmp_path / "jobs" / "done"


@pytest.mark.parametrize(("answer", "code"), ANSWERS.values(), ids=ANSWERS.keys())
@pytest.mark.parametrize("command", ASKING.values(), ids=ASKING.keys())
def test_what_deletes_asks_first(
    q: persistq.PersistentQSQLAlchemy, done_file: Path, command: str, answer: str, code: int
) -> None:
    before = _everything(q)
    result = invoke(*command.split(), stdin=answer)
    assert result.exit_code == code
    assert "[y/N]" in result.stderr
    assert "[y/N]" not in result.stdout
    changed = _everything(q) != before or not done_file.exists()
    assert changed == (code == 0)
    if code:
        assert "--yes" in result.stderr


@pytest.mark.parametrize("command", ASKING.values(), ids=ASKING.keys())
def test_no_input_needs_yes(q: persistq.PersistentQSQLAlchemy, done_file: Path, command: str) -> None:
    before = _everything(q)
    result = invoke("--no-input", *command.split(), stdin="y\n")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--yes" in result.stderr
    assert _everything(q) == before
    assert done_file.exists()
    assert invoke("--no-input", *command.split(), "--yes").exit_code == 0


@pytest.mark.parametrize("command", ASKING.values(), ids=ASKING.keys())
def test_a_message_does_not_stand_on_the_prompts_line(done_file: Path, command: str) -> None:
    assert "[y/N]:persistq" not in invoke(*command.split(), stdin="").stderr.replace(" ", "")


@pytest.mark.parametrize("command", ASKING.values(), ids=ASKING.keys())
def test_a_prompt_leaves_no_trace_in_the_data(done_file: Path, command: str) -> None:
    """CliRunner echoes what is typed, so this needs a process of its own."""
    done = run(*command.split(), stdin=b"y\n")
    assert done.returncode == 0
    assert done.stdout == done.stdout.lstrip(b" ")


def test_delete_db_jobs_says_how_many_and_where(one_of_each: dict[str, int]) -> None:
    result = invoke("delete-db-jobs", stdin="n\n")
    assert "4 job records" in result.stderr
    assert "queue.db" in result.stderr


def test_delete_db_jobs_leaves_running_jobs(one_of_each: dict[str, int], q: persistq.PersistentQSQLAlchemy) -> None:
    assert invoke("delete-db-jobs", "--dry-run").stdout == "4\n"
    result = invoke("delete-db-jobs", "--yes")
    assert result.stdout == "4\n"
    assert "--force" in result.stderr
    assert [job.status for job in q.list_jobs()] == ["processing"]
    assert invoke("delete-db-jobs", "--yes", "--force").stdout == "1\n"
    assert q.list_jobs() == []


def test_purge_takes_only_what_is_old_and_has_the_status(
    one_of_each: dict[str, int], q: persistq.PersistentQSQLAlchemy
) -> None:
    assert invoke("purge", "--older-than", "1h", "--yes").stdout == "0\n"
    assert invoke("purge", "--older-than", "0", "--state", "dead", "--yes").stdout == "1\n"
    assert {str(job.status) for job in q.list_jobs()} == {"pending", "processing", "done", "cancelled"}


def _everything(q: persistq.PersistentQSQLAlchemy) -> list[object]:
    return [(job, q.events(job.id)) for job in q.list_jobs(limit=1000)]


def test_a_read_only_window_makes_no_database() -> None:
    done = invoke("--read-only", "--db", "typo.db", "list-jobs")
    assert (done.exit_code, done.stdout) == (5, "")
    assert "typo.db" in done.stderr
    assert not list(Path().glob("typo.db*"))
