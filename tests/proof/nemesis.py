"""Nemesis: everybody who works on something is killed at random moments and replaced, then the verifier has the word.

This process has imported everything and opened nothing: a fork of it is an actor within milliseconds,
and each actor opens what it needs by itself.
"""

import gc
import json
import mmap
import os
import random
import signal
import threading
import time
import traceback
from abc import ABC, abstractmethod
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from persistq.storage import server, sqlite

from . import stream_bugs, verifier
from .bugs import BUGS
from .figures import RUN, told
from .history import META, History

DRAIN_SECONDS = 300.0
"""Generous: machines are shared."""

EXIT_LATE = 124
_WORD = 8


@dataclass(frozen=True)
class Plan:
    """How a storm is to rage: what ``options`` below asks for."""

    seed: int
    kills: int
    number: int = 0
    seconds: float = 3600.0
    every: float = 0.05
    size: int = 20
    paused: float = 0.05
    bug: str | None = None


def options(parser: ArgumentParser) -> None:
    """Add what a plan consists of to a command line."""
    parser.add_argument("--kills", type=int, default=1000, help="processes to kill (%(default)s)")
    parser.add_argument("--number", type=int, default=0, help="jobs, items or requests to add meanwhile, at least")
    parser.add_argument("--seconds", type=float, default=3600, help="stop after so long (%(default)s)")
    parser.add_argument("--every", type=float, default=0.05, help="mean seconds between two kills (%(default)s)")
    parser.add_argument("--size", type=int, default=20, help="most jobs of one call of a producer (%(default)s)")
    parser.add_argument("--paused", type=float, default=0.05, help="share of pauses among the strikes (%(default)s)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument(
        "--bug", choices=[*BUGS, *stream_bugs.BUGS], help="sow this bug into everybody, to see it caught"
    )


class Storm(ABC):
    """One storm."""

    of: ClassVar[str]
    #: Who is at work at any time; those of the role ``paused`` are stopped now and then as well.
    roles: ClassVar[tuple[str, ...]]
    paused: ClassVar[str] = "consumer"
    #: Seconds that a lease lasts.
    lease: ClassVar[float]

    def __init__(self, folder: Path, target: str, plan: Plan) -> None:
        self.folder, self.target, self.plan = folder, target, plan
        self.chance = random.Random(plan.seed)
        folder.mkdir(parents=True, exist_ok=True)
        self.nemesis = History(folder, "nemesis")
        #: Place and name of each actor, by its process.
        self._living: dict[int, tuple[int, str]] = {}
        #: When those that are stopped go on.
        self._stopped: dict[int, float] = {}
        self._started = self._killed = 0
        self._counts = mmap.mmap(-1, _WORD * len(self.roles))

    @abstractmethod
    def act(self, role: str, history: History, chance: random.Random, count: Callable[[int], None]) -> None:
        """Do what the role does, until killed; tell ``count`` how much was added."""

    @abstractmethod
    def settle(self) -> None:
        """Once nobody is killed any more: finish what is left, and write down how everything stands."""

    def meta(self) -> dict[str, Any]:
        """Return what the verifier has to know."""
        return {}

    def run(self) -> int:
        """Rage, calm down, and return the number of broken promises."""
        began = time.monotonic()
        self.write_meta()
        for place in range(len(self.roles)):
            self._start(place)
        while self._goes_on(began):
            time.sleep(self.chance.expovariate(1 / self.plan.every))
            self._wake()
            self._strike()
        raged = time.monotonic() - began
        for pid in list(self._living):
            self._kill(pid)
        self.settle()
        return self._verdict(raged)

    def apart(self, actor: str, act: Callable[[History], Any]) -> int:
        """Have something done in a process of its own, and return its exit code."""
        return os.waitstatus_to_exitcode(os.waitpid(self._fork(actor, act), 0)[1])

    def write_meta(self, **more: Any) -> None:
        meta = {"of": self.of, "lease": self.lease, "seed": self.plan.seed, **self.meta(), **more}
        (self.folder / META).write_text(json.dumps(meta))

    def _goes_on(self, began: float) -> bool:
        over = self._killed + len(self._living) >= self.plan.kills and self._added() >= self.plan.number
        return not over and time.monotonic() - began < self.plan.seconds

    def _strike(self) -> None:
        # With so much to add, the kills are spread over it.
        if self.plan.number and self._killed * self.plan.number > self.plan.kills * self._added():
            return
        if self.chance.random() < self.plan.paused:
            self._pause()
            return
        # One that is paused is to come back.
        pid = self.chance.choice(sorted(self._living.keys() - self._stopped.keys()))
        place = self._kill(pid)
        self._start(place)
        if self.chance.random() < 0.3:  # the newcomer too, while it is still coming to itself
            time.sleep(self.chance.uniform(0, 0.05))
            self._start(self._kill(max(self._living)))

    def _pause(self) -> None:
        """Stop one for longer than its lease, and strike at others meanwhile."""
        candidates = [pid for pid, (place, _) in sorted(self._living.items()) if self.roles[place] == self.paused]
        pid = self.chance.choice(candidates)
        if pid in self._stopped:
            return
        self.nemesis.note("stop", actor=self._living[pid][1])
        os.kill(pid, signal.SIGSTOP)
        self._stopped[pid] = time.monotonic() + self.chance.uniform(1.1, 1.8) * self.lease

    def _wake(self) -> None:
        for pid in [pid for pid, until in self._stopped.items() if time.monotonic() > until]:
            del self._stopped[pid]
            os.kill(pid, signal.SIGCONT)

    def _kill(self, pid: int) -> int:
        """Kill one, and return its place."""
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        place, actor = self._living.pop(pid)
        self._stopped.pop(pid, None)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            raise RuntimeError(f"{actor} had ended by itself")
        self.nemesis.note("kill", actor=actor)
        self._killed += 1
        return place

    def _start(self, place: int) -> None:
        self._started += 1
        role, chance = self.roles[place], random.Random(self.chance.getrandbits(32))
        actor = f"{role}-{self._started}"
        pid = self._fork(actor, lambda history: self.act(role, history, chance, lambda n: self._count(place, n)))
        self._living[pid] = place, actor

    def _fork(self, actor: str, act: Callable[[History], Any]) -> int:
        # A child must not inherit an open database, nor a lock that a thread holds.
        assert threading.active_count() == 1, threading.enumerate()
        assert not list(sqlite._open) and not list(server._open)
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            code = act(History(self.folder, actor)) or 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def _count(self, place: int, number: int) -> None:
        """Count what the actor in this place has added; nobody else writes there."""
        at = slice(place * _WORD, (place + 1) * _WORD)
        self._counts[at] = (int.from_bytes(self._counts[at]) + number).to_bytes(_WORD)

    def _added(self) -> int:
        places = range(len(self.roles))
        return sum(int.from_bytes(self._counts[at * _WORD : (at + 1) * _WORD]) for at in places)

    def _verdict(self, raged: float) -> int:
        figures, found = verifier.judge(self.folder)
        run = {"seed": [self.plan.seed], "seconds": round(raged), **figures, "violations": len(found)}
        (self.folder / RUN).write_text(json.dumps(run))
        print(told(run))
        if found:
            print(verifier.report(found))
        return len(found)


def leave_nothing_open() -> None:
    """After a rehearsal in this process: end its threads and let go of all that it held, so that it can be forked."""
    for thread in set(threading.enumerate()) - {threading.current_thread()}:
        thread.join(10)  # one that rings for consumers rests for a second before it ends
    gc.collect()
    gc.freeze()
