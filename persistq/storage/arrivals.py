"""How many jobs were enqueued in each of the last minutes, from their ids, which grow with time; nothing is scanned."""

from datetime import datetime

from sqlalchemy import Connection, select

from .jobs import last_id
from .now import Now
from .schema import jobs, micros, time_of

PROBES = 1_000
"""Jobs that are looked at. Of more than that, every second, third ... stands for its neighbours."""

_MINUTE = 60_000_000


def per_minute(connection: Connection, now: Now, minutes: int) -> list[int]:
    """Return the numbers, oldest first; the last minute is not over. Deleted jobs are not counted."""
    begin = now.micros // _MINUTE * _MINUTE - (minutes - 1) * _MINUTE
    last = last_id(connection)
    first = _first_since(connection, time_of(begin), last)
    step = -(-(last + 1 - first) // PROBES) or 1
    probes = range(first, last + 1, step)
    numbers = [0] * minutes
    rows = connection.execute(select(jobs.c.id, jobs.c.created_at).where(jobs.c.id.in_(probes))) if probes else ()
    for job_id, created_at in rows:
        place = (micros(created_at) - begin) // _MINUTE
        if 0 <= place < minutes:
            numbers[place] += min(step, last + 1 - job_id)
    return numbers


def _first_since(connection: Connection, time: datetime, last: int) -> int:
    """Return an id before which no job is of that time or later, found by halving."""
    low, high = 1, last + 1
    while low < high:
        middle = (low + high) // 2
        found = connection.execute(
            select(jobs.c.id, jobs.c.created_at).where(jobs.c.id >= middle).order_by(jobs.c.id).limit(1)
        ).first()
        if found is None or found.created_at >= time:
            high = middle
        else:
            low = found.id + 1
    return low
