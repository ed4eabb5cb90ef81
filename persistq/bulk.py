"""A bulk action from its preview to its end."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from .actions import Preview, Progress
from .clock import Seconds
from .errors import IllegalTransition, QueueFull
from .model import TERMINAL, JobFilter, JobStatus, check_span
from .storage import jobs

if TYPE_CHECKING:
    from .operations import Operations

T = TypeVar("T")


def preview_purge(q: "Operations", older_than: Seconds, status: str = "done") -> Preview:
    """Return the jobs that ended with ``status`` longer ago than ``older_than``, to be deleted.

    Raises:
        UnknownStatus, IllegalTransition: the status is none that a job ends with.
        ConfigError: ``older_than`` is no span.
    """
    ended = JobStatus.parse(status)
    if ended not in TERMINAL:
        raise IllegalTransition(f"purge is for jobs that are over, and {ended} is not")
    age = check_span("older_than", older_than)
    return q.preview("delete", JobFilter(status=(ended,)), unchanged_for=age, reason="purge")


def carry_out(q: "Operations", what: Preview, *, expected: int | None = None) -> Iterator[Progress]:
    """Do what was previewed and yield after each chunk; the last one is ``over``.

    Only the previewed jobs are touched, and only those that did not change since. If it is cut off at any point, each
    chunk stands or does not, together with its line in the audit log, and ``preview_rest`` finds what is left.

    Raises:
        IllegalTransition: there are not as many jobs as were ``expected``.
        DatabaseUnavailable, OutcomeUnknown, QueueFull: the chunks before it stand.
    """
    progress = q.begin_bulk(what, expected=expected)
    if progress.over or not what.count:
        yield progress
        return

    def advance(size: int) -> Progress:
        nonlocal progress
        progress = q.advance_bulk(what, progress, size=size)
        return progress

    for reached in in_chunks(advance):
        yield reached
        if reached.over:
            return


def in_chunks(work: Callable[[int], T]) -> Iterator[T]:
    """Yield what ``work(size)``, a transaction, returns, again and again for as long as anybody asks.

    On a full disk the chunks get smaller: even a deletion has to be written down before it frees anything.

    Raises:
        QueueFull: there is no room for the smallest.
    """
    size = jobs.CHUNK
    while True:
        try:
            done = work(size)
        except QueueFull:
            if size == 1:
                raise
            size = max(1, size // 10)
        else:
            yield done
