"""multiprocessing.Queue, which keeps nothing."""

import sys
import time
from typing import Any

from common import Work, main, workload
from streams import FORK, Flow, lists, run, texts


def queue(flow: Flow) -> Any:
    return FORK.Queue(1000), lists() if flow.work.state == "lists" else texts()


def produce(flow: Flow, shared: Any) -> None:
    line, source = shared
    for _ in range(flow.each // sum(len(one) if isinstance(one, list) else 1 for one in source)):
        for one in source:
            line.put(one)
    line.put(None)
    line.close()
    line.join_thread()


def consume(_flow: Flow, shared: Any) -> tuple:
    line, _source = shared
    count = 0
    while (one := line.get()) is not None:
        count += len(one) if isinstance(one, list) else 1
    return count, time.perf_counter()


@workload
def strings(work: Work) -> dict:
    return run(work, queue, produce, consume)


if __name__ == "__main__":
    sys.exit(main())
