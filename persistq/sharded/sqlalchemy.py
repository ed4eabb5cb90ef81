"""SQLAlchemy drivers: requests and leases in the queue's own database, whichever it is."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..door import Door
from ..events import span
from ..queue import connect
from ..storage import leases as lease_rows
from ..storage import tubes as tube_rows
from .options import ShardSettings
from .ports import Coordinator, Entry, Lease, LeaseInfo, Message, Storage, TubeInfo, digest_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from ..storage.now import Now

T = TypeVar("T")

Target = "str | os.PathLike[str] | Mapping[str, str] | Door | SQLAlchemyStorage | None"

_THREADS = 8


class _Room:
    """A door to a database, and the threads in which its transactions run while the event loop goes on."""

    def __init__(self, target: Any) -> None:
        self.shared = isinstance(target, Door)
        self.door: Door = target if isinstance(target, Door) else connect(target)
        self._threads = ThreadPoolExecutor(_THREADS, "persistq-shards")

    async def read(self, verb: str, work: "Callable[[Connection], T]") -> T:
        return await self._run(verb, partial(self.door.database.read, work))

    async def write(self, verb: str, work: "Callable[[Connection], T]", *, adds: bool = False) -> T:
        # What adds requests must leave room on the disk for jobs to be finished, as what adds jobs does.
        return await self._run(verb, partial(self.door.database.write, work, adds_jobs=adds))

    async def now(self) -> "Now":
        return await self._run("now", self.door.database.now) if not self._has_time else self.door.database.now()

    @property
    def _has_time(self) -> bool:
        return self.door.dbtype == "sqlite"

    async def _run(self, verb: str, call: Callable[[], T]) -> T:
        def spanned() -> T:
            with span(f"shards.{verb}"):
                return call()

        future = asyncio.get_running_loop().run_in_executor(self._threads, spanned)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            # A transaction cannot be stopped midway; what follows must not overtake it.
            await asyncio.wait([future])
            raise

    def close(self) -> None:
        self._threads.shutdown(wait=False)
        if not self.shared:
            self.door.close()


class SQLAlchemyStorage(Storage):
    """Requests in the tables of a queue's database: ``target`` is what ``connect`` takes, or a queue."""

    backend = "sql"

    def __init__(self, target: Any = None, *, settings: ShardSettings | None = None) -> None:
        super().__init__(settings)
        self.room = _Room(target)
        #: Monotonic time until which nothing becomes due that this process knows of, and when the next does.
        self._look_at = float("-inf")
        self._next_due: float | None = None

    @property
    def door(self) -> Door:
        """The database, where failed requests become jobs as well."""
        return self.room.door

    async def close(self) -> None:
        """Close the connections, unless they are a queue's that was given."""
        self.room.close()

    async def extend(self, entries: Sequence[Entry]) -> int:
        """Add the requests and return how many were not left out."""
        entries = [entry for entry in entries if entry.payloads]
        if not entries:
            return 0
        now = await self.room.now()
        incoming = [self._incoming(entry, now) for entry in entries]
        if any(entry.waits for entry in entries):
            self.look_again()
        return await self.room.write("append", lambda conn: tube_rows.extend(conn, now, incoming), adds=True)

    def _incoming(self, entry: Entry, now: "Now") -> tube_rows.Incoming:
        tube = self._key(entry.tube)
        return tube_rows.Incoming(
            tube,
            entry.place,
            entry.payloads,
            [digest_of(tube, payload) for payload in entry.payloads] if entry.is_keyed else None,
            now.micros_after(entry.first_after) if entry.waits else None,
            None if entry.every is None else max(1, round(entry.every * 1_000_000)),
            entry.unique,
        )

    def look_again(self) -> None:
        """Ask the database at the next call of ``mature``, whatever is known of what is due."""
        self._look_at = float("-inf")

    async def length(self, tube: object) -> int:
        """Return how many requests are ready in the tube."""
        return await self.room.read("length", lambda conn: tube_rows.length(conn, self._key(tube)))

    async def peek(self, tube: object, limit: int) -> list[Message]:
        """Return the first requests that are ready."""
        if limit <= 0:
            return []
        found = await self.room.read("peek", lambda conn: tube_rows.peek(conn, self._key(tube), limit))
        return list(map(Message._make, found))

    async def exchange(self, tube: object, ids: Sequence[int], lease: Lease, limit: int) -> tuple[int, list[Message]]:
        """Remove and peek in one transaction."""
        now, key, right = await self.room.now(), self._key(tube), (lease.name, lease.token)
        work = partial(tube_rows.exchange, now=now, tube=key, ids=ids, lease=right, limit=max(0, limit))
        removed, left = await self.room.write("exchange", work)
        return removed, list(map(Message._make, left))

    async def tubes(self, limit: int | None = None) -> list[str]:
        """Return the tubes in which requests are ready."""
        prefix = self.settings.tube_prefix
        found = await self.room.read("tubes", lambda conn: tube_rows.waiting(conn, prefix, limit))
        return [name.removeprefix(prefix) for name in found]

    async def mature(self) -> float | None:
        """Move what is due to the end of its tube; ask again after QUEUE_COORDINATOR_DELAY at the earliest."""
        clock = self.door.clock.monotonic
        if clock() < self._look_at:
            return None if self._next_due is None else max(0.0, self._next_due - clock())
        while True:
            now = await self.room.now()
            due = await self.room.read("next_due", tube_rows.next_due)
            if due is None or due > now.value:
                break
            await self.room.write("mature", partial(tube_rows.mature, now=now), adds=True)
        seconds = None if due is None else (due - now.value).total_seconds()
        self._next_due = None if seconds is None else clock() + seconds
        self._look_at = clock() + min(self.settings.coordinator_delay, seconds if seconds is not None else float("inf"))
        return seconds

    async def withdraw(self, tube: object, *payloads: bytes) -> int:
        """Forget the deferred and recurring requests that say the same."""
        key = self._key(tube)
        digests = {digest_of(key, payload) for payload in payloads}
        return await self.room.write("withdraw", lambda conn: tube_rows.withdraw(conn, key, digests))

    async def overview(self, limit: int = 1000) -> list[TubeInfo]:
        """Return what waits in which tube."""
        prefix = self.settings.tube_prefix
        found = await self.room.read("overview", lambda conn: tube_rows.overview(conn, prefix, limit))
        return [TubeInfo(one.tube.removeprefix(prefix), one.ready, one.later, one.since) for one in found]

    def _key(self, tube: object) -> str:
        return f"{self.settings.tube_prefix}{tube}"


class SQLAlchemyCoordinator(Coordinator):
    """Leases in a table of a queue's database: ``target`` is what ``connect`` takes, a queue, or the storage."""

    backend = "sql"

    def __init__(self, target: Any = None, *, settings: ShardSettings | None = None) -> None:
        super().__init__(settings)
        self._borrowed = isinstance(target, SQLAlchemyStorage)
        self._room: _Room = target.room if isinstance(target, SQLAlchemyStorage) else _Room(target)

    async def close(self) -> None:
        """Close the connections, unless they are another's."""
        if not self._borrowed:
            self._room.close()

    async def bind_first(self, tubes: Sequence[str]) -> Lease | None:
        """Return a lease of the first of these tubes that is free."""
        names = {self._name(tube): tube for tube in tubes}
        now = await self._room.now()
        seconds = min(self.settings.coordinator_lease, self.settings.coordinator_timeout)
        calm = self._room.door.database.is_calm(seconds)
        # Most looks find nothing, and a mere look stands in nobody's way.
        free = await self._room.read("free", lambda conn: lease_rows.free(conn, now, list(names), calm=calm))
        if not free:
            return None
        token = self._token()
        chosen = {name: names[name] for name in free}
        work = partial(lease_rows.bind_first, now=now, tubes=chosen, token=token, seconds=seconds)
        bound = await self._room.write("bind", work)
        return None if bound is None else Lease(bound.tube, bound.name, token, bound.tries, seconds, bound.taken_over)

    async def renew(self, lease: Lease) -> None:
        """Make the lease last from now on."""
        now, cap = await self._room.now(), self.settings.coordinator_timeout
        await self._room.write(
            "renew",
            partial(
                lease_rows.renew, now=now, name=lease.name, token=lease.token, tube=lease.tube,
                seconds=lease.seconds, cap=cap,
            ),
        )  # fmt: skip

    async def unbind(self, lease: Lease, *, tries: int = 0, pause: float = 0.0) -> None:
        """Give the tube back."""
        now = await self._room.now()
        work = partial(lease_rows.unbind, now=now, name=lease.name, token=lease.token, tries=tries, pause=pause)
        await self._room.write("unbind", work)

    async def release(self, tube: object) -> bool:
        """Take the tube from whoever holds it."""
        return await self._room.write("release", lambda conn: lease_rows.release(conn, self._name(str(tube))))

    async def leases(self, limit: int = 1000) -> list[LeaseInfo]:
        """Return the leases that there are."""
        prefix = self.settings.coordinator_prefix
        return [
            LeaseInfo(*row)
            for row in await self._room.read("leases", lambda conn: lease_rows.overview(conn, prefix, limit))
        ]
