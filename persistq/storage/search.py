"""Looking for jobs by what no index finds: through so many at once, so that no statement takes long."""

from collections.abc import Iterator

from sqlalchemy import Connection, select

from ..model import Found, JobFilter, JobStatus
from .jobs import Condition, are_in_line, find, listed
from .schema import CRASHED, jobs
from .statements import kind_of

SPAN = 50_000
"""Jobs that are looked through at once."""


def page(
    connection: Connection, which: JobFilter, *, after: int, before: int | None, newest: bool, limit: int
) -> Found:
    """Return a page of at least one job as ``find`` does, and how far was looked for it."""
    end = None
    if not _is_indexed(connection, which):
        end = reach(connection, which, after=after, before=before, newest=newest)
    if end is not None:
        after, before = (end - 1, before) if newest else (after, end + 1)
    seen = find(connection, which, after=after, before=before, newest=newest, limit=limit + 1)
    more = len(seen) > limit
    return Found(jobs=seen[:limit], more=more, edge=seen[limit - 1].id if more else end)


def reach(
    connection: Connection, which: JobFilter, *, after: int = 0, before: int | None = None, newest: bool = False
) -> int | None:
    """Return the last of the next ``SPAN`` jobs of the filter's statuses; None when there are fewer.

    They are counted as rows, for whole ranges of ids may be gone.
    """
    ends: list[int] = []
    for line in _lines(connection, which):
        ids = select(jobs.c.id).where(jobs.c.id > after, *line)
        if before is not None:
            ids = ids.where(jobs.c.id < before)
        in_order = ids.order_by(jobs.c.id.desc() if newest else jobs.c.id)
        ends += connection.execute(in_order.offset(SPAN - 1).limit(1)).scalars()
    return (max if newest else min)(ends, default=None)


def _is_indexed(connection: Connection, which: JobFilter) -> bool:
    """Return whether indexes have exactly these jobs, in order of their ids or few to be sorted; or they are all."""
    crashed = which.crashed and kind_of(connection) != "mysql"
    alike = which == JobFilter(status=which.status[:1], crashed=crashed)
    return alike and (crashed or all(are_in_line(connection, status) for status in which.status))


def _lines(connection: Connection, which: JobFilter) -> Iterator[tuple[Condition, ...]]:
    """Yield what can be gone through in order of ids, one for each status: no job that matches is elsewhere."""
    if which.crashed and kind_of(connection) != "mysql":
        yield CRASHED
    elif which.crashed:
        yield tuple(listed(connection, [JobStatus.PENDING]))
    elif which.status:
        for status in which.status:
            yield tuple(listed(connection, [status])) if are_in_line(connection, status) else ()
    else:
        yield ()
