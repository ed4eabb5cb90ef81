"""What keeps a person from harm: the read-only window, prompts, and what may not be asked."""

import io
import os
import subprocess
from pathlib import Path

import pytest
from persistq.admin.admin import app
from support.cli import invoke, run
from support.databases import SQLite

import persistq
from apps.every_command import World, commands, make_world, takes

# What each command does in a read-only window is a column of every_command.py; these are other ways to ask.
WRITING = {
    "enqueue from stdin": "enqueue -",
    "resubmit by force": "resubmit {done} --force",
    "cancel all": "cancel --all --yes",
    "resubmit all": "resubmit --all --yes",
    "delete-db-jobs by force": "delete-db-jobs --force --yes",
    "db check with its remedy": "db check --fix",
    "batches delete in another spool": "batches delete x --spool elsewhere --yes",
}
READING = {
    "cancel in a dry run": "cancel --all --dry-run",
    "edit-job in a dry run": "edit-job {pending} --priority 1 --dry-run",
    "delete-job in a dry run": "delete-job {done} --dry-run",
    "delete-db-jobs in a dry run": "delete-db-jobs --dry-run",
    "delete-job-files in a dry run": "delete-job-files --directory . --dry-run",
    "batches delete in a dry run": "batches delete x --dry-run",
}


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
    "cancel": "cancel --all --status pending",
    "resubmit": "resubmit --all",
    "mark-failed": "mark-failed --all",
    "assign-job": "assign-job --all --to a",
    "release": "release --all",
    "edit-job": "edit-job --all --priority 1",
    "delete-job": "delete-job {done}",
    "purge": "purge --older-than 0",
    "delete-db-jobs": "delete-db-jobs",
    "delete-job-files": "delete-job-files --directory .",
    "restore": "restore kept.db --force",
    "consumers prune": "consumers prune --older-than 0",
    "audit resume": "audit resume {begun}",
    "batches delete": "batches delete {ready}",
    "shards release": "shards release Mail/7",
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
def world(
    q: persistq.PersistentQSQLAlchemy,
    one_of_each: dict[str, int],
    databases: SQLite,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    """Jobs, files and consumers in every state."""
    return make_world(q, one_of_each, databases, tmp_path_factory.mktemp("empty"), monkeypatch)


def test_every_command_that_can_go_ahead_without_asking_is_in_the_table() -> None:
    assert sorted(ASKING) == sorted(name for name, command in commands() if takes(command, "--yes"))


@pytest.mark.parametrize("name", ASKING)
def test_what_a_person_may_regret_is_asked_about_first(
    name: str, world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with world.prepare(name):
        before = world.state(), world.q.audit()
        words = ASKING[name].format(**world.things).split()
        for answer in ("n\n", ""):
            held = invoke(*words, stdin=answer)
            assert (held.exit_code, "[y/N]" in held.stdout) == (1, False)
            assert "[y/N]" in held.stderr
            assert "--yes" in held.stderr
        assert "[y/N]:persistq" not in held.stderr.replace(" ", ""), "a message has a line of its own"
        held = invoke("--no-input", *words, stdin="y\n")
        assert (held.exit_code, held.stdout) == (2, "")
        assert "--yes" in held.stderr
        assert (world.state(), world.q.audit()) == before

        # Not by CliRunner, which echoes what is typed into stdout.
        monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
        with pytest.raises(SystemExit) as ended:
            app(words, prog_name="persistq")
        shown = capsys.readouterr()
        assert (ended.value.code or 0) == 0, shown.err
        assert "[y/N]" in shown.err
        assert "[y/N]" not in shown.out
        assert shown.out == shown.out.lstrip(" "), "the question leaves no trace in the data"
        assert (world.state(), world.q.audit()) != before


@pytest.mark.parametrize(("answer", "code"), ANSWERS.values(), ids=ANSWERS.keys())
def test_only_a_yes_is_a_yes(one_of_each: dict[str, int], answer: str, code: int) -> None:
    assert invoke("delete-db-jobs", stdin=answer).exit_code == code


def test_a_prompt_leaves_no_trace_in_the_data_of_a_process(one_of_each: dict[str, int]) -> None:
    done = run("delete-db-jobs", stdin=b"y\n")
    assert (done.returncode, done.stdout) == (0, b"4\n")


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
