"""The full-screen manager when things go wrong: the database, hostile data, signals, faults of its own."""

import io
import logging
import re
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from persistq.manager import manager
from process.yard import eventually
from support.batches import fill
from support.cli import COMMAND, DEADLINE, Terminal, environment
from support.generated import ROOT
from support.jobs import WORKER, claim
from support.tui import ENTER, ESCAPE, Manager

import persistq
from persistq import ConsumerInfo
from persistq.storage.schema import VERSION_TABLE
from persistq.storage.sqlite import sqlite_module

Start = Callable[..., Manager]
Queue = persistq.PersistentQSQLAlchemy
MANAGER = (sys.executable, "-m", "persistq.manager.manager")
HOSTILE = [
    "\x1b]0;owned\x07title", "\x1b[2J\x1b[31mred", "<b>bold</b> [red]x[/red]", "a\nb\r\tc\x00d", "\u202eevil\u2066",
    "\x9b31m", "漢字" * 80, "e\u0301\u200d\ufeff" * 40, "\udcff\ud800", "x" * 5000, "", "0", "%s {0} \\x1b",
    "\x1bP+q544e\x1b\\", "🙂" * 50,
]  # fmt: skip
# What prompt_toolkit itself may send: cursor moves, erasing, colours, modes; and nothing else.
OWN = re.compile(r"\x1b(\[[0-9;?]*[A-HJKXdfhlmqrt]|\[[0-9]* q|[=>78]|\][0-9]*;\x07|\(B)")

COLOUR = re.compile(rb"\x1b\[[0-9;]*(3[0-7]|4[0-7]|9[0-7])m")


# The database


def test_a_locked_database_refuses_what_writes_and_shows_what_is_there(q: Queue, start: Start, tmp_path: Path) -> None:
    q.enqueue("item")
    shown = start(160, 20)
    shown.go("2", "page 1  1 jobs")
    q.close()
    other = sqlite_module().connect(str(tmp_path / "queue.db"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    shown.go("C", "cancel 1 job?")
    shown.press("y")
    shown.until("has held its lock")
    shown.go("4", "Queues and tasks", "default")
    shown.go("2", "page 1  1 jobs")
    other.execute("ROLLBACK")
    other.close()
    shown.go("C", "cancel 1 job?")
    shown.press("y")
    shown.until("cancel: 1 changed", "cancelled 1")


def test_a_database_that_is_gone_and_comes_back(q: Queue, start: Start, tmp_path: Path) -> None:
    q.enqueue("item")
    q.close()
    shown = start(interval=1.0)
    shown.go("2", "page 1  1 jobs")
    away = tmp_path / "away.db"
    (tmp_path / "queue.db").rename(away)
    shown.until("STALE", "Trying again in", "item")
    shown.press("C")
    shown.until_gone("Trying again in")  # it says what became of C
    shown.until("cannot be used now")
    shown.press("?")
    shown.until("Keys, and the words")  # the rest still works
    shown.press(ESCAPE)
    shown.until("STALE", "page 1  1 jobs")
    away.rename(tmp_path / "queue.db")
    shown.until_gone("STALE")  # by itself


def test_a_database_that_is_replaced(q: Queue, start: Start, tmp_path: Path) -> None:
    q.enqueue("before")
    q.close()
    shown = start()
    shown.go("2", "before")
    with closing(persistq.connect(tmp_path / "other.db")) as other:
        other.enqueue_many(["one", "after"])
    (tmp_path / "other.db").rename(tmp_path / "queue.db")
    shown.press("r")
    shown.wait(lambda: _asked_again(shown) and "after" in shown.text(), "the other database")
    shown.until_gone("STALE")


def test_a_schema_that_is_not_ours_is_told_until_it_is_ours(q: Queue, start: Start, tmp_path: Path) -> None:
    q.enqueue("item")
    q.close()
    shutil.copy(tmp_path / "queue.db", tmp_path / "good.db")
    shown = start()
    shown.go("2", "page 1  1 jobs")
    strange = sqlite_module().connect(str(tmp_path / "strange.db"))
    strange.execute(f"CREATE TABLE {VERSION_TABLE} (version_num TEXT)")
    strange.execute(f"INSERT INTO {VERSION_TABLE} VALUES ('9999')")
    strange.commit()
    strange.close()
    (tmp_path / "strange.db").rename(tmp_path / "queue.db")
    shown.press("r")
    shown.wait(lambda: _asked_again(shown) and "STALE" in shown.text(), "the badge")
    shown.until("Trying again in", "item")
    (tmp_path / "good.db").rename(tmp_path / "queue.db")
    shown.wait(lambda: _asked_again(shown) and "STALE" not in shown.text(), "the end of the badge")
    shown.until("page 1  1 jobs")


def _asked_again(shown: Manager) -> bool:
    """Look once more, for a look may have met the moment in between."""
    shown.press("r")
    time.sleep(0.05)
    return True


def test_a_look_that_hangs_neither_stops_the_screen_nor_the_leaving(
    q: Queue, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    q.enqueue("item")
    shown = start()
    gate = threading.Event()
    monkeypatch.setattr("persistq.manager.app._PATIENCE", 0.05)
    monkeypatch.setattr(shown.q, "consumers", lambda: gate.wait(DEADLINE) and [])
    shown.press("r", "?")
    shown.until("Keys, and the words")
    assert shown.quit() == 0
    gate.set()


def test_whatever_a_look_or_a_screen_raises_is_told(q: Queue, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    q.enqueue("item")
    shown = start()
    monkeypatch.setattr(shown.q, "counts", lambda: 1 / 0)
    shown.press("r")
    shown.until("STALE", "ZeroDivisionError")
    monkeypatch.undo()
    shown.press("r")
    shown.until_gone("STALE")
    monkeypatch.setattr(shown.session.panes["errors"], "draw", lambda *_: 1 / 0)
    shown.go("8", "cannot be drawn: ZeroDivisionError")
    shown.go("1", "attempts a minute")
    monkeypatch.setattr(shown.session, "press", lambda key: 1 / 0)
    shown.go("2", "ZeroDivisionError: division by zero")


def test_what_is_logged_and_warned_of_does_not_tear_the_screen(
    q: Queue, start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    shown = start()
    logging.getLogger("persistq.anything").error("the disk \x1b[31m is nearly full")
    shown.until("the disk \\x1b[31m is nearly full")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("beware of the dog", UserWarning, stacklevel=1)
    shown.until("beware of the dog")
    assert shown.quit() == 0
    assert capfd.readouterr() == ("", "")


# Hostile data


def test_no_data_steers_the_terminal_or_is_read_as_markup(q: Queue, start: Start, tmp_path: Path) -> None:
    for number, text in enumerate(HOSTILE):
        try:
            q.enqueue(text, max_attempts=1)
        except persistq.PayloadError:
            continue
        q.fail(claim(q, WORKER), text or "empty", permanent=True)
        name = re.sub(r"[\ud800-\udfff\x00]", "", text)[:60] or "empty"
        now = q.clock.now()
        q.beat(ConsumerInfo(id=f"{name}{number}", name=name, host=name, pid=1, queues=(), concurrency=1, running=0,
                            started_at=now, seen_at=now, tasks=(name,)))  # fmt: skip
        q.cancel(q.enqueue("x"), reason=text)
    for path in (tmp_path / "spool", tmp_path / "spool" / "\x1b[31mqueue"):
        path.mkdir(mode=0o700)
    fill(tmp_path / "spool", ["item"], "good")
    shown = start(160, 40)
    for key in "123456789":
        shown.press(key)
        shown.wait(lambda: "looking …" not in shown.text(), "the screen")
    shown.press("2", "/")
    shown.until("Enter does it")
    shown.press("state:failed", ENTER)
    failed = q.list_jobs("failed")
    shown.until(f"page 1  {len(failed)} jobs")
    assert "<b>bold</b> [red]x[/red]" in shown.text()
    assert "\\x1b]0;owned\\x07title" in shown.text()
    for job in reversed(failed):
        shown.press(ENTER)
        shown.until(f"Job {job.id}  ")
        shown.go("C", "cancel 1 job?")
        shown.press("n")
        shown.until("nothing was done")
        shown.press(ESCAPE)
        shown.until("newest first")
        shown.press("j")
    for key in (":", "A"):
        shown.press("2", key)
        shown.until("Enter does it")
        shown.press("\t")
        shown.press(ESCAPE)
        shown.until_gone("Enter does it")
    assert shown.quit() == 0
    rest = OWN.sub("", shown.sent())
    steering = [char for char in rest if not char.isprintable() and char not in "\r\n\b"]
    assert steering == []
    assert "owned" not in str(shown.terminal.screen.title)


# A terminal of its own


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Start managers on pseudo-terminals; at the end none is left."""
    opened: list[Terminal] = []

    def begin(*arguments: str, **options: Any) -> Terminal:
        command = options.pop("command", MANAGER)
        opened.append(Terminal([*command, *arguments], **options))
        return opened[-1]

    yield begin
    for one in opened:
        one.close()


def settings_of(shown: Terminal) -> list[Any]:
    return termios.tcgetattr(shown._master)


def assert_left_as_it_was(shown: Terminal, before: list[Any]) -> None:
    """Fail unless the terminal's modes are as before, the first screen is back and the cursor can be seen."""
    assert settings_of(shown) == before
    sent = shown.sent
    assert sent.rfind(b"\x1b[?1049l") > sent.rfind(b"\x1b[?1049h") > 0
    assert sent.rfind(b"\x1b[?25h") > sent.rfind(b"\x1b[?25l")


WAYS = {
    "persistq tui": (*COMMAND, "tui"),
    "python -m manager.manager": (sys.executable, "-m", "manager.manager"),
    "python -m manager.manager.py": (sys.executable, "-m", "manager.manager.py"),
}


@pytest.mark.parametrize("command", WAYS.values(), ids=WAYS.keys())
def test_every_way_of_starting_it(q: Queue, screen: Any, tmp_path: Path, command: Any) -> None:
    q.enqueue("item")
    variables = {"PYTHONPATH": str(ROOT)} if "manager.manager" in command[-1] else {}
    shown = screen(command=command, columns=80, lines=24, variables=variables)
    before = settings_of(shown)
    shown.type_when("pending 1", b"2")
    shown.type_when("page 1  1 jobs", b"q")
    assert shown.wait() == 0
    assert COLOUR.search(shown.sent), "the other tests would not notice otherwise"
    assert_left_as_it_was(shown, before)


def test_options_reach_it_through_the_command_line(q: Queue, screen: Any, tmp_path: Path) -> None:
    with closing(persistq.connect(tmp_path / "other.db")) as other:
        other.enqueue_many(["a", "b"])
    command = (*COMMAND, "--db", str(tmp_path / "other.db"), "--read-only", "--no-color", "--no-items", "tui")
    shown = screen("--interval", "1", command=command, columns=80, lines=24)
    shown.type_when("pending 2", b"2")
    shown.type_when("(hidden)", b"q")
    assert shown.wait() == 0
    assert b"READ-ONLY" in shown.sent
    assert not COLOUR.search(shown.sent)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_ends_it_and_restores_the_terminal(q: Queue, screen: Any, number: int, code: int) -> None:
    shown = screen(columns=80, lines=24, variables={"NO_COLOR": "1"})
    before = settings_of(shown)
    shown.type_when("pending 0", b"")
    shown.process.send_signal(number)
    assert shown.wait() == code
    assert not COLOUR.search(shown.sent)
    assert_left_as_it_was(shown, before)


def test_a_fault_of_its_own_restores_the_terminal(q: Queue, screen: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "from persistq.manager import app, manager\n"
        "app.Session.settle = lambda self: (_ for _ in ()).throw(RuntimeError('a fault'))\n"
        "begin = app.App._begin\n"
        "def broken(self):\n"
        "    begin(self)\n"
        "    self.application.future.set_exception(RuntimeError('a fault'))\n"
        "app.App._begin = broken\n"
        "raise SystemExit(manager.main())\n"
    )
    shown = screen(command=(sys.executable, str(tmp_path / "broken.py")), columns=80, lines=24)
    before = settings_of(shown)
    assert shown.wait() == 1
    assert b"RuntimeError: a fault" in shown.sent
    assert_left_as_it_was(shown, before)


def test_a_terminal_that_is_gone_ends_it(q: Queue, screen: Any) -> None:
    shown = screen(columns=80, lines=24)
    shown.type_when("pending 0", b"")
    shown.hang_up()
    assert shown.process.wait(DEADLINE) in (1, 129)


def test_without_a_terminal_it_says_so(q: Queue) -> None:
    done = subprocess.run(MANAGER, stdin=subprocess.DEVNULL, capture_output=True, env=environment(), timeout=DEADLINE)
    assert done.returncode == 2
    assert done.stdout == b""
    assert b"needs a terminal" in done.stderr
    assert b"Traceback" not in done.stderr


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("arguments", "term", "code", "said"),
    [
        ([], "dumb", 2, "needs a terminal"), (["--interval", "soon"], "xterm", 2, "is no span of time"),
        (["--db", "oracle://x"], "xterm", 2, "oracle"),
        (["--read-only", "--db", "none.db"], "xterm", 5, "a read-only window makes none"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_told_before_there_is_a_screen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], term: str, code: int, said: str
) -> None:
    out, err = _Terminal(), io.StringIO()
    for name, stream in {"stdin": _Terminal(), "stdout": out, "stderr": err}.items():
        monkeypatch.setattr(sys, name, stream)
    monkeypatch.setenv("TERM", term)
    assert manager.main(arguments) == code
    assert said in err.getvalue()
    assert out.getvalue() == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.needs("tmux")
def test_in_a_real_terminal_multiplexer(q: Queue, tmp_path: Path) -> None:
    q.enqueue_many([f"/data/{number}.csv" for number in range(25)], "mail")
    q.fail(claim(q, WORKER), "broken", permanent=True)
    tmux = ["tmux", "-S", str(tmp_path / "tmux.sock"), "-f", "/dev/null"]

    def call(*words: str) -> str:
        return subprocess.run([*tmux, *words], capture_output=True, text=True, check=True, env=environment()).stdout

    def until(text: str) -> None:
        eventually(lambda: text in call("capture-pane", "-p", "-t", "t"), repr(text))

    def press(*keys: str) -> None:
        call("send-keys", "-t", "t", *keys)

    call("new-session", "-d", "-s", "t", "-x", "80", "-y", "24", "sh")
    try:
        press("stty -a > before; echo rea''dy", "Enter")
        until("ready")
        press(" ".join(MANAGER) + "; echo code $?; stty -a > end; mv end after", "Enter")
        until("pending 24")
        press("2")
        until("page 1  25 jobs")
        press("/")
        until("Enter does it")
        press("state:failed", "Enter")
        until("page 1  1 jobs")
        press("Enter")
        until("Job 1  failed")
        press("R")
        until("resubmit 1 job?")
        press("y")
        until("resubmit: 1 changed")
        press("2", "f")
        until("state:")
        press("Escape")
        until("page 1  25 jobs")
        press("*")
        until("ALL THAT MATCH")
        press("C")
        until("type 25 to go ahead")
        press("25", "Enter")
        until("cancel: 25 changed")
        call("resize-window", "-t", "t", "-x", "12", "-y", "3")
        until("12x3 is too")
        call("resize-window", "-t", "t", "-x", "80", "-y", "24")
        until("cancelled 25")
        press("q")
        until("code 0")
        eventually((tmp_path / "after").exists, "the second stty")
        text = call("capture-pane", "-p", "-t", "t")
        assert "cancelled 25" not in text, "the screen from before is back"
        assert (tmp_path / "before").read_text() == (tmp_path / "after").read_text()
    finally:
        call("kill-server")
    assert q.counts()["cancelled"] == 25
