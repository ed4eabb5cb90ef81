"""A yard: one folder with a database, tasks in a module, and the processes at work on it."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from support.servers import Server
from support.warm import Forked, shared

import persistq

T = TypeVar("T")

DEADLINE = 60.0
"""Seconds after which a condition that did not come true has failed. Generous: machines are shared."""

PRELUDE = '''
import os
import signal
import threading
import time

import persistq


def note(*words):
    """Write a line into the journal: one append, so lines of many processes never mix."""
    handle = os.open("journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, (" ".join(map(str, words)) + "\\n").encode())
    os.close(handle)


def wait_for(gate):
    """Wait until the test opens the gate."""
    while not os.path.exists(gate):
        time.sleep(0.005)


def me():
    return persistq.current_job()


'''

QUICK = {"queue_recovery_seconds": 0.2, "queue_poll_seconds": 0.2, "queue_backoff_seconds": 0.01}
"""Settings that make tests short; what a test is about, it sets itself."""


def eventually(condition: Callable[[], T], what: str = "the condition") -> T:
    """Return the first true value of ``condition``; fail when none comes before the deadline."""
    end = time.monotonic() + DEADLINE
    while True:
        if value := condition():
            return value
        assert time.monotonic() < end, f"{what} did not come true in {DEADLINE:g} s"
        time.sleep(0.01)


class Process:
    """A process of the yard, with what it printed."""

    def __init__(
        self, arguments: list[str], folder: Path, name: str, env: dict[str, str], before: tuple[str, ...] = ()
    ) -> None:
        self.name = name
        self._out, self._err = folder / f"{name}.out", folder / f"{name}.err"
        self._popen: subprocess.Popen[bytes] | Forked
        with self._out.open("wb") as out, self._err.open("wb") as err:
            if before:
                self._popen = subprocess.Popen(
                    [*before, sys.executable, *arguments],
                    cwd=folder, env=env, stdin=subprocess.PIPE, stdout=out, stderr=err,
                )  # fmt: skip
            else:
                self._popen = shared().start(arguments, folder, env, out, err)
        self.pid = self._popen.pid

    @property
    def out(self) -> str:
        """Return what it wrote to stdout, where the apps log."""
        return self._out.read_bytes().decode(errors="replace")

    @property
    def err(self) -> str:
        """Return what it wrote to stderr."""
        return self._err.read_bytes().decode(errors="replace")

    def lines(self, part: str) -> list[str]:
        """Return the lines of stdout that hold ``part``."""
        return [line for line in self.out.splitlines() if part in line]

    def send(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def kill(self) -> None:
        """Kill -9 and reap."""
        self._popen.kill()
        self._popen.wait(DEADLINE)

    def stop(self) -> None:
        """SIGSTOP, and return once the kernel says that it stands still."""
        self.send(signal.SIGSTOP)
        eventually(lambda: self.state() == "T", f"{self.name} stopped")

    def state(self) -> str:
        """Return the kernel's letter for its state, such as S for sleeping."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def listens(self) -> bool:
        """Return whether it has got as far as to catch SIGTERM; before that a signal just ends it."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
        return bool(int(mask, 16) >> (signal.SIGTERM - 1) & 1)

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used."""
        user, system = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def hang_up(self) -> None:
        """Close its stdin, which a helper script takes as its sign to end."""
        if self._popen.stdin and not self._popen.stdin.closed:
            self._popen.stdin.close()

    def ended(self) -> bool:
        return self._popen.poll() is not None

    def wait(self) -> int:
        """Return its exit code once it has ended."""
        return self._popen.wait(DEADLINE)

    def clean_up(self) -> None:
        """Leave nothing behind, whatever state it is in."""
        if not self.ended():
            self.kill()
        self.hang_up()


class Yard:
    """One database and everything around it. ``target`` is its URL, by default a SQLite file in the folder."""

    def __init__(
        self, folder: Path, *, target: str | None = None, server: Server | None = None, **settings: Any
    ) -> None:
        self.folder = folder
        self.database = Path(settings.pop("database", folder / "queue.db"))
        self.target = target or str(self.database)
        #: The server that the target's database is on.
        self.server = server
        self.settings = QUICK | settings
        self.q = self.connect()
        self._processes: list[Process] = []

    def connect(self, **settings: Any) -> persistq.PersistentQSQLAlchemy:
        """Return a queue of this process on the yard's database; the yard's own is ``q``."""
        return persistq.connect(self.target, **self.settings | settings)

    def app(self, source: str) -> None:
        """Write the module whose tasks the consumers of this yard know."""
        (self.folder / "app.py").write_text(PRELUDE + source)

    def consumer(self, *arguments: str, **settings: Any) -> Process:
        """Start a consumer with the yard's app, if it has one."""
        app = ["--app", "app"] if (self.folder / "app.py").exists() else []
        return self.run("-m", "persistq.consumer.consumer", *app, *arguments, **settings)

    def producer(self, *arguments: str, **settings: Any) -> Process:
        return self.run("-m", "persistq.producer.producer", *arguments, **settings)

    def maintenance(self, **settings: Any) -> Process:
        return self.run("-m", "persistq.maintenance", **settings)

    def script(self, source: str, *arguments: str, **settings: Any) -> Process:
        """Run a program of the test's own."""
        return self.run("-c", PRELUDE + source, *arguments, **settings)

    def run(self, *arguments: str, before: tuple[str, ...] = (), **settings: Any) -> Process:
        """Start Python with the yard's settings in its environment; ``before`` stands before the interpreter."""
        name = f"process-{len(self._processes)}"
        process = Process([*arguments], self.folder, name, self.environment(**settings), before)
        self._processes.append(process)
        return process

    def environment(self, **settings: Any) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYTHONPATH") if name in os.environ}
        place = "queue_db_url" if "://" in self.target else "queue_db_file"
        chosen = {place: self.target} | self.settings | settings
        return kept | {name.upper(): str(value) for name, value in chosen.items() if value is not None}

    def is_calm(self) -> bool:
        """Return whether nobody keeps a transaction open; those that are at work end theirs in no time."""
        if self.server is not None:
            return self.server.is_calm(self.target.rpartition("/")[2])
        quick = self.connect(queue_busy_seconds=0.2)
        try:
            quick.resume("nobodys-queue")
        except persistq.DatabaseUnavailable:
            return False
        finally:
            quick.close()
        return True

    def lock(self) -> Process:
        """Return a process that holds the database's write lock until it is hung up."""
        holder = self.script(LOCKER, str(self.database))
        eventually(lambda: "locked" in holder.out, "the lock is held")
        return holder

    def open(self, gate: str) -> None:
        """Let the handlers that wait for the gate go on."""
        (self.folder / gate).touch()

    def journal(self) -> list[str]:
        """Return the lines that handlers noted, in their order."""
        path = self.folder / "journal"
        return path.read_text().splitlines() if path.exists() else []

    def jobs(self) -> list[persistq.Job]:
        """Return every job."""
        found: list[persistq.Job] = []
        while page := self.q.list_jobs(limit=1000, after=found[-1].id if found else 0):
            found += page
        return found

    def statuses(self) -> dict[str, int]:
        """Return how many jobs have each status that any has, found by reading them all."""
        return dict(Counter(str(job.status) for job in self.jobs()))

    def end_leases(self) -> None:
        """Let the leases of the jobs that run end now, as if their time had passed."""
        with self.q.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE jobs SET lease_until = 1 WHERE status = 'processing'")

    def all_done(self) -> bool:
        counts = self.q.counts()
        return counts["done"] == sum(counts.values())

    def assert_sound(self) -> None:
        """Fail unless the database is whole and its counts are right."""
        if self.server is None:
            assert integrity(self.q) == ["ok"]
        assert self.q.tally_drift() == {}

    def clean_up(self) -> None:
        self.q.close()
        for process in self._processes:
            process.clean_up()
            print(f"--- {process.name}\n{process.out[-3000:]}{process.err[-3000:]}")  # shown when the test failed


LOCKER = """
import sys
from persistq.storage.sqlite_connections import sqlite_module

connection = sqlite_module().connect(sys.argv[1], isolation_level=None, timeout=60)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""


def integrity(q: persistq.PersistentQSQLAlchemy) -> list[str]:
    """Return the answer of SQLite's full check."""
    with q.engine.connect() as connection:
        return list(connection.exec_driver_sql("PRAGMA integrity_check").scalars())
