"""carry_out(): a bulk action from its preview to its end, in chunks of one transaction each."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .actions import Preview, Progress
from .errors import QueueFull

if TYPE_CHECKING:
    from .queue import PersistentQSQLAlchemy

_CHUNK = 1000


def carry_out(q: "PersistentQSQLAlchemy", what: Preview, *, expected: int | None = None) -> Iterator[Progress]:
    """Do what was previewed and yield after each chunk; the last one is ``over``.

    Only the previewed jobs are touched, and only those that did not change since. If it is cut off at any point, each
    chunk stands or does not, together with its line in the audit log, and ``preview_rest`` finds what is left.

    Raises:
        IllegalTransition: there are not as many jobs as were ``expected``.
        DatabaseUnavailable, OutcomeUnknown, QueueFull: the chunks before it stand.
    """
    progress, size = q.begin_bulk(what, expected=expected), _CHUNK
    if progress.over or not what.count:
        yield progress
        return
    while not progress.over:
        try:
            progress = q.advance_bulk(what, progress, size=size)
        except QueueFull:
            if size == 1:
                raise
            size = max(1, size // 10)  # to write less at once may still have room
            continue
        yield progress
