"""What a type checker sees of the queue for asyncio. ``make check`` reads it, and an ``ignore`` without need fails."""

from typing import assert_type

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncSession

from persistq import Exchanged, Job, aio, connect, task


@task
async def send(user_id: int) -> None: ...


async def use(session: AsyncSession, connection: Connection) -> None:
    async with aio.connect("queue.db", timeout_seconds=5) as q:
        assert_type(await q.enqueue("x", delay=3, connection=session), int)
        assert_type(await q.enqueue_many(["x"]), list[int])
        assert_type(await q.dequeue("me", queue="mail"), Job | None)
        assert_type(await q.dequeue_many("me"), list[Job])
        assert_type(await q.exchange("me", limit=1), Exchanged)
        assert_type(await q.counts(), dict[str, int])
        assert_type(await q.list_jobs("failed", limit=5, item="x"), list[Job])
        assert_type(await q.get_item(), tuple[int, str] | tuple[None, None])
        assert_type(await send.enqueue(q, user_id=3), int)
        assert_type(send.enqueue(connect(), user_id=3), int)
        await q.enqueue(3)  # type: ignore[arg-type]
        await q.enqueue("x", connection=connection)  # type: ignore[arg-type]
        await q.counts(5)  # type: ignore[arg-type]
        await q.cancel()  # type: ignore[call-arg]
