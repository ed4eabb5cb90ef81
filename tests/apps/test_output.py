"""What a command prints: data to stdout, messages to stderr, in the form that was asked for."""

import csv
import io
import json
import subprocess
from pathlib import Path

import pytest
from persistq.admin.jobs import COLUMNS
from support.cli import COMMAND, environment, invoke, ok
from support.jobs import WORKER, claim

import persistq
from persistq.storage import search

LONG = "/data/" + "very-long-name-" * 40 + "end"

DOCUMENTS: dict[str, tuple[str, type]] = {
    "list-jobs": ("list-jobs", list),
    "show-job": ("show-job {done}", dict),
    "stats": ("stats", dict),
    "doctor": ("doctor", dict),
    "explain": ("explain {failed}", dict),
    "errors": ("errors", list),
    "queues list": ("queues list", list),
    "queues show": ("queues show default", list),
    "consumers list": ("consumers list", list),
    "audit list": ("audit list", list),
    "a dry run": ("cancel --all --dry-run", dict),
    "cancel all": ("cancel --all --yes", dict),
    "release": ("release {processing}", list),
    "edit-job": ("edit-job {pending} --priority 1", list),
    "delete-job": ("delete-job {done} --yes", list),
    "config show": ("config show", list),
    "cancel": ("cancel {pending}", list),
    "resubmit": ("resubmit {failed}", list),
    "mark-failed": ("mark-failed {processing}", list),
    "assign-job": ("assign-job {pending} somebody", list),
    "cancel what is over": ("cancel {done}", list),
}


@pytest.mark.parametrize("where", ["after the command", "before the command", "as a format"])
@pytest.mark.parametrize(("command", "kind"), DOCUMENTS.values(), ids=DOCUMENTS.keys())
def test_json_is_one_document(one_of_each: dict[str, int], command: str, kind: type, where: str) -> None:
    words = command.format(**one_of_each).split()
    asked = {
        "after the command": [*words, "--json"],
        "before the command": ["--json", *words],
        "as a format": ["--format", "json", *words],
    }[where]
    result = invoke(*asked)
    assert result.exit_code in (0, 1, 4)
    assert isinstance(json.loads(result.stdout), kind)


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]], ids=["for good", "dry run"])
@pytest.mark.parametrize("number", [0, 1, 3])
def test_json_of_deleted_files_is_one_document(
    q: persistq.PersistentQSQLAlchemy, tmp_path: Path, number: int, dry_run: list[str]
) -> None:
    (tmp_path / "jobs").mkdir()
    for n in range(number):
        (tmp_path / "jobs" / f"{n}.txt").touch()
        q.cancel(q.enqueue(f"{n}.txt"))
    result = ok("--json", "delete-job-files", "--directory", ".", "--yes", *dry_run)
    assert len(json.loads(result)) == number


def test_json_of_nothing_is_an_empty_array(tmp_path: Path) -> None:
    result = invoke("list-jobs", "--json")
    assert (result.exit_code, result.stdout.strip(), result.stderr) == (0, "[]", "")


def test_the_shapes_of_the_documents(one_of_each: dict[str, int]) -> None:
    (done,) = json.loads(ok("list-jobs", "--status", "done", "--json"))
    assert {"id", "queue", "task", "item", "status", "priority", "attempts", "max_attempts", "fence", "consumer_id",
            "assigned_to", "run_at", "lease_until", "created_at", "started_at", "finished_at", "error", "result",
            "unique_key"} <= done.keys()  # fmt: skip
    shown = json.loads(ok("show-job", str(one_of_each["cancelled"]), "--json"))
    assert shown["id"] == one_of_each["cancelled"]
    assert [event["kind"] for event in shown["events"]] == ["cancelled"]
    stats = json.loads(ok("stats", "--json"))
    assert stats["counts"] == dict.fromkeys(one_of_each, 1)
    assert [queue["name"] for queue in stats["queues"]] == ["default"]
    report = json.loads(invoke("doctor", "--json").stdout)
    assert report.keys() == {"ok", "checks"}
    assert all(check.keys() == {"name", "ok", "detail", "fix"} for check in report["checks"])
    assert all(row.keys() == {"name", "value", "source"} for row in json.loads(ok("config", "show", "--json")))


def test_a_pipe_gets_every_character_and_no_header(q: persistq.PersistentQSQLAlchemy) -> None:
    q.enqueue(LONG)
    (line,) = ok("list-jobs").splitlines()
    cells = line.split("\t")
    assert cells[COLUMNS.index("item")] == LONG
    assert len(cells) == len(COLUMNS)


FORMATS = {
    "tsv": lambda out: [dict(zip(COLUMNS, line.split("\t"), strict=True))["item"] for line in out.splitlines()],
    "json": lambda out: [job["item"] for job in json.loads(out)],
    "jsonl": lambda out: [json.loads(line)["item"] for line in out.splitlines()],
    "csv": lambda out: [row["item"] for row in csv.DictReader(io.StringIO(out))],
}


@pytest.mark.parametrize("form", FORMATS)
def test_each_format_can_be_read_back(q: persistq.PersistentQSQLAlchemy, form: str) -> None:
    items = ["plain", 'quote " comma , end', "Grüße 漢字", LONG]
    q.enqueue_many(items)
    assert FORMATS[form](ok("--format", form, "list-jobs")) == items


def test_ids_feed_the_next_command(q: persistq.PersistentQSQLAlchemy) -> None:
    ids = q.enqueue_many(["a", "b", "c"])
    printed = ok("--format", "ids", "list-jobs").split()
    assert printed == [str(one) for one in ids]
    ok("cancel", *printed)
    assert q.counts()["cancelled"] == 3


def test_a_table_has_a_header(q: persistq.PersistentQSQLAlchemy) -> None:
    q.enqueue("a")
    header, row = ok("--format", "table", "list-jobs").splitlines()
    assert header.split()[:2] == ["id", "status"]
    assert row.split()[:2] == ["1", "pending"]


@pytest.mark.parametrize("form", ["table", "json", "jsonl", "csv", "tsv", "ids"])
@pytest.mark.parametrize("command", ["list-jobs", "stats", "config show"])
def test_every_list_knows_every_format(one_of_each: dict[str, int], command: str, form: str) -> None:
    assert ok("--format", form, *command.split())


def test_messages_go_to_stderr(q: persistq.PersistentQSQLAlchemy) -> None:
    q.enqueue_many(["a", "b", "c"])
    page = invoke("list-jobs", "--limit", "2")
    assert len(page.stdout.splitlines()) == 2
    assert page.stderr == "More jobs match; the next page: --after 2\n"
    assert invoke("list-jobs", "--after", "2").stderr == ""


def test_a_search_says_how_far_it_looked_and_how_to_go_on(
    q: persistq.PersistentQSQLAlchemy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SPAN", 10)
    q.enqueue_many(["needle"] + ["hay"] * 20 + ["needle"])
    first = invoke("--format", "ids", "list-jobs", "--item", "needle")
    assert (first.stdout, first.exit_code) == ("1\n", 0)
    assert first.stderr == "Looked no further than job 10; to go on: --after 10, or --search-for 1m\n"
    newest = invoke("--format", "ids", "list-jobs", "--item", "needle", "--newest")
    assert newest.stdout == "22\n"
    assert "to go on: --newest --before 13," in newest.stderr
    rest = invoke("--format", "ids", "list-jobs", "--item", "needle", "--newest", "--before", "3")
    assert (rest.stdout, rest.stderr) == ("1\n", "")
    whole = invoke("--format", "ids", "list-jobs", "--item", "needle", "--search-for", "1m")
    assert (whole.stdout, whole.stderr) == ("1\n22\n", "")
    assert json.loads(ok("list-jobs", "--item", "no such", "--json")) == []
    assert f"{persistq.operations.SPAN:,} jobs of the status" in ok("list-jobs", "--help")


def test_the_newest_come_in_pages_too(q: persistq.PersistentQSQLAlchemy) -> None:
    q.enqueue_many(["a", "b", "c"])
    page = invoke("--format", "ids", "list-jobs", "--newest", "--limit", "2")
    assert (page.stdout, page.stderr) == ("3\n2\n", "More jobs match; the next page: --newest --before 2\n")
    assert ok("--format", "ids", "list-jobs", "--newest", "--before", "2") == "1\n"


def test_the_pages_hold_every_job_once(q: persistq.PersistentQSQLAlchemy) -> None:
    ids = q.enqueue_many(["item"] * 25)
    seen: list[str] = []
    while page := ok("--format", "ids", "list-jobs", "--limit", "10", "--after", seen[-1] if seen else "0").split():
        seen += page
    assert seen == [str(one) for one in ids]


@pytest.mark.parametrize("form", ["tsv", "json", "table"])
def test_head_ends_a_listing_without_a_traceback(q: persistq.PersistentQSQLAlchemy, form: str) -> None:
    q.enqueue_many([LONG] * 2000)
    command = " ".join([*COMMAND, "--format", form, "list-jobs", "--limit", "2000"])
    done = subprocess.run(["bash", "-c", f"{command} | head -1"], capture_output=True, env=environment(), timeout=60)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == b""


def test_a_full_disk_behind_stdout_is_one_line(q: persistq.PersistentQSQLAlchemy) -> None:
    q.enqueue_many([LONG] * 200)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, "list-jobs", "--json"], stdout=full, stderr=subprocess.PIPE, env=environment(), timeout=60
        )
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["list-jobs", "queues list"])
@pytest.mark.parametrize("option", ["--db", "--format", "--read-only", "--no-input"])
def test_an_option_of_every_command_says_where_it_stands(command: str, option: str) -> None:
    result = invoke(*command.split(), option, "x")
    assert result.exit_code == 2
    assert f"{option} stands before the command: persistq {option} ..." in result.stderr


def test_an_action_that_matches_nothing_says_what_it_is_for(one_of_each: dict[str, int]) -> None:
    result = invoke("cancel", "--all", "--status", "done", "--yes")
    assert (result.exit_code, result.stdout) == (0, "0\tcancel\t0\t0\t0\n")
    assert result.stderr == "persistq: no job matches; cancel is for pending and processing jobs\n"


LOOKS_AT_ITEMS = ["list-jobs", "show-job 1", "--json list-jobs", "--json show-job 1", "--format csv list-jobs",
                  "cancel --all --dry-run", "--json cancel --all --dry-run", "edit-job 3 --priority 1 --json",
                  "consumers show worker", "consumers show worker --json", "monitor-activity --count 1"]  # fmt: skip


@pytest.mark.parametrize("command", LOOKS_AT_ITEMS)
def test_items_can_be_left_out(q: persistq.PersistentQSQLAlchemy, command: str) -> None:
    q.enqueue_many(["the secret"] * 3)
    q.complete(claim(q, WORKER), "the secret")
    claim(q, WORKER)
    now = q.clock.now()
    q.beat(
        persistq.ConsumerInfo(
            id=WORKER, name="worker", host="h", pid=1, queues=(), concurrency=1, running=1, started_at=now, seen_at=now
        )
    )
    hidden = invoke("--no-items", *command.split())
    assert "secret" not in hidden.output
    assert ("{" in hidden.stdout or "[" in hidden.stdout) == ("json" in command)
    assert "the secret" in invoke(*command.split()).output
