"""turbo-queue as tuned as it can be: large files, and its limit of ready files looked at once a file."""

import logging
import sys
import time
from typing import Any

from common import Work, main, workload
from streams import FILE_ITEMS, Flow, objects, run, texts

logging.disable(logging.CRITICAL)
import turbo_queue  # noqa: E402 - it logs as it is imported


def opened(side: Any, flow: Flow) -> Any:
    side.root_path, side.queue_name = flow.work.folder, "q"
    side.max_ready_files, side.max_events_per_file = 1_000_000, FILE_ITEMS
    side.setup_logging("turbo", logging.CRITICAL)
    return side


def produce(flow: Flow, source: list) -> None:
    enqueue = opened(turbo_queue.Enqueue(), flow)
    enqueue.check_path_and_create(f"{flow.work.folder}/q")
    enqueue.start()
    for _ in range(flow.each // len(source)):
        for one in source:
            enqueue.add(one)
        enqueue.update_enqueue_active_state()


def consume(flow: Flow, _source: list) -> tuple:
    dequeue = opened(turbo_queue.Dequeue(), flow)
    count, last = 0, time.perf_counter()
    while True:
        over = flow.over.is_set()
        got = 0
        if dequeue.get_ready_length():  # to look for nothing costs it half a second
            for one in dequeue.get():
                if one is None:
                    break
                got += 1
        if got:
            count, last = count + got, time.perf_counter()
        elif over:
            return count, last
        else:
            time.sleep(0.001)


@workload
def strings(work: Work) -> dict:
    return run(work, lambda _flow: texts(), produce, consume)


@workload
def objs(work: Work) -> dict:
    return run(work, lambda _flow: objects(), produce, consume)


if __name__ == "__main__":
    sys.exit(main())
