"""Runtime drivers: requests and locks in this process's memory, gone with it."""

import heapq
import os
import threading
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import count, islice, repeat
from operator import attrgetter, itemgetter, ne

from ..clock import Clock, SystemClock
from ..errors import LeaseLost
from .options import ShardSettings
from .ports import Coordinator, Entry, Lease, LeaseInfo, Message, Storage, TubeInfo, digest_of, next_tick

_Kept = tuple[int, bytes, int]
_message = partial(tuple.__new__, Message)


class _Tube:
    """One tube's ready requests, by place: id, payload and place of each, in plain tuples.

    The garbage collector leaves those alone, while a million of a class's own would keep it busy.
    """

    __slots__ = ("places", "plain", "since")

    def __init__(self, since: datetime) -> None:
        self.places: dict[int, deque[_Kept]] = {}
        self.since = since
        #: Whether it may hold requests without a digest.
        self.plain = False

    def __len__(self) -> int:
        return sum(map(len, self.places.values()))

    def add(self, place: int, messages: Iterable[_Kept]) -> None:
        waiting = self.places.get(place)
        if waiting is None:
            self.places[place] = waiting = deque()
            self.places = dict(sorted(self.places.items()))
        waiting.extend(messages)

    def first(self, limit: int) -> list[Message]:
        found: list[_Kept] = []
        for waiting in self.places.values():
            found += islice(waiting, limit - len(found))
            if len(found) == limit:
                break
        return list(map(_message, found))

    def holds(self, payload: bytes) -> bool:
        return any(said == payload for waiting in self.places.values() for _, said, _ in waiting)

    def take(self, ids: Sequence[int]) -> Sequence[int]:
        """Remove what is there of these and return it."""
        place, waiting = next(iter(self.places.items()))
        if len(waiting) < len(ids) or any(map(ne, map(itemgetter(0), waiting), ids)):
            return self._pick(ids)
        for _ in ids:
            waiting.popleft()
        if not waiting:
            del self.places[place]
        return ids

    def _pick(self, ids: Sequence[int]) -> list[int]:
        """Remove what is there of these, wherever it stands."""
        wanted, taken = set(ids), []
        for place, waiting in list(self.places.items()):
            while waiting and waiting[0][0] in wanted:
                taken.append(waiting.popleft()[0])
            if len(taken) < len(wanted) and any(kept[0] in wanted for kept in waiting):
                taken += [kept[0] for kept in waiting if kept[0] in wanted]
                self.places[place] = waiting = deque(kept for kept in waiting if kept[0] not in wanted)
            if not waiting:
                del self.places[place]
            if len(taken) == len(wanted):
                break
        return taken


@dataclass(order=True, slots=True)
class _Later:
    """A request that is due at ``due``, in monotonic microseconds."""

    due: int
    id: int
    tube: str
    place: int
    payload: bytes
    digest: str
    every: int | None
    withdrawn: bool = False


class RuntimeStorage(Storage):
    """Requests in this process's memory. Threads and event loops may share it."""

    backend = "memory"

    def __init__(self, *, settings: ShardSettings | None = None, clock: Clock | None = None) -> None:
        super().__init__(settings)
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        #: In the order of their turns.
        self._tubes: dict[str, _Tube] = {}
        # Ids of another run must not come again: what became of a request may be known by its id elsewhere.
        self._ids = count(int(self._clock.now().timestamp() * 1_000_000))
        #: Of those that are ready, by how many; and whose each is.
        self._digests: Counter[str] = Counter()
        self._digest_of: dict[int, str] = {}
        #: A heap, in which those that were withdrawn stay until their time comes.
        self._later: list[_Later] = []
        self._digests_later: Counter[str] = Counter()
        self._recurring: dict[str, _Later] = {}

    async def extend(self, entries: Sequence[Entry]) -> int:
        """Add the requests and return how many were not left out."""
        with self._lock:
            return sum(self._postpone(entry) if entry.waits else self._add(entry) for entry in entries)

    def _add(self, entry: Entry) -> int:
        payloads = entry.payloads
        if entry.unique:
            return sum(self._add_unique(entry, payload) for payload in payloads)
        if payloads:
            tube = self._tube(entry.tube)
            tube.plain = True
            tube.add(entry.place, zip(self._ids, payloads, repeat(entry.place)))
        return len(payloads)

    def _add_unique(self, entry: Entry, payload: bytes) -> bool:
        if self._holds(entry.tube, payload):
            return False
        self._put(entry.tube, entry.place, payload, digest_of(self._key(entry.tube), payload))
        return True

    def _put(self, name: str, place: int, payload: bytes, digest: str) -> None:
        number = next(self._ids)
        self._digests[digest] += 1
        self._digest_of[number] = digest
        self._tube(name).add(place, [(number, payload, place)])

    def _holds(self, name: str, payload: bytes, *, ready_only: bool = False) -> bool:
        digest = digest_of(self._key(name), payload)
        tube = self._tubes.get(self._key(name))
        return (
            digest in self._digests
            or (tube is not None and tube.plain and tube.holds(payload))
            or (not ready_only and self._digests_later[digest] > 0)
        )

    def _tube(self, name: str) -> _Tube:
        key = self._key(name)
        found = self._tubes.get(key)
        if found is None:
            found = self._tubes[key] = _Tube(self._clock.now())
        return found

    def _postpone(self, entry: Entry) -> int:
        return sum(self._postpone_one(entry, payload) for payload in entry.payloads)

    def _postpone_one(self, entry: Entry, payload: bytes) -> bool:
        if entry.every is None and entry.unique and self._holds(entry.tube, payload):
            return False
        every = None if entry.every is None else _micros(entry.every)
        digest = digest_of(self._key(entry.tube), payload)
        known = self._recurring.get(digest) if every is not None else None
        if known and known.every == every:
            return False
        if known:
            self._withdraw(known)
        due = self._now() + _micros(entry.first_after)
        self._await(_Later(due, next(self._ids), entry.tube, entry.place, payload, digest, every))
        return True

    def _await(self, later: _Later) -> None:
        heapq.heappush(self._later, later)
        self._digests_later[later.digest] += 1
        if later.every is not None:
            self._recurring[later.digest] = later

    def _withdraw(self, later: _Later) -> None:
        later.withdrawn = True
        self._digests_later[later.digest] -= 1
        if not self._digests_later[later.digest]:
            del self._digests_later[later.digest]
        if later.every is not None:
            del self._recurring[later.digest]

    async def length(self, tube: object) -> int:
        """Return how many requests are ready in the tube."""
        with self._lock:
            return len(self._tubes.get(self._key(tube), ()))

    async def peek(self, tube: object, limit: int) -> list[Message]:
        """Return the first requests that are ready."""
        with self._lock:
            return self._peek(self._key(tube), limit)

    def _peek(self, key: str, limit: int) -> list[Message]:
        found = self._tubes.get(key)
        return found.first(limit) if found is not None and limit > 0 else []

    async def exchange(self, tube: object, ids: Sequence[int], lease: Lease, limit: int) -> tuple[int, list[Message]]:
        """Remove and peek in one step."""
        key = self._key(tube)
        with self._lock, _locks.lock:
            held = _locks.of(lease)
            found = self._tubes.get(key)
            taken = found.take(ids) if found is not None else []
            if found is not None and taken:
                held.tries = 0
                self._forget(taken)
                del self._tubes[key]
                if found.places:
                    self._tubes[key] = found  # at the end: its turn begins anew
                    found.since = self._clock.now()
            return len(taken), self._peek(key, limit)

    def _forget(self, ids: Iterable[int]) -> None:
        if not self._digest_of:
            return
        for number in ids:
            digest = self._digest_of.pop(number, None)
            if digest is not None:
                self._digests[digest] -= 1
                if not self._digests[digest]:
                    del self._digests[digest]

    async def tubes(self, limit: int | None = None) -> list[str]:
        """Return the tubes in which requests are ready."""
        with self._lock:
            return [self._bare(key) for key in islice(self._tubes, limit) if self._is_ours(key)]

    async def mature(self) -> float | None:
        """Move what is due to the end of its tube."""
        if not self._later:
            return None
        with self._lock:
            now = self._now()
            while self._later and (self._later[0].withdrawn or self._later[0].due <= now):
                later = heapq.heappop(self._later)
                if not later.withdrawn:
                    self._ripen(later, now)
            return (self._later[0].due - now) / 1_000_000 if self._later else None

    def _ripen(self, later: _Later, now: int) -> None:
        self._withdraw(later)
        if later.every is None or not self._holds(later.tube, later.payload, ready_only=True):
            self._put(later.tube, later.place, later.payload, later.digest)
        if later.every is not None:
            self._await(replace(later, due=next_tick(later.due, later.every, now), withdrawn=False))

    async def withdraw(self, tube: object, *payloads: bytes) -> int:
        """Forget the deferred and recurring requests that say the same."""
        digests = {digest_of(self._key(tube), payload) for payload in payloads}
        with self._lock:
            found = [later for later in self._later if later.digest in digests and not later.withdrawn]
            for later in found:
                self._withdraw(later)
            return len(found)

    async def overview(self, limit: int = 1000) -> list[TubeInfo]:
        """Return what waits in which tube."""
        with self._lock:
            ready = {self._bare(key): tube for key, tube in self._tubes.items() if self._is_ours(key)}
            later = Counter(one.tube for one in self._later if not one.withdrawn)
            return [
                TubeInfo(name, len(ready.get(name, ())), later[name], ready[name].since if name in ready else None)
                for name in sorted({*ready, *later})[:limit]
            ]

    def _key(self, tube: object) -> str:
        return f"{self.settings.tube_prefix}{tube}"

    def _bare(self, key: str) -> str:
        return key.removeprefix(self.settings.tube_prefix)

    def _is_ours(self, key: str) -> bool:
        return key.startswith(self.settings.tube_prefix)

    def _now(self) -> int:
        return _micros(self._clock.monotonic())


@dataclass(slots=True)
class _Held:
    tube: str
    token: str
    tries: int
    bound: float
    until: float
    bound_at: datetime
    lease_until: datetime


class _Locks:
    """The locks of this process, of whichever coordinator. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin with none: a forked child holds nothing."""
        self.lock = threading.Lock()
        self.held: dict[str, _Held] = {}

    def of(self, lease: Lease) -> _Held:
        """Return what is held under a lease.

        Raises:
            LeaseLost: it is no longer the newest.
        """
        held = self.held.get(lease.name)
        if held is None or held.token != lease.token:
            raise LeaseLost(f"tube {lease.tube}")
        return held


_locks = _Locks()
os.register_at_fork(after_in_child=_locks.forget)


class RuntimeCoordinator(Coordinator):
    """Locks that all of this process's RuntimeCoordinators share, so that each worker may have its own."""

    backend = "memory"

    def __init__(self, *, settings: ShardSettings | None = None, clock: Clock | None = None) -> None:
        super().__init__(settings)
        self._clock = clock or SystemClock()

    async def bind_first(self, tubes: Sequence[str]) -> Lease | None:
        """Return a lease of the first of these tubes that is free."""
        now = self._clock.monotonic()
        with _locks.lock:
            for tube in tubes:
                name = self._name(tube)
                held = _locks.held.get(name)
                if held is None or held.until <= now:
                    return self._bind(name, tube, held, now)
        return None

    def _bind(self, name: str, tube: str, before: _Held | None, now: float) -> Lease:
        died = before is not None and before.token != ""
        tries = before.tries + died if before else 0
        seconds = min(self.settings.coordinator_lease, self.settings.coordinator_timeout)
        wall, token = self._clock.now(), self._token()
        _locks.held[name] = _Held(tube, token, tries, now, now + seconds, wall, wall + timedelta(seconds=seconds))
        return Lease(tube, name, token, tries, seconds, died)

    async def renew(self, lease: Lease) -> None:
        """Make the lease last from now on."""
        now = self._clock.monotonic()
        with _locks.lock:
            held = _locks.of(lease)
            seconds = min(lease.seconds, held.bound + self.settings.coordinator_timeout - now)
            if seconds <= 0:
                raise LeaseLost(f"tube {lease.tube} was held for QUEUE_COORDINATOR_TIMEOUT")
            held.until = now + seconds
            held.lease_until = self._clock.now() + timedelta(seconds=seconds)

    async def unbind(self, lease: Lease, *, tries: int = 0, pause: float = 0.0) -> None:
        """Give the tube back."""
        with _locks.lock:
            held = _locks.held.get(lease.name)
            if held is None or held.token != lease.token:
                return
            if not tries and pause <= 0:
                del _locks.held[lease.name]
                return
            held.token, held.tries, held.until = "", tries, self._clock.monotonic() + pause
            held.lease_until = self._clock.now() + timedelta(seconds=pause)

    async def release(self, tube: object) -> bool:
        """Take the tube from whoever holds it."""
        with _locks.lock:
            return _locks.held.pop(self._name(str(tube)), None) is not None

    async def leases(self, limit: int = 1000) -> list[LeaseInfo]:
        """Return the leases that there are."""
        prefix = self.settings.coordinator_prefix
        with _locks.lock:
            found = [held for name, held in _locks.held.items() if name == prefix + held.tube]
            found.sort(key=attrgetter("tube"))
            return [
                LeaseInfo(held.tube, held.token, held.tries, held.bound_at, held.lease_until) for held in found[:limit]
            ]


def _micros(seconds: float) -> int:
    return round(seconds * 1_000_000)
