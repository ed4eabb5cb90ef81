"""Queue: routes requests to their tubes and keeps them there."""

from collections.abc import Iterable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from ..clock import Seconds
from ..codec import check_int
from ..errors import ConfigError
from ..events import span
from ..model import check_span
from . import requests as bytes_of
from .handler import Handler, call, check_thread, tube_name
from .ports import Entry, Storage


class Queue:
    """Requests on their way to handlers: ``await Queue(storage).register(NotifyHandler, *requests)``."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    async def register(
        self,
        handler: type[Handler],
        *requests: Any,
        defer: Seconds | None = None,
        if_not_exists: bool = False,
        recurrent: Seconds | None = None,
    ) -> int:
        """Add the requests to their tubes, all or none of them, and return how many were added.

        ``defer`` is the time, in seconds or as a timedelta, after which they join the end of their
        tube, in the order in which they are due. ``recurrent`` makes each of them come again after
        that time, and again, until it is withdrawn; for the first time after ``defer``, or else after
        ``recurrent``. Ticks that nobody was there to heed are not made up for, and no tick adds a request
        of which an earlier one still waits. ``if_not_exists`` leaves out each of which an equal one waits.

        Raises:
            ConfigError: the routes are not one for each request, or not usable; an option is not.
            PayloadError: a request is not of the handler's class, or cannot be kept.
            DatabaseUnavailable: nothing was added.
            OutcomeUnknown: they may have been added.
        """
        codec_of(handler)
        delay = None if defer is None else check_span("defer", defer)
        every = None if recurrent is None else check_span("recurrent", recurrent)
        if every is not None and every <= 0:
            raise ConfigError("recurrent is more than 0 seconds")
        if not requests:
            return 0
        with span("shards.register", handler=handler.key, requests=len(requests)):
            entries = [
                Entry(tube, payloads, place, delay or None if every is None else delay, every, if_not_exists)
                for (tube, place), payloads in (await self._routed(handler, requests)).items()
            ]
            return await self.storage.extend(entries)

    async def withdraw(self, handler: type[Handler], *requests: Any) -> int:
        """Forget the deferred and recurring requests that are equal to these; return how many there were.

        Raises:
            ConfigError, PayloadError, DatabaseUnavailable: as ``register`` does.
        """
        routed = await self._routed(handler, requests)
        return sum([await self.storage.withdraw(tube, *payloads) for (tube, _place), payloads in routed.items()])

    async def _routed(self, handler: type[Handler], requests: Sequence[Any]) -> dict[tuple[str, int], list[bytes]]:
        """Return the requests as bytes, in their order, by tube and place."""
        if not requests:
            return {}
        payloads = bytes_of.encode(codec_of(handler), requests, self.storage.settings.max_item_bytes)
        routes = await call(handler.route, *requests)
        if not isinstance(routes, Iterable) or len(found := list(routes)) != len(requests):
            raise ConfigError(
                f"{handler.key}.route() returns a list with one Route for each of {len(requests)} requests"
            )
        routed: dict[tuple[str, int], list[bytes]] = {}
        by_route: dict[Any, list[bytes]] = {}
        known = by_route.get
        for route, payload in zip(found, payloads, strict=True):
            together = known(route)
            if together is None:
                together = by_route[route] = routed.setdefault(_tube_and_place(handler, route), [])
            together.append(payload)
        return routed


def codec_of(handler: type[Handler]) -> bytes_of.RequestCodec:
    """Return how the handler's requests are kept, once it is known that it can handle any.

    Raises:
        ConfigError: it cannot, or they cannot be kept.
    """
    found = _codecs.get(handler)
    if found is None:
        handler.check()
        found = _codecs[handler] = bytes_of.codec_of(handler.request_cls())
    return found


_codecs: WeakKeyDictionary[type[Handler], bytes_of.RequestCodec] = WeakKeyDictionary()


def _tube_and_place(handler: type[Handler], route: Any) -> tuple[str, int]:
    try:
        thread, priority = route
    except (TypeError, ValueError):
        raise ConfigError(f"a route is Route(thread, priority), not {route!r:.80}") from None
    return tube_name(handler.key, check_thread(thread)), handler.place(check_int("a priority", priority))
