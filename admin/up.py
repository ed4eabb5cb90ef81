"""up: the supervised system in the foreground, from start to the last process's end."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Annotated, Any
from xmlrpc.client import Fault

import typer

import persistq
from persistq.clock import tries_within

from .monitor import watch
from .window import EXIT_FAILED, choose_database, fail, say, window
from .workers import rpc, socket

CONF = Path("supervisor/supervisord.conf")
CLIENT_CONF = Path("supervisord.conf")
_SHIPPED = Path(__file__).resolve().parent.parent / "supervisor"
_START_SECONDS = 20.0
_SOCKET_BYTES = 100  # the kernel takes 107, and supervisord appends its pid while it starts
_HINTS = """
The system is up. In another terminal, from this folder:
{activate}    persistq list-jobs                        what there is
    persistq show-job 1                       one job and its history
    supervisorctl status                      the processes
    supervisorctl stop consumer_00            stop one consumer; its job is finished first
    persistq doctor                           is everything sound?
Ctrl-C ends it: running jobs are finished, the rest stay in the database.
"""


def up(
    context: typer.Context,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
) -> None:
    """Start producer, consumers and maintenance under supervisord, and watch until Ctrl-C: persistq up."""
    seen = window(context)
    q = seen.queue(writes=True)
    if seen.db:
        choose_database(seen.db)
    q.database.upgrade()
    _prepare()
    orders: SimpleQueue[int] = SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda caught, _frame: orders.put(caught))
    if _rpc_answers():
        say("persistq: it is running already, so this only watches; Ctrl-C ends the watching.")
        _watch(q, interval, orders, lambda: True)
        return
    with _supervisord() as daemon:
        _await_start(daemon)
        say(_HINTS.format(activate=_activation()))
        _watch(q, interval, orders, lambda: daemon.poll() is None)
        if daemon.poll() is not None:
            fail(f"supervisord ended by itself; see {Path('logs/supervisord.log')}", EXIT_FAILED)
        _drain(daemon, orders)


def _prepare() -> None:
    """Make what supervisord needs; outside a checkout that includes its configuration."""
    try:
        import supervisor  # noqa: F401
    except ImportError:
        fail("supervisord is not installed; pip install 'persistq[supervisor]'", EXIT_FAILED)
    if not CONF.exists():
        CONF.parent.mkdir(exist_ok=True)
        shutil.copyfile(_SHIPPED / "supervisord.conf", CONF)
        shutil.copytree(_SHIPPED / "available", CONF.parent / "available", dirs_exist_ok=True)
        say(f"persistq: wrote {CONF}; the number of consumers is numprocs there")
    if not CLIENT_CONF.exists():
        shutil.copyfile(_SHIPPED / "client.conf", CLIENT_CONF)
    for folder in ("run", "logs"):
        Path(folder).mkdir(mode=0o700, exist_ok=True)
    if len(os.fsencode(socket())) > _SOCKET_BYTES:
        fail(f"{socket()} is too long a path for a socket; work in a folder with a shorter one", EXIT_FAILED)


@contextlib.contextmanager
def _supervisord() -> Iterator["subprocess.Popen[bytes]"]:
    """Yield a running supervisord that does not outlive the block."""
    beside = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{beside}{os.pathsep}{os.environ.get('PATH', '')}"}
    daemon = subprocess.Popen(  # noqa: S603
        [beside / "supervisord", "-n", "-c", CONF],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        # A terminal sends Ctrl-C to the whole group; only this program is to hear it, and drain in order.
        start_new_session=True,
        umask=0o077,  # supervisord heeds its own umask= only when it goes into the background
    )
    try:
        yield daemon
    finally:
        if daemon.poll() is None:
            daemon.terminate()
            daemon.wait()


def _activation() -> str:
    """Return the hint that a shell needs before it finds our commands, if it needs one."""
    beside = Path(sys.executable).parent
    found = shutil.which("persistq")
    if found is not None and Path(found).parent == beside:
        return ""
    return f"    source {os.path.relpath(beside / 'activate')}\n"


def _await_start(daemon: "subprocess.Popen[bytes]") -> None:
    for last in tries_within(_START_SECONDS):
        if _rpc_answers():
            return
        if last or daemon.poll() is not None:
            fail("supervisord did not start; see logs/supervisord.log", EXIT_FAILED)


def _watch(q: "persistq.PersistentQSQLAlchemy", interval: float, orders: SimpleQueue[int], go_on: Any) -> None:
    """Show activity until a signal comes or ``go_on`` ends it."""
    stopped = False

    def rest(seconds: float) -> None:
        nonlocal stopped
        try:
            orders.get(timeout=seconds)
            stopped = True
        except Empty:
            return

    watch(q, interval, None, lambda: not stopped and go_on(), rest)


def _drain(daemon: "subprocess.Popen[bytes]", orders: SimpleQueue[int]) -> None:
    """End supervisord, which lets every process finish; a second signal makes consumers release at once."""
    say("\npersistq: stopping; running jobs are finished first. Ctrl-C again releases them at once.")
    # Asked now: a supervisord that is shutting down answers no more questions.
    consumers: list[int] = []
    with contextlib.suppress(OSError, Fault):
        consumers = [info["pid"] for info in rpc().getAllProcessInfo() if info["group"] == "consumer" and info["pid"]]
    daemon.terminate()
    while daemon.poll() is None:
        try:
            orders.get(timeout=0.1)
        except Empty:
            continue
        for pid in consumers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    say("persistq: everything has stopped.")


def _rpc_answers() -> bool:
    try:
        return bool(rpc().getState())
    except (OSError, Fault):
        return False
