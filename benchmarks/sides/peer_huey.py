"""huey on SQLite, with its own consumer program."""

import os
import sys
from pathlib import Path

from common import Handler, Work, from_threads, idle_latency, item, main, race, repeat, until_empty, workload
from huey import SqliteHuey

HERE = Path(__file__).parent


def open_huey(folder: str, durability: str, *, fast: bool = False) -> SqliteHuey:
    """Return a huey at the durability that is wanted; ``fast`` is for what is not measured."""
    huey = SqliteHuey("bench", filename=str(Path(folder) / "huey.db"), fsync=not fast)
    if durability == "process" and not fast:
        # huey's own switch knows FULL and OFF; NORMAL is what the others have here.
        plain = huey.storage._create_connection

        def create():
            connection = plain()
            connection.execute("PRAGMA synchronous = NORMAL")
            return connection

        huey.storage._create_connection = create
        huey.storage.close()
    return huey


def tasks(huey: SqliteHuey, handler: "Handler | None"):
    """Register the tasks; without a handler they can only be enqueued."""

    def noop(text):  # noqa: ARG001
        handler.noop()

    def arrived(sent):
        handler.arrived(sent)

    # The producer is __main__ and the consumer is not, but the tasks have to have one name.
    noop.__module__ = arrived.__module__ = "bench"
    return huey.task()(noop), huey.task()(arrived)


@workload
def enqueue(work: Work) -> dict:
    noop, _ = tasks(open_huey(work.folder, work.durability), None)
    return repeat(work, lambda n: noop(item(n)))


@workload
def enqueue_threads(work: Work) -> dict:
    noop, _ = tasks(open_huey(work.folder, work.durability), None)
    return from_threads(work, lambda n: noop(item(n)))


def fill(work: Work) -> None:
    huey = open_huey(work.folder, work.durability, fast=True)
    noop, _ = tasks(huey, None)
    for n in range(work.jobs):
        noop(item(n))
    huey.storage.close()


@workload
def exchange(work: Work) -> dict:
    """Take a job and perform it; the row is gone as soon as it is taken."""
    fill(work)
    huey = open_huey(work.folder, work.durability)

    class Nothing:
        def noop(self) -> None:
            pass

    tasks(huey, Nothing())

    def turn() -> int:
        task = huey.dequeue()
        if task is None:
            return 0
        huey.execute(task)
        return 1

    return until_empty(work, turn)


def consumer(work: Work) -> tuple[list[str], dict[str, str]]:
    command = [sys.executable, "-m", "huey.bin.huey_consumer", "app_huey.huey", "--workers", "1", "--quiet"]
    return command, {"PYTHONPATH": str(HERE), "BENCH_DURABILITY": work.durability, "PATH": os.environ["PATH"]}


@workload
def consume(work: Work) -> dict:
    fill(work)
    command, environment = consumer(work)
    return race(work, command, **environment)


@workload
def latency(work: Work) -> dict:
    _, arrived = tasks(open_huey(work.folder, work.durability), None)
    command, environment = consumer(work)
    return idle_latency(work, command, arrived, **environment)


if __name__ == "__main__":
    sys.exit(main())
