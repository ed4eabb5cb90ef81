"""PostgreSQL 14 and newer, by psycopg 3."""

import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sqlalchemy import URL, Connection, Engine, event

from ..clock import Clock, SystemClock
from ..errors import ConfigError, DatabaseUnavailable, PersistQError, SchemaMismatch
from ..settings import Settings
from .database import Doorbell, driver_error
from .server import Server

CHANNEL = "persistq"
_LOCK = 0x70657273_69737471
"""Key of the advisory lock that upgrades take: the letters of our name."""

_RING_SECONDS = 0.01
_IDLE_SECONDS = 1.0
_REAL = SystemClock()
_TRANSIENT = {"40001", "40P01"}
_NO_SCHEMA = {"42P01", "42703", "3F000"}


class PostgreSQL(Server):
    """A PostgreSQL database, or the schema of it that the role's search_path names first."""

    driver = async_driver = "postgresql+psycopg"
    extra = "postgres"
    advice = "set fsync = on and synchronous_commit = on in the server's configuration"
    _time_sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

    def __init__(self, url: URL, settings: Settings, clock: Clock) -> None:
        super().__init__(url, settings, clock)
        # Ours begins and ends transactions itself, to set their limits on the way: one trip for all of it.
        self._plain: Engine = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        statement, lock = (round(1000 * s) for s in (settings.queue_statement_seconds, settings.queue_busy_seconds))
        self._limits = (f"statement_timeout = {statement}", f"lock_timeout = {lock}")
        # A client that vanished amid a transaction holds its locks until the server ends it. In a transaction of ours
        # only: a caller's own, on our engine, may wait for other things in between.
        idle = f"idle_in_transaction_session_timeout = {max(1_000, lock)}"
        self._reading_sql = "; SET LOCAL ".join(("BEGIN ISOLATION LEVEL READ COMMITTED", *self._limits, idle))
        # A plan made while a table was small would otherwise go on reading all of it when it has grown.
        self._writing_sql = f"{self._reading_sql}; SET LOCAL enable_seqscan = off"
        self._proxied = False
        event.listen(self.engine, "connect", self._look_for_a_proxy)
        self._bell = _Ringer(self._notify)

    @property
    def version(self) -> str:
        """The server's version."""
        found = self.read(lambda connection: connection.exec_driver_sql("SHOW server_version").scalar_one())
        return f"PostgreSQL {found}"

    @property
    def commits_by_itself(self) -> bool:  # type: ignore[override]
        """Whether adding one job is one statement, which needs no transaction around it; a proxy needs one."""
        return not self._proxied

    def _look_for_a_proxy(self, driver: Any, _record: Any) -> None:
        """Set the session's limits if it is ours alone.

        Behind a proxy that pools transactions it is not: then the limits are set in each transaction,
        and nothing is prepared, for the next transaction may run in a session that knows nothing of it.
        """
        driver.autocommit = True
        answering = driver.execute("SELECT pg_backend_pid()").fetchone()[0]
        if answering == driver.info.backend_pid:
            for limit in self._limits:
                driver.execute(f"SET SESSION {limit}")
        else:
            driver.prepare_threshold = None
            self._proxied = True
        driver.autocommit = False

    def _connect_args(self, _settings: Settings) -> dict[str, Any]:
        # A peer that vanished without a word is noticed within about ten seconds.
        return {
            "connect_timeout": 10,
            "keepalives": 1,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 10_000,
            "application_name": "persistq",
        }

    def _socket_of(self, driver_connection: Any) -> int:
        return -1 if driver_connection.closed else int(driver_connection.pgconn.socket)

    def _take(self) -> Connection:
        return self._plain.connect()

    def _begin(self, connection: Connection, *, reading: bool) -> None:
        _driver(connection).execute(self._reading_sql if reading else self._writing_sql)

    def _roll_back(self, connection: Connection) -> None:
        if not connection.invalidated:
            try:
                _driver(connection).rollback()
            except self._errors:
                connection.invalidate()

    def _send_commit(self, connection: Connection) -> None:
        if _driver(connection).execute("COMMIT").statusmessage != "COMMIT":
            raise DatabaseUnavailable("the server undid the transaction")

    def _is_disconnect(self, connection: Connection, error: Exception) -> bool:
        if connection.invalidated or getattr(error, "connection_invalidated", False):
            return True
        return bool(_driver(connection).closed) or _state(error)[:2] == "08" or _state(error)[:3] == "57P"

    def _is_transient(self, error: Exception) -> bool:
        return _state(error) in _TRANSIENT

    def _translate(self, error: Exception) -> PersistQError | None:
        state, text = _state(error), str(driver_error(error)).partition("\n")[0]
        if state in _NO_SCHEMA:
            return SchemaMismatch(f"{text}; run 'persistq db upgrade'")
        if state == "42501":
            return ConfigError(f"the database's role may not do this: {text}")
        if state in ("57014", "55P03"):
            return DatabaseUnavailable(f"it took too long ({text}); QUEUE_STATEMENT_SECONDS and QUEUE_BUSY_SECONDS")
        # Without a state it never came to a statement: no server, no network, a connection that broke.
        if not state and isinstance(driver_error(error), self.engine.dialect.loaded_dbapi.OperationalError):
            return DatabaseUnavailable(text)
        if state[:2] in ("08", "25", "28", "3D", "53", "57", "58", "XX") or state in _TRANSIENT:
            return DatabaseUnavailable(text)
        return None

    def _lock_schema(self, connection: Connection) -> None:
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")

    def durability(self) -> tuple[bool, str]:
        """Return whether the server waits for its disk at COMMIT."""

        def ask(connection: Connection) -> tuple[str, str]:
            names = ("fsync", "synchronous_commit")
            return tuple(connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in names)

        fsync, commit = self.read(ask)
        return fsync == "on" and commit != "off", f"{self.version}, fsync {fsync}, synchronous_commit {commit}"

    # Waking consumers

    def doorbell(self) -> "NotifyDoorbell":
        """Return a listener for the notification that producers send."""
        return NotifyDoorbell(self)

    def listen(self) -> Any:
        """Return a connection of its own that listens."""
        self.ready()
        with self.translating():
            proxy = self._plain.raw_connection()
            driver: Any = proxy.driver_connection
            proxy.detach()
            driver.set_autocommit(True)
            driver.execute(f"LISTEN {CHANNEL}")
            return driver

    def _ring(self) -> None:
        self._bell.ring()

    def _notify(self) -> None:
        # After the commit and apart from it: in a transaction, NOTIFY makes all committers wait in line.
        with self._connected() as connection:
            _driver(connection).execute(f"NOTIFY {CHANNEL}")

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        self._bell.stop()
        super().close()

    def after_fork(self) -> None:
        """Forget what the parent uses."""
        super().after_fork()
        self._bell = _Ringer(self._notify)


class _Ringer:
    """Sends at most one notification every few milliseconds: the first at once, the rest as one by a thread."""

    def __init__(self, notify: Callable[[], None]) -> None:
        self._notify = notify
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._owed = threading.Event()
        self._thread: threading.Thread | None = None
        self._sent_at = float("-inf")
        self._stopped = False

    def ring(self) -> None:
        """Notify soon."""
        if self._owed.is_set():
            return
        if _REAL.monotonic() - self._sent_at >= _RING_SECONDS:
            self._stopped = False
            self._send()
            return
        with self._lock:
            self._stopped = False
            self._owed.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._pay, name="persistq-notify", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Owe nobody anything any more, and send nothing after this returns."""
        self._stopped = True
        self._owed.clear()
        with self._sending:
            return

    def _pay(self) -> None:
        while True:
            if not self._owed.wait(_IDLE_SECONDS):
                with self._lock:
                    if not self._owed.is_set():
                        self._thread = None
                        return
            time.sleep(_RING_SECONDS)
            self._owed.clear()
            self._send()

    def _send(self) -> None:
        self._sent_at = _REAL.monotonic()
        # Consumers look every QUEUE_POLL_SECONDS all the same.
        with self._sending, suppress(Exception):
            if not self._stopped:
                self._notify()


class NotifyDoorbell(Doorbell):
    """Hears the notification that a producer sends after its commit."""

    hears = True

    def __init__(self, database: PostgreSQL) -> None:
        self._database = database
        self._driver: Any = None

    def fileno(self) -> int | None:
        """Return the socket of the listening connection."""
        if self._driver is None or self._driver.closed:
            return None
        return int(self._driver.pgconn.socket)

    def rung(self) -> bool:
        """Return whether a notification has come since the last call."""
        try:
            if self._driver is None:
                self._driver = self._database.listen()
                return True
            poll = select.poll()
            poll.register(self._driver.pgconn.socket, select.POLLIN)
            if not poll.poll(0):
                return False
            self._driver.pgconn.consume_input()
            heard = False
            while self._driver.pgconn.notifies():
                heard = True
        except Exception:  # noqa: BLE001 - the caller's own query will say what is wrong
            self.close()
            return True
        return heard

    def close(self) -> None:
        """Close the listening connection."""
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.close()


def _driver(connection: Connection) -> Any:
    return connection.connection.dbapi_connection


def _state(error: Exception) -> str:
    """Return the SQLSTATE of an error, empty when it never reached a server."""
    return getattr(driver_error(error), "sqlstate", None) or ""
