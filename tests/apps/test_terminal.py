"""On a terminal: a table that fits, colours only where they are wanted."""

import re

import pytest

import persistq

COLOUR = re.compile(rb"\x1b\[[0-9;]*3[0-9]")
STYLE = re.compile(rb"\x1b\[")


def test_a_person_gets_a_table(q: persistq.PersistentQSQLAlchemy, terminal) -> None:  # type: ignore[no-untyped-def]
    q.enqueue("/data/a.csv", "mail", priority=7)
    shown = terminal("list-jobs")
    assert shown.wait() == 0
    header, row = (line.split() for line in shown.text().splitlines()[:2])
    assert header[:4] == ["id", "status", "queue", "task"]
    assert row[:3] == ["1", "pending", "mail"]
    assert "/data/a.csv" in row


@pytest.mark.parametrize("command", ["list-jobs", "stats", "config show"])
def test_sixty_columns_are_enough(q: persistq.PersistentQSQLAlchemy, terminal, command: str) -> None:  # type: ignore[no-untyped-def]
    q.enqueue_many(["/data/" + "long" * 50, "漢字" * 60, "short"])
    shown = terminal(*command.split(), columns=60, lines=200)
    assert shown.wait() in (0, 1)
    assert b"Traceback" not in shown.sent
    if command == "list-jobs":
        lines = [line for line in shown.text().splitlines() if line]
        assert len(lines) == 4, "no row may wrap"
        assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3"], "an id has to be whole"


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=lambda variables: " ".join(variables))
@pytest.mark.parametrize("command", ["list-jobs", "doctor", "show-job 1"])
def test_no_colour_where_none_is_wanted(  # type: ignore[no-untyped-def]
    q: persistq.PersistentQSQLAlchemy, terminal, variables: dict[str, str], command: str
) -> None:
    q.enqueue("/data/a.csv")
    shown = terminal(*command.split(), variables=variables)
    shown.wait()
    assert not STYLE.search(shown.sent)


def test_json_on_a_terminal_is_still_json(q: persistq.PersistentQSQLAlchemy, terminal) -> None:  # type: ignore[no-untyped-def]
    q.enqueue("item")
    shown = terminal("list-jobs", "--json")
    assert shown.wait() == 0
    assert not STYLE.search(shown.sent)


def test_the_prompt_is_answered_on_the_terminal(q: persistq.PersistentQSQLAlchemy, terminal) -> None:  # type: ignore[no-untyped-def]
    q.enqueue("item")
    shown = terminal("delete-db-jobs")
    shown.type_when("[y/N]", b"y\n")
    assert shown.wait() == 0
    assert q.counts()["pending"] == 0


def test_ctrl_c_at_the_prompt_deletes_nothing(q: persistq.PersistentQSQLAlchemy, terminal) -> None:  # type: ignore[no-untyped-def]
    q.enqueue("item")
    shown = terminal("delete-db-jobs")
    shown.type_when("[y/N]", b"\x03")
    assert shown.wait() in (1, 130)
    assert b"Traceback" not in shown.sent
    assert q.counts()["pending"] == 1
