"""faster-fifo: a ring in shared memory."""

import sys
import time
from queue import Empty, Full
from typing import Any

from common import Work, main, workload
from faster_fifo import Queue
from streams import Flow, lists, run


def queue(_flow: Flow) -> Any:
    return Queue(max_size_bytes=64 << 20), lists()


def produce(flow: Flow, shared: Any) -> None:
    line, source = shared
    for _ in range(flow.each // sum(map(len, source))):
        for some in source:
            while True:
                try:
                    line.put_many(some, timeout=1)
                    break
                except Full:
                    continue


def consume(flow: Flow, shared: Any) -> tuple:
    line, _source = shared
    count, last = 0, time.perf_counter()
    while True:
        over = flow.over.is_set()
        try:
            count += len(line.get_many(max_messages_to_get=1000, timeout=0.1))
            last = time.perf_counter()
        except Empty:
            if over:
                return count, last


@workload
def strings(work: Work) -> dict:
    return run(work, queue, produce, consume)


if __name__ == "__main__":
    sys.exit(main())
