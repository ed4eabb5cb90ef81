"""History: what one actor asked for and what it was told, a line of JSON each, in a file of its own.

A line is one write(2) on a descriptor that appends, so kill -9 loses no line that was written and tears
at most the one being written. A call has two lines: ``invoke`` before, and one after with what became
of it: ``ok``, ``fail`` (nothing was written, for certain) or ``unknown``. An ``invoke`` that nothing
follows is unknown as well. Times are nanoseconds of the monotonic clock, which all processes share.

    {"t": 1, "c": 0, "op": "enqueue", "is": "invoke", "jobs": [{"item": "a", "queue": "q"}]}
    {"t": 2, "c": 0, "is": "ok", "ids": [7]}
"""

import json
import os
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

SUFFIX = ".jsonl"
FINAL = "final"
"""The table as it stood at the end, where the actors' histories are."""

META = "meta.json"


class History:
    """One actor's own file. Threads of the actor may share it; a forked child makes one of its own."""

    def __init__(self, folder: Path, actor: str, now: Callable[[], int] = time.monotonic_ns) -> None:
        self.actor = actor
        self._now = now
        self._calls = count()
        self._handle = os.open(folder / f"{actor}{SUFFIX}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, op: str, **fields: Any) -> None:
        """Write down what is no call, such as that a handler begins."""
        self._write({"t": self._now(), "op": op, **fields})

    def invoke(self, op: str, **asked: Any) -> int:
        """Write down that a call begins, and return its number."""
        number = next(self._calls)
        self._write({"t": self._now(), "c": number, "op": op, "is": "invoke", **asked})
        return number

    def answer(self, number: int, outcome: str, **told: Any) -> None:
        """Write down what became of a call: ``ok``, ``fail`` or ``unknown``."""
        self._write({"t": self._now(), "c": number, "is": outcome, **told})

    def close(self) -> None:
        os.close(self._handle)

    def _write(self, record: dict[str, Any]) -> None:
        line = json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        if os.write(self._handle, line) != len(line):
            raise OSError(f"the history of {self.actor} was cut short")
