"""The dashboard in a process of its own."""

import http.client
import signal
import socket
import subprocess
import sys
from pathlib import Path

from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from support.browser import eventually
from support.cli import environment


class Served:
    """The real server, as ``persistq ops`` starts it."""

    def __init__(self, folder: Path, *arguments: str, address: str = "127.0.0.1", **variables: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = folder / "ops.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "persistq.admin.admin", *arguments, "ops", f"--port={self.port}",
                 f"--address={address}"],
                cwd=folder, env=environment(**variables), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        eventually(self._answers, "the server answers")

    def get(self, path: str, *, host: str = "127.0.0.1", **headers: str) -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPConnection(host, self.port, timeout=30)
        try:
            connection.request("GET", path, headers={name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            return answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read().decode()
        finally:
            connection.close()

    def websocket(self, host: str = "127.0.0.1", **headers: str) -> int:
        """Return the status with which a websocket is refused, or 101; ``host`` is for the header only."""
        with socket.create_connection(("127.0.0.1", self.port), 30) as wire:
            url = f"ws://{host}:{self.port}/_stcore/stream"
            try:
                with connect(url, sock=wire, additional_headers=headers, subprotocols=["streamlit"]):
                    return 101
            except InvalidStatus as refused:
                return refused.response.status_code

    def log(self) -> str:
        return self._log.read_text()

    def stop(self) -> None:
        """End it as supervisord would; it has to go by itself, and to have met nothing unexpected."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) in (0, -signal.SIGTERM), self.log()
        assert "Traceback" not in self.log(), self.log()
        assert "external" not in self.log().lower(), "it has asked the internet for its address"

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log()
        try:
            return self.get("/healthz")[0] in (200, 503)
        except OSError:
            return False
