"""Storage and Coordinator: small verbs over bytes, the same for every driver."""

import hashlib
import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from os import getpid
from secrets import token_hex
from typing import ClassVar, NamedTuple

from ..clock import default_consumer_name
from ..errors import ConfigError
from .options import ShardSettings, settings

PLACES = 1 << 32
"""The place of priority 0 where none are declared. Lower comes first; declared ones begin at 0."""


class Message(NamedTuple):
    """A request as a driver keeps it."""

    id: int
    payload: bytes
    #: Its priority's place in the tube; lower comes first.
    place: int = PLACES


class Entry(NamedTuple):
    """Requests to be added to one tube, alike in everything but what they say."""

    tube: str
    payloads: Sequence[bytes]
    place: int = PLACES
    #: Seconds until they are ready; None is now.
    defer: float | None = None
    #: Seconds after which each comes again, and again.
    every: float | None = None
    #: Leave out what the tube holds already.
    unique: bool = False

    @property
    def waits(self) -> bool:
        """Whether it is for later."""
        return self.defer is not None or self.every is not None

    @property
    def first_after(self) -> float:
        """Seconds until they are ready for the first time."""
        return self.defer if self.defer is not None else self.every or 0.0

    @property
    def is_keyed(self) -> bool:
        """Whether its requests are to be found by their digest."""
        return self.unique or self.waits


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to perform one tube's requests, for as long as nobody else was given it."""

    tube: str
    #: Under which name the coordinator keeps it.
    name: str
    #: Never the same twice, so that no later lease can be taken for this one.
    token: str
    #: How often the request at the head was given up, by an error or a death, since one was last removed.
    tries: int
    #: Seconds that it lasts unless it is renewed.
    seconds: float
    #: Whether it was taken from a holder that let it run out.
    taken_over: bool = False


class TubeInfo(NamedTuple):
    """One tube, for eyes only."""

    tube: str
    ready: int
    #: Requests that are deferred or come again.
    later: int
    #: Since when it has waited to be served; None when nothing is ready.
    waiting_since: datetime | None


class LeaseInfo(NamedTuple):
    """Who holds a tube, for eyes only; ``owner`` is empty while the tube is let rest after an error."""

    tube: str
    owner: str
    tries: int
    bound_at: datetime
    lease_until: datetime


class _Driver(ABC):
    #: Storage and coordinator of one backend check each other's leases; those of two cannot.
    backend: ClassVar[str]

    def __init__(self, own: ShardSettings | None = None) -> None:
        self.settings = own or settings

    async def close(self) -> None:
        """Give back what the driver has opened itself."""
        return


class Storage(_Driver):
    """Where the requests are. A tube exists as long as it holds any; a tube unknown is one that is empty.

    Every verb may raise DatabaseUnavailable (nothing was changed) or OutcomeUnknown (it may have been).
    """

    async def append(self, tube: object, *payloads: bytes) -> int:
        """Add payloads at the tube's end and return how many."""
        return await self.extend([Entry(str(tube), payloads)])

    @abstractmethod
    async def extend(self, entries: Sequence[Entry]) -> int:
        """Add the requests, all or none; return how many were not left out as already there.

        A recurring one that is there already is left as it is, unless it has another interval: then it begins anew.
        """

    @abstractmethod
    async def length(self, tube: object) -> int:
        """Return how many requests are ready in the tube."""

    @abstractmethod
    async def peek(self, tube: object, limit: int) -> list[Message]:
        """Return the first requests that are ready: by place, then in the order they were added."""

    @abstractmethod
    async def exchange(self, tube: object, ids: Sequence[int], lease: Lease, limit: int) -> tuple[int, list[Message]]:
        """Remove and peek in one step; return how many were removed, and the first that are left.

        Raises:
            LeaseLost: somebody else has or had the tube since; nothing was removed.
        """

    async def remove(self, tube: object, ids: Sequence[int], lease: Lease) -> int:
        """Remove requests by their ids and return how many were there.

        Raises:
            LeaseLost: somebody else has or had the tube since; nothing was removed.
        """
        return (await self.exchange(tube, ids, lease, 0))[0]

    @abstractmethod
    async def tubes(self, limit: int | None = None) -> list[str]:
        """Return the tubes in which requests are ready, the one that has waited longest for its turn first.

        A tube's turn begins anew when it gets its first request and whenever some are removed. What it
        costs goes by ``limit`` and by the tubes that have requests, not by those that ever had any.
        """

    @abstractmethod
    async def mature(self) -> float | None:
        """Move what is due to the end of its tube, in the order it was due; return seconds until the next, if any.

        Of a recurring request whose time has come more than once meanwhile, one is added, and none as long as
        an earlier one still waits in the tube; the next comes at the next multiple of its interval.
        """

    async def look(self, limit: int) -> tuple[list[str], float | None]:
        """Return the first tubes in which requests are ready, what is due now among them, and seconds until more is."""
        due = await self.mature()
        return await self.tubes(limit), due

    @abstractmethod
    async def withdraw(self, tube: object, *payloads: bytes) -> int:
        """Forget the deferred and recurring requests that say the same; return how many there were."""

    @abstractmethod
    async def overview(self, limit: int = 1000) -> list[TubeInfo]:
        """Return what waits in which tube, by name."""


class Coordinator(_Driver):
    """Who may perform which tube.

    Every verb may raise DatabaseUnavailable or OutcomeUnknown.
    """

    def __init__(self, own: ShardSettings | None = None) -> None:
        super().__init__(own)
        self._host = socket.gethostname()
        #: Under which name it holds tubes, for eyes only.
        self.holder = default_consumer_name()

    @abstractmethod
    async def bind_first(self, tubes: Sequence[str]) -> Lease | None:
        """Return a lease of the first of these tubes that nobody holds and that is not let rest."""

    async def bind(self, tube: object) -> Lease | None:
        """Return a lease of the tube, or None when somebody holds it."""
        return await self.bind_first([str(tube)])

    @abstractmethod
    async def renew(self, lease: Lease) -> None:
        """Make the lease last from now on, though never past QUEUE_COORDINATOR_TIMEOUT after it was bound.

        Raises:
            LeaseLost: somebody else has or had the tube since, or that time is over.
        """

    @abstractmethod
    async def unbind(self, lease: Lease, *, tries: int = 0, pause: float = 0.0) -> None:
        """Give the tube back; if the lease is lost, nothing happens.

        Nobody will be able to bind it for ``pause`` seconds, and whoever does then is told ``tries``.
        """

    @abstractmethod
    async def release(self, tube: object) -> bool:
        """Take the tube from whoever holds it, and end its rest; return whether there was anything to take."""

    @abstractmethod
    async def leases(self, limit: int = 1000) -> list[LeaseInfo]:
        """Return the leases that there are, by tube."""

    def _name(self, tube: str) -> str:
        return self.settings.coordinator_prefix + tube

    def _token(self) -> str:
        return f"{self.holder}@{self._host}:{getpid()}:{token_hex(8)}"


def digest_of(tube: str, payload: bytes) -> str:
    """Return what stands for a request in its tube when equal ones are looked for."""
    return hashlib.blake2b(tube.encode() + b"\0" + payload, digest_size=16).hexdigest()


def check_match(storage: Storage, coordinator: Coordinator) -> None:
    """Return when the storage can check the coordinator's leases.

    Raises:
        ConfigError: they are of different backends.
    """
    if storage.backend != coordinator.backend:
        raise ConfigError(
            f"a {type(storage).__name__} cannot check the leases of a {type(coordinator).__name__}, so that a worker "
            f"that lost its tube could remove another's requests; take both of one backend"
        )


def next_tick(due: int, every: int, now: int) -> int:
    """Return the first multiple of ``every`` after ``due`` that lies after ``now``; all in microseconds."""
    return due + every * max(1, (now - due) // every + 1)
