"""Storm: everybody who works on a queue is killed at random moments and replaced, then the verifier has the word.

``python -m proof.storm FOLDER TARGET`` runs one on an empty queue, from ``tests/``. This process has
imported everything and opened nothing: a fork of it is an actor within milliseconds, and each actor
makes its own queue. The URL of a server is better given as PROOF_TARGET, for it has a password.
"""

import argparse
import gc
import json
import mmap
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import persistq
from persistq import Done, Failed, Released, maintenance
from persistq.settings import Settings
from persistq.storage import server, sqlite
from persistq.worker import JobSource

from . import actors, verifier
from .actors import Recorded
from .bugs import BUGS, sow
from .day import Gap
from .figures import figures
from .history import META, History
from .reading import read

LEASE = 1.0
PATIENCE = 5.0
SETTINGS: dict[str, Any] = {
    "timeout_seconds": LEASE, "queue_recovery_seconds": 0.3, "queue_poll_seconds": 0.2, "queue_backoff_seconds": 0.02,
    "queue_backoff_max_seconds": 0.1, "queue_busy_seconds": PATIENCE, "max_attempts": 1000, "queue_max_pending": 300,
    "queue_retention_seconds": 0,
}  # fmt: skip
DRAIN_SECONDS = 300.0
"""Generous: machines are shared."""

EXIT_LATE = 124
ROLES = ("producer", "producer", "consumer", "consumer", "consumer", "maintenance", "operator")
OPTIONS = ("kills", "jobs", "seconds", "every", "seed", "bug")
_WORD = 8


@dataclass
class Storm:
    """One storm on one queue."""

    folder: Path
    target: str
    settings: Settings
    seed: int
    #: How many to kill, how many jobs to have enqueued meanwhile, and when to stop at the latest.
    kills: int
    jobs: int = 0
    seconds: float = 3600.0
    #: Mean seconds between two kills, and how often a consumer is paused past its lease instead.
    every: float = 0.05
    paused: float = 0.15
    living: dict[int, tuple[int, str]] = field(default_factory=dict)
    #: When those that are paused go on.
    stopped: dict[int, float] = field(default_factory=dict)
    started: int = 0
    killed: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.nemesis = History(self.folder, "nemesis")
        self._counts = mmap.mmap(-1, _WORD * len(ROLES))

    @property
    def on_server(self) -> bool:
        return "://" in self.target

    def run(self) -> int:
        """Rage, calm down, and return the number of broken promises."""
        began = time.monotonic()
        self._write_meta()
        for place in range(len(ROLES)):
            self._start(place)
        while self._goes_on(began):
            time.sleep(self.chance.expovariate(1 / self.every))
            self._wake()
            self._strike()
        raged = time.monotonic() - began
        for pid in list(self.living):
            self._kill(pid)
        left = self._apart("drain", self._drain)
        self._write_meta(drained=left, quiet=True)
        if self._apart("dump", lambda q: actors.dump(q, self.folder)):
            raise RuntimeError("the final table could not be written")
        return self._verdict(raged)

    def _goes_on(self, began: float) -> bool:
        over = self.killed + len(self.living) >= self.kills and self._enqueued() >= self.jobs
        return not over and time.monotonic() - began < self.seconds

    def _strike(self) -> None:
        # With jobs to come, the kills are spread over them.
        if self.jobs and self.killed * self.jobs > self.kills * self._enqueued():
            return
        if self.chance.random() < self.paused:
            self._pause()
            return
        # One that is paused is to come back.
        pid = self.chance.choice(sorted(self.living.keys() - self.stopped.keys()))
        place = self._kill(pid)
        self._start(place)
        if self.chance.random() < 0.3:  # the newcomer too, while it is still coming to itself
            time.sleep(self.chance.uniform(0, 0.05))
            self._start(self._kill(max(self.living)))

    def _pause(self) -> None:
        """Stop a consumer for longer than its lease, and strike at others meanwhile."""
        consumers = [pid for pid, (_, actor) in sorted(self.living.items()) if actor.startswith("consumer")]
        pid = self.chance.choice(consumers)
        if pid in self.stopped:
            return
        self.nemesis.note("stop", actor=self.living[pid][1])
        os.kill(pid, signal.SIGSTOP)
        self.stopped[pid] = time.monotonic() + self.chance.uniform(1.1, 1.8) * LEASE

    def _wake(self) -> None:
        for pid in [pid for pid, until in self.stopped.items() if time.monotonic() > until]:
            del self.stopped[pid]
            os.kill(pid, signal.SIGCONT)

    def _kill(self, pid: int) -> int:
        """Kill one, and return its place."""
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        place, actor = self.living.pop(pid)
        self.stopped.pop(pid, None)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            raise RuntimeError(f"{actor} had ended by itself")
        self.nemesis.note("kill", actor=actor)
        self.killed += 1
        return place

    def _start(self, place: int) -> None:
        self.started += 1
        role, seed = ROLES[place], self.chance.getrandbits(32)
        actor = f"{role}-{self.started}"
        pid = self._fork(actor, lambda q: self._act(role, q, random.Random(seed), place))
        self.living[pid] = place, actor

    def _act(self, role: str, q: Recorded, chance: random.Random, place: int) -> None:
        match role:
            case "producer":
                actors.produce(q, chance, lambda number: self._count(place, number))
            case "consumer":
                actors.consume(q)
            case "maintenance":
                actors.maintain(q)
            case "operator":
                actors.operate(q, chance)

    def _fork(self, actor: str, act: Callable[[Recorded], Any]) -> int:
        # A child must not inherit an open database, nor a lock that a thread holds.
        assert threading.active_count() == 1 and not list(sqlite._open) and not list(server._open)
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            code = act(Recorded(self.target, History(self.folder, actor), self.settings)) or 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def _apart(self, actor: str, act: Callable[[Recorded], Any]) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self._fork(actor, act), 0)[1])

    @staticmethod
    def _drain(q: Recorded) -> int:
        """Finish everything that is left, and return what the consumer says, or that it takes for ever."""
        end, code = time.monotonic() + DRAIN_SECONDS, 0
        while not code and q.list_jobs(("pending", "processing"), limit=1):
            if time.monotonic() > end:
                return EXIT_LATE
            code = actors.consume(q, drain=True, concurrency=8, patience=DRAIN_SECONDS)
        return code

    def _count(self, place: int, number: int) -> None:
        """Count what the actor in this place has enqueued; nobody else writes there."""
        at = slice(place * _WORD, (place + 1) * _WORD)
        self._counts[at] = (int.from_bytes(self._counts[at]) + number).to_bytes(_WORD)

    def _enqueued(self) -> int:
        return sum(int.from_bytes(self._counts[at * _WORD : (at + 1) * _WORD]) for at in range(len(ROLES)))

    def _write_meta(self, **more: Any) -> None:
        meta = {
            "lease": LEASE, "patience": PATIENCE, "skew": 0.2 if self.on_server else 0.02,
            "skips_locked": self.on_server, "offset": time.time_ns() - time.monotonic_ns(), "seed": self.seed, **more,
        }  # fmt: skip
        (self.folder / META).write_text(json.dumps(meta))

    def _verdict(self, raged: float) -> int:
        world = read(self.folder)
        found = verifier.violations(world)
        shown = {"seed": self.seed, "seconds": f"{raged:.0f}", **figures(world), "violations": len(found)}
        for name, value in shown.items():
            print(f"{name}: {value:,}" if isinstance(value, int) and name != "seed" else f"{name}: {value}")
        if found:
            print(verifier.report(found))
        return len(found)


def rehearse(target: str, settings: Settings) -> None:
    """Do once what actors do, so that what is imported and compiled for it is here, and leave nothing open."""
    q = persistq.connect(target, settings=settings)
    source = JobSource(q, name="c", queues=[], default_task="storm", concurrency=1)
    q.enqueue("rehearsal", unique_key="rehearsal")
    q.enqueue_many(["rehearsal"] * 2)
    q.enqueue("rehearsal", priority=1)
    outcomes: list[Callable[[persistq.Job], Any]] = [Released, lambda job: Failed(job, "", delay=0), Done]
    for outcome in outcomes:
        held = source.exchange([], [], 4).claimed
        q.renew(held[0])
        source.exchange([outcome(job) for job in held], [], 0)
    q.delete_jobs()
    source.drained()
    maintenance.run_once(q)
    q.list_jobs()
    source.close()
    q.close()
    for thread in set(threading.enumerate()) - {threading.current_thread()}:
        thread.join(10)  # one that rings for consumers rests for a second before it ends
    del q, source, held
    gc.collect()
    gc.freeze()


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kills", type=int, default=1000, help="processes to kill (%(default)s)")
    parser.add_argument("--jobs", type=int, default=0, help="jobs to enqueue meanwhile, at least (%(default)s)")
    parser.add_argument("--seconds", type=float, default=3600, help="stop after so long (%(default)s)")
    parser.add_argument("--every", type=float, default=0.05, help="mean seconds between two kills (%(default)s)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--bug", choices=BUGS, help="sow this bug into everybody, to see it caught")


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill at random, then verify.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("target", nargs="?", default=os.environ.get("PROOF_TARGET"))
    options(parser)
    chosen = parser.parse_args()
    rehearse(chosen.target, settings := Settings.load(None, **SETTINGS))
    if chosen.bug:
        sow(chosen.bug, Gap())
    storm = Storm(
        chosen.folder, chosen.target, settings, chosen.seed,
        chosen.kills, chosen.jobs, chosen.seconds, chosen.every,
    )  # fmt: skip
    return min(1, storm.run())


if __name__ == "__main__":
    sys.exit(main())
