"""MariaDB 10.6 and newer, MySQL 8.0.1 and newer, by PyMySQL."""

from contextlib import closing
from typing import Any

from sqlalchemy import Connection, event

from ..errors import ConfigError, DatabaseUnavailable, PersistQError, SchemaMismatch
from ..settings import Settings
from .database import driver_error
from .server import Server

_TRANSIENT = {1020, 1205, 1213}
"""Changed since it was read, lock wait over, deadlock."""

_NO_SCHEMA = {1146, 1054}
_DENIED = {1142, 1143, 1370, 1410}
_TOO_LONG = {1969, 3024}
_UNAVAILABLE = {
    1021, 1040, 1041, 1044, 1045, 1049, 1053, 1077, 1114, 1129, 1130, 1152, 1158, 1159, 1160, 1161, 1203, 1226, 1290,
    1317, 1836, 1927, 2002, 2003, 2005, 2006, 2013, 2055, 4031,
}  # fmt: skip


class MariaDB(Server):
    """A MariaDB or MySQL database."""

    driver = "mysql+pymysql"
    async_driver = "mysql+aiomysql"
    extra = "mariadb"
    advice = "set innodb_flush_log_at_trx_commit = 1 in the server's configuration"
    _time_sql = "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"

    def _connect_args(self, settings: Settings) -> dict[str, Any]:
        # Longer than a statement may take: only a server that vanished is silent for so long.
        silence = settings.queue_statement_seconds + settings.queue_busy_seconds + 5
        return {"connect_timeout": 10, "read_timeout": silence, "write_timeout": silence, "charset": "utf8mb4"}

    def _make_engine(self, url: Any, settings: Settings) -> Any:
        engine = super()._make_engine(url, settings)
        statement, lock = settings.queue_statement_seconds, self._lock_seconds

        @event.listens_for(engine, "connect")
        def configure(driver_connection: Any, _record: Any) -> None:
            ours = "MariaDB" in driver_connection.get_server_info()
            limit = f"max_statement_time = {statement}" if ours else f"max_execution_time = {round(1000 * statement)}"
            with driver_connection.cursor() as cursor:
                cursor.execute(
                    f"SET SESSION {limit}, innodb_lock_wait_timeout = {lock}, lock_wait_timeout = {lock}, "
                    "time_zone = '+00:00'"
                )

        return engine

    @property
    def _lock_seconds(self) -> int:
        return max(1, round(self._settings.queue_busy_seconds))

    def _take(self) -> Connection:
        connection = super()._take()
        # A client that vanished amid a transaction holds its locks until the server ends it. On a connection of ours
        # only: a caller's own transaction may wait for other things in between.
        self._set_idle_limit(connection, self._lock_seconds)
        return connection

    def _give_back(self, connection: Connection) -> None:
        try:
            if not connection.invalidated:
                self._set_idle_limit(connection, "DEFAULT")
        except self._errors:
            connection.invalidate()
        finally:
            super()._give_back(connection)

    def _set_idle_limit(self, connection: Connection, seconds: object) -> None:
        if getattr(connection.dialect, "is_mariadb", False):  # MySQL has none
            with closing(connection.connection.cursor()) as cursor:
                cursor.execute(f"SET SESSION idle_transaction_timeout = {seconds}")

    @property
    def version(self) -> str:
        """The server's version."""
        return str(self.read(lambda connection: connection.exec_driver_sql("SELECT VERSION()").scalar_one()))

    def _socket_of(self, driver_connection: Any) -> int:
        socket = driver_connection._sock
        return -1 if socket is None else int(socket.fileno())

    def _is_transient(self, error: Exception) -> bool:
        return _number(error) in _TRANSIENT

    def _translate(self, error: Exception) -> PersistQError | None:
        number = _number(error)
        text = str(driver_error(error).args[-1]) if driver_error(error).args else type(error).__name__
        if number in _NO_SCHEMA:
            return SchemaMismatch(f"{text}; run 'persistq db upgrade'")
        if number in _DENIED:
            return ConfigError(f"the database's role may not do this: {text}")
        if number in _TOO_LONG:
            return DatabaseUnavailable(f"it took too long ({text}); QUEUE_STATEMENT_SECONDS")
        if number in _UNAVAILABLE or number in _TRANSIENT or (number == 0 and _is_interface_error(error)):
            return DatabaseUnavailable(text or "the connection is closed")
        return None

    def _lock_schema(self, connection: Connection) -> None:
        if connection.exec_driver_sql("SELECT GET_LOCK('persistq_upgrade', 60)").scalar() != 1:
            raise DatabaseUnavailable("another process has been upgrading the schema for a minute")

    def durability(self) -> tuple[bool, str]:
        """Return whether the server waits for its disk at COMMIT."""
        sql = "SELECT @@innodb_flush_log_at_trx_commit"
        value = self.read(lambda connection: connection.exec_driver_sql(sql).scalar_one())
        return value == 1, f"{self.version}, innodb_flush_log_at_trx_commit {value}"


def _number(error: Exception) -> int:
    args = driver_error(error).args
    return args[0] if args and isinstance(args[0], int) else 0


def _is_interface_error(error: Exception) -> bool:
    return type(driver_error(error)).__name__ == "InterfaceError"
