"""The full-screen manager in a thread of this process: keys go into a pipe, and an emulated terminal draws."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pyte
from persistq.manager.app import App
from persistq.manager.session import Session
from prompt_toolkit.application import create_app_session
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output

import persistq

DEADLINE = 30.0
ESCAPE, ENTER, UP, DOWN = "\x1b", "\r", "\x1b[A", "\x1b[B"


class _Terminal:
    """What prompt_toolkit writes to: every byte is kept, and drawn when somebody looks."""

    encoding = "utf-8"

    def __init__(self, columns: int, rows: int) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.Stream(self.screen)
        self.sent: list[str] = []
        self._drawn = 0
        self._lines: list[str] = []
        self.news = threading.Condition(threading.RLock())

    def write(self, text: str) -> int:
        with self.news:
            self.sent.append(text)
        return len(text)

    def flush(self) -> None:
        with self.news:
            self.news.notify_all()

    def look(self) -> list[str]:
        """Draw what came since the last time, and return the lines that a person sees."""
        with self.news:
            if self._drawn < len(self.sent):
                self._stream.feed("".join(self.sent[self._drawn :]))
                self._drawn = len(self.sent)
                self._lines = [line.rstrip() for line in self.screen.display]
            return self._lines

    def resize(self, columns: int, rows: int) -> None:
        """Have another size from now on."""
        with self.news:
            self.look()
            self.screen.resize(rows, columns)

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError("not a file")


class Manager:
    """A running manager. Nothing is looked at but when a key says so, unless ``interval`` is given."""

    def __init__(
        self, q: persistq.PersistentQSQLAlchemy, columns: int = 100, rows: int = 30, *, interval: float = 3600.0,
        color: bool = True, hides_items: bool = False,
    ) -> None:  # fmt: skip
        self.q = q
        self.size = Size(rows=rows, columns=columns)
        self.terminal = _Terminal(columns, rows)
        self.session = Session(q, interval=interval, hides_items=hides_items)
        self.code: int | None = None
        self.error: BaseException | None = None
        self._color = color
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="manager-under-test")
        self._thread.start()
        self._ready.wait(DEADLINE)
        self.until("pending")

    def _run(self) -> None:
        output = Vt100_Output(self.terminal, lambda: self.size, term="xterm-256color", enable_cpr=False)  # type: ignore[arg-type]
        with create_pipe_input() as pipe, create_app_session(input=pipe, output=output):
            self._pipe = pipe
            self.app = App(self.session, color=self._color)
            self._ready.set()
            try:
                self.code = self.app.run()
            except BaseException as error:
                self.error = error

    def press(self, *keys: str) -> None:
        """Press keys, one string after the other."""
        for key in keys:
            self._pipe.send_text(key)

    def lines(self) -> list[str]:
        """Return the lines that a person sees now."""
        return self.terminal.look()

    def text(self) -> str:
        """Return them as one text."""
        return "\n".join(self.lines())

    def sent(self) -> str:
        """Return everything that was ever sent to the terminal."""
        with self.terminal.news:
            return "".join(self.terminal.sent)

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """Return the first true value of a condition, which is looked at whenever something was drawn."""
        end = time.monotonic() + DEADLINE
        while True:
            with self.terminal.news:
                if value := condition():
                    return value
                assert self._thread.is_alive() or self.error is None, f"it ended: {self.error!r}"
                assert time.monotonic() < end, f"{what} did not come; the screen:\n{self.text()}"
                self.terminal.news.wait(0.1)

    def until(self, *texts: str) -> str:
        """Wait until the screen shows every text and has looked at the queue; return the screen."""

        def shows() -> str:
            seen = self.text()
            return seen if "looking …" not in seen and all(text in seen for text in texts) else ""

        return str(self.wait(shows, repr(texts)))

    def until_gone(self, *texts: str) -> str:
        """Wait until the screen shows none of the texts; return the screen."""

        def hides() -> str:
            seen = self.text()
            return "" if any(text in seen for text in texts) else seen

        return str(self.wait(hides, f"the end of {texts!r}"))

    def go(self, key: str, *texts: str) -> str:
        """Press a key and wait for what it shows."""
        self.press(key)
        return self.until(*texts)

    def cursor_row(self) -> str:
        """Return the row under the cursor, found by its colours."""
        with self.terminal.news:
            lines, screen = self.terminal.look(), self.terminal.screen
            return next((lines[at] for at in range(2, screen.lines - 2) if screen.buffer[at][1].reverse), "")

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size."""
        self.size = Size(rows=rows, columns=columns)
        self.terminal.resize(columns, rows)
        loop = self.app.application.loop
        assert loop is not None
        loop.call_soon_threadsafe(self.app.application._on_resize)

    def quit(self) -> int:
        """Leave by the key, and return the exit code."""
        if self._thread.is_alive():
            self.press("q")
        return self.join()

    def join(self) -> int:
        """Return the exit code once it has ended."""
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), self.text()
        assert self.error is None, repr(self.error)
        assert self.code is not None
        return self.code

    def close(self) -> None:
        """End it, whatever state it is in."""
        if self._thread.is_alive():
            loop = self.app.application.loop
            if loop is not None:
                loop.call_soon_threadsafe(self.app._leave, 0)
            self._thread.join(DEADLINE)
