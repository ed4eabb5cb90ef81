"""Python programs that start in no time: each is forked from a process that has imported what they need.

A start by the interpreter takes most of a second of a processor, and the tests start hundreds. What is
forked is a process like any other, with its own id, arguments, environment, folder and standard streams;
it only has another parent, which tells how it ended.
"""

import array
import atexit
import contextlib
import fcntl
import functools
import gc
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

# Not what is run itself: a module that is both imported and run is warned about.
_IMPORTED = [
    "persistq.admin.jobs", "persistq.cleanup", "persistq.consumer.batches", "persistq.consumer.shards",
    "persistq.consumer.stamp", "persistq.logs", "persistq.metrics", "persistq.mounts", "persistq.sharded",
    "persistq.storage.mariadb", "persistq.storage.migrate", "persistq.storage.postgresql",
    "persistq.storage.sqlite", "persistq.tracing", "persistq.worker", "aiosqlite", "alembic.command", "http.server",
    "psycopg", "pymysql", "pysqlite3", "redis.asyncio", "rich.console", "rich.table", "sqlalchemy.dialects.mysql",
    "sqlalchemy.dialects.postgresql",
]  # fmt: skip


class Forked:
    """A process that was forked; it can be asked what ``subprocess.Popen`` can be asked."""

    def __init__(self, pid: int, status: int) -> None:
        self.pid = pid
        #: What it reads; None on a terminal.
        self.stdin: IO[bytes] | None = None
        self.returncode: int | None = None
        self._status = status

    def poll(self) -> int | None:
        """Return its exit code if it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Return its exit code once it has ended.

        Raises:
            subprocess.TimeoutExpired: it goes on.
        """
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            self.returncode = int(os.read(self._status, 16))
            os.close(self._status)
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill -9."""
        self.send_signal(signal.SIGKILL)


class Warm:
    """The process that is forked; it ends with the one that uses it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            path = os.pathsep.join(map(str, sys.path))
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()],
                env=os.environ | {"PYTHONPATH": path},
            )  # fmt: skip

    def start(self, arguments: list[str], folder: Path, env: dict[str, str], out: IO[bytes], err: IO[bytes]) -> Forked:
        """Start ``python ARGUMENTS...``, which are ``-m MODULE ...`` or ``-c SOURCE ...``."""
        theirs, stdin = os.pipe()
        forked = self._fork(arguments, folder, env, [theirs, out.fileno(), err.fileno()])
        os.close(theirs)
        forked.stdin = os.fdopen(stdin, "wb")
        return forked

    def start_on(self, terminal: int, arguments: list[str], folder: Path, env: dict[str, str]) -> Forked:
        """Start it on a terminal, of which it is to be the first."""
        return self._fork(arguments, folder, env, [terminal] * 3, leads=True)

    def _fork(
        self, arguments: list[str], folder: Path, env: dict[str, str], streams: list[int], *, leads: bool = False
    ) -> Forked:
        umask = os.umask(0)
        os.umask(umask)
        wanted = {"arguments": arguments, "folder": str(folder), "env": env, "umask": umask, "leads": leads}
        request = json.dumps(wanted).encode()
        status, told = os.pipe()
        self._socket.sendmsg(
            [len(request).to_bytes(4)],
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [*streams, told]))],
        )
        self._socket.sendall(request)
        os.close(told)
        return Forked(int.from_bytes(self._read(4)), status)

    def close(self) -> None:
        """End it; what it started goes on."""
        self._socket.close()
        self._process.wait()

    def _read(self, count: int) -> bytes:
        found = self._socket.recv(count, socket.MSG_WAITALL)
        if len(found) < count:
            raise RuntimeError("the process that is forked has ended")
        return found


@functools.cache
def shared() -> Warm:
    """Return the one that every test of this process starts programs from; it ends with the process."""
    warm = Warm()
    atexit.register(warm.close)
    return warm


def _serve(connection: socket.socket) -> Callable[[], None]:
    """Fork on request. In each child this returns: what it has to run."""
    #: By child, where to tell how it ended.
    children: dict[int, int] = {}
    woken, wake = os.pipe()
    for descriptor in (woken, wake):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([connection, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _bury(children)
        if connection in ready:
            request, streams = _receive(connection)
            told = streams.pop()
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                for descriptor in (connection.detach(), woken, wake, told, *children.values()):
                    os.close(descriptor)
                return _become(request, streams)
            children[pid] = told
            for descriptor in streams:
                os.close(descriptor)
            connection.sendall(pid.to_bytes(4))


def _bury(children: dict[int, int]) -> None:
    for pid in list(children):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            told = children.pop(pid)
            with contextlib.suppress(BrokenPipeError):  # nobody wants to know
                os.write(told, b"%d" % os.waitstatus_to_exitcode(status))
            os.close(told)


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return a request, and stdin, stdout, stderr and where to tell the end; at the end of requests, end."""
    size, rights, _, _ = connection.recvmsg(4, socket.CMSG_SPACE(4 * 4))
    if not size:
        os._exit(0)
    request = json.loads(connection.recv(int.from_bytes(size), socket.MSG_WAITALL))
    return request, array.array("i", rights[0][2]).tolist()


def _become(request: dict[str, Any], streams: list[int]) -> Callable[[], None]:
    """Take on what a new process would have been given, and return what it has to run."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    if request["leads"]:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C typed there reaches it
    os.chdir(request["folder"])
    os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    random.seed()
    how, what, *rest = request["arguments"]
    sys.path[0] = request["folder"] if how == "-m" else ""
    if how == "-m":
        sys.argv = [what, *rest]
        return lambda: runpy.run_module(what, run_name="__main__", alter_sys=True)
    sys.argv = ["-c", *rest]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    return lambda: exec(compile(what, "<string>", "exec"), main.__dict__)


def _run(program: Callable[[], None]) -> None:
    """Run a program to its end, but leave the taking apart of all its modules, which takes longest, to the kernel."""
    code: Any = 0
    try:
        program()
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException as error:
        traceback.print_exc()
        code = 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    threading._shutdown()  # type: ignore[attr-defined]  # what an interpreter does first at its end
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    for _name in _IMPORTED:
        with contextlib.suppress(ModuleNotFoundError):
            __import__(_name)
    gc.freeze()  # a collection would touch, and so copy, what a child shares with its parent
    _run(_serve(socket.socket(fileno=int(sys.argv[1]))))
