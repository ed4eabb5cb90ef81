"""Callers of one moment share a commit, and nothing else."""

import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.jobs import MakeQueue, Queue

import persistq
from persistq import DatabaseUnavailable, DuplicateJob, OutcomeUnknown
from persistq.errors import DiskFull
from persistq.storage.group import Call, Group
from persistq.storage.sqlite import SQLite
from persistq.storage.sqlite_connections import sqlite_module

WAIT = 60.0
"""Seconds after which a thread that has not come is taken to hang."""


def start(act: Callable[[], Any]) -> "Future[Any]":
    """Run in a thread of its own, which cannot keep the tests from ending."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(act())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def gathered(group: Group, number: int) -> None:
    """Return once so many calls wait for the next group; each is bound to come."""
    give_up = threading.Event()
    timer = threading.Timer(WAIT, give_up.set)
    timer.start()
    try:
        while len(group._waiting) < number:
            assert not give_up.is_set(), f"{len(group._waiting)} of {number} calls have come"
            os.sched_yield()
    finally:
        timer.cancel()


class Scribe:
    """Runs groups as a database would; the first one waits until it is let go."""

    def __init__(self) -> None:
        self.groups: list[list[Any]] = []
        self.began, self.go = threading.Event(), threading.Event()
        self.group = Group(self.run)

    def run(self, calls: Sequence[Call]) -> None:
        if not self.groups:
            self.began.set()
            assert self.go.wait(WAIT)
        self.groups.append([call.work for call in calls])
        for call in calls:
            try:
                call.result = call.work(None)  # type: ignore[arg-type]
            except Exception as error:
                call.error = error
            call.over = True

    def call(self, work: Callable[[Any], Any]) -> "Future[Any]":
        return start(lambda: self.group.call(work, adds_jobs=False))

    def hold(self) -> "Future[Any]":
        """Let a first call lead a group of its own, which does not end before ``go``."""
        first = self.call(lambda _: "first")
        assert self.began.wait(WAIT)
        return first


def answer(value: Any) -> Callable[[Any], Any]:
    return lambda _connection: value


# The group itself


def test_a_caller_on_its_own_runs_in_its_own_thread() -> None:
    scribe = Scribe()
    scribe.go.set()
    found = scribe.group.call(lambda _: threading.current_thread(), adds_jobs=False)
    assert found is threading.current_thread()
    assert len(scribe.groups) == 1


def test_those_who_come_meanwhile_are_one_group_and_each_gets_its_own_answer() -> None:
    scribe = Scribe()
    first = scribe.hold()
    others = [scribe.call(answer(number)) for number in range(20)]
    gathered(scribe.group, 20)
    assert not any(future.done() for future in [first, *others])
    scribe.go.set()
    assert first.result(WAIT) == "first"
    assert [future.result(WAIT) for future in others] == list(range(20))
    assert [len(group) for group in scribe.groups] == [1, 20]


def test_an_error_is_raised_in_the_thread_whose_it_is() -> None:
    scribe = Scribe()
    first = scribe.hold()
    others = [scribe.call(refuse if number == 3 else answer(number)) for number in range(6)]
    gathered(scribe.group, 6)
    scribe.go.set()
    with pytest.raises(LookupError, match="refused"):
        others[3].result(WAIT)
    assert [future.result(WAIT) for number, future in enumerate(others) if number != 3] == [0, 1, 2, 4, 5]
    assert first.result(WAIT) == "first"


def refuse(_connection: object) -> None:
    raise LookupError("refused")


def interrupt(_connection: object) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_leader_leaves_nobody_waiting() -> None:
    began, go = threading.Event(), threading.Event()
    runs = []

    def run(calls: Sequence[Call]) -> None:
        runs.append(len(calls))
        if len(runs) == 1:
            began.set()
            assert go.wait(WAIT)
        for call in calls:
            call.result = call.work(None)  # type: ignore[arg-type]
            call.over = True

    group = Group(run)
    first = start(lambda: group.call(answer(0), adds_jobs=False))
    assert began.wait(WAIT)
    # Whoever came first leads the second group: one whose work is over, then one that interrupts it.
    others = []
    for work in (answer(1), interrupt, answer(2), answer(3)):
        others.append(start(lambda work=work: group.call(work, adds_jobs=False)))  # type: ignore[misc]
        gathered(group, len(others))
    go.set()
    assert first.result(WAIT) == 0
    with pytest.raises(KeyboardInterrupt):
        others[0].result(WAIT)  # it led, so it was its thread
    for future in others[1:]:
        with pytest.raises((DatabaseUnavailable, OutcomeUnknown), match="interrupted"):
            future.result(WAIT)
    assert group.call(answer(4), adds_jobs=False) == 4


@contextmanager
def interrupting(group: Group) -> Iterator[None]:
    """Send this process a signal, which raises here, once this thread waits in ``group.call``."""

    heard = threading.Event()

    def handle(_number: int, _frame: object) -> None:
        if not heard.is_set():
            heard.set()
            raise KeyboardInterrupt

    me = threading.main_thread().ident
    assert me == threading.get_ident(), "only the main thread handles signals"

    def send() -> None:
        gathered(group, 1)
        while not heard.is_set():  # one that comes just before the wait begins is only seen after it
            signal.pthread_kill(me, signal.SIGUSR2)
            heard.wait(0.05)

    before = signal.signal(signal.SIGUSR2, handle)
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        yield
    finally:
        sender.join(WAIT)
        signal.signal(signal.SIGUSR2, before)


def test_who_is_interrupted_while_it_waits_takes_no_lead_along() -> None:
    scribe = Scribe()
    first = scribe.hold()
    with pytest.raises(KeyboardInterrupt), interrupting(scribe.group):
        scribe.group.call(answer("given up"), adds_jobs=False)
    later = scribe.call(answer("later"))
    scribe.go.set()
    assert first.result(WAIT) == "first"
    assert later.result(WAIT) == "later"
    assert start(lambda: scribe.group.call(answer("last"), adds_jobs=False)).result(WAIT) == "last"


def test_a_child_begins_anew() -> None:
    scribe = Scribe()
    first = scribe.hold()
    scribe.group.forget()  # as after a fork: whoever led is in the parent
    calls: list[int] = []
    scribe.group._run = lambda group: calls.append(len(group))
    with pytest.raises(OutcomeUnknown):  # this fake run leaves the call undone
        scribe.group.call(answer(1), adds_jobs=False)
    assert calls == [1]
    scribe.go.set()
    assert first.result(WAIT) == "first"


# Of a queue on SQLite


class Commits:
    """Counts what the queue's writing connection begins and commits; can hold the first transaction up."""

    def __init__(self, q: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
        self.database: Any = q.database
        self.group: Group = q.database._group  # type: ignore[attr-defined]
        #: How many calls each transaction was for, from the one that was held up.
        self.sizes: list[int] = []
        self.began, self.go = threading.Event(), threading.Event()
        self._holds = False
        run = self.database._run

        def held_up(calls: Sequence[Call]) -> None:
            if self._holds or self.sizes:
                self.sizes.append(len(calls))
            if self._holds:
                self._holds = False
                self.began.set()
                assert self.go.wait(WAIT)
            run(calls)

        monkeypatch.setattr(self.group, "_run", held_up)

    def hold(self, q: Queue) -> "Future[Any]":
        """Start a call whose transaction does not begin before ``go``."""
        self._holds = True
        first = start(lambda: q.enqueue("first"))
        assert self.began.wait(WAIT)
        return first

    def together(self, q: Queue, acts: Sequence[Callable[[], Any]]) -> "list[Future[Any]]":
        """Start the acts, in order, so that they are one group."""
        first = self.hold(q)
        futures = []
        for act in acts:
            futures.append(start(act))
            gathered(self.group, len(futures))
        assert not any(future.done() for future in [first, *futures])
        self.go.set()
        assert first.result(WAIT) > 0
        return futures


@pytest.fixture
def commits(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> Commits:
    """What the fixture ``queue`` commits."""
    queue.prepare()
    return Commits(queue, monkeypatch)


@contextmanager
def traced(q: Queue) -> Iterator[list[str]]:
    """Give the BEGINs, COMMITs and ROLLBACKs of the queue's writing connection."""
    writer: Any = q.database
    connection = writer._writing_connection().connection.driver_connection
    found: list[str] = []
    words = ("BEGIN", "COMMIT", "ROLLBACK")
    connection.set_trace_callback(lambda sql: found.append(sql) if sql.startswith(words) else None)
    try:
        yield found
    finally:
        connection.set_trace_callback(None)


def test_calls_of_one_moment_share_one_transaction(queue: Queue, commits: Commits) -> None:
    with traced(queue) as found:
        futures = commits.together(queue, [lambda n=n: queue.enqueue(str(n)) for n in range(10)])  # type: ignore[misc]
        ids = [future.result(WAIT) for future in futures]
    assert found == ["BEGIN IMMEDIATE", "COMMIT"] * 2
    assert commits.sizes == [1, 10]
    assert [queue.get_job(job_id).item for job_id in ids] == [str(n) for n in range(10)]
    assert queue.tally_drift() == {}


def test_each_of_one_moment_gets_the_job_it_asked_for(queue: Queue, commits: Commits) -> None:
    asked: list[dict[str, Any]] = [
        {}, {"queue": "mail", "task": "send", "priority": -7, "max_attempts": 9}, {"timeout": 0.1}, {"delay": 60.5},
        {"queue": "mail", "run_at": queue.clock.now() + timedelta(days=1)}, {"priority": 7, "timeout": 3},
    ]  # fmt: skip
    alone = [queue.get_job(queue.enqueue("\u00fc \U0001f600 '\"", **options)) for options in asked]
    acts = [partial(queue.enqueue, "\u00fc \U0001f600 '\"", **options) for options in asked]
    ids = [future.result(WAIT) for future in commits.together(queue, acts)]
    assert commits.sizes == [1, len(asked)]
    assert ids == list(range(ids[0], ids[0] + len(ids)))  # in the order in which they came
    assert [replace(queue.get_job(job_id), id=one.id) for job_id, one in zip(ids, alone, strict=True)] == alone
    assert queue.counts("mail")["pending"] == 4
    assert queue.tally_drift() == {}


def test_nobody_returns_before_its_own_commit(queue: Queue, path: Path, commits: Commits) -> None:
    reader = sqlite_module().connect(path, check_same_thread=False)
    seen = []

    def enqueue(item: str) -> None:
        job_id = queue.enqueue(item)
        seen.append(reader.execute("SELECT item FROM jobs WHERE id = ?", (job_id,)).fetchone() == (item,))

    for future in commits.together(queue, [lambda n=n: enqueue(str(n)) for n in range(5)]):  # type: ignore[misc]
        future.result(WAIT)
    assert seen == [True] * 5
    reader.close()


def test_what_one_caller_is_refused_leaves_the_others_work(queue: Queue, commits: Commits) -> None:
    with traced(queue) as found:
        futures = commits.together(
            queue,
            [
                lambda: queue.enqueue("a", unique_key="k"),
                lambda: queue.enqueue("b", unique_key="k", on_duplicate="raise"),
                lambda: queue.enqueue_many(["c", "d"]),
                lambda: queue.cancel(10_000),
                lambda: queue.enqueue("e"),
            ],
        )
        assert futures[0].result(WAIT) == 2
        with pytest.raises(DuplicateJob) as refusal:
            futures[1].result(WAIT)
        assert refusal.value.job_id == 2
        assert futures[2].result(WAIT) == [3, 4]
        with pytest.raises(persistq.JobNotFound):
            futures[3].result(WAIT)
        assert futures[4].result(WAIT) == 5
    assert [sql for sql in found if "one_call" not in sql] == ["BEGIN IMMEDIATE", "COMMIT"] * 2
    assert [job.item for job in queue.list_jobs()] == ["first", "a", "c", "d", "e"]
    assert queue.tally_drift() == {}


def test_what_was_done_before_a_refusal_is_undone_with_it(queue: Queue, commits: Commits) -> None:
    queue.enqueue("taken", unique_key="k")

    def many() -> list[int]:
        new = [persistq.NewJob(item="half"), persistq.NewJob(item="more", unique_key="k")]
        return queue.enqueue_many(new, on_duplicate="raise")

    futures = commits.together(queue, [many, lambda: queue.enqueue("whole")])
    with pytest.raises(DuplicateJob):
        futures[0].result(WAIT)
    futures[1].result(WAIT)
    assert [job.item for job in queue.list_jobs()] == ["taken", "first", "whole"]
    assert queue.tally_drift() == {}


def test_a_defect_in_one_work_leaves_the_others(queue: Queue, commits: Commits) -> None:
    def write(work: Callable[[Any], Any]) -> Callable[[], Any]:
        return lambda: queue.database.write(work)

    def defect(_connection: Any) -> None:
        raise LookupError("a defect")

    futures = commits.together(queue, [lambda: queue.enqueue("a"), write(defect), lambda: queue.enqueue("b")])
    assert [futures[0].result(WAIT), futures[2].result(WAIT)] == [2, 3]
    with pytest.raises(LookupError, match="a defect"):
        futures[1].result(WAIT)
    assert [job.item for job in queue.list_jobs()] == ["first", "a", "b"]


def test_an_interrupted_leader_keeps_nothing_and_the_rest_is_told(queue: Queue, commits: Commits) -> None:
    acts = [lambda: queue.enqueue("a"), lambda: queue.database.write(interrupt), lambda: queue.enqueue("b")]
    leader, *others = commits.together(queue, acts)
    with pytest.raises(KeyboardInterrupt):
        leader.result(WAIT)
    for future in others:
        with pytest.raises((DatabaseUnavailable, OutcomeUnknown), match="interrupted"):
            future.result(WAIT)
    assert [job.item for job in queue.list_jobs()] == ["first"]
    assert queue.enqueue("later") == 2


@pytest.mark.parametrize("error", [DiskFull("no room"), DatabaseUnavailable("locked")], ids=lambda e: type(e).__name__)
def test_a_shared_transaction_that_fails_gives_each_one_of_its_own(
    queue: Queue, commits: Commits, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    transact = SQLite._transact
    tried = []

    def fails(self: SQLite, work: Callable[[Any], Any]) -> Any:
        tried.append(commits.sizes[-1])
        if len(tried) == 2:
            transact(self, lambda connection: (work(connection), abort())[1])  # all was done, but for the commit

        return transact(self, work)

    def abort() -> None:
        raise error

    monkeypatch.setattr(SQLite, "_transact", fails)
    acts = [
        lambda: queue.enqueue("a", unique_key="k"),
        lambda: queue.enqueue("b", unique_key="k", on_duplicate="raise"),
        lambda: queue.enqueue("c"),
    ]
    futures = commits.together(queue, acts)
    assert futures[0].result(WAIT) == 2
    with pytest.raises(DuplicateJob):
        futures[1].result(WAIT)
    assert futures[2].result(WAIT) == 3
    assert tried == [1, 3, 3, 3, 3], "the first call, all together, and each on its own"
    assert [job.item for job in queue.list_jobs()] == ["first", "a", "c"]


def test_who_fills_the_disk_is_refused_alone(queue: Queue, commits: Commits, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = queue.enqueue("x")
    beside = staticmethod(lambda growth: 0 if growth < 100_000 else 1 << 60)
    monkeypatch.setattr("persistq.storage.reserve.Reserve.beside", beside)
    futures = commits.together(
        queue,
        [lambda: queue.enqueue("small"), lambda: queue.enqueue_many(["x" * 1_000] * 500), lambda: queue.cancel(job_id)],
    )
    assert futures[0].result(WAIT) == 3
    with pytest.raises(DiskFull):
        futures[1].result(WAIT)
    assert futures[2].result(WAIT).status == "cancelled"
    assert queue.counts()["pending"] == 2


def test_a_commit_that_was_cut_off_is_unknown_to_all(
    queue: Queue, commits: Commits, monkeypatch: pytest.MonkeyPatch
) -> None:
    transact = SQLite._transact
    tried = []

    def cut_off(self: SQLite, work: Callable[[Any], Any]) -> Any:
        result = transact(self, work)
        tried.append(commits.sizes[-1])
        if tried[-1] > 1:
            raise OutcomeUnknown("disk I/O error")
        return result

    monkeypatch.setattr(SQLite, "_transact", cut_off)
    acts = [
        lambda: queue.enqueue("a"),
        lambda: queue.cancel(1),
        lambda: queue.cancel(10_000),
    ]
    for future in commits.together(queue, acts):
        with pytest.raises(OutcomeUnknown):
            future.result(WAIT)
    assert tried == [1, 3], "what may have been kept is not done again"


def test_the_writing_connection_comes_back_after_it_was_closed(queue: Queue, path: Path) -> None:
    queue.enqueue("x")
    with closing(sqlite_module().connect(path)) as other:
        before = other.execute("PRAGMA data_version").fetchone()
        queue.close()
        queue.enqueue("y")
        assert other.execute("PRAGMA data_version").fetchone() != before
    assert queue.counts()["pending"] == 2


def test_thirty_two_threads_never_get_each_others_answers(make_queue: MakeQueue) -> None:
    q = make_queue(queue_durability="process")
    taken = {f"key {n}": q.enqueue(f"taken {n}", unique_key=f"key {n}") for n in range(5)}
    begin = threading.Barrier(32)

    def produce(me: int) -> dict[int, str]:
        made: dict[int, str] = {}
        begin.wait(WAIT)
        for number in range(50):
            item = f"{me}/{number}"
            if number % 10 == 9:
                key = f"key {number // 10}"
                with pytest.raises(DuplicateJob) as refusal:
                    q.enqueue(item, unique_key=key, on_duplicate="raise")
                assert refusal.value.job_id == taken[key]
            elif number % 10 == 4:
                made.update(zip(q.enqueue_many([f"{item}a", f"{item}b"]), (f"{item}a", f"{item}b"), strict=True))
            else:
                made[q.enqueue(item)] = item
        return made

    with ThreadPoolExecutor(32) as pool:
        found = [future.result() for future in [pool.submit(produce, me) for me in range(32)]]
    every = {job_id: item for made in found for job_id, item in made.items()}
    assert len(every) == sum(map(len, found)) == 32 * 50, "no id was given twice"
    stored = {job.id: job.item for job in q.list_jobs(limit=10_000) if job.unique_key is None}
    assert stored == every
    assert q.tally_drift() == {}


def test_a_child_of_a_process_that_is_writing_can_write(queue: Queue, commits: Commits, path: Path) -> None:
    first = commits.hold(queue)
    waiting = start(lambda: queue.enqueue("second"))
    gathered(commits.group, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of what is tested here
        child = os.fork()
    if child == 0:
        code = 1
        try:
            commits.go.set()
            queue.enqueue("child")
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    commits.go.set()
    assert {first.result(WAIT), waiting.result(WAIT)} == {2, 3}
    assert [job.item for job in queue.list_jobs()] == ["child", "first", "second"]
    assert path.exists()
