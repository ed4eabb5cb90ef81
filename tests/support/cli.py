"""The command line in this process, in one of its own, and on a terminal."""

import errno
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pyte
from persistq.admin.admin import app
from typer.testing import CliRunner, Result

from .warm import Forked, shared

COMMAND = (sys.executable, "-m", "persistq.admin.admin")
DEADLINE = 60.0


def invoke(*arguments: str, stdin: str | bytes | None = None) -> Result:
    """Run one command here; its stdout and stderr are apart and neither is a terminal."""
    return CliRunner().invoke(app, list(arguments), input=stdin, prog_name="persistq")


def ok(*arguments: str, stdin: str | bytes | None = None) -> str:
    """Run one command that has to succeed, and return its stdout."""
    result = invoke(*arguments, stdin=stdin)
    assert result.exit_code == 0, f"{arguments}: {result.exit_code}\n{result.output}"
    return result.stdout


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of a command in a process of its own."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return kept | variables


def run(*arguments: str, stdin: bytes = b"", **variables: str) -> "subprocess.CompletedProcess[bytes]":
    """Run one command in a process of its own."""
    return run_in(Path.cwd(), arguments, environment(**variables), stdin)


def run_in(
    folder: Path, arguments: Sequence[str], env: dict[str, str], stdin: bytes = b""
) -> "subprocess.CompletedProcess[bytes]":
    """Run one command in a process of its own, elsewhere; what it takes to start Python is spared."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = shared().start([*COMMAND[1:], *arguments], folder, env, out, err)
        assert process.stdin is not None
        with process.stdin, suppress(BrokenPipeError):
            process.stdin.write(stdin)
        try:
            code = process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        for stream in (out, err):
            stream.seek(0)
        return subprocess.CompletedProcess(arguments, code, out.read(), err.read())


class Terminal:
    """A program on a pseudo-terminal, with every byte that it sent there."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        columns: int = 200,
        lines: int = 50,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.columns, self.lines, self.sent = columns, lines, b""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        env = environment(TERM="xterm-256color") | dict(variables or {})
        # stderr goes to the terminal as well: that is where a person sees it.
        self.process: Forked | subprocess.Popen[bytes]
        if list(command[:2]) == [sys.executable, "-m"]:
            self.process = shared().start_on(slave, [str(word) for word in command[1:]], Path.cwd(), env)
        else:
            self.process = subprocess.Popen(
                command, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C typed here reaches it
            )  # fmt: skip
        os.close(slave)

    def type_when(self, seen: str, keys: bytes) -> None:
        """Press keys as soon as the terminal shows a text."""
        end = time.monotonic() + DEADLINE
        while seen not in self.text():
            assert time.monotonic() < end and self.process.poll() is None, f"no {seen!r} in {self.text()}"
            self.read()
        os.write(self._master, keys)

    def read(self, seconds: float = 0.05) -> bytes:
        """Take in what was sent until ``seconds`` pass in silence, and return everything so far."""
        while select.select([self._master], [], [], seconds)[0]:
            try:
                chunk = os.read(self._master, 65_536)
            except OSError as error:
                if error.errno == errno.EIO:  # the other side is closed
                    break
                raise
            if not chunk:
                break
            self.sent += chunk
        return self.sent

    def wait(self) -> int:
        """Return the exit code once the program has ended."""
        end = time.monotonic() + DEADLINE
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it did not end; it sent {self.sent[-2000:]!r}"
            self.read()
        self.read()
        return self.process.returncode

    def screen(self) -> list[str]:
        """Return the lines that a person sees now."""
        return self._emulate().display

    def title(self) -> str:
        """Return the window's title, which data must not set."""
        return str(self._emulate().title)

    def text(self) -> str:
        """Return the visible lines as one text."""
        return "\n".join(line.rstrip() for line in self.screen())

    def hang_up(self) -> None:
        """Close the terminal under the program, as a lost connection does."""
        os.close(self._master)
        self._master = -1

    def close(self) -> None:
        """End the program and give the terminal back."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE)
        if self._master >= 0:
            os.close(self._master)

    def _emulate(self) -> pyte.Screen:
        screen = pyte.Screen(self.columns, self.lines)
        pyte.ByteStream(screen).feed(self.sent)
        return screen
