"""monitor-activity: a block per look for a pipe, one place for a person, through any outage."""

import re
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest
from process.yard import eventually
from support.cli import COMMAND, environment, invoke, ok

import persistq

STAMP = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ  ", re.MULTILINE)
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def monitor() -> Iterator[Start]:
    """Start monitors whose output is a pipe; at the end none is left."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str, **variables: str) -> "subprocess.Popen[str]":
        started.append(
            subprocess.Popen(
                [*COMMAND, "monitor-activity", "--interval", "0.1", *options],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**variables),
            )
        )  # fmt: skip
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.communicate()


def test_a_pipe_gets_one_block_a_look(q: persistq.PersistentQSQLAlchemy) -> None:
    q.enqueue("/data/a.csv", "mail")
    out = ok("monitor-activity", "--interval", "0.1", "--count", "3")
    assert len(STAMP.findall(out)) == 3
    assert "\x1b" not in out
    for block in STAMP.split(out)[1:]:
        assert "pending 1" in block
        assert "queue mail" in block
        assert "/data/a.csv" in block
        assert "no consumer is running" in block


def test_a_block_tells_what_has_changed(q: persistq.PersistentQSQLAlchemy, monitor: Start) -> None:
    watching = monitor()
    assert watching.stdout is not None
    watching.stdout.readline()
    q.enqueue_many(["item"] * 3)
    assert eventually(lambda: "pending 3 (+3)" in watching.stdout.readline())
    assert eventually(lambda: "pending 3  processing" in watching.stdout.readline())


def test_an_empty_queue_is_watched_as_well(q: persistq.PersistentQSQLAlchemy) -> None:
    assert "pending 0" in ok("monitor-activity", "--count", "1")


def test_it_says_that_the_database_is_gone_and_goes_on(
    q: persistq.PersistentQSQLAlchemy, monitor: Start, tmp_path
) -> None:  # type: ignore[no-untyped-def]
    q.enqueue("item")
    q.close()
    watching = monitor()
    assert watching.stdout is not None
    watching.stdout.readline()
    (tmp_path / "queue.db").rename(tmp_path / "away.db")
    assert eventually(lambda: "Trying again" in watching.stdout.readline())
    (tmp_path / "away.db").rename(tmp_path / "queue.db")
    assert eventually(lambda: "pending 1" in watching.stdout.readline())


def test_it_starts_before_there_is_a_database(tmp_path, monitor: Start) -> None:  # type: ignore[no-untyped-def]
    watching = monitor(QUEUE_DB_FILE=str(tmp_path / "later" / "queue.db"))
    assert watching.stdout is not None
    assert "Trying again" in watching.stdout.readline()
    (tmp_path / "later").mkdir()
    assert eventually(lambda: "pending 0" in watching.stdout.readline())


def test_a_locked_database_is_still_watched_or_waited_for(q: persistq.PersistentQSQLAlchemy) -> None:
    with q.engine.connect() as holder:
        holder.exec_driver_sql("SELECT 1")  # BEGIN IMMEDIATE: the write lock
        assert "pending 0" in ok("monitor-activity", "--interval", "0.1", "--count", "2")


@pytest.mark.parametrize(("number", "codes"), [(signal.SIGINT, {130}), (signal.SIGTERM, {-15, 143, 0})])
def test_a_signal_ends_it(
    q: persistq.PersistentQSQLAlchemy, monitor: Start, number: signal.Signals, codes: set[int]
) -> None:
    watching = monitor()
    assert watching.stdout is not None
    watching.stdout.readline()
    watching.send_signal(number)
    _, err = watching.communicate(timeout=60)
    assert watching.returncode in codes
    assert "Traceback" not in err


def test_a_reader_that_leaves_ends_it_quietly(q: persistq.PersistentQSQLAlchemy, monitor: Start) -> None:
    watching = monitor()
    assert watching.stdout is not None
    assert watching.stderr is not None
    watching.stdout.readline()
    watching.stdout.close()
    eventually(lambda: watching.poll() is not None, "it ends")
    assert watching.stderr.read() == ""


def test_a_terminal_is_drawn_over_in_place(q: persistq.PersistentQSQLAlchemy, terminal) -> None:  # type: ignore[no-untyped-def]
    shown = terminal("monitor-activity", "--interval", "0.1")
    eventually(lambda: shown.read() and "pending 0" in shown.text(), "the first look")
    q.enqueue("/data/a.csv")
    eventually(lambda: shown.read() and "/data/a.csv" in shown.text(), "the next look")
    assert len(STAMP.findall(shown.text())) == 1, "one block, not a growing list"
    shown.process.send_signal(signal.SIGINT)
    assert shown.wait() == 130
    assert b"\x1b[?25h" in shown.sent, "the cursor is back"


def test_a_small_terminal_is_no_trouble(q: persistq.PersistentQSQLAlchemy, terminal) -> None:  # type: ignore[no-untyped-def]
    q.enqueue_many(["long" * 100] * 50)
    shown = terminal("monitor-activity", "--interval", "0.1", "--count", "3", columns=40, lines=6)
    assert shown.wait() == 0
    assert b"Traceback" not in shown.sent


@pytest.mark.parametrize("option", ["--interval 0", "--interval -1", "--count 0", "--interval soon"])
def test_senseless_options_are_usage_errors(option: str) -> None:
    assert invoke("monitor-activity", *option.split()).exit_code == 2
