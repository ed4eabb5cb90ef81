"""How long attempts waited and ran, counted as they end: no question about them ever scans the jobs.

Times are sorted into buckets a quarter wide, so a percentile read from them is off by an eighth at most.
A process writes what it has counted at most once a second, along with a settlement that it makes
anyway, as a row of its own: nobody waits for a counter, and a crash forgets a second of statistics.
"""

import json
import os
import threading
import weakref
from collections import Counter
from collections.abc import Iterable

from sqlalchemy import Connection, delete, func, insert, select

from ..model import Done, Minute, Outcome, Released, Timing
from .now import Now
from .schema import micros, time_of, timings
from .statements import Statement

KEPT_SECONDS = 7 * 86_400
"""After this time a minute's counts are forgotten."""

_WRITE_SECONDS = 1.0
_MINUTE = 60_000_000
_PAGE = 1_000

Key = tuple[str, str | None]
"""Queue and task."""


class Counts:
    """Attempts that ended, by queue and task."""

    def __init__(self) -> None:
        self._found: dict[Key, dict[str, Counter[int]]] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, outcomes: Iterable[Outcome], now: Now) -> None:
        """Count what ended now; what was released did not end."""
        alike = Counter(
            (job.queue, job.task, type(outcome) is Done, job.started_at, job.run_at)
            for outcome in outcomes
            if type(outcome) is not Released
            for job in (outcome.job,)
        )
        for (queue, task, done, started_at, run_at), number in alike.items():
            found = self._of((queue, task))
            found["ended"][int(done)] += number
            if started_at is not None:
                started = micros(started_at)
                found["wait"][bucket_of(started - micros(run_at))] += number
                found["run"][bucket_of(now.micros - started)] += number

    def and_of(self, outcomes: Iterable[Outcome], now: Now) -> "Counts":
        """Return these counts and those of what ended now, and change nothing."""
        both = Counts()
        both.merge(self.dumps())
        both.add(outcomes, now)
        return both

    def merge(self, text: str) -> None:
        """Add what another wrote."""
        for queue, task, kinds in json.loads(text):
            found = self._of((queue, task))
            for kind, buckets in kinds.items():
                for bucket, number in buckets.items():
                    found[kind][int(bucket)] += number

    def dumps(self) -> str:
        """Return the counts as they are kept."""
        return json.dumps([[*key, kinds] for key, kinds in self._found.items()], separators=(",", ":"))

    def summary(self, seconds: float) -> list[Timing]:
        """Return the counts of so many seconds as people read them."""
        return [
            Timing(
                queue=queue,
                task=task,
                done=kinds["ended"][1],
                failed=kinds["ended"][0],
                per_second=(kinds["ended"][1] + kinds["ended"][0]) / seconds,
                wait=_percentiles(kinds["wait"]),
                run=_percentiles(kinds["run"]),
            )
            for (queue, task), kinds in sorted(self._found.items(), key=lambda item: (item[0][0], item[0][1] or ""))
        ]

    def _of(self, key: Key) -> dict[str, Counter[int]]:
        try:
            return self._found[key]
        except KeyError:
            found = self._found[key] = {"ended": Counter(), "wait": Counter(), "run": Counter()}
            return found


_meters: "weakref.WeakSet[Meter]" = weakref.WeakSet()


class Meter:
    """Gathers a process's counts between two writings."""

    def __init__(self) -> None:
        self.begin()
        _meters.add(self)

    def begin(self) -> None:
        """Begin with nothing, as a forked child does: its parent writes what was gathered before."""
        self._lock = threading.Lock()
        self._counts = Counts()
        self._written_at = float("-inf")

    def take(self, monotonic: float) -> Counts | None:
        """Return what has been gathered, to be written now, or None when that was done a moment ago."""
        with self._lock:
            if monotonic - self._written_at < _WRITE_SECONDS:
                return None
            self._written_at = monotonic
            return self._swap()

    def take_rest(self) -> Counts:
        """Return what has been gathered, because nothing will come after it."""
        with self._lock:
            return self._swap()

    def put_back(self, counts: Counts) -> None:
        """Take back what was to be written and was not."""
        with self._lock:
            self._counts.merge(counts.dumps())
            self._written_at = float("-inf")

    def gather(self, outcomes: Iterable[Outcome], now: Now) -> None:
        """Count what was settled in a transaction that wrote no counts."""
        with self._lock:
            self._counts.add(outcomes, now)

    def _swap(self) -> Counts:
        counts, self._counts = self._counts, Counts()
        return counts


def write(connection: Connection, now: Now, counts: Counts) -> None:
    """Keep counts, in a row of their own."""
    if counts:
        _WRITE.run(connection, at=now.micros // _MINUTE * _MINUTE, data=counts.dumps()).close()


_WRITE = Statement(lambda _kind: insert(timings).inline(), ["at", "data"])


def read(connection: Connection, now: Now, seconds: float) -> list[Timing]:
    """Return what ended within the last ``seconds``, to the minute."""
    counts = Counts()
    since = now.micros_after(-seconds) // _MINUTE * _MINUTE
    for text in connection.execute(select(timings.c.data).where(timings.c.at >= time_of(since))).scalars():
        counts.merge(text)
    return counts.summary(max(1.0, (now.micros - since) / 1_000_000))


def per_minute(connection: Connection, now: Now, minutes: int) -> list[Minute]:
    """Return what ended in each of the last so many minutes, oldest first; the last one is not over."""
    this = now.micros // _MINUTE * _MINUTE
    ended = {this - back * _MINUTE: [0, 0] for back in range(minutes - 1, -1, -1)}
    query = select(timings.c.at, timings.c.data).where(timings.c.at >= time_of(min(ended)))
    for at, text in connection.execute(query):
        if (found := ended.get(micros(at))) is not None:
            for _queue, _task, kinds in json.loads(text):
                for outcome, number in kinds["ended"].items():
                    found[int(outcome)] += number
    return [Minute(at=time_of(at), done=done, failed=failed) for at, (failed, done) in ended.items()]


def fold(connection: Connection, now: Now) -> int:
    """Make one row of the many of a past minute, forget what is old; return how many rows are gone."""
    old = connection.execute(
        select(timings.c.id).where(timings.c.at < now.after(-KEPT_SECONDS)).limit(_PAGE)
    ).scalars().all()  # fmt: skip
    gone = len(old)
    connection.execute(delete(timings).where(timings.c.id.in_(old)))
    past = timings.c.at < time_of(now.micros // _MINUTE * _MINUTE)
    crowded = select(timings.c.at).where(past).group_by(timings.c.at).having(func.count() > 1).limit(1)
    at = connection.execute(crowded).scalar()
    if at is not None:
        page = select(timings).where(timings.c.at == at).order_by(timings.c.id).limit(_PAGE)
        rows = connection.execute(page.with_for_update(skip_locked=True)).all()
        counts = Counts()
        for row in rows:
            counts.merge(row.data)
        connection.execute(delete(timings).where(timings.c.id.in_([row.id for row in rows])))
        if rows:
            connection.execute(insert(timings).values(at=at, data=counts.dumps()))
        gone += max(0, len(rows) - 1)
    return gone


def bucket_of(span: int) -> int:
    """Return the bucket of a span in microseconds: four to each doubling."""
    if span < 4:
        return max(0, span)
    bits = span.bit_length()
    return 4 * (bits - 2) + ((span >> (bits - 3)) & 3)


def seconds_of(bucket: int) -> float:
    """Return the middle of a bucket in seconds."""
    if bucket < 4:
        return bucket / 1_000_000
    bits, quarter = bucket // 4 + 2, bucket % 4
    return float((4 + quarter + 0.5) * 2 ** (bits - 3)) / 1_000_000


def _percentiles(buckets: Counter[int]) -> dict[str, float]:
    total = sum(buckets.values())
    found: dict[str, float] = {}
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        seen = 0
        for bucket in sorted(buckets):
            seen += buckets[bucket]
            if seen >= share * total:
                found[name] = seconds_of(bucket)
                break
    return found


def _after_fork() -> None:
    for meter in tuple(_meters):
        meter.begin()


os.register_at_fork(after_in_child=_after_fork)
