"""Bugs that a queue might have, each with the invariant it breaks; sown into a process of the test's own.

Nothing in persistq knows of them. ``sow`` replaces internals of the running process for good, so it is
for a child that lives for nothing else. A bug that leaves a gap opens it for others to act in.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from sqlalchemy import bindparam, delete, exists, literal_column, select, update

import persistq
from persistq.model import JobStatus
from persistq.queue import PersistentQSQLAlchemy as Queue
from persistq.storage import exchange, insert, operate, rows, tallies
from persistq.storage.database import Database
from persistq.storage.schema import DELAYED, consumers, jobs, status_is
from persistq.storage.sqlite import SQLite
from persistq.storage.statements import Change, Statement, among
from persistq.worker import attempt

from .day import Gap

Sow = Callable[[Gap], None]
BUGS: dict[str, tuple[str, Sow]] = {}
"""Name, invariant, and what sows it."""

PROCESSING, PENDING = status_is(JobStatus.PROCESSING), status_is(JobStatus.PENDING)


def bug(invariant: str) -> Callable[[Sow], Sow]:
    def register(sow: Sow) -> Sow:
        BUGS[sow.__name__] = invariant, sow
        return sow

    return register


def _ids(kind: str) -> Any:
    return among(kind, jobs.c.id)


def _completes(where: Callable[[str], Any]) -> Change:
    done = {"status": literal_column("'done'"), "finished_at": bindparam("now"), "lease_until": None, "result": None}
    return Change(where, **done)


def _claims(where: Callable[[str], Any], **changes: Any) -> Statement:
    values = {
        "status": literal_column("'processing'"), "attempts": jobs.c.attempts + 1, "fence": jobs.c.fence + 1,
        "consumer_id": bindparam("holder"), "started_at": bindparam("now"), "lease_until": bindparam("until"),
    }  # fmt: skip
    return Statement(lambda kind: update(jobs).where(*where(kind)).values(**{**values, **changes}))


@bug("I4")
def settled_without_the_fence(_gap: Gap) -> None:
    exchange._COMPLETE = _completes(lambda kind: [_ids(kind), PROCESSING])


@bug("I4")
def renewed_without_the_fence(_gap: Gap) -> None:
    exchange._RENEW = Change(lambda kind: [_ids(kind), PROCESSING], lease_until=bindparam("until"))


@bug("I4")
def fence_begun_anew(_gap: Gap) -> None:
    recover = exchange.recover

    def forgetful(connection: Any, now: Any, actor: Any) -> int:
        taken = recover(connection, now, actor)
        connection.execute(update(jobs).where(PENDING, jobs.c.suspect == 1).values(fence=0))
        return taken

    exchange.recover = forgetful


@bug("I6")
def settled_whatever_the_status(_gap: Gap) -> None:
    exchange._COMPLETE = _completes(lambda kind: [_ids(kind), jobs.c.fence == bindparam("held")])


@bug("I5")
def claimed_from_a_stale_list(gap: Gap) -> None:
    honest, in_line = Queue.exchange, exchange._first_in_line
    exchange._CLAIM = _claims(lambda kind: [_ids(kind)])

    def stale(self: Queue, consumer: str, **options: Any) -> Any:
        who = self._claimant(consumer, options.get("queue"))
        seen = self._read("look", lambda conn: in_line(conn, who, who.queues, options.get("limit") or 1))
        gap.open()
        exchange._first_in_line = lambda *_, **__: seen
        return honest(self, consumer, **options)

    Queue.exchange = stale  # type: ignore[method-assign]


@bug("I5")
def recovered_by_age(_gap: Gap) -> None:
    recover = exchange.recover

    def impatient(connection: Any, now: Any, actor: Any) -> int:
        old = (PROCESSING, jobs.c.started_at < now.after(-50))
        connection.execute(update(jobs).where(*old).values(lease_until=now.after(-1)))
        return recover(connection, now, actor)

    exchange.recover = impatient


@bug("I6")
def recovered_from_a_stale_list(gap: Gap) -> None:
    def stale(self: Queue) -> int:
        now = self.database.now()
        expired = select(jobs.c.id).where(PROCESSING, jobs.c.lease_until < now.value)
        ids = self._read("look", lambda conn: conn.execute(expired).scalars().all())
        gap.open()
        again = {"status": "pending", "lease_until": None, "finished_at": None, "fence": jobs.c.fence + 1}
        self._write("recover", lambda conn: conn.execute(update(jobs).where(jobs.c.id.in_(ids)).values(**again)))
        return len(ids)

    Queue.recover = stale  # type: ignore[method-assign]


@bug("I5")
def clock_is_trusted(_gap: Gap) -> None:
    Database.is_calm = lambda *_: True  # type: ignore[method-assign]


@bug("I7")
def attempt_not_counted_before_it(_gap: Gap) -> None:
    exchange._CLAIM = _claims(lambda kind: [_ids(kind), PENDING], attempts=jobs.c.attempts)


@bug("I7")
def giving_back_costs_an_attempt(_gap: Gap) -> None:
    transition = exchange.transition

    def costly(connection: Any, event: str, *where: Any, **changes: Any) -> Any:
        if event == "release":
            del changes["attempts"]
        return transition(connection, event, *where, **changes)

    exchange.transition = costly


@bug("I7")
def victims_of_a_crash_fail(_gap: Gap) -> None:
    exchange.gives_up = lambda *_, **__: True


@bug("I8")
def cancelled_under_the_same_fence(_gap: Gap) -> None:
    operate.transition = lambda *given, **named: exchange.transition(*given, **{**named, "held": True})


@bug("I9")
def ordered_by_time(_gap: Gap) -> None:
    line = exchange._line
    exchange._line = lambda columns: line(columns).order_by(None).order_by(jobs.c.priority.desc(), jobs.c.created_at)
    exchange._line_of.cache_clear()


@bug("I10")
def recovered_by_the_list_of_consumers(_gap: Gap) -> None:
    recover = exchange.recover

    def joined(connection: Any, now: Any, actor: Any) -> int:
        unknown = ~exists().where(consumers.c.id == jobs.c.consumer_id)
        hidden = connection.execute(select(jobs.c.id, jobs.c.lease_until).where(PROCESSING, unknown)).all()
        _let_last(connection, [(row.id, now.after(1000)) for row in hidden])
        taken = recover(connection, now, actor)
        _let_last(connection, hidden)
        return taken

    exchange.recover = joined


def _let_last(connection: Any, leases: Any) -> None:
    for job_id, until in leases:
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(lease_until=until))


@bug("I11")
def claimed_before_its_time(_gap: Gap) -> None:
    exchange._DUE = Statement(lambda _kind: select(jobs.c.id).where(*DELAYED))


@bug("I12")
def performed_twice(_gap: Gap) -> None:
    perform = attempt.Attempts.perform

    def twice(self: Any, job: Any, cancellation: Any) -> Any:
        perform(self, job, cancellation)
        return perform(self, job, cancellation)

    attempt.Attempts.perform = twice  # type: ignore[method-assign]


@bug("I13")
def dropped_when_full(_gap: Gap) -> None:
    enqueue = Queue._enqueue

    def dropping(self: Queue, *given: Any) -> list[int]:
        try:
            return enqueue(self, *given)
        except persistq.QueueFull:
            return [1_000_000]

    Queue._enqueue = dropping  # type: ignore[method-assign]


@bug("I3")
def refused_after_the_commit(_gap: Gap) -> None:
    enqueue, check = Queue._enqueue, Queue._check_room
    Queue._check_room = lambda *_: None  # type: ignore[method-assign]

    def late(self: Queue, *given: Any) -> list[int]:
        made = enqueue(self, *given)
        self._read("check", partial(check, self))
        return made

    Queue._enqueue = late  # type: ignore[method-assign]


@bug("I14")
def key_ignored(_gap: Gap) -> None:
    insert.insert_unique = lambda conn, run: (insert.insert_run(conn, rows.Run(run.shared, run.items))[0], True)


@bug("I2")
def item_tidied(_gap: Gap) -> None:
    one = insert._insert_one
    insert._insert_one = lambda conn, run: one(conn, rows.Run(run.shared, [run.items[0].strip()]))


@bug("I1")
def acknowledged_before_the_commit(_gap: Gap) -> None:
    """Whoever calls next in the same process pays what is owed."""
    owed: list[Callable[[], None]] = []
    adding: list[bool] = []
    add, commit, transact, read = SQLite._add, SQLite._commit, SQLite._transact, Database.read

    def flagged(self: SQLite, call: Any) -> Any:
        adding.append(True)
        try:
            return add(self, call)
        finally:
            adding.pop()

    def lazily(self: SQLite, *given: Any) -> None:
        (owed.append(partial(commit, self, *given)) if adding else commit(self, *given))

    def pay() -> None:
        while owed:
            owed.pop()()

    def paid(act: Any) -> Any:
        def first(*given: Any) -> Any:
            pay()
            return act(*given)

        return first

    os.register_at_fork(before=pay)

    SQLite._add, SQLite._commit = flagged, lazily  # type: ignore[method-assign]
    SQLite._transact, Database.read = paid(transact), paid(read)  # type: ignore[method-assign]


@bug("I1")
def deleted_when_claimed(_gap: Gap) -> None:
    claim = exchange.claim

    def pop(connection: Any, *given: Any, **named: Any) -> Any:
        claimed = claim(connection, *given, **named)
        connection.execute(delete(jobs).where(jobs.c.id.in_([job.id for job in claimed])))
        return claimed

    exchange.claim = pop
    exchange._stands = lambda *_: True


@bug("I1")
def settled_by_count(_gap: Gap) -> None:
    def oldest(connection: Any, now: Any, outcomes: Any, _moves: Any) -> set[tuple[int, int]]:
        query = select(jobs.c.id).where(PROCESSING).order_by(jobs.c.id).limit(len(outcomes))
        ids = connection.execute(query).scalars().all()
        done = {"status": "done", "lease_until": None, "finished_at": now.value}
        connection.execute(update(jobs).where(jobs.c.id.in_(ids)).values(**done))
        return {(one.job.id, one.job.fence) for one in outcomes}

    exchange._complete = oldest


@bug("I15")
def handler_has_an_old_fence(_gap: Gap) -> None:
    performing = attempt.Performing
    attempt.Performing = lambda job, *rest: performing(replace(job, fence=job.fence - 1), *rest)


@bug("I18")
def moves_not_counted(_gap: Gap) -> None:
    tallies.count = lambda *_: None


@bug("I19")
def writers_begin_as_readers(gap: Gap) -> None:
    turn = exchange.exchange

    def transact(self: SQLite, work: Any) -> Any:
        with self.translating():
            connection = self._writing_connection()
            driver: Any = connection.connection.dbapi_connection
            driver.execute("BEGIN")
            try:
                result = work(connection)
            except BaseException:
                self._roll_back(connection, driver)
                raise
            self._commit(connection, driver)
            return result

    def slow(connection: Any, *given: Any, **named: Any) -> Any:
        connection.execute(select(jobs.c.id).limit(1)).all()
        gap.open()
        return turn(connection, *given, **named)

    SQLite._transact, exchange.exchange = transact, slow  # type: ignore[method-assign]


def sow(name: str, gap: Gap) -> None:
    """Let this process have the bug from now on."""
    BUGS[name][1](gap)
