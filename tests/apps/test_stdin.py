"""enqueue -: one job for each line of stdin."""

import pytest
from support.cli import invoke, ok, run

import persistq


def test_ten_thousand_lines_are_ten_thousand_jobs(q: persistq.PersistentQSQLAlchemy) -> None:
    lines = [f"/data/{n}.csv" for n in range(10_000)]
    done = run("enqueue", "-", "--queue", "bulk", stdin="\n".join(lines).encode())
    assert done.returncode == 0, done.stderr
    ids = [int(line) for line in done.stdout.split()]
    assert len(set(ids)) == 10_000
    assert [q.get_job(ids[n]).item for n in (0, 4_999, 9_999)] == [lines[0], lines[4_999], lines[9_999]]
    assert q.counts("bulk")["pending"] == 10_000


INPUTS = {
    "nothing": (b"", []),
    "empty lines": (b"\n\n\na\n\n", ["a"]),
    "no newline at the end": (b"a\nb", ["a", "b"]),
    "lines from Windows": (b"a\r\nb\r\n", ["a", "b"]),
    "spaces belong to the item": (b"  a b  \n", ["  a b  "]),
    "every script": ("Grüße\n漢字\n🚀\n".encode(), ["Grüße", "漢字", "🚀"]),
    "a dash": (b"-\n--\n", ["-", "--"]),
    "controls": (b"\x1b[2J\x07\n", ["\x1b[2J\x07"]),
    "a long line": (b"x" * 200_000 + b"\n", ["x" * 200_000]),
}


@pytest.mark.parametrize(("given", "items"), INPUTS.values(), ids=INPUTS.keys())
def test_each_line_is_an_item(q: persistq.PersistentQSQLAlchemy, given: bytes, items: list[str]) -> None:
    printed = ok("enqueue", "-", stdin=given).split()
    assert len(printed) == len(items)
    assert [job.item for job in q.list_jobs()] == items


REFUSED = {
    "a line that is not UTF-8": (b"fine\nsay \xff\xfe\nfine\n", "line 2"),
    "a line with a NUL": (b"fine\nNUL \0\n", "NUL"),
    "a line that is too long": (b"x" * 300_000 + b"\n", "262,144"),
}


@pytest.mark.parametrize(("given", "complaint"), REFUSED.values(), ids=REFUSED.keys())
def test_a_line_that_cannot_be_an_item_is_a_clear_error(
    q: persistq.PersistentQSQLAlchemy, given: bytes, complaint: str
) -> None:
    result = invoke("enqueue", "-", stdin=given)
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert len(result.stdout.split()) == sum(q.counts().values()), "every job that exists had its id printed"


def test_the_ids_of_earlier_lines_are_printed_when_a_later_one_is_refused(q: persistq.PersistentQSQLAlchemy) -> None:
    result = invoke("enqueue", "-", stdin=b"fine\n" * 2_500 + b"\xff\n")
    assert result.exit_code == 2
    assert "line 2501" in result.stderr
    assert len(result.stdout.split()) == sum(q.counts().values()) > 0


def test_a_path_with_bytes_that_are_no_text_is_refused(q: persistq.PersistentQSQLAlchemy) -> None:
    result = invoke("enqueue", "/data/\udcff.csv")
    assert result.exit_code == 2
    assert "UTF-8" in result.stderr
