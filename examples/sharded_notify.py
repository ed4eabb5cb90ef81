"""Notify eight users in three threads, performed by three workers: ``python examples/sharded_notify.py``."""

from asyncio import gather, run
from collections import defaultdict
from typing import NamedTuple

from persistq.sharded import Handler, Queue, Route, RuntimeCoordinator, RuntimeStorage, Worker

sent: dict[int, list[int]] = defaultdict(list)
"""By thread, the users that were notified, in their order."""


class NotifyRequest(NamedTuple):
    """A notification; the user's id also says to which thread it belongs."""

    user_id: int


class NotifyHandler(Handler):
    """Sends notifications, a batch at a time."""

    @classmethod
    async def route(cls, *requests: NotifyRequest) -> list[Route]:
        """Spread the requests over three threads, which may be performed at the same time."""
        return [Route(thread=request.user_id % 3) for request in requests]

    async def perform(self, *requests: NotifyRequest) -> None:
        """Send them; all requests of a call are of one thread."""
        for request in requests:
            sent[request.user_id % 3].append(request.user_id)


async def example() -> None:
    """Register notifications for the users 1 to 8, and let three workers perform them."""
    queue = Queue(RuntimeStorage())
    await queue.register(NotifyHandler, *[NotifyRequest(n) for n in range(1, 9)])
    # Now they wait in three tubes: 1, 4, 7 in one, 2, 5, 8 in another, 3, 6 in the third. Each worker ends
    # after three requests, or when every tube is empty and stays so for a while.
    await gather(
        Worker(RuntimeCoordinator(), queue).loop(3),
        Worker(RuntimeCoordinator(), queue).loop(3),
        Worker(RuntimeCoordinator(), queue).loop(3),
    )
    for thread, users in sorted(sent.items()):
        print(f"thread {thread}: {users}")


if __name__ == "__main__":
    run(example())
