"""strace as a saboteur: lists a program's system calls, kills it at one of them, or has it told an error there."""

import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

CALLS = ("-e", "trace=%file,%desc")


def touching(paths: Iterable[str | Path]) -> list[str]:
    """Return the options that leave all calls alone but those on these paths: strace wants each by its full name."""
    return [word for path in paths for word in ("-P", str(path))]


def inject(name: str, number: int, what: str) -> tuple[str, ...]:
    """Return the options that do something to the how manieth call of a name: ``signal=KILL`` or ``error=EIO``."""
    return *CALLS, "-e", f"inject={name}:{what}:when={number}"


def points(calls: Sequence[str], pattern: str = ".*") -> list[tuple[str, int, str]]:
    """Return each call: its name, the how manieth of this name in its process it is, and its line."""
    counted: Counter[tuple[str, str]] = Counter()
    found = []
    for line in calls:
        process, rest = line.split(maxsplit=1)
        name, is_call, _ = rest.partition("(")
        if not is_call or not name.isidentifier():
            continue  # how a process ended, or the end of a call that another's came between
        counted[process, name] += 1
        if re.fullmatch(pattern, name):
            found.append((name, counted[process, name], line))
    return found


class Warm:
    """A Python program that has imported what it needs, so that to start it anew is not most of what a run costs.

    It prints ``ready``; then, for each line that it reads, it works in the folder of that name and prints ``done``.
    What is to be struck it does in forked children: strace counts the calls of each from 1.
    """

    def __init__(self, program: str, folder: Path) -> None:
        self._errors = (folder / "errors").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-c", program], cwd=folder, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
        )  # fmt: skip
        assert self._process.stdin
        assert self._process.stdout
        self._in, self._out = self._process.stdin, self._process.stdout
        self._expect("ready\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def run(self, folder: Path, paths: Iterable[Path], *options: str) -> list[str]:
        """Let it work in the folder under strace; return the calls that touched one of the paths."""
        trace = folder / "trace"
        command = ["strace", "-f", "-y", "-o", str(trace), *touching(paths), *(options or CALLS)]
        with subprocess.Popen([*command, "-p", str(self._process.pid)], stderr=subprocess.PIPE, text=True) as saboteur:
            assert saboteur.stderr
            assert "attached" in saboteur.stderr.readline()
            self._in.write(f"{folder}\n")
            self._in.flush()
            self._expect("done\n")
            saboteur.send_signal(signal.SIGINT)
            saboteur.communicate()
        return trace.read_text().splitlines()

    def _expect(self, line: str) -> None:
        found = self._out.readline()
        self._errors.seek(0)
        assert found == line, self._errors.read()
