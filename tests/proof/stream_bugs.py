"""Bugs that batches and shards might have, each with the invariant it breaks; sown into a process of the test's own.

Nothing in persistq knows of them. A storm on the process that they are sown into has to be found out.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import delete

from persistq.batch import BatchWriter, reader
from persistq.batch.file import Batch
from persistq.sharded.session import Session
from persistq.storage import leases

BUGS: dict[str, tuple[str, str, Callable[[], None]]] = {}
"""What it is about, the invariant, and what sows it, by name."""


def bug(of: str, invariant: str) -> Callable[[Callable[[], None]], None]:
    def register(sow: Callable[[], None]) -> None:
        BUGS[sow.__name__] = of, invariant, sow

    return register


def sow(name: str) -> None:
    """Sow a bug into this process."""
    BUGS[name][2]()


def put(where: Any, name: str, what: Any) -> None:
    """Replace something for good."""
    setattr(where, name, what)


@bug("batches", "I1")
def flushed_into_memory() -> None:
    put(BatchWriter, "flush", lambda _self: None)


@bug("batches", "I1")
def consumed_before_it_is_handed_out() -> None:
    real = reader._Held.advance

    def advance(self: Any) -> bool:
        there = real(self)
        if there:
            self.batch.save(self.end)
        return there

    put(reader._Held, "advance", advance)


@bug("batches", "I16")
def progress_is_not_saved() -> None:
    put(Batch, "save", lambda _self, _position: None)


@bug("shards", "I1")
def removed_before_it_is_performed() -> None:
    real = Session._take

    async def take(self: Any, handler: Any, messages: Any) -> Any:
        await self._around.storage.exchange(self._tube, [message.id for message in messages], self._lease, 0)
        return await real(self, handler, messages)

    put(Session, "_take", take)


@bug("shards", "I5")
def bound_whatever_the_lease() -> None:
    real = leases.bind_first

    def bind_first(connection: Any, now: Any, tubes: Any, **more: Any) -> Any:
        connection.execute(delete(leases.leases).where(leases.leases.c.name.in_(list(tubes))))
        return real(connection, now=now, tubes=tubes, **more)

    put(leases, "free", lambda _connection, _now, names, **_: names)
    put(leases, "bind_first", bind_first)


@bug("shards", "I4")
def removed_whatever_the_lease() -> None:
    sow("bound_whatever_the_lease")  # or a lease is lost too seldom for a short storm
    put(leases, "check", lambda *_: (0, 1 << 60))
