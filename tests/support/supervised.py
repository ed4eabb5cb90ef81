"""A copy of the project's layout with supervisord in charge, and a way to be sure that nothing outlives it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from process.yard import eventually

import persistq

REPOSITORY = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent

# Not Poetry: what `poetry run` does once its environment is there, which is to become the rest of the line.
STAND_IN_FOR_POETRY = '#!/bin/sh\n[ "$1" = run ] && shift && exec "$@"\n'

QUICK = """
QUEUE_DB_FILE=queue.db
MAX_ATTEMPTS=3
TIMEOUT_SECONDS=2
INTERVAL_TIME = 0.5
QUEUE_RECOVERY_SECONDS=0.5
QUEUE_GRACE_SECONDS=10
"""


class Project:
    """A project's folder as a person has it, with the commands that are typed there."""

    def __init__(self, folder: Path, env: str = QUICK, *, layout: bool = True) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        (folder / ".env").write_text(env)
        (folder / ".env").chmod(0o600)
        if layout:
            for name in ("admin", "consumer", "producer", "supervisor"):
                shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copy(REPOSITORY / "supervisord.conf", folder)
            for name in ("run", "logs"):
                (folder / name).mkdir()
        self._tools = folder / ".tools"
        if shutil.which("poetry") is None:
            self._tools.mkdir()
            (self._tools / "poetry").write_text(STAND_IN_FOR_POETRY)
            (self._tools / "poetry").chmod(0o755)

    @property
    def q(self) -> persistq.PersistentQSQLAlchemy:
        """The project's queue."""
        return persistq.connect(self.folder / "queue.db")

    def environment(self) -> dict[str, str]:
        path = os.pathsep.join(map(str, (BIN, self._tools, os.environ["PATH"])))
        return {"PATH": path, "HOME": os.environ.get("HOME", "/"), "PROJECT_OF_THIS_TEST": str(self.folder)}

    def type(self, line: str, stdin: str = "", cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """Type one line at a shell in the project's folder."""
        return subprocess.run(
            ["bash", "-c", line], cwd=cwd or self.folder, env=self.environment(), input=stdin, capture_output=True,
            text=True, timeout=60,
        )  # fmt: skip

    def edit(self, old: str, new: str) -> None:
        """Change supervisor/supervisord.conf, where the text has to stand."""
        path = self.folder / "supervisor" / "supervisord.conf"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def start(self) -> None:
        """Start supervisord in the background and wait until every process runs."""
        done = self.type("supervisord -c supervisor/supervisord.conf")
        assert done.returncode == 0, done.stdout + done.stderr
        self.await_running()

    def await_running(self, names: int = 5) -> dict[str, int]:
        """Return the pid of each process once so many run."""
        return eventually(lambda: found if len(found := self.running()) == names else None, f"{names} processes run")

    def running(self) -> dict[str, int]:
        """Return the pid of each process that supervisorctl calls RUNNING."""
        lines = [line.replace(",", "").split() for line in self.type("supervisorctl status").stdout.splitlines()]
        return {line[0]: int(line[3]) for line in lines if line[1:2] == ["RUNNING"]}

    def processes(self) -> list[int]:
        """Return the pids of every process that was started from this project, by their environment."""
        mark = f"PROJECT_OF_THIS_TEST={self.folder}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                zombie = path.joinpath("stat").read_text().rpartition(")")[2].split()[0] == "Z"
                if not zombie and mark in path.joinpath("environ").read_bytes().split(b"\0"):
                    found.append(int(path.name))
            except OSError:
                continue
        return found

    def shut_down(self) -> None:
        """End supervisord as an operator does and wait until nothing is left."""
        self.type("supervisorctl shutdown")
        eventually(lambda: not self.processes(), "no process is left")

    def clean_up(self) -> None:
        """Leave nothing behind, whatever happened; kills only what carries this project's mark."""
        end = time.monotonic() + 5
        while pids := self.processes():
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            assert time.monotonic() < end, f"{pids} cannot be ended"
            time.sleep(0.02)
        for log in sorted((self.folder / "logs").glob("*.log")):
            print(f"--- {log.name}\n{log.read_text()[-1500:]}")  # shown when the test failed
