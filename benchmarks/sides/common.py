"""What every side of a comparison shares: the same items, the same clock, the same way to run workers.

A side is a script. ``python SIDE.py WORKLOAD JSON`` does one piece of work and prints one JSON object of figures.
It uses nothing but the standard library and what it measures, for it runs in a virtual environment of its own.
"""

import contextlib
import json
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

BATCH = 1000
LATE = 60.0
"""Seconds that a worker may take to start."""


@dataclass
class Work:
    """One piece of work, the same for every side."""

    folder: str
    url: str = ""
    #: ``power``: an acknowledged job survives power loss. ``process``: the death of every process.
    durability: str = "power"
    jobs: int = 1000
    #: Stop after so many seconds and tell the rate until then.
    seconds: float = 4.0
    batch: int = 1
    threads: int = 1
    processes: int = 1
    #: Rows that are there before, for what grows.
    rows: int = 0
    #: What those rows are: ``finished`` or ``pending``.
    state: str = "finished"
    #: Seconds that an idle consumer is watched.
    idle: float = 20.0
    #: Which child this is.
    child: int = 0

    @property
    def path(self) -> Path:
        """The folder as a path."""
        return Path(self.folder)


WORKLOADS: dict[str, Callable[[Work], dict]] = {}


def workload(function: Callable[[Work], dict]) -> Callable[[Work], dict]:
    """Register a function under its own name."""
    WORKLOADS[function.__name__] = function
    return function


def main() -> None:
    """Do the workload that the command line names."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that workers are ended
    name, text = sys.argv[1:]
    print(json.dumps(WORKLOADS[name](Work(**json.loads(text)))))


def item(number: int) -> str:
    """Return a distinct JSON text of 100 bytes."""
    return json.dumps({"n": f"{number:09d}", "pad": "x" * 72})


def items(number: int, start: int = 0) -> list[str]:
    """Return distinct items."""
    return [item(n) for n in range(start, start + number)]


def repeat(work: Work, call: Callable[[int], object], each: int = 1) -> dict:
    """Call until all jobs are through or the time is up; ``each`` jobs a call."""
    rounds = max(1, work.jobs // each)
    began = time.perf_counter()
    end = began + work.seconds
    n = 0
    for n in range(1, rounds + 1):
        call(n)
        if time.perf_counter() > end:
            break
    return {"rate": n * each / (time.perf_counter() - began)}


async def repeat_async(work: Work, call: Callable[[int], Awaitable[object]], each: int = 1) -> dict:
    """Do what ``repeat`` does with a coroutine function, one call after the other."""
    rounds = max(1, work.jobs // each)
    began = time.perf_counter()
    end = began + work.seconds
    n = 0
    for n in range(1, rounds + 1):
        await call(n)
        if time.perf_counter() > end:
            break
    return {"rate": n * each / (time.perf_counter() - began)}


def until_empty(work: Work, turn: Callable[[], int]) -> dict:
    """Call ``turn``, which returns how many jobs it took, until it takes none or the time is up."""
    began = time.perf_counter()
    end = began + work.seconds
    done = 0
    while took := turn():
        done += took
        if time.perf_counter() > end:
            break
    return {"rate": done / (time.perf_counter() - began)}


def from_threads(work: Work, call: Callable[[int], object]) -> dict:
    """Make the calls from ``work.threads`` threads at once."""
    each = max(1, work.jobs // work.threads)
    barrier = threading.Barrier(work.threads + 1)
    done = [0] * work.threads
    errors: list[BaseException] = []

    def run(number: int) -> None:
        barrier.wait()
        end = time.perf_counter() + work.seconds
        try:
            for n in range(each):
                call(number * each + n)
                done[number] += 1
                if time.perf_counter() > end:
                    return
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(work.threads)]
    for thread in threads:
        thread.start()
    barrier.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return {"rate": sum(done) / (time.perf_counter() - began)}


def grown(work: Work, add: Callable[[list[str]], object], take: Callable[[int], int]) -> dict:
    """Claim and complete among the rows that are there, after a part that is not counted."""
    warm = work.jobs // 4
    add(items(work.jobs + warm))
    done = 0
    while done < warm:
        done += take(work.batch)
    done, began = 0, time.perf_counter()
    while done < work.jobs and (took := take(work.batch)):
        done += took
    rate = done / (time.perf_counter() - began)
    take(0)
    return {"rate": rate}


def churn(work: Work, add: Callable[[list[str]], object], take: Callable[[int], int]) -> dict:
    """Put very many jobs through a short queue; compare the claims of the first minute with the last's."""
    add(items(work.rows))
    took: list[tuple[float, float]] = []
    number, began = 0, time.perf_counter()
    while number < work.jobs and time.perf_counter() - began < work.seconds:
        before = time.perf_counter()
        take(work.batch)
        after = time.perf_counter()
        took.append((after - began, (after - before) * 1000))
        add(items(work.batch, number))
        number += work.batch
    total = took[-1][0]
    window = min(60.0, total / 3)
    first = percentile([ms for at, ms in took if at <= window], 0.99)
    last = percentile([ms for at, ms in took if at >= total - window], 0.99)
    return {"first": first, "last": last, "growth": last / first, "rate": number / total, "performed": number}


class Tally:
    """Counts the calls of a handler in a file that another process may read at any time."""

    FORM = struct.Struct("<qdd")

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(self.FORM.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), self.FORM.size)
        self._count, self._first = 0, 0.0

    def hit(self) -> None:
        """Count one."""
        now = time.monotonic()
        self._first = self._first or now
        self._count += 1
        self.FORM.pack_into(self._map, 0, self._count, self._first, now)

    @classmethod
    def read(cls, folder: Path) -> list[tuple[int, float, float]]:
        """Return (count, first, last) of each handler that was called."""
        found = [cls.FORM.unpack(path.read_bytes() or bytes(cls.FORM.size)) for path in folder.glob("tally-*")]
        return [one for one in found if one[0]]


class Handler:
    """The task that does nothing, in a consumer process that waits until all its rivals have started."""

    def __init__(self) -> None:
        self.folder = Path(os.environ["BENCH_FOLDER"])
        self.name = os.environ["BENCH_CHILD"]
        self._tally = Tally(self.folder / f"tally-{self.name}")
        self._seen = (self.folder / f"seen-{self.name}").open("a", buffering=1)

    def wait(self) -> None:
        """Say that this process is ready and wait for the signal."""
        (self.folder / f"ready-{self.name}").touch()
        end = time.monotonic() + 4 * LATE
        while not (self.folder / "go").exists():
            if time.monotonic() > end:
                raise SystemExit("nobody said go")
            time.sleep(0.002)

    def noop(self) -> None:
        """Perform a job."""
        self._tally.hit()

    def arrived(self, sent: float) -> None:
        """Note how long a job was on its way."""
        self._seen.write(f"{(time.monotonic() - sent) * 1000}\n")


class Workers:
    """Consumer processes of one side: started together, watched, ended by their own ids."""

    def __init__(self, work: Work, command: Sequence[str], **environment: str) -> None:
        self.folder = work.path
        self._processes: list[subprocess.Popen] = []
        self._log = (self.folder / "workers.log").open("ab")
        for number in range(work.processes):
            env = {**os.environ, **environment, "BENCH_FOLDER": work.folder, "BENCH_CHILD": str(number)}
            self._processes.append(
                subprocess.Popen(command, env=env, stdout=self._log, stderr=self._log, start_new_session=True)  # noqa: S603
            )

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def go(self) -> None:
        """Wait until all are ready, then let them run."""
        end = time.monotonic() + LATE
        while len(list(self.folder.glob("ready-*"))) < len(self._processes):
            if self.over() or time.monotonic() > end:
                raise RuntimeError("a worker did not start: " + self.log())
            time.sleep(0.01)
        (self.folder / "go").touch()

    def over(self) -> bool:
        """Return whether all have ended."""
        return all(process.poll() is not None for process in self._processes)

    def pids(self) -> list[int]:
        """Return the ids of the processes."""
        return [process.pid for process in self._processes]

    def log(self) -> str:
        """Return the end of what they wrote."""
        return (self.folder / "workers.log").read_text(errors="replace")[-1500:]

    def stop(self, patience: float = 5.0) -> None:
        """Ask them to end, then make them."""
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        for process in self._processes:
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)


def race(work: Work, command: Sequence[str], **environment: str) -> dict:
    """Let workers drain the backlog; the clock runs from the first call of a handler to the last."""
    with Workers(work, command, **environment) as workers:
        workers.go()
        end = time.monotonic() + work.seconds
        count = 0
        while count < work.jobs and time.monotonic() < end + (LATE if not count else 0):
            time.sleep(0.01)
            count = sum(one[0] for one in Tally.read(work.path))
            if workers.over():
                break
        found = Tally.read(work.path)
        if not found:
            raise RuntimeError("no job was performed: " + workers.log())
        count = sum(one[0] for one in found)
        complete = count >= work.jobs
        if complete:  # let them settle the last ones
            end = time.monotonic() + 5
            while not workers.over() and time.monotonic() < end and "--drain" in command:
                time.sleep(0.01)
    first, last = min(one[1] for one in found), max(one[2] for one in found)
    rate = (count - 1) / max(last - first, 1e-6)
    return {"rate": rate, "performed": count, "repeated": max(0, count - work.jobs)}


def idle_latency(work: Work, command: Sequence[str], put: Callable[[float], object], **environment: str) -> dict:
    """Measure, with one idle consumer, the time from the call of enqueue to the handler, and what idling costs."""
    with Workers(work, command, **environment) as workers:
        workers.go()
        time.sleep(1.5)
        chance = random.Random(7)
        for _ in range(work.jobs):
            time.sleep(chance.uniform(0.15, 0.45))
            put(time.monotonic())
        pid = workers.pids()[0]
        end = time.monotonic() + LATE
        found: list[float] = []
        while len(found) < work.jobs and time.monotonic() < end:
            time.sleep(0.05)
            found = _seen(work.path)
        if len(found) < work.jobs:
            raise RuntimeError(f"{len(found)} of {work.jobs} jobs arrived: " + workers.log())
        time.sleep(2)
        before, began = cpu_seconds(pid), time.monotonic()
        time.sleep(work.idle)
        share = 100 * (cpu_seconds(pid) - before) / (time.monotonic() - began)
    found.sort()
    return {"p50": found[len(found) // 2], "p99": found[int(len(found) * 0.99)], "idle": share}


def _seen(folder: Path) -> list[float]:
    return [float(line) for path in folder.glob("seen-*") for line in path.read_text().splitlines()]


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and of its children that still live."""
    total = 0
    for process in [pid, *_children(pid)]:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in path.read_text().split()]
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that ``share`` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def this(script: str, name: str, work: Work) -> list[str]:
    """Return the command that does a workload of the same script in a child."""
    return [sys.executable, script, name, json.dumps(work.__dict__)]
