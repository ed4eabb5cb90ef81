"""A storm on shards: producers register requests of many threads, workers perform them."""

import asyncio
import json
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import persistq
from persistq.errors import DatabaseUnavailable, LeaseLost, OutcomeUnknown, PersistQError
from persistq.settings import Settings
from persistq.sharded import Coordinator, Handler, Lease, Message, Queue, Route, ShardSettings, Storage, Worker
from persistq.sharded.serve import Drivers

from . import stream_bugs
from .history import History
from .nemesis import DRAIN_SECONDS, EXIT_LATE, Plan, Storm, leave_nothing_open
from .shards import write_end

LEASE = 1.0
SETTINGS: dict[str, Any] = {
    "queue_coordinator_lease": LEASE, "queue_coordinator_delay": 0.02, "queue_worker_empty_pause": 0.01,
    "queue_worker_empty_limit": 5, "queue_worker_batch_size": 8, "queue_backoff_seconds": 0.01,
    "queue_backoff_max_seconds": 0.05, "max_attempts": 1000, "queue_durability": "power",
}  # fmt: skip
THREADS = 64
MOST_WAITING = 2000


class Step(NamedTuple):
    """A request: who registered it, and as which of theirs."""

    thread: int
    producer: str
    number: int


class Watched:
    """The drivers of one actor, which write down what they are asked and told."""

    def __init__(self, history: History, drivers: Drivers) -> None:
        self.history = history
        self.storage: Storage = drivers.storage
        self.coordinator: Coordinator = drivers.coordinator()
        #: The token of the lease under which this actor works on a tube.
        self.tokens: dict[str, str] = {}
        self._known: dict[tuple[str, int], list[Any]] = {}
        for driver, names in ((self.coordinator, ("bind_first", "renew", "unbind")), (self.storage, ("exchange",))):
            for name in names:
                setattr(driver, name, getattr(self, name)(getattr(driver, name)))
        self._peek = self.storage.peek
        setattr(self.storage, "peek", self.peek)  # noqa: B010 - a method is replaced on purpose

    async def call(self, op: str, act: Callable[[], Coroutine[Any, Any, Any]], **asked: Any) -> Any:
        number = self.history.invoke(op, **asked)
        try:
            result = await act()
        except (OutcomeUnknown, DatabaseUnavailable, LeaseLost) as error:
            outcome = "unknown" if isinstance(error, OutcomeUnknown) else "fail"
            self.history.answer(number, outcome, error=type(error).__name__)
            raise
        told = {"tube": result.tube, "token": result.token} if isinstance(result, Lease) else {}
        self.history.answer(number, "ok", **told)
        return result

    def bind_first(self, real: Any) -> Any:
        async def bind_first(tubes: Sequence[str]) -> Lease | None:
            lease: Lease | None = await self.call("bind", lambda: real(tubes))
            if lease:
                self.tokens[lease.tube] = lease.token
            return lease

        return bind_first

    def renew(self, real: Any) -> Any:
        return lambda lease: self.call("renew", lambda: real(lease), tube=lease.tube, token=lease.token)

    def unbind(self, real: Any) -> Any:
        return lambda lease, **more: self.call(
            "unbind", lambda: real(lease, **more), tube=lease.tube, token=lease.token
        )

    def exchange(self, real: Any) -> Any:
        async def exchange(tube: str, ids: Sequence[int], lease: Lease, limit: int) -> tuple[int, list[Message]]:
            removed = [self._known.pop((str(tube), number)) for number in ids if (str(tube), number) in self._known]
            asked = {"tube": lease.tube, "token": lease.token, "requests": removed}
            count, messages = await self.call("remove", lambda: real(tube, ids, lease, limit), **asked)
            self._learn(str(tube), messages)
            return count, messages

        return exchange

    async def peek(self, tube: object, limit: int) -> list[Message]:
        messages = await self._peek(tube, limit)
        self._learn(str(tube), messages)
        return messages

    def _learn(self, tube: str, messages: Sequence[Message]) -> None:
        for message in messages:
            said = json.loads(message.payload)
            self._known[tube, message.id] = [said["producer"], said["number"]]


class ShardStorm(Storm):
    """Everybody on the tubes of one handler, which are empty at first."""

    of = "shards"
    roles = ("producer", "producer", "worker", "worker", "worker", "worker")
    paused = "worker"
    lease = LEASE

    def __init__(self, folder: Path, target: str, plan: Plan) -> None:
        super().__init__(folder, target, plan)
        self._own = ShardSettings(Settings.load(None, **SETTINGS))
        asyncio.run(self._rehearse(History(folder, "rehearsal")))
        leave_nothing_open()
        if plan.bug:
            stream_bugs.sow(plan.bug)

    def act(self, role: str, history: History, chance: random.Random, count: Callable[[int], None]) -> None:
        asyncio.run(self._produce(history, chance, count) if role == "producer" else self._work(history, chance))

    def settle(self) -> None:
        left = self.apart("drain", lambda history: asyncio.run(self._drain(history)))
        self.write_meta(drained=left)

    def meta(self) -> dict[str, Any]:
        return {"skew": 0.02 if "://" not in self.target else 0.2}

    @asynccontextmanager
    async def _watched(self, history: History) -> Any:
        elsewhere = self.target if self.target.startswith("redis:") else None
        here = self.folder / "promoted.db" if elsewhere else self.target
        with closing(persistq.connect(here, **SETTINGS, queue_shards_url=elsewhere)) as q:
            drivers = Drivers(q, self._own)
            try:
                yield Watched(history, drivers)
            finally:
                await drivers.close()

    async def _produce(self, history: History, chance: random.Random, count: Callable[[int], None]) -> None:
        async with self._watched(history) as watched:
            queue, at = Queue(watched.storage), 0
            while True:
                steps = [
                    Step(chance.randrange(THREADS), history.actor, at + n) for n in range(chance.choice((1, 1, 5, 40)))
                ]
                at += len(steps)
                asked = [[_tube(step.thread), step.number] for step in steps]
                with suppress(PersistQError):
                    await watched.call("register", lambda: queue.register(Stepping, *steps), requests=asked)  # noqa: B023
                    count(len(steps))
                await asyncio.sleep(chance.expovariate(100))
                while sum(tube.ready for tube in await _patiently(watched.storage.overview)) > MOST_WAITING:
                    await asyncio.sleep(0.1)

    async def _work(self, history: History, chance: random.Random, limit: int | None = None) -> None:
        async with self._watched(history) as watched:
            Stepping.by, Stepping.chance = watched, chance

            async def promote(tube: str, message: Message, error: BaseException) -> None:
                history.note("promoted", tube=tube, request=message.payload.decode(), error=repr(error))

            await Worker(watched.coordinator, Queue(watched.storage), promote=promote).loop(limit)

    async def _drain(self, history: History) -> int:
        async with self._watched(history) as watched:
            end = time.monotonic() + DRAIN_SECONDS
            while await watched.storage.tubes():
                if time.monotonic() > end:
                    return EXIT_LATE
                await self._work(history, random.Random(0), 1 << 40)
            write_end(self.folder)
        return 0

    async def _rehearse(self, history: History) -> None:
        """Do once what actors do, so that what is imported and compiled for it is here."""
        async with self._watched(history) as watched:
            steps = [Step(n, history.actor, n) for n in range(3)]
            asked = [[_tube(step.thread), step.number] for step in steps]
            await watched.call("register", lambda: Queue(watched.storage).register(Stepping, *steps), requests=asked)
        await self._work(history, random.Random(0), 3)
        del Stepping.by


class Stepping(Handler):
    """Writes down what is performed, and is quick, slow or failing."""

    by: Watched
    chance: random.Random

    @classmethod
    async def route(cls, *requests: Step) -> list[Route]:
        return [Route(request.thread) for request in requests]

    async def perform(self, *requests: Step) -> None:
        tube = _tube(requests[0].thread)
        asked = {"tube": tube, "token": self.by.tokens[tube], "requests": [[r.producer, r.number] for r in requests]}
        number = self.by.history.invoke("perform", **asked)
        luck = self.chance.random()
        if luck < 0.02:
            await asyncio.sleep(self.chance.uniform(0, 0.3))
        elif luck < 0.03:
            self.by.history.answer(number, "fail")
            raise ConnectionError("not this time")
        self.by.history.answer(number, "ok")


def _tube(thread: int) -> str:
    return f"{Stepping.key}/{thread}"


async def _patiently(act: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    while True:
        with suppress(DatabaseUnavailable):
            return await act()
