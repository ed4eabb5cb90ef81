"""Exit codes: 0 ok, 1 failed or aborted, 2 usage, 3 not found, 4 wrong state, 5 database, 6 partly done, 130 Ctrl-C."""

import json
import os
import re
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from process.yard import LOCKER, eventually
from support.cli import COMMAND, environment, invoke, run
from support.databases import SQLite
from typer.testing import Result

import persistq
from apps.every_command import TABLE, Cell, Row, World, commands, forms, make_world, takes

UNKNOWN = "4711"
COMMANDS = dict(commands())

# What every command answers in each situation stands in every_command.py; these are other ways to ask.
CODES: dict[str, tuple[str, int]] = {
    "an empty list is fine": ("list-jobs --queue nobody", 0),
    "text filters together": ("list-jobs --status failed --queue q --task t --consumer c --item i --error e", 0),
    "times and pages together": ("list-jobs --since 24h --until 1h --limit 5 --after 2", 0),
    "several states": ("list-jobs --status failed --state done", 0),
    "a state of another vocabulary": ("list-jobs --state manual_intervention", 0),
    "crashed is a filter": ("list-jobs --status crashed", 0),
    "a date as time": ("list-jobs --since 2024-02-29 --until 2024-03-01T00:00:00+01:00", 0),
    "cancel all": ("cancel --all --yes", 0),
    "assign all": ("assign-job --all --to somebody --yes", 0),
    "mark failed what runs": ("mark-failed {processing}", 0),
    "resubmit a cancelled job": ("resubmit {cancelled}", 0),
    "resubmit a done job by force": ("resubmit {done} --force", 0),
    "cancel all that match nothing": ("cancel --all --queue nobody", 0),
    "resubmit all by error": ("resubmit --all --error broken --yes --expect 1", 0),
    "a dry run": ("mark-failed --all --dry-run", 0),
    "a dry run of ids": ("resubmit {failed} --dry-run", 0),
    "errors of none": ("errors --queue nobody", 0),
    "queues drain of what runs not": ("queues drain nobody", 0),
    "audit list": ("audit list --since 1h --actor nobody --action cancel", 0),
    "fields of choice": ("--fields id,item list-jobs", 0),
    "stats of a day": ("stats --within 24h --queue default", 0),
    "version": ("--version", 0),
    "help": ("--help", 0),
    "no command": ("", 2),
    "unknown command": ("list-everything", 2),
    "unknown option": ("list-jobs --frobnicate", 2),
    "missing argument": ("show-job", 2),
    "one argument too many": ("enqueue one two", 2),
    "an id that is no number": ("show-job seven", 2),
    "limit of nothing": ("list-jobs --limit 0", 2),
    "limit without end": ("list-jobs --limit 1000000", 2),
    "unknown status": ("list-jobs --status lost", 2),
    "crashed beside another status": ("list-jobs --status crashed --status done", 2),
    "ids and --all": ("cancel {pending} --all", 2),
    "filters without --all": ("cancel --queue default", 2),
    "neither ids nor --all": ("resubmit", 2),
    "edit nothing": ("edit-job {pending}", 2),
    "assign all to nobody": ("assign-job --all", 2),
    "a priority past all integers": ("edit-job {pending} --priority 99999999999", 2),
    "no field of that name": ("--fields nonsense list-jobs", 2),
    "unknown format": ("--format yaml list-jobs", 2),
    "no span of time": ("purge --older-than soon --yes", 2),
    "a span past all calendars": ("list-jobs --since 999999999999d", 2),
    "a delay past all calendars": ("enqueue item --delay 99999999999d", 2),
    "a purge past all calendars": ("purge --older-than 99999999999d --yes", 2),
    "a page past every id": ("list-jobs --after 99999999999999999999", 2),
    "a queue's name with a space": ("enqueue item --queue a%20b", 2),
    "one key for many": ("enqueue - --key once", 2),
    "a directory that is not there": ("delete-job-files --directory nowhere --yes", 2),
    "no directory": ("delete-job-files --yes", 2),
    "a database that nobody supports": ("--db oracle://host/name list-jobs", 2),
    "a database in memory": ("--db :memory: list-jobs", 2),
    "show a negative id": ("show-job -- -1", 3),
    "cancel unknown ids": (f"cancel {UNKNOWN} 4712", 3),
    "show an id of twenty digits": ("show-job 99999999999999999999", 3),
    "cancel an id of twenty digits": ("cancel 99999999999999999999", 3),
    "cancel twice": ("cancel {cancelled}", 4),
    "resubmit what runs": ("resubmit {processing}", 4),
    "resubmit what is done": ("resubmit {done}", 4),
    "fail what has failed": ("mark-failed {failed}", 4),
    "another number than expected": ("cancel --all --expect 7 --yes", 4),
    "one of two is unknown": (f"cancel {{pending}} {UNKNOWN}", 6),
    "one of two is over": ("cancel {done} {pending}", 6),
    "refused for two reasons": (f"cancel {{done}} {UNKNOWN}", 6),
}  # fmt: skip


def test_every_command_has_a_row_in_the_table() -> None:
    assert sorted(name for name, _ in commands()) == sorted(TABLE)
    for name, row in TABLE.items():
        for asked in forms(row):
            assert f" {asked} ".startswith((f" {name} ", " --db ")), asked
            assert f" {name} " in f" {asked} "


@pytest.fixture
def world(
    q: persistq.PersistentQSQLAlchemy,
    one_of_each: dict[str, int],
    databases: SQLite,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    """Jobs, files and consumers in every state; programs that would take this process's place end at once."""
    return make_world(q, one_of_each, databases, tmp_path_factory.mktemp("empty"), monkeypatch)


UNREACHABLE = "nowhere/queue.db"


def ask(world: World, cell: Cell | None, *options: str) -> Result | None:
    """Return what comes of it; None where there is nothing to ask."""
    return invoke(*options, *cell.format(**world.things).split()) if isinstance(cell, str) else None


def refusals(world: World, row: Row) -> Iterator[tuple[str, int, Result | None]]:
    """Ask for what will be refused; yield each situation with the code that stands for it."""
    yield "unknown", 3, ask(world, row.unknown)
    yield "wrong state", 4, ask(world, row.wrong)
    yield "unreachable", 5, ask(world, row.unreachable or row.ok, "--db", "nowhere/queue.db")
    if row.writes:
        yield "read-only", 4, ask(world, row.read_only or row.ok, "--read-only")


@pytest.mark.parametrize("name", TABLE)
def test_each_command_in_each_situation(name: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    row, has_json = TABLE[name], takes(COMMANDS[name], "--json")
    form = ["--json"] if has_json else []
    with world.prepare(name):
        before = world.state()
        for situation, code, result in refusals(world, row):
            if result is not None:
                seen = (result.exit_code, result.stdout, result.stderr.count("\n"))
                assert seen == (code, "", 1), f"{situation}: {result.output}"
                assert result.stderr.startswith("persistq: ")
        assert world.state() == before, "a refusal changes nothing"
        done = ask(world, row.ok, *form)
        if not row.writes:
            (world.folder / "copy.db").unlink(missing_ok=True)
            soundly(ask(world, row.read_only or row.ok, "--read-only"))
            assert world.state() == before, "to look changes nothing"
        monkeypatch.chdir(world.empty)
        nothing = ask(world, row.empty, *form)
    for result in (done, nothing):
        if soundly(result) and has_json:
            json.loads(result.stdout)  # type: ignore[union-attr]
    if done is not None and not has_json:
        assert re.fullmatch(row.out, done.stdout), done.output


def soundly(result: Result | None) -> bool:
    """Return whether there was anything to ask; it has to have succeeded."""
    assert result is None or (result.exit_code == 0 and "Traceback" not in result.stderr), result.output
    return result is not None


@pytest.mark.parametrize(("command", "code"), CODES.values(), ids=CODES.keys())
def test_each_outcome_has_its_code(one_of_each: dict[str, int], command: str, code: int) -> None:
    words = [word.format(**one_of_each).replace("%20", " ") for word in command.split()]
    result = invoke(*words)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    if code in (3, 4, 5):
        assert result.stdout == ""
        assert result.stderr.startswith("persistq: ")


def test_a_bad_id_among_several_does_not_keep_the_others(
    one_of_each: dict[str, int], q: persistq.PersistentQSQLAlchemy
) -> None:
    result = invoke("cancel", UNKNOWN, str(one_of_each["done"]), str(one_of_each["pending"]))
    assert result.exit_code == 6
    assert [line.split("\t")[:2] for line in result.stdout.splitlines()] == [[str(one_of_each["pending"]), "cancelled"]]
    assert len(result.stderr.splitlines()) == 2
    assert q.get_job(one_of_each["pending"]).status == "cancelled"


def _absent(folder: Path) -> Path:
    return folder / "nowhere" / "queue.db"


def _no_database(folder: Path) -> Path:
    (folder / "letter.db").write_text("Dear database, " * 100)
    return folder / "letter.db"


def _a_folder(folder: Path) -> Path:
    (folder / "folder.db").mkdir()
    return folder / "folder.db"


def _newer(folder: Path) -> Path:
    return _changed(folder, "UPDATE persistq_version SET version_num = '9999'")


def _somebody_elses(folder: Path) -> Path:
    with sqlite3.connect(folder / "theirs.db") as connection:
        connection.execute("CREATE TABLE jobs (title TEXT)")
    connection.close()
    return folder / "theirs.db"


def _damaged(folder: Path) -> Path:
    path = _changed(folder, "SELECT 1")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    return path


def _changed(folder: Path, statement: str) -> Path:
    path = folder / "changed.db"
    persistq.connect(path).counts()
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path


OUT_OF_REACH = [_absent, _no_database, _a_folder, _newer, _somebody_elses, _damaged]


@pytest.mark.parametrize("make", OUT_OF_REACH, ids=lambda make: make.__name__.strip("_"))
@pytest.mark.parametrize("command", ["list-jobs --json", "enqueue item", "delete-db-jobs --yes", "db check"])
def test_a_database_out_of_reach_is_five_and_one_line(make, command: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = invoke("--db", str(make(tmp_path)), *command.split())
    assert result.exit_code == 5, result.output
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.stderr


def test_a_locked_database_is_five(q: persistq.PersistentQSQLAlchemy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE_BUSY_SECONDS", "0.2")
    holder = subprocess.Popen(
        ["python3", "-c", LOCKER.replace(_OURS, _PLAIN), q.dbname],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        refused, listed = invoke("enqueue", "item"), invoke("list-jobs")
        holder.communicate()
    assert (refused.exit_code, listed.exit_code) == (5, 0)
    assert re.fullmatch(r"persistq: .*another process has held its lock for 0\.2 s\n", refused.stderr)
    assert invoke("enqueue", "item").exit_code == 0


_OURS = "from persistq.storage.sqlite_connections import sqlite_module"
_PLAIN = "import sqlite3; sqlite_module = lambda: sqlite3"


def test_a_process_of_its_own_prints_no_traceback_either(tmp_path: Path) -> None:
    done = run("--db", str(tmp_path / "nowhere" / "queue.db"), "list-jobs")
    assert (done.returncode, done.stdout) == (5, b"")
    assert len(done.stderr.splitlines()) == 1


def test_ctrl_c_is_130(q: persistq.PersistentQSQLAlchemy) -> None:
    with subprocess.Popen(
        [*COMMAND, "enqueue", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment(),
    ) as waiting:  # fmt: skip
        eventually(lambda: _reads_stdin(waiting.pid), "it waits for lines")
        waiting.send_signal(signal.SIGINT)
        out, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 130, err
    assert out == b""
    assert b"Traceback" not in err


def _reads_stdin(pid: int) -> bool:
    """Return whether it sleeps in a read of its stdin: call 0 (x86-64) or 63 (arm64), first argument 0."""
    call = Path(f"/proc/{pid}/syscall").read_text().split()
    return call[:2] in (["0", "0x0"], ["63", "0x0"])


def test_an_error_that_nobody_foresaw_is_one_line_unless_asked(
    q: persistq.PersistentQSQLAlchemy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: object, **__: object) -> None:
        secret = "hunter2"  # noqa: F841 - locals must not be shown
        raise RuntimeError("the sky fell")

    monkeypatch.setattr(persistq.PersistentQSQLAlchemy, "search", explode)
    brief, long = invoke("list-jobs"), invoke("-v", "list-jobs")
    assert (brief.exit_code, long.exit_code) == (1, 1)
    assert brief.stderr == "persistq: RuntimeError: the sky fell (-v shows where)\n"
    assert "Traceback" in long.stderr
    assert "hunter2" not in long.stderr.replace('secret = "hunter2"', "")


def test_a_missing_folder_is_not_made_by_looking(tmp_path: Path) -> None:
    assert invoke("--db", str(tmp_path / "nowhere" / "queue.db"), "stats").exit_code == 5
    assert not (tmp_path / "nowhere").exists()
    assert os.listdir(tmp_path) == []
