"""gigq: submit a job that names a function; its Worker imports and calls it, and keeps the row."""

import sys

from common import Handler, Work, item, main, race, repeat, this, until_empty, workload
from gigq import Job, JobQueue, Worker
from gigq.db_utils import get_connection

_handler: "Handler | None" = None


def noop(text: str) -> None:  # noqa: ARG001
    if _handler:
        _handler.noop()


def connect(work: Work) -> JobQueue:
    q = JobQueue(database(work))
    pragma(work)
    return q


def database(work: Work) -> str:
    return str(work.path / "gigq.db")


def pragma(work: Work, mode: str = "") -> None:
    """gigq keeps one connection a thread."""
    mode = mode or ("FULL" if work.durability == "power" else "NORMAL")
    get_connection(database(work)).execute(f"PRAGMA synchronous = {mode}")


def submit(q: JobQueue, n: int) -> None:
    q.submit(Job(name="noop", function=noop, params={"text": item(n)}))


def fill(work: Work) -> None:
    q = connect(work)
    pragma(work, "OFF")
    for n in range(work.jobs):
        submit(q, n)
    pragma(work)


@workload
def enqueue(work: Work) -> dict:
    q = connect(work)
    return repeat(work, lambda n: submit(q, n))


@workload
def exchange(work: Work) -> dict:
    fill(work)
    worker = Worker(database(work))
    return until_empty(work, lambda: int(worker.process_one()))


@workload
def consume(work: Work) -> dict:
    fill(work)
    return race(work, this(__file__, "consume_child", work))


@workload
def consume_child(work: Work) -> dict:
    import peer_gigq  # the worker imports this module by its name, which is not __main__

    pragma(work)
    handler = peer_gigq._handler = Handler()
    worker = Worker(database(work))
    handler.wait()
    while worker.process_one():
        pass
    return {}


if __name__ == "__main__":
    import peer_gigq

    noop = peer_gigq.noop
    sys.exit(main())
