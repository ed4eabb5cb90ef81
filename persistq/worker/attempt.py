"""Attempts: a job in, its task called, an outcome out."""

import inspect
from asyncio import CancelledError
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from .. import tasks
from ..clock import Clock
from ..codec import dumps
from ..errors import PayloadError, PermanentError, Snooze
from ..events import emit
from ..model import Done, Failed, Job, Outcome, Released, check_span
from ..retry import Backoff
from ..settings import Settings
from ..tasks import Cancellation, Performing, Task
from .source import Coming


class Attempts:
    """Performs jobs by the tasks they name. Threads may share it."""

    def __init__(self, settings: Settings, clock: Clock, default_task: str) -> None:
        self._default_task = default_task
        self._max_bytes = settings.queue_max_item_bytes
        self._backoff = Backoff(settings.queue_backoff_seconds, settings.queue_backoff_max_seconds)
        self._now = clock.monotonic

    def perform(self, job: Job, cancellation: Cancellation) -> Outcome | Coming:
        """Call the job's task and return what came of it, or the coroutine that will."""
        emit("job.started", job=job)
        began = self._now()
        try:
            with Performing(job, cancellation):
                result = self._task(job).call(job)
        except BaseException as error:  # noqa: BLE001 - SystemExit in a handler ends the attempt, not the consumer
            return self._ended(job, began, self._raised(job, cancellation, error))
        if inspect.iscoroutine(result):
            return self._awaited(job, cancellation, began, result)
        return self._ended(job, began, self._returned(job, result))

    def is_async(self, job: Job) -> bool:
        """Return whether the job's task is a coroutine."""
        try:
            return self._task(job).is_async
        except LookupError:
            return False

    def timed_out(self, job: Job) -> Outcome:
        """Return the outcome of a job that took too long."""
        reason = f"it took longer than {job.timeout:g} s"
        outcome = self._failed(job, TimeoutError(reason))
        return Failed(job, f"Timeout: {reason}", outcome.permanent, outcome.delay)

    async def _awaited(
        self, job: Job, cancellation: Cancellation, began: float, coroutine: Coroutine[Any, Any, Any]
    ) -> Outcome:
        try:
            with Performing(job, cancellation):
                result = await coroutine
        except BaseException as error:  # noqa: BLE001 - as above
            return self._ended(job, began, self._raised(job, cancellation, error))
        return self._ended(job, began, self._returned(job, result))

    def _ended(self, job: Job, began: float, outcome: Outcome) -> Outcome:
        emit("job.performed", job=job, outcome=outcome, seconds=self._now() - began)
        return outcome

    def _task(self, job: Job) -> Task[..., Any]:
        return tasks.find(job.task or self._default_task)

    def _returned(self, job: Job, result: Any) -> Outcome:
        if result is None:
            return Done(job)
        try:
            dumps(result, max_bytes=self._max_bytes)
        except PayloadError as error:
            return Done(job, dropped=str(error))
        return Done(job, result)

    def _raised(self, job: Job, cancellation: Cancellation, error: BaseException) -> Outcome:
        if isinstance(error, Snooze):
            return _snoozed(job, error)
        if isinstance(error, PermanentError | PayloadError):
            return Failed(job, error, permanent=True)
        if isinstance(error, CancelledError) and cancellation.requested:
            return Failed(job, "Cancelled: the lease was lost, or could not be renewed in time")
        return self._failed(job, error)

    def _failed(self, job: Job, error: BaseException) -> Failed:
        """Return what the task's retry policy makes of the error."""
        try:
            policy = self._task(job).retry
            if policy is None:
                return Failed(job, error)
            if policy.gives_up_on(error):
                return Failed(job, error, permanent=True)
            return Failed(job, error, delay=policy.wait(job.attempts, error, self._backoff))
        except Exception as trouble:  # noqa: BLE001 - a policy's own function may do anything
            # What the handler raised is what counts; the rest is to be read in its traceback.
            with suppress(Exception):
                error.add_note(f"The usual back-off was taken, for the task's retry policy failed: {trouble!r}")
            return Failed(job, error)


def _snoozed(job: Job, nap: Snooze) -> Outcome:
    try:
        return Released(job, delay=check_span("a snooze", nap.delay), reason="snoozed")
    except Exception as error:  # noqa: BLE001 - a subclass may have made anything of its delay
        return Failed(job, error)
