"""BatchSource: blocks of batches as the worker loop sees them."""

from asyncio import CancelledError
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Literal, cast

from .. import tasks
from ..clock import Clock, SystemClock, consumer_id, seconds
from ..codec import dumps
from ..errors import PayloadError, PermanentError, Snooze, describe
from ..events import emit
from ..model import Done, Failed, Job, JobStatus, NewJob, Outcome, Released
from ..retry import Backoff
from ..tasks import Cancellation, Performing, Task
from ..worker.source import Coming, Turn
from .reader import BatchReader

Promote = Callable[[NewJob, str], object]
"""Called with the job that an item is to become and the reason; the job's unique key makes a repeat harmless."""

_NEVER = float("inf")


class BlockWork:
    """A block in the hands of a consumer. Its batch is the consumer's own as long as the process lives.

    Of a block that a consumer has died with, it is one item, a suspect, and every death is one of its attempts.
    """

    def __init__(self, slot: "_Slot", items: list[Any], max_attempts: int) -> None:
        self.slot = slot
        self.items = items
        self.batch, first = slot.reader.place or ("", 0)
        self.first = first - len(items)
        #: How many items, from the first, are done with.
        self.done = 0
        deaths = slot.reader.deaths
        self.suspect = deaths > 0
        #: How often the item after these has been tried. One death was its whole block's: it may take no last attempt.
        self.attempts = deaths if deaths > 1 else min(deaths, max_attempts - 1)
        self.max_attempts = max_attempts
        self.settled = False

    def rest(self) -> "BlockWork":
        """Return what is left of it as work to be begun."""
        left = BlockWork(self.slot, self.items[self.done :], self.max_attempts)
        left.attempts, left.suspect = self.attempts, self.suspect
        return left

    @property
    def id(self) -> str:
        """What logs call it."""
        return f"{self.batch}:{self.first + self.done}"


class _Slot:
    def __init__(self, reader: BatchReader) -> None:
        self.reader = reader
        self.work: BlockWork | None = None
        self.due = -_NEVER
        #: Whether its work is a suspect, or was the last time: then its turn comes before the others'.
        self.has_suspects = False


class BatchSource:
    """Claims batches for one consumer and performs their items, in order, by one task.

    A dict is the task's arguments by name, anything else its one argument. An item that raises is tried again, with
    the task's retry policy or the back-off, ``max_attempts`` times in all; then ``promote`` is called with
    a job for it, and the others go on. Each thread has a batch of its own.

    What a dead consumer had in hand is performed item by item, with nothing beside it in the process, and an item that
    ``max_attempts`` consumers in a row have died with is given up in the same way.
    """

    def __init__(
        self,
        root: str,
        queue: str,
        *,
        name: str,
        task: str,
        concurrency: int,
        promote: Promote,
        max_attempts: int = 3,
        backoff: Backoff | None = None,
        poll: float = 1.0,
        durability: Literal["power", "process"] = "power",
        clock: Clock | None = None,
    ) -> None:
        self.consumer = consumer_id(name)
        self._task: Task[..., Any] = tasks.find(task)
        self._promote, self._poll = promote, poll
        self._max_attempts = self._task.defaults.max_attempts or max_attempts
        self._backoff = backoff or Backoff()
        self._clock = clock or SystemClock()
        self._stopping = False
        #: Whether a suspect waits until nothing else is being performed: then blocks are left at their next item.
        self._is_awaited = False
        self._found = False
        self._slots = [
            _Slot(BatchReader(root, queue, owner=name, durability=durability, clock=clock)) for _ in range(concurrency)
        ]

    def stop(self) -> None:
        """Let the blocks that are being performed end with the item that they are at."""
        self._stopping = True

    def exchange(
        self,
        settled: Sequence[Outcome],
        holding: Sequence[BlockWork],
        room: int,
        ahead: int = 0,  # noqa: ARG002 - no batch is claimed ahead
    ) -> Turn[BlockWork]:
        """Save what was consumed, promote what failed for good, and claim up to ``room`` blocks."""
        for outcome in settled:
            self._settle(outcome)
        claimed = self._claim(holding, room)
        self._found = bool(claimed)
        return Turn(claimed=claimed)

    def perform(self, work: BlockWork, cancellation: Cancellation) -> Outcome | Coming:
        """Call the task for each item and return what came of it, or the coroutine that will."""
        if self._task.is_async:
            return self._perform_async(work, cancellation)
        job = cast("Job", work)
        for item in work.items[work.done :]:
            if self._stopping or cancellation.requested:
                return Released(job)
            if self._is_awaited and not work.suspect:
                return Released(job, delay=0)
            try:
                with Performing(self._job(work, item), cancellation):
                    self._call(item)
            except BaseException as error:  # noqa: BLE001 - SystemExit in a handler ends the attempt, not the consumer
                return _failed(job, error)
            work.done += 1
            work.attempts = 0
        return Done(job)

    async def _perform_async(self, work: BlockWork, cancellation: Cancellation) -> Outcome:
        job = cast("Job", work)
        for item in work.items[work.done :]:
            if self._stopping or cancellation.requested:
                return Released(job)
            if self._is_awaited and not work.suspect:
                return Released(job, delay=0)
            try:
                with Performing(self._job(work, item), cancellation):
                    await self._call(item)
            except CancelledError:
                return Released(job)
            except BaseException as error:  # noqa: BLE001 - as above
                return _failed(job, error)
            work.done += 1
            work.attempts = 0
        return Done(job)

    def is_async(self, work: BlockWork) -> bool:  # noqa: ARG002 - it is the same for all
        """Return whether the task is a coroutine."""
        return self._task.is_async

    def timeout(self, work: BlockWork) -> float | None:
        """Return the seconds that all that is left of the block may take: the task's timeout for each item."""
        each = self._task.defaults.timeout
        return None if each is None else seconds(each) * (len(work.items) - work.done)

    def timed_out(self, work: BlockWork) -> Outcome:
        """Return the outcome of a block that took too long: the item that it was at has failed."""
        return Failed(cast("Job", work), "Timeout: its block took longer than its items may")

    def released(self, work: BlockWork) -> Outcome:
        """Return the outcome of a block that is given back."""
        return Released(cast("Job", work))

    def expired(self, holding: Sequence[BlockWork]) -> Sequence[BlockWork]:  # noqa: ARG002 - no lease runs out
        """Return nothing: a batch is owned until its process ends."""
        return ()

    def pause(self) -> float:
        """Return the seconds until the next try of a failed item, or the next look."""
        now = self._clock.monotonic()
        # A suspect that is due and was not claimed begins when others end, of which the loop is told.
        retries = [
            slot.due
            for slot in self._slots
            if slot.work and slot.work.settled and not (slot.has_suspects and slot.due <= now)
        ]
        due = min(retries, default=_NEVER)
        return 0.0 if self._found else max(0.0, min(self._poll, due - now))

    def bell(self) -> int | None:
        """Return None: a folder has no descriptor that would tell."""
        return None

    def listens(self) -> bool:
        """Return True: a look at the folder's time is cheap."""
        return True

    def rung(self) -> bool:
        """Return whether anything has changed in the spool."""
        return self._slots[0].reader.spool.changed()

    def drained(self) -> bool:
        """Return whether no batch is ready or being consumed, here or elsewhere."""
        spool = self._slots[0].reader.spool
        return all(slot.work is None for slot in self._slots) and not any(
            name.status in ("ready", "unload") for name in spool.names()
        )

    def close(self) -> None:
        """Give back what is in hand, to the item."""
        for slot in self._slots:
            if slot.work:
                self._release(slot.work)
            slot.reader.close()

    # Settling

    def _settle(self, outcome: Outcome) -> None:
        work = cast("BlockWork", outcome.job)
        if work.settled:
            return  # the call is repeated because of another one's trouble
        if isinstance(outcome, Failed):
            self._fail(work, outcome)
        elif isinstance(outcome, Released) and outcome.delay is not None:
            work.slot.due = self._clock.monotonic() + seconds(outcome.delay)
        elif isinstance(outcome, Released):
            self._release(work)
        else:
            work.slot.work = None
        work.settled = True

    def _fail(self, work: BlockWork, outcome: Failed) -> None:
        attempts = work.attempts + 1
        reason, _ = describe(outcome.error)
        if outcome.permanent or attempts >= self._max_attempts or self._is_hopeless(outcome.error):
            self._give_up(work, reason)
            return
        work.attempts = attempts
        work.slot.due = self._clock.monotonic() + self._wait(attempts, outcome.error)
        emit("batch.item_failed", item=work.id, attempt=attempts, error=reason)

    def _is_hopeless(self, error: BaseException | str) -> bool:
        policy = self._task.retry
        return policy is not None and isinstance(error, BaseException) and policy.gives_up_on(error)

    def _wait(self, attempts: int, error: BaseException | str) -> float:
        """Return the seconds until the next attempt."""
        policy = self._task.retry
        if policy is not None and isinstance(error, BaseException):
            try:
                wanted = policy.wait(attempts, error, self._backoff)
                return self._backoff.delay(attempts) if wanted is None else wanted
            except Exception as trouble:  # noqa: BLE001 - a policy's own function may do anything
                emit("batch.item_failed", item="the task's retry policy", attempt=attempts, error=repr(trouble))
        return self._backoff.delay(attempts)

    def _give_up(self, work: BlockWork, reason: str) -> None:
        """Make a job of the item that failed for good, or put its batch aside if no job can carry it."""
        item, number = work.items[work.done], work.first + work.done
        key = f"batch:{work.batch}:{number}"
        try:
            self._promote(self._as_job(item).evolve(unique_key=key), reason)
        except PayloadError as error:
            work.slot.reader.put_aside(
                f"item {number} failed, and no job can carry it: {error}", len(work.items) - work.done
            )
            work.slot.work = None
            return
        emit("batch.promoted", item=work.id, unique_key=key, error=reason)
        work.done += 1
        work.attempts = 0
        work.slot.due = -_NEVER
        if work.done == len(work.items):
            work.slot.work = None

    def _as_job(self, item: Any) -> NewJob:
        try:
            return self._task.job(**item) if isinstance(item, dict) else self._task.job(item)
        except (PayloadError, TypeError):
            # It does not fit the task's arguments, which may be why it failed: keep it for a person to see.
            text = item if isinstance(item, str) else item.hex() if isinstance(item, bytes) else dumps(item)
            return NewJob(item=text)

    def _release(self, work: BlockWork) -> None:
        work.slot.reader.release(len(work.items) - work.done)
        work.slot.work = None

    # Claiming

    def _claim(self, holding: Sequence[BlockWork], room: int) -> list[BlockWork]:
        held = set(map(id, holding))
        claimed: list[BlockWork] = []
        self._is_awaited = False
        for slot in sorted(self._slots, key=lambda slot: not slot.has_suspects):
            busy = [*holding, *claimed]
            if len(claimed) >= room or any(work.suspect for work in busy):
                break
            work = None if id(slot.work) in held else self._next(slot)
            if work is None:
                continue
            if work.suspect and busy:
                work.settled = self._is_awaited = True  # and nothing else begins before it
                break
            claimed.append(work)
        return claimed

    def _next(self, slot: _Slot) -> BlockWork | None:
        """Return what the slot has to do now."""
        while True:
            if slot.work is None:
                items = slot.reader.get_block()
                slot.has_suspects = slot.reader.deaths > 0
                if not items:
                    return None
                slot.work = BlockWork(slot, items, self._max_attempts)
            elif slot.work.settled and slot.due <= self._clock.monotonic():
                # A new one: a handler that was abandoned still has the old.
                slot.work = slot.work.rest()
            else:
                return None
            work = slot.work
            if not work.suspect or work.attempts < self._max_attempts:
                return work
            work.settled = True  # so that it is met again if it cannot be given up now
            self._give_up(work, f"{work.attempts} consumers in a row died with it in hand")

    # Performing

    def _call(self, item: Any) -> Any:
        if isinstance(item, dict):
            return self._task.call(self._arguments(item))
        return self._task.function(item)

    def _arguments(self, item: dict[str, Any]) -> Job:
        return _job(self._task.name, dumps(item), "", 1, self._max_attempts, self.consumer, self._clock.now())

    def _job(self, work: BlockWork, item: Any) -> Job:
        key = f"batch:{work.batch}:{work.first + work.done}"
        text = item if isinstance(item, str) else ""
        return _job(self._task.name, text, key, work.attempts + 1, self._max_attempts, self.consumer, self._clock.now())


def _job(task: str, item: str, key: str, attempts: int, most: int, consumer: str, now: datetime) -> Job:
    """Return an item in the shape of a job, for ``current_job``; the id 0 says that it has no row."""
    return Job(
        id=0, queue="", task=task, item=item, status=JobStatus.PROCESSING, priority=0, attempts=attempts,
        max_attempts=most, timeout=None, fence=0, consumer_id=consumer, assigned_to=None, run_at=now, lease_until=None,
        created_at=now, started_at=now, finished_at=None, error=None, result=None, unique_key=key,
    )  # fmt: skip


def _failed(job: Job, error: BaseException) -> Outcome:
    if isinstance(error, Snooze):
        return Released(job, delay=error.delay, reason="snoozed")
    return Failed(job, error, permanent=isinstance(error, PermanentError | PayloadError))
