"""A storm on batch files: producers, readers and recovery of one spool.

An item is a number: the producer's in the upper half, and which of its items it is in the lower, from 0
up without a gap. A reader writes each number down, 8 bytes in one write(2), before it asks for the next.
"""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from persistq import batch
from persistq.batch import BatchReader, BatchWriter

from . import stream_bugs
from .batches import ITEMS, NUMBER_BYTES, write_end
from .history import History
from .nemesis import EXIT_LATE, Plan, Storm

QUEUE = "q"
LEASE = 0.5
"""A batch is held by a lock of the kernel's and no time ends that; who is stopped for so long has to keep it."""

MAX_ITEMS, BLOCK = 10_000, 1000
ODD = 997
"""Every so many items one is no number but an object that has it, and a text that is not easy to keep."""


class BatchStorm(Storm):
    """Everybody on one spool, which is empty at first."""

    of = "batches"
    roles = ("producer", "producer", "reader", "reader", "reader", "recovery")
    paused = "reader"
    lease = LEASE

    def __init__(self, folder: Path, target: str, plan: Plan) -> None:
        super().__init__(folder, target, plan)
        if plan.bug:
            stream_bugs.sow(plan.bug)

    def act(self, role: str, history: History, chance: random.Random, count: Callable[[int], None]) -> None:
        match role:
            case "producer":
                produce(self.target, history, chance, count)
            case "reader":
                consume(self.target, history, self.folder, wait=True)
            case "recovery":
                while True:
                    batch.recover(self.target, QUEUE)
                    time.sleep(chance.uniform(0, 0.1))

    def settle(self) -> None:
        left = self.apart("drain", lambda history: _drain(self.target, history, self.folder))
        self.write_meta(drained=left)
        write_end(self.folder, sorted(os.listdir(Path(self.target, QUEUE))))

    def meta(self) -> dict[str, Any]:
        return {"max_items": MAX_ITEMS, "block": BLOCK}


def produce(root: str, history: History, chance: random.Random, count: Callable[[int], None]) -> None:
    """Add items, and say which are safe whenever they are."""
    mine = int(history.actor.rpartition("-")[2]) << 32
    at = 0
    with BatchWriter(root, QUEUE, max_items=MAX_ITEMS, block_items=BLOCK, max_ready_files=20) as writer:
        while True:
            upto = at + chance.choice((1, 10, BLOCK, MAX_ITEMS)) * chance.randint(1, 4)
            number = history.invoke("add", upto=upto)
            writer.add_many([item_of(mine + n) for n in range(at, upto)])
            writer.flush()
            history.answer(number, "ok")
            count(upto - at)
            at = upto


def consume(root: str, history: History, folder: Path, *, wait: bool) -> None:
    """Write down every item that comes, and which of them are not what was added."""
    items = os.open(folder / f"{history.actor}{ITEMS}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with BatchReader(root, QUEUE, wait=wait) as reader:
        for item in reader:
            number = item if type(item) is int else item.get("number", 0) if type(item) is dict else 0
            if item != item_of(number):
                history.note("damaged", item=repr(item)[:100])
            os.write(items, number.to_bytes(NUMBER_BYTES))


def item_of(number: int) -> Any:
    return number if number % ODD else {"number": number, "text": "\0\u2028\U0001f40d" * (number % 7)}


def _drain(root: str, history: History, folder: Path) -> int:
    """Consume what is left, and return 0, or that something is left all the same."""
    batch.recover(root, QUEUE)
    consume(root, history, folder, wait=False)
    return EXIT_LATE if any(batch.counts(root, QUEUE)["ready"].values()) else 0
