"""litequeue: a message is put, popped and marked done, each its own commit. The row stays."""

import sys

from common import Handler, Work, item, main, race, repeat, this, until_empty, workload
from litequeue import LiteQueue


def connect(work: Work) -> LiteQueue:
    q = LiteQueue(str(work.path / "litequeue.db"), timeout=30)
    q.conn.execute(f"PRAGMA synchronous = {'FULL' if work.durability == 'power' else 'NORMAL'}")
    return q


def fill(work: Work) -> LiteQueue:
    q = connect(work)
    q.conn.execute("PRAGMA synchronous = OFF")
    for n in range(work.jobs):
        q.put(item(n))
    q.conn.close()
    return connect(work)


def turn(q: LiteQueue) -> int:
    message = q.pop()
    if message is None:
        return 0
    claim = getattr(message, "claim_id", None)  # newer versions want it back
    q.done(message.message_id, **({} if claim is None else {"claim_id": claim}))
    return 1


@workload
def enqueue(work: Work) -> dict:
    q = connect(work)
    return repeat(work, lambda n: q.put(item(n)))


@workload
def exchange(work: Work) -> dict:
    q = fill(work)
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
