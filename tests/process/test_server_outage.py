"""A database server restarts, hangs up, falls silent or is not there yet: consumers go on by themselves.

``--long`` runs the same with ten restarts and partitions of half a minute.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import cycle, islice
from typing import Any

import pytest
from support.databases import OnServer, each_server, upgrade
from support.island import island
from support.proxy import Proxy
from support.servers import KINDS

import persistq

from .yard import Process, Yard, eventually

RESUMED = 15.0
"""Seconds after which every consumer has to be at work again; ``--long`` holds them to it, on a quiet machine."""

PRODUCER = """
q = persistq.connect()
number = 0
while not os.path.exists("enough"):
    number += 1
    job_id = None
    while job_id is None:
        try:
            job_id = q.enqueue(f"item {number}", unique_key=str(number))
        except (persistq.DatabaseUnavailable, persistq.OutcomeUnknown):
            time.sleep(0.02)
    note("acknowledged", job_id, number)
    time.sleep(0.02)  # a load, and not the whole machine
"""
PERFORM = """
@persistq.task
def perform(item):
    note("performed", me().id, os.getpid())
    time.sleep(0.001)
"""


class Load:
    """A producer that tries until it succeeds, and two consumers, on a server of their own."""

    def __init__(self, yard: Yard, place: Mapping[str, Any] | None = None, before: tuple[str, ...] = ()) -> None:
        self.yard = yard
        assert yard.server is not None
        self.name = yard.target.rpartition("/")[2]
        # The lease is short, for a claim whose reply was lost holds its jobs until it expires.
        settings = {
            "queue_db_url": yard.server.url(self.name, **place or {}), "before": before,
            "timeout_seconds": 5, "max_attempts": 50, "queue_busy_seconds": 2,
        }  # fmt: skip
        yard.app(PERFORM)
        self.producer = yard.script(PRODUCER, **settings)
        self.consumers = [yard.consumer("--task", "perform", "--concurrency", "4", **settings) for _ in range(2)]
        self.await_work()

    def await_work(self) -> float:
        """Wait until each consumer has performed some more and some more is acknowledged; return how long it took."""
        began, before = time.monotonic(), self._seen()
        wanted = ["acknowledged", *(str(one.pid) for one in self.consumers)]
        eventually(lambda: all(self._seen()[who] >= before[who] + 5 for who in wanted), "everybody works again")
        return time.monotonic() - began

    def assert_at_work_again(self, *, soon: bool) -> None:
        """Fail unless everybody gets on again by himself."""
        took = self.await_work()
        print(f"at work again after {took:.2f} s")
        assert not soon or took < RESUMED

    def assert_nothing_lost(self) -> None:
        """End it all, and count."""
        self.yard.open("enough")
        assert self.producer.wait() == 0, self.producer.err[-2000:]
        eventually(self.yard.all_done, "everything is done")
        for consumer in self.consumers:
            assert not consumer.ended(), consumer.out[-2000:]
            consumer.send(signal.SIGTERM)
        assert [consumer.wait() for consumer in self.consumers] == [0, 0]
        lines = [line.split() for line in self.yard.journal()]
        acknowledged = {int(job_id): number for word, job_id, number in lines if word == "acknowledged"}
        jobs = {job.id: job for job in self.yard.jobs()}
        assert {job_id: jobs[job_id].unique_key for job_id in acknowledged} == acknowledged, "lost, or another's"
        assert len(jobs) == len(acknowledged), "an enqueue that was repeated made a second job"
        performed = Counter(int(job_id) for word, job_id, _ in lines if word == "performed")
        assert set(performed) == set(jobs), "done, and never performed"
        self.yard.assert_sound()
        again = sum(performed.values()) - len(performed)
        print(f"{len(acknowledged)} jobs acknowledged, 0 lost, {again} performed again")

    def _seen(self) -> Counter[str]:
        lines = [line.split() for line in self.yard.journal()]
        return Counter(words[2] if words[0] == "performed" else "acknowledged" for words in lines)


@pytest.fixture
def own_yard(make_yard, kind) -> Callable[..., Yard]:
    """Make a yard on a server that nobody else uses, so that the test may do anything to it."""
    with KINDS[kind](durable=True) as server:
        database = OnServer(server)
        yield lambda **settings: make_yard(target=database.apart(), server=server, **settings)


@each_server
def test_restarts_and_crashes_of_the_server_under_load(own_yard, kind, long):
    yard = own_yard()
    load = Load(yard)
    crash = signal.SIGQUIT if kind == "postgresql" else signal.SIGKILL
    for how in islice(cycle([None, crash, signal.SIGKILL]), 10 if long else 3):
        yard.server.restart(how)
        load.assert_at_work_again(soon=long)
    load.assert_nothing_lost()


@each_server
def test_a_server_that_stays_away_for_a_while_under_load(own_yard, long):
    yard = own_yard()
    load = Load(yard)
    yard.server.stop()
    for consumer in load.consumers:
        eventually(lambda c=consumer: len(c.lines("trying again")) >= (5 if long else 3), "it keeps trying")
    yard.server.start()
    load.assert_at_work_again(soon=long)
    assert all(consumer.lines("the database is back") for consumer in load.consumers)
    load.assert_nothing_lost()


@each_server
def test_connections_killed_on_the_server_under_load(own_yard, long):
    yard = own_yard()
    load = Load(yard)
    killed = 0
    for _ in range(50 if long else 10):
        killed += yard.server.end_connections(load.name)
        load.assert_at_work_again(soon=long)
    assert killed >= 10
    load.assert_nothing_lost()


@pytest.mark.parametrize("kind", [pytest.param("postgresql", marks=pytest.mark.needs("postgresql"))], indirect=True)
def test_a_backend_killed_outright_takes_every_session_along(own_yard, long):
    yard = own_yard()
    load = Load(yard)
    for _ in range(3):
        ((pid,), *_rest) = yard.server.run(f"SELECT pid FROM pg_stat_activity WHERE datname = '{load.name}'")
        os.kill(pid, signal.SIGKILL)
        load.assert_at_work_again(soon=long)
    load.assert_nothing_lost()


@each_server
@pytest.mark.parametrize("after", ["goes on", "reset"])
def test_a_partition_under_load(own_yard, long, after):
    yard = own_yard()
    with Proxy(yard.server.port) as proxy:
        load = Load(yard, {"port": proxy.port})
        proxy.hold()
        time.sleep(30 if long else 5)  # the partition itself
        if after == "reset":  # the network no longer knows the connections
            proxy.cut()
        proxy.go_on()
        load.assert_at_work_again(soon=long)
        load.assert_nothing_lost()


@each_server
@pytest.mark.needs("root")
@pytest.mark.needs("ip", "nsenter")
def test_a_partition_in_which_packets_vanish_under_load(own_yard, long):
    yard = own_yard()
    with island() as place, Proxy(yard.server.port, place.host) as proxy:
        load = Load(yard, {"host": place.host, "port": proxy.port}, place.before)
        place.pull()
        time.sleep(30 if long else 5)  # the partition itself
        place.plug()
        load.assert_at_work_again(soon=long)
        load.assert_nothing_lost()


@each_server
def test_everybody_may_be_started_before_the_server_the_database_and_the_schema(make_yard, kind):
    with KINDS[kind]() as server:
        yard = make_yard(target=server.url("queue_late"), server=server)
        yard.app(PERFORM)
        server.stop()
        waiting = [yard.consumer("--task", "perform"), yard.maintenance(), yard.producer("--count", "1")]
        _await_tries(waiting)
        server.start()
        _await_tries(waiting)
        server.create("queue_late")
        _await_tries(waiting)
        with pytest.raises(persistq.SchemaMismatch, match="persistq db upgrade"):
            yard.q.enqueue("too early")
        upgrade(server, "queue_late")
        eventually(lambda: yard.q.counts()["done"] == 1, "the producer's job is done")
        assert waiting[2].wait() == 0
        for process in waiting[:2]:
            assert not process.ended()


def _await_tries(processes: list[Process]) -> None:
    """Wait until each has tried twice more in vain: the first of them may have begun before the last change."""
    for process in processes:
        seen = _tries(process)
        eventually(lambda p=process, n=seen: _tries(p) >= n + 2 or p.ended(), f"{process.name} tries again")
        assert not process.ended(), process.out + process.err


def _tries(process: Process) -> int:
    return len(process.lines("trying again")) + len(process.lines("was not enqueued yet"))


# A connection that breaks amid a call: the call says what it knows, and repeating it is safe.

KNOWN = {("returned", True), ("OutcomeUnknown", False), ("OutcomeUnknown", True), ("DatabaseUnavailable", False)}
"""What a call may say, and whether it was kept."""

broken = pytest.mark.parametrize("lost", ["request", "reply"])
COMMIT = rb"COMMIT\b"
statements = pytest.mark.parametrize("words", [b"INSERT", b"UPDATE", COMMIT], ids=["INSERT", "UPDATE", "COMMIT"])


@pytest.fixture
def proxied(make_yard, kind, every_database) -> Iterator[tuple[Yard, Proxy, persistq.PersistentQSQLAlchemy]]:
    """A yard, a proxy before its server, and a queue behind the proxy that is warm."""
    yard = make_yard()
    with Proxy(yard.server.port) as proxy:
        q = persistq.connect(yard.server.url(yard.target.rpartition("/")[2], port=proxy.port))
        assert q.dequeue("nobody") is None  # whatever is asked only once has been asked
        yield yard, proxy, q
        q.close()


@each_server
@broken
@statements
def test_an_enqueue_whose_connection_breaks_is_repeated_with_its_key(proxied, words, lost):
    yard, proxy, q = proxied
    proxy.forget(words, lost)
    assert (_outcome(lambda: q.enqueue("item", unique_key="key")), bool(yard.jobs())) in KNOWN
    job_id = q.enqueue("item", unique_key="key")
    assert [job.id for job in yard.jobs()] == [job_id]
    yard.assert_sound()


@each_server
@broken
@statements
def test_an_enqueue_without_a_key_is_never_made_twice(proxied, words, lost):
    yard, proxy, q = proxied
    proxy.forget(words, lost)
    outcome = _outcome(lambda: q.enqueue("item"))
    assert (outcome, len(yard.jobs())) in {(said, int(kept)) for said, kept in KNOWN}
    yard.assert_sound()


@each_server
@broken
def test_a_lost_commit_is_told_and_nothing_is_done_by_half(proxied, lost):
    yard, proxy, q = proxied
    proxy.forget(COMMIT, lost)
    with pytest.raises(persistq.OutcomeUnknown):
        q.enqueue_many(["a", "b"])
    assert proxy.forgot.is_set()
    assert len(yard.jobs()) == (2 if lost == "reply" else 0)
    yard.assert_sound()


@each_server
@broken
@statements
def test_settling_whose_connection_breaks_may_be_repeated(proxied, words, lost):
    yard, proxy, q = proxied
    yard.q.enqueue_many(["a", "b", "c"])
    first, second, third = q.dequeue_many("me", limit=3)
    for settle in (
        lambda: q.complete(first, "result"),
        lambda: q.fail(second, "broken", permanent=True),
        lambda: q.release(third),
    ):
        proxy.forget(words, lost)
        assert _outcome(settle) in {said for said, _ in KNOWN}
        proxy.forget(b"nothing like it", lost)
        settle()
    jobs = yard.jobs()
    assert [(str(job.status), job.attempts) for job in jobs] == [("done", 1), ("failed", 1), ("pending", 0)]
    assert [[event.kind for event in yard.q.events(job.id)] for job in jobs] == [
        [],
        ["crashed", "failed"],
        ["released"],
    ]
    yard.assert_sound()


VANISHES = """
q = persistq.connect()
q.dequeue("victim", "elsewhere")
note("warm")
wait_for("gate")
q.dequeue("victim")
"""


@each_server
def test_a_client_that_vanishes_amid_its_transaction_holds_its_job_up_for_seconds_only(make_yard, long):
    """Its row is locked, and the server may not learn for hours that nobody is there any more."""
    yard = make_yard(timeout_seconds=1, queue_busy_seconds=2)
    yard.app("@persistq.task\ndef perform(item):\n    note(item)\n")
    yard.q.enqueue_many(["held", "other"])
    with Proxy(yard.server.port) as proxy:
        victim = yard.script(VANISHES, queue_db_url=yard.server.url(yard.target.rpartition("/")[2], port=proxy.port))
        eventually(yard.journal, "the victim is warm")
        proxy.forget(COMMIT, "connection")
        yard.open("gate")
        eventually(proxy.forgot.is_set, "the victim is amid its transaction")
        began = time.monotonic()
        yard.consumer("--task", "perform")
        eventually(lambda: "other" in yard.journal(), "others get on with other jobs")
        eventually(yard.all_done, "the victim's job is done by another")
        took = time.monotonic() - began
        print(f"done after {took:.1f} s")
        assert not victim.ended()
        assert not long or took < RESUMED
    yard.assert_sound()


@each_server
@broken
@statements
def test_a_claim_whose_connection_breaks_loses_no_job(proxied, words, lost):
    yard, proxy, q = proxied
    yard.q.enqueue_many(["x"] * 10)
    proxy.forget(words, lost)
    outcome = _outcome(lambda: q.dequeue_many("me", limit=3))
    assert outcome in {said for said, _ in KNOWN}
    rest = q.dequeue_many("me", limit=10)
    running = [job.id for job in yard.jobs() if job.status == "processing"]
    assert len(running) == 10
    assert len(rest) == (10 if outcome == "DatabaseUnavailable" else 7) or outcome == "OutcomeUnknown"
    yard.assert_sound()


def _outcome(call: Callable[[], object]) -> str:
    try:
        call()
    except persistq.PersistQError as error:
        return type(error).__name__
    return "returned"
