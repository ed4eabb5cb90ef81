"""Promotion: a request that its handler has failed for good becomes a job, which a person may send back."""

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import tasks
from ..codec import dumps, storable
from ..errors import PayloadError, PermanentError, describe
from ..events import span
from . import requests as bytes_of
from .handler import Tube, find
from .ports import PLACES, Entry, Message, Storage, digest_of

if TYPE_CHECKING:
    from ..door import Door

QUEUE = "shards"
"""The queue of the jobs that requests become."""

TASK = "send_to_tube"
"""The task that sends a request back to the end of its tube, when its job is resubmitted."""


class Promoter:
    """Writes failed requests into a queue's database as failed jobs. Threads may share it."""

    def __init__(self, target: "str | os.PathLike[str] | Mapping[str, str] | Door | None" = None) -> None:
        self._target = target
        self._opened: Door | None = None

    async def __call__(self, tube: str, message: Message, error: BaseException) -> int:
        """Make a job of the request, or find the one that was made before, and return its id.

        Raises:
            DatabaseUnavailable, OutcomeUnknown, QueueFull: do it again.
        """
        return await asyncio.to_thread(self._promote, tube, message, error)

    def _promote(self, tube: str, message: Message, error: BaseException) -> int:
        from ..model import NewJob
        from ..storage.promote import promote
        from ..storage.rows import runs_of

        door = self._door()
        now = door.database.now()
        key = f"shard:{digest_of(tube, str(message.id).encode())}"
        new = NewJob(item=_item(tube, message), task=TASK, queue=QUEUE, unique_key=key)
        # What is in the storage is in there: a bound that was lowered since must not keep it in the tube for ever.
        roomy = door.settings.model_copy(update={"queue_max_item_bytes": 1 << 62})
        (run,) = runs_of([new], roomy, now)
        line, trace = describe(error)
        detail = {"tube": storable(tube, 400), "traceback": storable(trace) if trace else None}
        with span("shards.promote", tube=tube):
            work = partial(promote, now=now, actor=door.actor, run=run, why=line, detail=detail)
            return int(door.database.write(work, adds_jobs=True))

    def _door(self) -> "Door":
        from ..door import Door
        from ..queue import connect

        if isinstance(self._target, Door):
            return self._target
        if self._opened is None:
            self._opened = connect(self._target, actor="shards")
        return self._opened


def register_task(storage: "Callable[[], AbstractAsyncContextManager[Storage]]") -> None:
    """Register the task that sends a promoted request back to its tube; ``storage`` gives it for one sending."""

    @tasks.task(name=TASK)
    def send_to_tube(handler: str, thread: int | str, priority: int, request: Any) -> dict[str, str]:
        """Add the request to the end of its tube, where a worker performs it in its turn."""
        known = find(handler)
        place = known.place(priority) if known else PLACES - priority
        try:
            payload = bytes_of.unreadable(request)
        except ValueError as error:
            raise PermanentError(str(error)) from error
        tube = str(Tube(handler, thread))
        asyncio.run(_send(storage, Entry(tube, [payload], place)))
        return {"tube": tube}


async def _send(storage: "Callable[[], AbstractAsyncContextManager[Storage]]", entry: Entry) -> None:
    async with storage() as opened:
        await opened.extend([entry])


def _item(name: str, message: Message) -> str:
    tube = Tube.parse(name)
    known = find(tube.handler)
    priority = known.priority_at(message.place) if known else PLACES - message.place
    told = {"handler": tube.handler, "thread": tube.thread, "priority": priority}
    try:
        return dumps({**told, "request": bytes_of.readable(message.payload)})
    except PayloadError:  # nested as deep as can be
        return dumps({**told, "request": bytes_of.as_base64(message.payload)})
