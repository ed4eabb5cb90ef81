"""What a storm on batch files left behind, and whether it is as promised. Nothing here knows persistq."""

import json
from array import array
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .figures import Figures
from .history import FINAL, META, SUFFIX
from .invariants import Found, Violation
from .reading import Step, Unreadable, lines

ITEMS = ".items"
"""What a reader saw: the numbers of the items, 8 bytes each, most significant byte first."""

NUMBER_BYTES = 8
_LOW = (1 << 32) - 1


@dataclass(slots=True)
class Producer:
    """One producer's life. Its items are numbered from 0."""

    name: str
    #: How many it began to add, and how many it was told are safe.
    begun: int = 0
    safe: int = 0
    #: How often each was seen, by number.
    seen: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class Reader:
    """One reader's life, and the items that it was given, in that order."""

    name: str
    items: "array[int]"
    killed: bool

    def step(self, number: int) -> Step:
        return Step(f"reads item {text_of(number)}", 0, 0, 0, 0, True, self.name, {"killed": self.killed})


class Spool:
    """One run: what everybody added, and what came of it."""

    def __init__(self, folder: Path) -> None:
        self.meta = json.loads((folder / META).read_text())
        self.producers: dict[int, Producer] = {}
        self.damaged: list[str] = []
        self.killed: set[str] = set()
        self.pauses = self.unanswered = 0
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            if path.stem != FINAL:
                self._read(path)
        self.readers = [self._reader(path) for path in sorted(folder.glob(f"*{ITEMS}"))]
        self.left = _left(folder / f"{FINAL}{SUFFIX}")
        self.phantoms = [(reader, number) for reader in self.readers for number in self._count(reader)]

    def _read(self, path: Path) -> None:
        name = path.stem
        producer = Producer(name)
        asked = 0
        for record in filter(None, lines(path)):
            if record.get("op") == "kill":
                self.killed.add(record["actor"])
            elif record.get("op") == "stop":
                self.pauses += 1
            elif record.get("op") == "damaged":
                self.damaged.append(f"{name}: {record['item']}")
            elif record.get("is") == "invoke":
                asked = producer.begun = record["upto"]
            elif record.get("is") == "ok":
                producer.safe = asked
        self.unanswered += producer.begun > producer.safe
        if producer.begun:
            producer.seen = bytearray(producer.begun)
            self.producers[int(name.rpartition("-")[2])] = producer

    def _reader(self, path: Path) -> Reader:
        data = path.read_bytes()
        items = array("Q", data[: len(data) // NUMBER_BYTES * NUMBER_BYTES])
        items.byteswap()
        return Reader(path.stem, items, path.stem in self.killed)

    def _count(self, reader: Reader) -> Iterator[int]:
        """Count what a reader saw, and yield what nobody added."""
        for number in reader.items:
            try:
                seen = self.producers[number >> 32].seen
                seen[number & _LOW] = min(255, seen[number & _LOW] + 1)
            except (KeyError, IndexError):
                yield number


def _left(path: Path) -> list[str]:
    if not path.exists():
        raise Unreadable("nobody wrote down how it ended")
    return list(json.loads(path.read_text())["files"])


def write_end(folder: Path, files: list[str]) -> None:
    """Write down which files were left when everything had been consumed."""
    (folder / f"{FINAL}{SUFFIX}").write_text(json.dumps({"files": files}) + "\n")


def text_of(number: int) -> str:
    return f"{number >> 32}.{number & _LOW}"


def no_loss(spool: Spool) -> Found:
    """I1: what was said to be safe is consumed; and so is all that was added before what is."""
    for producer in spool.producers.values():
        there = max(producer.safe, len(producer.seen.rstrip(b"\0")))
        missing = producer.seen.find(0, 0, there)
        if missing >= 0:
            acknowledged = "was safe" if missing < producer.safe else "was added before others that came"
            yield Violation("I1", f"item {missing} of {producer.name} {acknowledged}, and nobody was given it", [])


def no_phantom(spool: Spool) -> Found:
    """I2: what a reader is given was added, unchanged."""
    for reader, number in spool.phantoms[:1]:
        yield Violation("I2", f"{len(spool.phantoms):,} items were read that nobody added", [reader.step(number)])
    for what in spool.damaged:
        yield Violation("I2", f"an item is not as it was: {what}", [])


def in_order(spool: Spool) -> Found:
    """I9: a reader is given a batch's items in their order, none left out, to the batch's end."""
    size = spool.meta["max_items"]
    for reader in spool.readers:
        before = None
        for number in reader.items:
            if before is not None and number != before + 1 and not _ends(spool, before, size):
                what = f"{reader.name} was given item {text_of(number)} after {text_of(before)}, amid a batch"
                yield Violation("I9", what, [])
                break
            before = number


def _ends(spool: Spool, number: int, size: int) -> bool:
    """Return whether an item is the last of its batch: a full one, or the one that a dead producer left."""
    producer = spool.producers.get(number >> 32)
    at = (number & _LOW) + 1
    return at % size == 0 or (producer is not None and at == len(producer.seen.rstrip(b"\0")))


def one_block(spool: Spool) -> Found:
    """I16: each item is consumed once, but for the last block that a killed reader was given."""
    often = {
        (which << 32) + n
        for which, producer in spool.producers.items()
        for n, times in enumerate(producer.seen)
        if times > 1
    }
    final: dict[int, list[Reader]] = defaultdict(list)
    for reader in spool.readers:
        spared = len(reader.items) - spool.meta["block"] if reader.killed else len(reader.items)
        for place, number in enumerate(reader.items):
            if number in often and place < spared:
                final[number].append(reader)
    twice = {number: readers for number, readers in final.items() if len(readers) > 1}
    for number, readers in twice.items():
        what = f"item {text_of(number)}, and {len(twice) - 1:,} more, were consumed for good and came again"
        yield Violation("I16", what, [reader.step(number) for reader in readers])
        return


def nothing_left(spool: Spool) -> Found:
    """I19: in the end everything is consumed, and no file is left, neither of a dead one nor put aside."""
    if spool.left or spool.meta.get("drained"):
        names = ", ".join(spool.left[:5])
        yield Violation("I19", f"{len(spool.left)} files are left: {names}", [])


CHECKS = (no_loss, no_phantom, in_order, one_block, nothing_left)


def judge(folder: Path) -> tuple[Figures, list[Violation]]:
    """Return the figures of a run, and the ways in which it broke an invariant."""
    spool = Spool(folder)
    return _figures(spool), [violation for check in CHECKS for violation in check(spool)]


def _figures(spool: Spool) -> dict[str, Any]:
    delivered = sum(len(reader.items) for reader in spool.readers)
    there = sum(len(producer.seen) - producer.seen.count(0) for producer in spool.producers.values())
    return {
        "kills": len(spool.killed),
        "pauses": spool.pauses,
        "items": sum(producer.safe for producer in spool.producers.values()),
        "deliveries": delivered,
        "duplicates": delivered - there,
        "outcomes unknown": spool.unanswered,
    }
