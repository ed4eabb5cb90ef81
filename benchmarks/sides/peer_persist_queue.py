"""persist-queue's SQLiteAckQueue: put, get, ack. The row stays. Its commits are durable against power loss."""

import sys

from common import Handler, Work, from_threads, item, main, race, repeat, this, until_empty, workload
from persistqueue import Empty, SQLiteAckQueue


def connect(work: Work, *, fast: bool = False) -> SQLiteAckQueue:
    q = SQLiteAckQueue(str(work.path), multithreading=True, timeout=30, auto_resume=False)
    mode = "OFF" if fast else "FULL" if work.durability == "power" else "NORMAL"
    for connection in (q._getter, q._putter):
        connection.execute(f"PRAGMA synchronous = {mode}")
    return q


def fill(work: Work) -> None:
    q = connect(work, fast=True)
    for n in range(work.jobs):
        q.put(item(n))
    q.close()


def turn(q: SQLiteAckQueue) -> int:
    try:
        got = q.get(block=False, raw=True)
    except Empty:
        return 0
    q.ack(id=got["pqid"])
    return 1


@workload
def enqueue(work: Work) -> dict:
    q = connect(work)
    return repeat(work, lambda n: q.put(item(n)))


@workload
def enqueue_threads(work: Work) -> dict:
    q = connect(work)
    return from_threads(work, lambda n: q.put(item(n)))


@workload
def exchange(work: Work) -> dict:
    fill(work)
    q = connect(work)
    return until_empty(work, lambda: turn(q))


@workload
def consume(work: Work) -> dict:
    fill(work)
    return race(work, this(__file__, "consume_child", work))


@workload
def consume_child(work: Work) -> dict:
    q = connect(work)
    handler = Handler()
    handler.wait()
    while turn(q):
        handler.noop()
    return {}


if __name__ == "__main__":
    sys.exit(main())
