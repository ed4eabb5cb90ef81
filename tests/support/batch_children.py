"""Child processes that write and read batches until they are killed. Forked, for a kill is wanted hundreds of times."""

import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from persistq.batch import BatchName, BatchReader, BatchWriter

_NUMBER = 8


class Child:
    """A forked process that tells numbers through a pipe, each told before it goes on."""

    def __init__(self, act: Callable[[Callable[[int], None]], Any]) -> None:
        self._read, write = os.pipe()
        # One page, 512 numbers: a pipe of the usual size lets it run so far ahead that reading it all takes longest.
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
        self.pid = os.fork()
        if not self.pid:
            try:
                os.close(self._read)
                act(lambda number: os.write(write, number.to_bytes(_NUMBER)) and None)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        os.close(write)

    def hear(self) -> int | None:
        """Return the next number, or None when the process has ended."""
        data = os.read(self._read, _NUMBER)
        return int.from_bytes(data) if data else None

    def kill(self) -> list[int]:
        """Kill -9, and return what it had told and was not heard."""
        os.kill(self.pid, signal.SIGKILL)
        return self.wait()[1]

    def wait(self) -> tuple[int, list[int]]:
        """Return its exit code once it has ended, and what was not heard."""
        rest = []
        while (number := self.hear()) is not None:
            rest.append(number)
        os.close(self._read)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), rest


def producing(root: Path, start: int, most: int, **options: Any) -> Callable[[Callable[[int], None]], None]:
    """Return what a producer does: it adds numbers and tells, after each flush, how many are safe."""

    def act(tell: Callable[[int], None]) -> None:
        with BatchWriter(root, "q", **options) as writer:
            for number in range(start, most):
                writer.add(number)
                if number % 7 == 0:
                    writer.flush()
                    tell(number)
        tell(most - 1)

    return act


def consuming(root: Path, **options: Any) -> Callable[[Callable[[int], None]], None]:
    """Return what a consumer does: it tells each item before it asks for the next."""

    def act(tell: Callable[[int], None]) -> None:
        with BatchReader(root, "q", **options) as reader:
            for item in reader:
                tell(item)

    return act


def strays(root: Path) -> list[str]:
    """Return the names of files in the spool that are no batch's."""
    return [name for name in os.listdir(root / "q") if BatchName.parse(name) is None]
