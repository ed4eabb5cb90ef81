"""A network of its own for some processes, whose one cable a test can pull: packets then vanish without a word."""

import contextlib
import itertools
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path


class Island:
    """A network namespace (root only), joined to this machine's network by one cable."""

    def __init__(self, name: str, number: int) -> None:
        self._name, self._cable = name, f"{name}-cable"
        #: This machine, as the island sees it. The addresses are of a range that is kept for tests of networks.
        self.host = f"198.18.{number}.1"
        self._own = f"198.18.{number}.2"
        #: What to put before a command that is to run on the island. Not ``ip netns exec``, which gives it a copy of
        #: every mount as well: a file system that another test unmounts meanwhile would live on in the copy.
        self.before = ("nsenter", f"--net=/run/netns/{name}")

    def pull(self) -> None:
        """Pull the cable: nothing gets through, and nobody is told."""
        _ip("link", "set", self._cable, "down")

    def plug(self) -> None:
        """Plug it in again."""
        _ip("link", "set", self._cable, "up")

    def build(self) -> None:
        _ip("netns", "add", self._name)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", "cable", "netns", self._name)
        _ip("addr", "add", f"{self.host}/30", "dev", self._cable)
        _ip("-n", self._name, "addr", "add", f"{self._own}/30", "dev", "cable")
        _ip("-n", self._name, "link", "set", "lo", "up")
        _ip("-n", self._name, "link", "set", "cable", "up")
        self.plug()

    def sink(self) -> None:
        for arguments in (("link", "delete", self._cable), ("netns", "delete", self._name)):
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip(*arguments)


@contextlib.contextmanager
def island() -> Iterator[Island]:
    """Give an island for as long as the block lasts."""
    _sink_abandoned()
    with _number() as number:
        found = Island(f"pq{os.getpid()}", number)
        try:
            found.build()
            yield found
        finally:
            found.sink()


def _sink_abandoned() -> None:
    """Remove the islands of test runs that were killed."""
    for path in Path("/run/netns").glob("pq[0-9]*"):
        if not Path("/proc", path.name.removeprefix("pq")).exists():
            Island(path.name, 0).sink()


@contextlib.contextmanager
def _number() -> Iterator[int]:
    """Give a number that nobody else on this machine has: a socket's name, which is free again however we end."""
    with socket.socket(socket.AF_UNIX) as claim:
        yield next(number for number in itertools.count() if _is_ours(claim, number))


def _is_ours(claim: socket.socket, number: int) -> bool:
    try:
        claim.bind(f"\0persistq island {number}")
    except OSError:
        return False
    return True


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=30)
