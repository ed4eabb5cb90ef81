"""A relay between clients and a server: the network of a test, which can be cut, held up and made to forget."""

import contextlib
import re
import socket
import struct
import threading
from typing import Literal

HOST = "127.0.0.1"
_RESET = struct.pack("ii", 1, 0)
_POLL = 0.1


class Proxy:
    """Passes bytes between its own ``port`` and a server's; ``with`` opens it and closes everything."""

    def __init__(self, server_port: int, host: str = HOST) -> None:
        self._host = host
        self._server_port = server_port
        self._flowing = threading.Event()
        self._flowing.set()
        self._closed = False
        self._lock = threading.Lock()
        self._pairs: set[_Pair] = set()
        self._threads: list[threading.Thread] = []
        self._forget: tuple[re.Pattern[bytes], str] | None = None
        #: Set once something was forgotten.
        self.forgot = threading.Event()

    def __enter__(self) -> "Proxy":
        self._listener = socket.create_server((self._host, 0), backlog=100)
        self._listener.settimeout(_POLL)  # closing a socket wakes nobody who waits for it
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._flowing.set()
        self._threads[0].join()  # from now on nobody comes
        self.cut()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def hold(self) -> None:
        """Let nothing through any more. Connections stay as they are and new ones seem to work, as in a partition."""
        self._flowing.clear()

    def go_on(self) -> None:
        """Let everything through again, what was held up first."""
        self._flowing.set()

    def cut(self) -> None:
        """Reset every connection, as a router does that has forgotten them."""
        with self._lock:
            pairs = tuple(self._pairs)
        for pair in pairs:
            pair.reset()

    def forget(self, words: bytes, what: Literal["reply", "request", "connection"]) -> None:
        """Lose something once, when a client sends these words (a regex) for the first time.

        The *reply*: the server gets the request, and the client a reset instead of its answer. The *request*:
        the server never gets it, and the client a reset. The *connection*: the request is lost and whatever
        would follow it in either direction, and neither side is ever told.
        """
        self.forgot.clear()
        self._forget = (re.compile(words, re.IGNORECASE), what)

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            client.settimeout(None)
            try:
                server = socket.create_connection((HOST, self._server_port), timeout=None)
            except OSError:  # the server is away; so are we then
                _reset(client)
                continue
            pair = _Pair(client, server)
            with self._lock:
                self._pairs.add(pair)
            self._start(self._pump, pair, client, server)
            self._start(self._pump, pair, server, client)

    def _pump(self, pair: "_Pair", source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self._flowing.wait()
                if source is pair.client:
                    self._consider(pair, data)
                if pair.lost == "connection":
                    self.forgot.set()
                    pair.ended.wait()
                # The server has answered, so it has done what it was asked to do.
                elif pair.lost == "request" or (pair.lost == "reply" and source is pair.server):
                    self.forgot.set()
                    break
                target.sendall(data)
            self._flowing.wait()  # a partition hides a connection's end as well
        if pair.lost == "connection":  # of which neither side hears, however the other one ended it
            pair.ended.wait()
        pair.reset()
        with self._lock:
            self._pairs.discard(pair)

    def _consider(self, pair: "_Pair", data: bytes) -> None:
        with self._lock:
            if self._forget and self._forget[0].search(data):
                pair.lost = self._forget[1]
                self._forget = None

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()


class _Pair:
    """A client's connection and the one to the server that belongs to it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        #: What is to be lost of it.
        self.lost = ""
        self.ended = threading.Event()
        self._open = threading.Lock()

    def reset(self) -> None:
        """End both, so that each side's next word fails; the first call does."""
        if self._open.acquire(blocking=False):
            self.ended.set()
            _reset(self.client)
            _reset(self.server)


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits in recv
    connection.close()
