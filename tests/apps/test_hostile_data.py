"""Whatever a job carries, no terminal obeys it, no line is forged and no spreadsheet runs it."""

import csv
import io
import json

import pytest
from support.cli import Terminal, invoke, ok
from support.jobs import WORKER, claim

import persistq

HOSTILE = {
    "clear the screen": "\x1b[2J\x1b[H",
    "colour": "\x1b[31mred\x1b[0m",
    "window title": "\x1b]0;pwned\x07",
    "link": "\x1b]8;;http://evil/\x1b\\click\x1b]8;;\x1b\\",
    "clipboard": "\x1b]52;c;cm0gLXJmIC8=\x07",
    "device control": "\x1bP+q544e\x1b\\",
    "8-bit control": "\x9b2J\x9d0;pwned\x9c",
    "carriage return": "innocent\rforged",
    "backspace": "rm\b\bls",
    "bell": "\x07",
    "right-to-left": "\u202egpj.exe\u2066",
    "zero width": "a\u200bb\ufeffc",
    "newline": "one\n999\tdone\tforged\ttwo",
    "line separator": "one\u2028two\u2029three\x85four",
    "tab": "one\ttwo",
    "vertical tab": "one\x0btwo\x0cthree",
    "Rich's markup": "[red]text[/red] [/] [link=http://evil/]x[/link] [bold",
    "Rich's emoji": ":skull: :warning:",
    "format characters": "%s %n {0} {item}",
}
FORMULAE = ["=cmd|'/c calc'!A1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "＝1", "＠SUM(A1)", '="x"']  # noqa: RUF001


@pytest.fixture
def spoilt(q: persistq.PersistentQSQLAlchemy) -> dict[int, str]:
    """By id, failed jobs that carry a hostile text wherever a job can carry text."""
    jobs = {}
    for text in HOSTILE.values():
        job_id = q.enqueue(text, unique_key=text)
        jobs[job_id] = text
        q.assign_job(job_id, text)
        q.fail(claim(q, text), text, permanent=True)
        q.resubmit(job_id)
        job = claim(q, f"{text}@host:1:aaaa")
        try:
            raise RuntimeError(text)
        except RuntimeError as error:
            q.fail(job, error, permanent=True)
    return jobs


@pytest.mark.parametrize("form", ["tsv", "table", "csv", "jsonl", "json", "ids"])
def test_a_listing_holds_nothing_that_steers(spoilt: dict[int, str], form: str) -> None:
    _assert_harmless(ok("--format", form, "list-jobs"), allowed="\t\n")


@pytest.mark.parametrize("view", ["show-job", "explain", "cancel", "resubmit", "mark-failed"])
def test_no_command_on_a_job_prints_anything_that_steers(spoilt: dict[int, str], view: str) -> None:
    for job_id in spoilt:
        result = invoke(view, str(job_id))
        assert result.exit_code in (0, 4), result.output
        _assert_harmless(result.output, allowed="\t\n")


@pytest.mark.parametrize(
    "view",
    ["stats", "monitor-activity --count 1", "delete-job-files --directory . --dry-run", "doctor", "errors",
     "audit list", "audit show 1", "consumers list", "queues list", "resubmit --all --dry-run",
     "resubmit --all --yes", "cancel --all --yes"],
)  # fmt: skip
def test_no_overview_prints_anything_that_steers(spoilt: dict[int, str], view: str) -> None:
    result = invoke(*view.split())
    assert result.exit_code in (0, 1), result.output
    _assert_harmless(result.output, allowed="\t\n")


def test_a_line_of_tsv_stays_one_line_with_its_columns(spoilt: dict[int, str]) -> None:
    lines = ok("list-jobs").splitlines()
    assert [line.split("\t")[0] for line in lines] == [str(job_id) for job_id in spoilt]
    assert {line.count("\t") for line in lines} == {9}


def test_json_carries_it_unharmed(spoilt: dict[int, str]) -> None:
    assert [job["item"] for job in json.loads(ok("list-jobs", "--json"))] == list(spoilt.values())
    for job_id, text in spoilt.items():
        shown = ok("show-job", str(job_id), "--json")
        assert json.loads(shown)["unique_key"] == text
        assert shown.isascii()


def test_csv_has_one_row_a_job(spoilt: dict[int, str]) -> None:
    rows = list(csv.reader(io.StringIO(ok("--format", "csv", "list-jobs"))))
    assert len(rows) == len(spoilt) + 1
    assert {len(row) for row in rows} == {10}


def test_a_terminal_shows_a_listing_and_obeys_nothing(q: persistq.PersistentQSQLAlchemy, terminal) -> None:  # type: ignore[no-untyped-def]
    q.enqueue_many([*HOSTILE.values(), "neighbour"])
    shown = terminal("list-jobs", lines=100)
    _assert_unmoved(shown)
    lines = [line for line in shown.text().splitlines() if line]
    assert [line.split()[0] for line in lines] == ["id", *(str(n + 1) for n in range(len(HOSTILE) + 1))]
    assert "neighbour" in lines[-1]
    assert "[red]text[/red]" in shown.text(), "markup is text"
    assert ":skull:" in shown.text()


def test_a_terminal_shows_a_job_and_obeys_nothing(q: persistq.PersistentQSQLAlchemy, terminal) -> None:  # type: ignore[no-untyped-def]
    text = "|".join(HOSTILE.values())
    q.assign_job(q.enqueue(text, unique_key="|".join(HOSTILE)[:200]), text[:200])
    q.mark_failed(1, text)
    _assert_unmoved(terminal("show-job", "1", lines=100))


@pytest.mark.parametrize("first", range(0, len(HOSTILE), 7))
def test_a_terminal_shows_activity_and_obeys_nothing(  # type: ignore[no-untyped-def]
    q: persistq.PersistentQSQLAlchemy, first: int, terminal
) -> None:
    q.enqueue_many([*list(HOSTILE.values())[first : first + 7], "neighbour"])
    shown = terminal("monitor-activity", "--count", "1", lines=100)
    _assert_unmoved(shown)
    assert "neighbour" in shown.text()


@pytest.mark.parametrize("formula", FORMULAE)
def test_a_spreadsheet_takes_no_cell_for_a_formula(q: persistq.PersistentQSQLAlchemy, formula: str) -> None:
    q.fail(claim(_with(q, formula), WORKER), formula, permanent=True)
    (row,) = csv.DictReader(io.StringIO(ok("--format", "csv", "list-jobs")))
    for cell in (row["item"], row["error"]):
        assert cell[0] == "'"


def test_numbers_in_a_spreadsheet_stay_numbers(q: persistq.PersistentQSQLAlchemy) -> None:
    q.enqueue("item", priority=-5)
    (row,) = csv.DictReader(io.StringIO(ok("--format", "csv", "list-jobs")))
    assert row["priority"] == "-5"


@pytest.mark.parametrize(
    "command",
    ["list-jobs --status X", "list-jobs --since X", "enqueue item --queue X", "enqueue item --task X", "X",
     "--format X list-jobs", "show-job X", "delete-job-files --directory X", "--db X/queue.db stats",
     "assign-job 1 X"],
)  # fmt: skip
def test_what_was_typed_is_echoed_harmlessly(q: persistq.PersistentQSQLAlchemy, command: str) -> None:
    """A line pasted from a web page must not steer the terminal by way of the error message."""
    for hostile in HOSTILE.values():
        result = invoke(*[word.replace("X", hostile) for word in command.split()])
        _assert_harmless(result.output, allowed="\t\n")


def _with(q: persistq.PersistentQSQLAlchemy, item: str) -> persistq.PersistentQSQLAlchemy:
    q.enqueue(item)
    return q


def _assert_unmoved(shown: Terminal) -> None:
    assert shown.wait() == 0
    _assert_harmless(_without_own_styles(shown.sent.decode()), allowed="\r\n")
    assert shown.title() == ""


def _assert_harmless(text: str, *, allowed: str) -> None:
    bad = {char for char in text if not char.isprintable() and char not in allowed}
    assert not bad, f"{bad} in {text!r}"


def _without_own_styles(text: str) -> str:
    r"""Return what was sent to a terminal without the sequences that Rich itself sends.

    Bold, off, and for the live display: cursor off and on, line start, line erased, cursor up.
    """
    for own in ("\x1b[1m", "\x1b[0m", "\x1b[?25l", "\x1b[?25h", "\x1b[2K", "\x1b[1A"):
        text = text.replace(own, "")
    return text
