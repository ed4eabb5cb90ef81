"""A machine in one thread: consumers, producers, an operator and maintenance, whose steps a seed interleaves.

The consumers are the real loop over the real source on a real SQLite file. Only what would make a run differ from
the next is replaced: the clock, the threads that perform, the pipe that a loop sleeps on. Every call of the queue is a
step: before and after it any other actor may go on, and the one who made it may die, stand still for longer
than a lease, be refused, or not hear the reply although the call was committed.
"""

import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from greenlet import getcurrent, greenlet

from persistq import ConsumerInfo, DatabaseUnavailable, Job, OutcomeUnknown, PermanentError, PersistQError, Snooze
from persistq.worker import JobSource, Loop
from persistq.worker.executors import Running
from support.clock import FakeClock
from support.jobs import Queue

LEASE = 12.0
SETTINGS = {
    "timeout_seconds": LEASE, "queue_recovery_seconds": 10, "queue_poll_seconds": 10, "max_attempts": 3,
    "queue_backoff_max_seconds": 4, "queue_durability": "process",
}  # fmt: skip
_STEPS = 5_000
_MOST_LOOKS = 100_000
"""At one moment: all actors together take a few hundred."""
BEGIN = 1_005.0
_NEVER = float("inf")


class Died(BaseException):
    """Thrown into an actor where it dies; whatever it still tries on its way out fails too."""


class VirtualClock(FakeClock):
    """A clock that begins anew for each run, so that a run is the same whichever went before it."""

    _asked = 0

    def restart(self) -> None:
        super().__init__()
        self._asked = 0

    def monotonic(self) -> float:
        self._asked += 1
        assert self._asked < _MOST_LOOKS, "somebody looks at the clock again and again, and does not wait"
        return super().monotonic()

    def reach(self, monotonic: float) -> None:
        """Let time pass until a moment, and a trifle more: sums of floats must not stop short of it."""
        self.advance(max(0.0, monotonic - self.monotonic()) + 1e-5)
        self._asked = 0


class Threads:
    """Performs in virtual time: an attempt's outcome is made at its begin and handed over at its end."""

    def __init__(self, size: int, world: "World") -> None:
        self.size = size
        self.stuck = 0
        self._world = world
        self._waiting: list[Running[Any]] = []
        self._performing: list[tuple[float, Running[Any]]] = []
        self._finished: list[Running[Any]] = []

    def serve(self, source: JobSource, report: Callable[[], None], now: Callable[[], float]) -> None:
        self._source, self._report, self._now = source, report, now

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def oldest(self) -> Running[Any] | None:
        return next(iter(self._waiting), None)

    @property
    def has_finished(self) -> bool:
        return bool(self._finished)

    def works(self) -> list[Job]:
        return [running.work for _, running in self._performing]

    def start(self, batch: list[Running[Any]]) -> None:
        self._waiting += batch

    def withdraw(self, running: Running[Any]) -> bool:
        found = running in self._waiting
        if found:
            self._waiting.remove(running)
        return found

    def abandon(self, running: Running[Any]) -> bool:
        before = len(self._performing)
        self._performing = [one for one in self._performing if one[1] is not running]
        if before == len(self._performing):
            return False
        running.cancellation.request()
        return True

    def finished(self) -> list[Running[Any]]:
        found, self._finished = self._finished, []
        return found

    def due_at(self) -> float:
        """Return when the next attempt begins or ends."""
        if self._waiting and len(self._performing) < self.size:
            return 0.0
        return min((end for end, _ in self._performing), default=_NEVER)

    def step(self) -> None:
        """Begin the next attempt, or end the one that is due."""
        if self._waiting and len(self._performing) < self.size:
            running = self._waiting.pop(0)
            running.begun = self._now()
            if running.timeout is not None:
                running.deadline = running.begun + running.timeout
            running.outcome = self._source.perform(running.work, running.cancellation)
            self._performing.append((running.begun + self._world.duration(), running))
            return
        _, running = first = min(self._performing, key=lambda one: one[0])
        self._performing.remove(first)
        running.ended = self._now()
        self._finished.append(running)
        self._report()


class Wakeup:
    """What a loop sleeps on."""

    def __init__(self) -> None:
        self._actor: Actor = getcurrent().actor
        self._woken = False

    def __enter__(self) -> "Wakeup":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wake(self) -> None:
        self._woken = True
        self._actor.wake_at = 0.0

    def sleep(self, seconds: float, bell: int | None = None) -> bool:
        if not self._woken:
            self._actor.rest(seconds, listens=bell is not None)
        self._woken = False
        return bell is not None and self._actor.hears()


class Bell:
    """The doorbell of an actor; a deaf one has to poll."""

    def __init__(self, actor: "Actor", *, deaf: bool) -> None:
        self._actor = actor
        self.hears = not deaf

    def fileno(self) -> int | None:
        return 0 if self.hears else None

    def rung(self) -> bool:
        return self._actor.listen()

    def close(self) -> None:
        pass


class Actor:
    """Somebody who calls the queue: a greenlet, and the threads in which it performs."""

    def __init__(self, world: "World", name: str, q: Queue, act: Callable[["Actor"], object]) -> None:
        self.name = name
        self.q = q
        self.threads: Threads | None = None
        self.dead = False
        self.wake_at = 0.0
        self.stands_until = 0.0
        self._world = world
        self._listens = False
        #: How many changes it knows of: its own, and those that it was told of.
        self._known = 0
        self._body = greenlet(lambda: act(self))
        self._body.actor = self

    def due_at(self) -> float:
        """Return when it can go on."""
        return max(self.stands_until, min(self._own_due_at(), self.threads.due_at() if self.threads else _NEVER))

    def _own_due_at(self) -> float:
        return 0.0 if self._listens and self.hears() else self.wake_at

    def step(self) -> None:
        """Go on: in one of the threads, or in its own until it calls the queue or rests."""
        now, threads = self._world.clock.monotonic(), self.threads
        if threads and threads.due_at() <= now and (self._own_due_at() > now or self._world.chance.random() < 0.5):
            threads.step()
            return
        with suppress(Died):
            self._body.switch()
        self.dead = self.dead or self._body.dead

    def die(self) -> None:
        self.dead = True
        with suppress(Died):
            self._body.throw(Died)

    def rest(self, seconds: float = 0.0, *, listens: bool = False) -> None:
        """Let others go on, for so long."""
        self.wake_at = self._world.clock.monotonic() + seconds
        self._listens = listens
        self._body.parent.switch()
        self._listens = False

    def hears(self) -> bool:
        return self._known != self._world.judge.changes

    def listen(self) -> bool:
        heard, self._known = self.hears(), self._world.judge.changes
        return heard

    # The queue, as a source knows it

    def __getattr__(self, name: str) -> Any:
        return partial(self.call, name) if name in _CALLS else getattr(self.q, name)

    def doorbell(self) -> Bell:
        return Bell(self, deaf=self._world.chance.random() < 0.8)

    def beat(self, info: ConsumerInfo) -> str | None:
        """Seldom say that it lives: that is for eyes only, and would take a fifth of a run's time."""
        return self.call("beat", info) if self._world.strikes(0.1) else None

    def recover_if_due(self) -> int:
        return int(self.call("recover_if_due")) if self.q.recovery_due_in() <= 0 else 0

    def call(self, verb: str, /, *values: Any, **options: Any) -> Any:
        """Call the queue as one step, with whatever may go wrong before it and after it."""
        world, judge = self._world, self._world.judge
        if self.dead:
            raise Died
        world.mishap(self)
        self.rest()
        if world.strikes(0.02):
            raise DatabaseUnavailable("simulated: nothing was written")
        before = judge.changes
        found = judge.saw(self.name, verb, values, options, partial(getattr(self.q, verb), *values, **options))
        self._known += judge.changes - before
        world.mishap(self)
        self.rest()
        if verb not in _READS and world.strikes(0.04):
            world.note(f"{self.name} hears no reply to {verb}")
            raise OutcomeUnknown("simulated: it was written")
        return found


_READS = {"due_in", "unfinished"}
_CALLS = {"exchange", "leave", *_READS}


class Judge(Protocol):
    """Who sees every call, and what it left in the database, before anybody else goes on."""

    #: How many calls changed a job.
    changes: int

    def saw(
        self, actor: str, verb: str, values: tuple[Any, ...], options: dict[str, Any], call: Callable[[], Any]
    ) -> Any:
        """Make the call, judge what it did, and return its result or raise its error."""
        ...

    def over(self) -> bool:
        """Return whether every job has ended."""
        ...

    def is_overtaken(self, job: Job) -> bool:
        """Return whether somebody else performs the job by now."""
        ...


class World:
    """One run: everything that happens in it follows from its seed."""

    def __init__(self, seed: int, queues: dict[str, Queue], clock: VirtualClock, judge: Judge) -> None:
        self.clock = clock
        self.judge = judge
        self.chance = chance = random.Random(seed)
        self.log: list[tuple[float, str]] = []
        self._queues = queues
        self._producing = 0
        #: How often something goes wrong; nothing does once it is 0.
        self._misery = chance.choice([0.0, 2.0, 4.0])
        self._plans: list[tuple[float, Callable[[], object]]] = []
        self._actors: list[Actor] = []
        for name in chance.choice([["w0"], ["w0", "w1"], ["w0", "w1"]]):
            self._hire(name)
        for number in range(chance.choice([1, 1, 1, 2])):
            self._producing += 1
            self._actors.append(Actor(self, f"p{number}", queues["office"], self._produce))
        for act in (self._operate, self._maintain):
            if chance.random() < 0.3:
                self._actors.append(Actor(self, act.__name__.strip("_"), queues["office"], act))
        if seconds := chance.choice([0, 0, -30, 600, 3, 1.5]):
            self._plan(chance.uniform(0, 10), lambda: self._set_the_clock(seconds))
        if self._misery and chance.random() < 0.3:
            self._plan(chance.uniform(0, 4), self._freeze)
        self._plan(chance.uniform(2, 12), self._heal)

    def run(self) -> None:
        """Run until every job has ended."""
        for self.steps in range(_STEPS):
            if not self._producing and self.judge.over():
                break
            self._step()
        else:
            raise AssertionError(f"after {_STEPS:,} steps there are jobs that have not ended")
        for actor in self._actors:
            actor.die()

    def _step(self) -> None:
        now = self.clock.monotonic()
        first = min(self._plans, default=None, key=lambda plan: plan[0])
        waits = [(actor.due_at(), actor) for actor in self._actors]
        due = [actor for at, actor in waits if at <= now]
        if first and first[0] <= now:
            self._plans.remove(first)
            first[1]()
        elif due:
            actor = due[0] if len(due) == 1 else self.chance.choice(due)
            actor.step()
            if actor.dead:
                self._actors.remove(actor)
        else:
            self.clock.reach(min(at for at, _ in [*waits, *([first] if first else [])]))

    def note(self, line: str) -> None:
        self.log.append((self.clock.monotonic(), line))

    def _plan(self, seconds: float, act: Callable[[], object]) -> None:
        self._plans.append((self.clock.monotonic() + seconds, act))

    # What goes wrong

    def strikes(self, chance: float) -> bool:
        """Return whether a mishap of this probability happens now."""
        return self._misery > 0 and self.chance.random() < chance * self._misery

    def mishap(self, actor: Actor) -> None:
        """Let an actor die here, or stand still."""
        if self.strikes(0.02):
            self.note(f"{actor.name} dies")
            actor.dead = True
            raise Died
        if self.strikes(0.02):
            seconds = self.chance.choice([1, self.chance.uniform(1, 2) * LEASE])
            self.note(f"{actor.name} stands still for {seconds:.1f} s")
            actor.stands_until = self.clock.monotonic() + seconds

    def _freeze(self) -> None:
        """Let a consumer stand still amid its work."""
        busy = [actor for actor in self._actors if actor.threads and actor.threads.works()]
        if not busy:
            self._plan(0.5, self._freeze)
            return
        actor = self.chance.choice(busy)
        self.note(f"{actor.name} stands still until it is overtaken")
        self._keep_frozen(actor, self.clock.monotonic() + 4 * LEASE)

    def _keep_frozen(self, actor: Actor, until: float) -> None:
        """Wait for the worst moment: when somebody else has begun the very job."""
        now = self.clock.monotonic()
        if actor.threads and now < until and not any(map(self.judge.is_overtaken, actor.threads.works())):
            actor.stands_until = now + 1
            self._plan(0.9, lambda: self._keep_frozen(actor, until))

    def _set_the_clock(self, seconds: float) -> None:
        self.note(f"the clock is set by {seconds} s")
        self.clock.jump(seconds)

    def _heal(self) -> None:
        self.note("nothing goes wrong from here on")
        self._misery = 0.0

    # What the actors do

    def _hire(self, name: str) -> None:
        """Start a consumer, perhaps in the place of one that died."""
        self._actors.append(Actor(self, name, self._queues[name], self._consume))

    def _consume(self, actor: Actor) -> None:
        chance = self.chance
        try:
            size = chance.choice([1, 1, 2])
            queues = chance.choice([(), (), ("mail", "bulk")])
            source = JobSource(actor, name=actor.name, queues=queues, default_task="simulated", concurrency=size)
            actor.threads = Threads(size, self)
            loop = Loop(source, actor.threads, grace=chance.choice([0, 3]), prefetch=2, clock=self.clock)
            if self.strikes(0.2):
                self._plan(chance.uniform(0, 10), loop.stop)
            loop.run()
            self.note(f"{actor.name} has stopped")
        finally:
            self._plan(chance.uniform(0.1, 5), lambda: self._hire(actor.name))

    def _produce(self, actor: Actor) -> None:
        try:
            for number in range(self.chance.choice([1, 1, 2, 2])):
                self._enqueue(actor, number)
                actor.rest(self.chance.choice([0, 0, 3]))
        finally:
            self._producing -= 1

    def _enqueue(self, actor: Actor, number: int) -> None:
        choice = self.chance.choice
        key = choice([None, f"k{number}"])
        options = {
            "queue": choice(["mail", "mail", "bulk"]), "priority": choice([0, 0, 1]), "delay": choice([None, None, 2]),
            "max_attempts": choice([1, 3, 3]), "timeout": choice([None, None, None, 2]), "unique_key": key,
        }  # fmt: skip
        while True:
            try:
                actor.call("enqueue", f"{actor.name} {number} {key}", **options)
            except OutcomeUnknown:
                if key is None:
                    return  # to try again could make a second one
            except DatabaseUnavailable:
                pass
            else:
                return
            actor.rest(0.5)

    def _operate(self, actor: Actor) -> None:
        for _ in range(self.chance.choice([1, 2])):
            actor.rest(self.chance.uniform(0, 5))
            verb = self.chance.choice(["cancel", "mark_failed", "resubmit", "assign_job", "release_job", "release_job"])
            with suppress(PersistQError):
                actor.call(verb, self.chance.randint(1, 3), *(["w0"] if verb == "assign_job" else []))

    def _maintain(self, actor: Actor) -> None:
        while True:
            actor.rest(self.chance.uniform(1, 6))
            with suppress(PersistQError):
                actor.call("recover")

    def duration(self) -> float:
        """Return how long the next attempt takes."""
        return self.chance.choice([0, 1, 3, 1.02 * LEASE, 1.5 * LEASE])

    def perform(self, item: str) -> object:
        """Do what a handler does."""
        self.note(f"{item!r} is performed")
        fate = self.chance.random()
        if fate < 0.08:
            raise Snooze(1)
        if fate < 0.2:
            raise ValueError(item)
        if fate < 0.23:
            raise PermanentError(item)
        return None


def replay(seed: int, queues: dict[str, Queue], clock: VirtualClock, judge: Judge) -> World:
    """Make the world of a seed, at the same moment and in the same state as ever."""
    random.seed(seed)  # the back-off's jitter
    clock.restart()
    clock.jump(3600)  # so that a recovery does nothing but to begin each queue's waiting for the next
    for q in queues.values():
        q.recover()
    clock.reach(BEGIN)
    return World(seed, queues, clock, judge)
