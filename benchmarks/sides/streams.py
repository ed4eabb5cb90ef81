"""What the sides of the batch cases share: forked producers and consumers, and one clock from begin to last item."""

import json
import multiprocessing
import resource
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from common import Work, item

FORK = multiprocessing.get_context("fork")
CYCLE = 10_000
FILE_ITEMS = 10_000
BLOCK = 1000
PAUSE = 0.001


class Flow(NamedTuple):
    """One run: what the forked processes share."""

    work: Work
    #: Set when every producer has ended.
    over: Any
    barrier: Any
    results: Any

    @property
    def each(self) -> int:
        """Items of one producer."""
        return self.work.jobs // self.work.processes // CYCLE * CYCLE


def texts() -> list[str]:
    """Return distinct strings of 100 bytes."""
    return [item(n) for n in range(CYCLE)]


def objects() -> list[dict]:
    """Return the same as objects."""
    return [json.loads(text) for text in texts()]


def lists() -> list[list[str]]:
    """Return the strings in lists of a thousand."""
    every = texts()
    return [every[start : start + BLOCK] for start in range(0, CYCLE, BLOCK)]


def run(
    work: Work, make: Callable[[Flow], Any], produce: Callable[[Flow, Any], None], consume: Callable[[Flow, Any], tuple]
) -> dict:
    """Fork producers and consumers and return items a second; ``make`` is called before the fork.

    ``consume`` returns how many items it got and the time of the last. It has to end once ``over`` is set and
    nothing is left.
    """
    flow = Flow(work, FORK.Event(), FORK.Barrier(2 * work.processes + 1), FORK.SimpleQueue())
    shared = make(flow)

    def producer() -> None:
        flow.barrier.wait()
        produce(flow, shared)

    def consumer() -> None:
        flow.barrier.wait()
        flow.results.put(consume(flow, shared))

    producers = [FORK.Process(target=producer) for _ in range(work.processes)]
    consumers = [FORK.Process(target=consumer) for _ in range(work.processes)]
    for process in (*consumers, *producers):
        process.start()
    flow.barrier.wait()
    began = time.perf_counter()
    for process in producers:
        process.join()
    flow.over.set()
    found = [flow.results.get() for _ in consumers]
    for process in consumers:
        process.join()
    total = sum(count for count, _ in found)
    if total != flow.each * work.processes:
        raise RuntimeError(f"{total:,} of {flow.each * work.processes:,} items came")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "rate": total / (max(last for _, last in found) - began),
        "cpu": (used.ru_utime + used.ru_stime) / total * 1e6,
    }


def until_over(flow: Flow, some: Callable[[], int]) -> tuple[int, float]:
    """Call ``some``, which takes what is there and returns how many, until all is over; return count and last time."""
    count, last = 0, time.perf_counter()
    while True:
        over = flow.over.is_set()
        if got := some():
            count, last = count + got, time.perf_counter()
        elif over:
            return count, last
        else:
            time.sleep(PAUSE)
