"""localqueue, whose core is written in Rust: put, get, ack, and its own Worker."""

import sys

from common import (
    BATCH,
    Handler,
    Work,
    from_threads,
    idle_latency,
    item,
    items,
    main,
    race,
    repeat,
    this,
    until_empty,
    workload,
)
from localqueue.core import SimpleQueue
from localqueue.exceptions import Empty
from localqueue.policies import DurabilityMode
from localqueue.worker import Worker


def connect(work: Work) -> SimpleQueue:
    mode = DurabilityMode.DURABLE if work.durability == "power" else DurabilityMode.RELAXED
    return SimpleQueue(work.folder, durability=mode)


def fill(work: Work) -> SimpleQueue:
    q = connect(work)
    for start in range(0, work.jobs, BATCH):
        q.put_many(items(min(BATCH, work.jobs - start), start))
    return q


@workload
def enqueue(work: Work) -> dict:
    q = connect(work)
    return repeat(work, lambda n: q.put(item(n)))


@workload
def enqueue_threads(work: Work) -> dict:
    q = connect(work)
    return from_threads(work, lambda n: q.put(item(n)))


@workload
def enqueue_many(work: Work) -> dict:
    q = connect(work)
    return repeat(work, lambda n: q.put_many(items(BATCH, n * BATCH)), BATCH)


@workload
def exchange(work: Work) -> dict:
    q = fill(work)

    def turn() -> int:
        try:
            job = q.get(block=False)
        except Empty:
            return 0
        q.ack(job)
        return 1

    return until_empty(work, turn)


@workload
def consume(work: Work) -> dict:
    fill(work)
    return race(work, this(__file__, "worker", work))


@workload
def latency(work: Work) -> dict:
    q = connect(work)
    return idle_latency(work, this(__file__, "worker", work), lambda sent: q.put({"sent": sent}))


@workload
def worker(work: Work) -> dict:
    handler = Handler()

    def perform(job: object) -> None:
        if isinstance(job.data, dict):
            handler.arrived(job.data["sent"])
        else:
            handler.noop()

    made = Worker(connect(work), perform)
    handler.wait()
    made.run()
    return {}


if __name__ == "__main__":
    sys.exit(main())
