"""PersistentQInterface: the promises, in docstrings."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from .clock import Seconds
from .model import ConsumerInfo, Event, Exchanged, Job, JobFilter, NewJob, Outcome, QueueInfo, Timing

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session, scoped_session

    Transaction = Session | scoped_session[Any] | Connection

Queues = str | Iterable[str] | None
"""A queue's name, several, or None for all."""


class PersistentQInterface(ABC):
    """A persistent queue of jobs.

    Delivery is at least once: a job that was acknowledged is never lost, and may be delivered again
    when its consumer dies, is paused past its lease, or loses the database. At any time at most one
    lease on a job is live, and only the newest lease can settle it.

    Any method may raise ``DatabaseUnavailable`` or ``SchemaMismatch``; then nothing was written. Any
    that writes may raise ``OutcomeUnknown``; then repeat the call.
    """

    # Producing

    @abstractmethod
    def enqueue(
        self,
        item: str,
        queue: str = "default",
        *,
        task: str | None = None,
        priority: int = 0,
        delay: Seconds | None = None,
        run_at: datetime | None = None,
        max_attempts: int | None = None,
        timeout: Seconds | None = None,
        unique_key: str | None = None,
        on_duplicate: Literal["return", "raise"] = "return",
        connection: "Transaction | None" = None,
    ) -> int:
        """Add one job and return its id once it is on disk.

        Args:
            item: any text; the queue does not look into it.
            queue: 1 to 64 letters, digits, dots, dashes, underscores.
            task: the registered task that performs it; without one the consumer's own ``--task``.
            priority: higher comes first; equal ones in the order of their ids.
            delay: seconds or timedelta before it may run.
            run_at: aware time before which it does not run; not together with ``delay``.
            max_attempts: deliveries before it waits for a person; default ``MAX_ATTEMPTS``.
            timeout: seconds or timedelta that one attempt may take.
            unique_key: no second job of the queue has it, as long as the first one's row exists.
            on_duplicate: what a key that exists does: return the first job's id, or raise.
            connection: a Session or Connection whose transaction the job joins; nothing is
                committed here. Make it from ``engine``, so that both share one copy of SQLite.

        Raises:
            PayloadError: the item cannot be kept.
            ConfigError: an option is not usable.
            DuplicateJob: the key exists and ``on_duplicate`` says to raise.
            QueueFull: the disk, or QUEUE_MAX_PENDING, allows no more.
        """

    @abstractmethod
    def enqueue_many(
        self,
        items: Iterable[str | NewJob],
        queue: str = "default",
        *,
        connection: "Transaction | None" = None,
        **options: Any,
    ) -> list[int]:
        """Add all jobs in one transaction and return their ids in the same order.

        Strings take ``queue`` and ``options``, which are those of ``enqueue``; ``NewJob`` values bring
        their own. It raises what ``enqueue`` raises, and then none was added.
        """

    # Consuming

    @abstractmethod
    def dequeue(self, consumer: str, queue: Queues = None) -> Job | None:
        """Lease the next job to ``consumer``, or return None when none is due.

        Every ``QUEUE_RECOVERY_SECONDS`` it takes expired leases back first.
        """

    @abstractmethod
    def dequeue_many(self, consumer: str, queue: Queues = None, *, limit: int = 100) -> list[Job]:
        """Lease up to ``limit`` jobs, 1,000 at most, in their order. A suspect comes alone, in a list of one."""

    @abstractmethod
    def exchange(
        self,
        consumer: str,
        *,
        settled: Sequence[Outcome] = (),
        renew: Sequence[Job] = (),
        limit: int = 0,
        ahead: int = 0,
        queue: Queues = None,
        busy: bool | None = None,
    ) -> Exchanged:
        """Settle, renew and claim in one transaction: one turn of a worker.

        A lease that is no longer held does not stop the rest: its job is in the result's ``lost``.
        ``busy`` says that the consumer performs jobs now, and so must not be given a suspect; by
        default it is busy when it renews any. ``ahead`` says how many of ``limit`` will wait in the
        consumer before they begin: jobs that were delivered before, or that have one attempt only,
        are not among these.
        """

    @abstractmethod
    def complete(self, job: Job, result: Any = None, *, connection: "Transaction | None" = None) -> None:
        """Mark the job done, with any JSON value as its result. Repeating it is harmless.

        Raises:
            LeaseLost: the job was taken back, cancelled or given to another; nothing was written.
            JobNotFound: it was deleted.
            PayloadError: the result is not a JSON value or too long.
        """

    @abstractmethod
    def complete_many(self, jobs: Iterable[Job], *, connection: "Transaction | None" = None) -> None:
        """Mark all of them done in one transaction.

        Raises:
            LeaseLost, JobNotFound: of the first that could not be; then none was marked.
        """

    @abstractmethod
    def fail(
        self, job: Job, error: BaseException | str, permanent: bool = False, *, delay: Seconds | None = None
    ) -> None:
        """Record that the attempt did not succeed: the job comes back after ``delay``, or is failed.

        It fails for good when ``permanent`` or when its attempts are spent. The default delay is the
        back-off of ``QUEUE_BACKOFF_SECONDS``.

        Raises:
            LeaseLost, JobNotFound: as ``complete`` does.
        """

    @abstractmethod
    def release(self, job: Job) -> None:
        """Give the job back unperformed: it is pending at once and the delivery does not count.

        Raises:
            LeaseLost, JobNotFound: as ``complete`` does.
        """

    @abstractmethod
    def renew(self, job: Job) -> Job:
        """Return the job with a lease of ``TIMEOUT_SECONDS`` from now. The old value still settles.

        Raises:
            LeaseLost, JobNotFound: as ``complete`` does.
        """

    @abstractmethod
    def recover(self) -> int:
        """Take every expired lease back now and return how many there were.

        Jobs with attempts left are pending at once; the others are failed. After the wall clock has
        jumped it waits for one lease, on databases that judge leases by this machine's clock.
        """

    @abstractmethod
    def due_in(self, consumer: str, queue: Queues = None) -> float | None:
        """Return the seconds until a claim may find something: 0 for now, None when nothing waits."""

    @abstractmethod
    def unfinished(self, consumer: str, queue: Queues = None) -> bool:
        """Return whether these queues hold a due job, a waiting retry or a running job."""

    # Looking

    @abstractmethod
    def get_job(self, job_id: int) -> Job:
        """Return one job.

        Raises:
            JobNotFound: no job has the id.
        """

    @abstractmethod
    def list_jobs(
        self,
        status: str | Iterable[str] | None = None,
        *,
        limit: int = 100,
        after: int = 0,
        newest: bool = False,
        before: int | None = None,
        **filters: Any,
    ) -> list[Job]:
        """Return a page of jobs by id, those past ``after``; with ``newest`` the last ones, newest first.

        The page after that one are the newest ``before`` the last id seen.

        ``status`` takes the words of every vocabulary, ``crashed`` among them; the other filters are
        the fields of ``JobFilter``.
        """

    @abstractmethod
    def counts(self, queue: str | None = None) -> dict[str, int]:
        """Return how many jobs have each status. It reads a handful of rows, however many jobs there are."""

    @abstractmethod
    def timings(self, within: Seconds = 3600) -> list[Timing]:
        """Return how the attempts that ended within the last ``within`` seconds went, by queue and task.

        Counted as they end, to the minute, and kept for a week. A crash may forget the last second.
        """

    @abstractmethod
    def queues(self) -> list[QueueInfo]:
        """Return every queue that ever held a job or was paused."""

    @abstractmethod
    def consumers(self) -> list[ConsumerInfo]:
        """Return what the consumers last said of themselves."""

    @abstractmethod
    def events(self, job_id: int) -> list[Event]:
        """Return the job's history, oldest first. The happy path is on the job itself.

        Raises:
            JobNotFound: no job has the id.
        """

    @abstractmethod
    def has_live_job(self, item: str) -> bool:
        """Return whether a pending or processing job names the item."""

    # Deciding

    @abstractmethod
    def resubmit(self, job_id: int, *, force: bool = False, reason: str | None = None) -> Job:
        """Give a failed or cancelled job a new budget of attempts; a done one only by ``force``.

        Raises:
            JobNotFound, IllegalTransition
        """

    @abstractmethod
    def cancel(self, job_id: int, reason: str | None = None) -> Job:
        """Call a pending or processing job off. Its holder, if any, is refused from now on.

        Raises:
            JobNotFound, IllegalTransition
        """

    @abstractmethod
    def mark_failed(self, job_id: int, reason: str | None = None) -> Job:
        """Give a pending or processing job up. Its holder, if any, is refused from now on.

        Raises:
            JobNotFound, IllegalTransition
        """

    @abstractmethod
    def assign_job(self, job_id: int, consumer: str, reason: str | None = None) -> Job:
        """Reserve a job for one consumer, by id or name. A holder, if any, is refused from now on.

        Raises:
            JobNotFound, IllegalTransition
        """

    @abstractmethod
    def update_status(self, job_id: int, status: str) -> Job:
        """Move a job by a status word of any vocabulary, where the machine has such a move.

        A pending word releases a running job or resubmits a failed or cancelled one; ``crashed``
        counts as a crash; a done word completes a running job only.

        Raises:
            UnknownStatus, JobNotFound, IllegalTransition
        """

    @abstractmethod
    def delete_jobs(self, which: JobFilter | None = None, *, force: bool = False) -> int:
        """Delete the matching jobs that exist now and return how many; running ones only by ``force``.

        It goes in chunks. A job that changes before its chunk's turn is left.
        """

    @abstractmethod
    def purge(self, older_than: Seconds, status: str = "done") -> int:
        """Delete the jobs that ended with ``status`` longer ago than ``older_than``; return how many.

        Raises:
            UnknownStatus, IllegalTransition: the status is none that a job ends with.
        """

    @abstractmethod
    def pause(self, queue: str, reason: str | None = None) -> None:
        """Let nobody claim from the queue. What runs goes on; the pause outlives every process."""

    @abstractmethod
    def resume(self, queue: str, reason: str | None = None) -> None:
        """End a pause."""

    # The names of the seed documents

    def put_item(self, item: str) -> int:
        """Enqueue an item under the default settings and return its id."""
        return self.enqueue(item)

    def get_item(self) -> tuple[int, str] | tuple[None, None]:
        """Lease the next job and return its id and item; (None, None) when the queue is empty."""
        job = self.dequeue(self.default_consumer)
        return (job.id, job.item) if job else (None, None)

    def get_all_items(self) -> list[dict[str, Any]]:
        """Return every job as a dict with ``id``, ``item``, ``status``, ``timestamp``, ``submission_count``."""
        found: list[dict[str, Any]] = []
        while page := self.list_jobs(limit=1000, after=found[-1]["id"] if found else 0):
            found += [
                {**job.to_dict(), "timestamp": job.created_at.isoformat(), "submission_count": job.attempts}
                for job in page
            ]
        return found

    def update_q(self, item_id: int, status: str) -> Job:
        """Move a job by a status word: ``update_status``."""
        return self.update_status(item_id, status)

    @property
    @abstractmethod
    def default_consumer(self) -> str:
        """The consumer id that ``get_item`` claims under."""
