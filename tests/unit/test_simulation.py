"""Thousands of small worlds, each with its own order of steps and its own mishaps, on one SQLite file.

A world that fails prints its seed; ``pytest --long`` runs more of them, and ``SIMULATION_SEED=7`` runs one alone.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import bindparam, null, update
from support.clock import FakeClock
from support.simulation import LEASE, SETTINGS, VirtualClock, Wakeup, World, replay

import persistq
from persistq import Done, Failed, Job, PersistQError, Released
from persistq.clock import JumpGuard
from persistq.model import Exchanged, Outcome
from persistq.storage import exchange
from persistq.storage.now import Now
from persistq.storage.schema import jobs as table
from persistq.storage.sqlite_connections import sqlite_module
from persistq.storage.statements import Change, Statement, among, first

COLUMNS = (
    "id", "item", "queue", "priority", "status", "attempts", "max_attempts", "fence", "consumer_id", "assigned_to",
    "delayed", "suspect", "run_at", "lease_until", "finished_at", "unique_key",
)  # fmt: skip
OVER = {"done", "failed", "cancelled"}
DECISIONS = {
    "cancel": ({"pending", "processing"}, "cancelled"),
    "mark_failed": ({"pending", "processing"}, "failed"),
    "resubmit": ({"failed", "cancelled"}, "pending"),
    "assign_job": ({"pending", "processing"}, "pending"),
    "release_job": ({"processing"}, "pending"),
}
SETTLED = {Done: {"done"}, Failed: {"failed", "pending"}, Released: {"pending"}}


class Row(NamedTuple):
    id: int
    item: str
    queue: str
    priority: int
    status: str
    attempts: int
    max_attempts: int
    fence: int
    consumer_id: str | None
    assigned_to: str | None
    delayed: int
    suspect: int
    run_at: int
    lease_until: int | None
    finished_at: int | None
    unique_key: str | None


Rows = dict[int, Row]


class Judge:
    """Compares every row before and after every call with what that call may do, in words of its own."""

    def __init__(self, path: Path, clock: FakeClock) -> None:
        self._clock = clock
        self._connection = sqlite_module().connect(path, isolation_level=None)
        self._connection.execute("PRAGMA synchronous = OFF")
        self._query = f"SELECT {', '.join(COLUMNS)} FROM jobs ORDER BY id"
        self.begin()

    def begin(self) -> None:
        """Empty the database, so that one run is like the next."""
        tables = ("jobs", "events", "tallies", "consumers", "timings")
        script = "; ".join(f"DELETE FROM {name}" for name in tables)
        self._connection.executescript(f"BEGIN; {script}; DELETE FROM sqlite_sequence WHERE name = 'jobs'; COMMIT")
        self.changes = 0
        self._rows: Rows = {}
        #: When, by the monotonic clock, each lease began: by job and fence.
        self._leased: dict[tuple[int, int], float] = {}
        self._keyed: dict[tuple[str, str], str] = {}
        #: What was called, by whom, and the rows that it changed.
        self.history: list[tuple[float, str, str, Any, list[tuple[Row | None, Row]]]] = []

    def over(self) -> bool:
        return all(row.status in OVER for row in self._rows.values())

    def is_overtaken(self, job: Job) -> bool:
        row = self._rows[job.id]
        return row.status == "processing" and row.fence > job.fence

    def saw(
        self, actor: str, verb: str, values: Sequence[Any], options: dict[str, Any], call: Callable[[], Any]
    ) -> Any:
        refused, found = None, None
        try:
            found = call()
        except PersistQError as error:
            refused = error
        if verb in ("due_in", "unfinished", "beat", "leave"):
            return found
        old, new = self._rows, self._read()
        changed = [(old.get(row.id), row) for row in new.values() if old.get(row.id) != row]
        self.history.append((self._clock.monotonic(), actor, verb, refused or found, changed))
        self._rows = new
        self.changes += bool(changed)
        assert old.keys() <= new.keys(), "a job is gone"
        for before, row in changed:
            sane(before, row)
        if verb == "exchange" and not refused:
            self._exchanged(values[0], options, found, old, new, changed)
        elif verb == "enqueue" and not refused:
            self._enqueued(values[0], options, found, changed)
        elif verb.startswith("recover"):
            self._recovered(changed)
        elif verb in DECISIONS:
            assert len(changed) == (not refused)
            self._decided(verb, changed)
        else:
            assert not changed, "what was refused has changed something"
        if refused:
            raise refused
        return found

    def _read(self) -> Rows:
        return {row[0]: Row(*row) for row in self._connection.execute(self._query)}

    def _enqueued(self, item: str, options: dict[str, Any], job_id: int, changed: list[tuple[Row | None, Row]]) -> None:
        row, key = self._rows[job_id], options["unique_key"]
        assert changed in ([], [(None, row)])
        assert changed or key, "nothing was written"
        if key:
            item = self._keyed.setdefault((options["queue"], key), item)  # whoever was first with the key
        assert (row.item, row.queue, row.unique_key) == (item, options["queue"], key)

    def _exchanged(
        self, consumer: str, options: dict[str, Any], got: Exchanged, old: Rows, new: Rows,
        changed: list[tuple[Row | None, Row]],
    ) -> None:  # fmt: skip
        lost = {(job.id, job.fence) for job in got.lost}
        taken = {job.id for job in got}
        settled: Sequence[Outcome] = options["settled"]
        for outcome in settled:
            job, before, after = outcome.job, old[outcome.job.id], new[outcome.job.id]
            holds = (before.status, before.fence) == ("processing", job.fence)
            again = before.fence == job.fence and before.status in SETTLED[type(outcome)]
            assert ((job.id, job.fence) in lost) != (holds or again), f"the store took a stale outcome of job {job.id}"
            if holds and job.id not in taken:
                assert after.status in SETTLED[type(outcome)]
                assert after.fence == before.fence
                assert after.attempts == before.attempts - isinstance(outcome, Released)
        for job in options["renew"]:
            before, holds = old[job.id], old[job.id].status == "processing" and old[job.id].fence == job.fence
            assert ((job.id, job.fence) in lost) != holds
            if holds:
                assert new[job.id].lease_until == self._now() + LEASE * 1_000_000
                self._leased[job.id, job.fence] = self._clock.monotonic()
        self._claimed(consumer, options, got, old, new, {outcome.job.id for outcome in settled})
        known = {*taken, *(outcome.job.id for outcome in settled), *(job.id for job in options["renew"])}
        for before, row in changed:
            assert row.id in known or before == row._replace(delayed=1), f"job {row.id} was none of its business"

    def _claimed(
        self, consumer: str, options: dict[str, Any], got: Sequence[Job], old: Rows, new: Rows, settled: set[int]
    ) -> None:
        names = options["queue"]
        ready = [
            row for row in old.values()
            if row.status == "pending" and (not row.delayed or row.run_at <= self._now())
            and (not names or row.queue in names)
            and row.assigned_to in (None, consumer, consumer.partition("@")[0]) and row.id not in settled
        ]  # fmt: skip
        ready.sort(key=lambda row: (-row.priority, row.id))
        fresh = [job.id for job in got if job.id not in settled]
        assert fresh == [row.id for row in ready][: len(fresh)], "out of turn"
        assert len(got) <= options["limit"]
        if any(job.suspect for job in got):
            assert len(got) == 1
            assert not options["busy"]
        for job in got:
            before, row = old[job.id], new[job.id]
            assert before.status == "pending" or job.id in settled, "a second live lease"
            assert (row.status, row.consumer_id, row.fence) == ("processing", consumer, before.fence + 1)
            assert (job.fence, job.attempts, job.item) == (row.fence, row.attempts, row.item)
            assert job.id in settled or row.attempts == before.attempts + 1, "the delivery was not counted"
            assert row.lease_until == self._now() + LEASE * 1_000_000
            self._leased[job.id, job.fence] = self._clock.monotonic()

    def _recovered(self, changed: list[tuple[Row | None, Row]]) -> None:
        for before, row in changed:
            assert before is not None
            assert before.status == "processing"
            assert row.status == ("failed" if before.attempts >= before.max_attempts else "pending")
            assert row.fence > before.fence, "its holder could still settle it"
            held = self._clock.monotonic() - self._leased[row.id, before.fence]
            assert held > LEASE - JumpGuard.TOLERANCE, f"job {row.id} was taken back after {held:.1f} s"

    def _decided(self, verb: str, changed: list[tuple[Row | None, Row]]) -> None:
        sources, target = DECISIONS[verb]
        for before, row in changed:
            assert before is not None
            assert before.status in sources
            assert row.status == target
            assert row.fence > before.fence

    def _now(self) -> int:
        return round(self._clock.now().timestamp() * 1_000_000)

    def assert_counts(self) -> None:
        sums = ", ".join(f"sum({status})" for status in ("pending", "processing", *sorted(OVER)))
        (counted,) = self._connection.execute(f"SELECT {sums} FROM tallies")
        found = Counter(row.status for row in self._rows.values())
        assert [n or 0 for n in counted] == [found[status] for status in ("pending", "processing", *sorted(OVER))]

    def close(self) -> None:
        self._connection.close()


def sane(before: Row | None, row: Row) -> None:
    """Fail unless a row makes sense by itself, and after what it was."""
    if before is None:
        assert (row.status, row.attempts, row.fence) == ("pending", 0, 0)
    else:
        assert row.fence >= before.fence
        assert (row.item, row.queue, row.unique_key) == (before.item, before.queue, before.unique_key)
    assert 0 <= row.attempts <= row.max_attempts, "more attempts than it has"
    assert (row.lease_until is not None) == (row.status == "processing")
    assert (row.finished_at is not None) == (row.status in OVER)


class Site:
    """One database, and a queue for each process of the machine."""

    def __init__(self, path: Path) -> None:
        self.clock = VirtualClock()
        self.queues = {
            name: persistq.connect(path, clock=self.clock, **SETTINGS) for name in ("w0", "w1", "office")
        }  # fmt: skip
        self.queues["office"].counts()
        self.judge = Judge(path, self.clock)
        self.world: World | None = None
        persistq.task(name="simulated")(lambda item: self.world and self.world.perform(item))

    def run(self, seed: int) -> World:
        """Run one seed; what fails says which, and what went before."""
        self.judge.begin()
        self.world = world = replay(seed, self.queues, self.clock, self.judge)
        try:
            world.run()
            self.judge.assert_counts()
        except Exception as error:
            error.add_note(f"seed {seed}: SIMULATION_SEED={seed} repeats it\n{self.story(world)}")
            raise
        return world

    def story(self, world: World) -> str:
        lines = [(at, text) for at, text in world.log]
        for at, actor, verb, found, changed in self.judge.history:
            moves = ", ".join(
                f"job {row.id}: {before and before.status} > {row.status}, {row.attempts} tries, fence {row.fence}"
                for before, row in changed
            )
            what = type(found).__name__ if isinstance(found, Exception) else ""
            lines.append((at, f"{actor} {verb} {what} {moves}"))
        return "\n".join(f"{at:10.4f} {text}" for at, text in sorted(lines, key=lambda line: line[0]))

    def close(self) -> None:
        self.judge.close()
        for q in self.queues.values():
            q.close()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr("persistq.worker.loop.Wakeup", Wakeup)
    made = Site(tmp_path / "queue.db")
    state = random.getstate()
    yield made
    random.setstate(state)
    made.close()


@pytest.mark.timeout(0)
@pytest.mark.parametrize("share", range(4))
def test_every_world_keeps_the_promises(site: Site, long: bool, share: int) -> None:
    alone, each = os.environ.get("SIMULATION_SEED"), 25_000 if long else 500
    seeds = [int(alone)] if alone else range(share * each, (share + 1) * each)
    began, steps, seen = time.process_time(), 0, Counter[str]()
    for seed in seeds:
        world = site.run(seed)
        steps += world.steps
        seen += Counter(happened(world, site.judge))
    spent = time.process_time() - began
    print(f"{len(seeds):,} seeds, {len(seeds) / spent:.0f} a second, {steps:,} steps: {dict(seen)}")
    if alone:
        print(site.story(world))
        return
    expected = {"dies", "stands still", "hears no reply", "clock is set", "has stopped", "enqueue", "crash", "refused"}
    rare = {"resubmit"}
    assert not (expected | DECISIONS.keys()) - rare - seen.keys()


def happened(world: World, judge: Judge) -> Iterator[str]:
    mishaps = ("dies", "stands still", "hears no reply", "clock is set", "has stopped")
    yield from (mishap for _, line in world.log for mishap in mishaps if mishap in line)
    for _, _, verb, found, changed in judge.history:
        if verb == "exchange" and getattr(found, "lost", None):
            yield "refused"
        if changed:
            yield "crash" if verb.startswith("recover") else verb


def test_a_world_is_the_same_whenever_it_is_run(site: Site) -> None:
    stories = {seed: site.story(site.run(seed)) for seed in range(20)}
    for seed in reversed(range(20)):
        assert site.story(site.run(seed)) == stories[seed]


def test_a_clock_that_was_set_before_a_process_started_costs_a_delivery_and_loses_nothing(path: Path) -> None:
    """It cannot know of the jump, and takes what looks expired; whoever held it is refused."""
    clock = FakeClock()
    with closing(persistq.connect(path, clock=clock)) as living:
        living.enqueue("item")
        job = living.exchange("living", limit=1)[0]
        clock.jump(3600)
        with closing(persistq.connect(path, clock=clock)) as young:
            assert young.recover() == 1
            with pytest.raises(persistq.LeaseLost):
                living.complete(job)
            (again,) = young.exchange("young", limit=1)
            assert (again.id, again.attempts) == (job.id, 2)
            young.complete(again)


def unfenced(kind: str) -> list[Any]:
    return [among(kind, table.c.id), table.c.status == "processing"]


def held_by_nobody_longer(real: Any) -> Any:
    return lambda connection, now, actor: real(connection, Now(now.after(LEASE)), actor)


def silent(real: Any) -> Any:
    """Make moves that do not raise the fence."""
    return lambda *values, held=False, **changes: real(*values, held=True, **changes)


def spending(real: Any) -> Any:
    """Make moves that leave the attempts as they are."""
    return lambda *values, attempts=None, **changes: real(*values, **changes)


def newest_first(_real: Any) -> Any:
    @cache
    def line_of(number: int, all_of_it: bool) -> Statement:
        columns = exchange._AS_CLAIMED if all_of_it else exchange._AS_CLAIMED[: exchange._DECISIVE]
        line = exchange._line(columns).order_by(None).order_by(table.c.id.desc())
        return Statement(lambda kind: first(kind, line, number))

    return line_of


def free_of_charge(_real: Any) -> Any:
    values = {
        "status": "processing", "fence": table.c.fence + 1, "consumer_id": bindparam("holder"),
        "started_at": bindparam("now"), "lease_until": bindparam("until"),
    }  # fmt: skip
    return Statement(
        lambda kind: update(table).where(among(kind, table.c.id), table.c.status == "pending").values(**values)
    )


TELLING = (297, 71, 163, 65)
"""Seeds of worlds in which much goes wrong, so that the rare bugs need not be looked for long."""

BUGS: dict[str, tuple[object, str, Callable[[Any], Any]]] = {
    "an outcome is taken whatever its fence": (
        exchange, "_COMPLETE",
        lambda _: Change(unfenced, status="done", finished_at=bindparam("now"), lease_until=null()),
    ),
    "a lease is renewed whatever its fence": (
        exchange, "_RENEW", lambda _: Change(unfenced, lease_until=bindparam("until")),
    ),
    "a live lease is taken back": (exchange, "recover", held_by_nobody_longer),
    "whoever lost a lease may still settle": (exchange, "transition", silent),
    "a lost reply counts as a lost lease": (exchange, "_stands", lambda _: lambda *_: False),
    "a lost lease counts as a lost reply": (exchange, "_stands", lambda _: lambda *_: True),
    "a clock that was set is not noticed": (JumpGuard, "quiet_for", lambda _: lambda *_: True),
    "a delivery is not counted": (exchange, "_CLAIM", free_of_charge),
    "a job given back has spent an attempt": (exchange, "transition", spending),
    "one attempt too many": (
        exchange, "gives_up", lambda _: lambda done, most, permanent=False: permanent or done > most,
    ),
    "the newest goes first": (exchange, "_line_of", newest_first),
    "a suspect is performed beside others": (exchange, "_how_many", lambda _: lambda found, **_: len(found)),
    "what is over counts as it did": (exchange, "tallies", lambda real: Silent(real)),
}  # fmt: skip


class Silent:
    """The tallies, of which a move is forgotten."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def add(self, *_: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@pytest.mark.parametrize("bug", BUGS)
def test_the_judge_catches(site: Site, monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    """A judge that finds nothing proves something only if it finds what is there."""
    where, name, planted = BUGS[bug]
    monkeypatch.setattr(where, name, planted(getattr(where, name)))
    with pytest.raises((AssertionError, KeyError)) as found:
        for seed in (*TELLING, *range(400)):
            site.run(seed)
    print(f"{bug}: seed {seed}, {found.value!s:.60}")
