"""The verifier of tests/proof against histories written by hand: good ones pass, each bad one breaks what it should."""

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from proof import verifier
from proof.figures import figures
from proof.reading import Unreadable, read

TESTS = Path(__file__).parents[1]
SECOND = 1_000_000_000
LEASE = 10.0


class Book:
    """A run as its actors would have written it down. Times are seconds."""

    def __init__(self, folder: Path, **meta: Any) -> None:
        self.folder = folder
        self.meta = {"lease": LEASE, "patience": 5.0, "quiet": True} | meta
        self.pages: dict[str, list[str]] = defaultdict(list)
        self.rows: list[dict[str, Any]] = []
        self._calls = 0

    def call(self, actor: str, begin: float, end: float | None, op: str, outcome: str = "ok", **both: Any) -> None:
        """Write a call; what it was told is in ``told``. Without an end nobody knows what became of it."""
        told = both.pop("told", {})
        self._calls += 1
        self._write(actor, {"t": begin * SECOND, "c": self._calls, "op": op, "is": "invoke", **both})
        if end is not None:
            self._write(actor, {"t": end * SECOND, "c": self._calls, "is": outcome, **told})

    def note(self, by: str, at: float, op: str, /, **fields: Any) -> None:
        self._write(by, {"t": at * SECOND, "op": op, **fields})

    def _write(self, actor: str, record: dict[str, Any]) -> None:
        self.pages[actor].append(json.dumps(record) + "\n")

    def enqueue(self, at: float, *ids: int, end: float | None = 0, outcome: str = "ok", **options: Any) -> None:
        """Let the producer enqueue a job for each id, all answered a second later."""
        items = [options.pop("item", None) or f"item {job}" for job in ids]
        most = options.pop("most", 0)
        jobs = [{"item": item, "queue": "q", **options} for item in items]
        told = {"ids": list(ids)} if outcome == "ok" else {"error": "QueueFull"}
        self.call("p", at, at + 1 if end == 0 else end, "enqueue", outcome, jobs=jobs, most=most, told=told)

    def claim(self, actor: str, at: float, job: int, fence: int, *, attempts: int = 1, **options: Any) -> None:
        """Let a consumer claim a job and begin it."""
        claimed = {"id": job, "fence": fence, "attempts": attempts, "max_attempts": 3, "item": f"item {job}"}
        claimed |= {"queue": "q", "priority": 0, **options}
        told = {"claimed": [claimed], "lost": []}
        self.call(actor, at, at + 0.5, "exchange", settled=[], renew=[], limit=1, queues=[], told=told)
        self.effect(actor, at + 0.6, job, fence)

    def effect(self, actor: str, at: float, job: int, fence: int) -> None:
        self.note(actor, at, "effect", job=job, fence=fence, item=f"item {job}")

    def settle(self, actor: str, at: float, job: int, fence: int, kind: str = "done", **options: Any) -> None:
        end, delay = options.get("end", at + 0.5), options.get("delay")
        told = {"claimed": [], "lost": [[job, fence]] if options.get("lost") else []}
        settled = [[job, fence, kind, delay]]
        self.call(actor, at, end, "exchange", settled=settled, renew=[], limit=0, queues=[], told=told)

    def renew(self, actor: str, at: float, job: int, fence: int) -> None:
        self.call(actor, at, at + 0.1, "exchange", renew=[[job, fence]], told={"claimed": [], "lost": []})

    def decide(self, at: float, verb: str, job: int) -> None:
        self.call("operator", at, at + 0.1, "decide", verb=verb, job=job)

    def see(self, at: float, job: int, status: str, fence: int) -> None:
        self.call("operator", at, at + 0.1, "sample", told={"rows": [[job, status, fence]]})

    def recover(self, at: float) -> None:
        self.call("maintenance", at, at + 0.1, "recover", calm=True, told={"taken": 0})

    def kill(self, at: float, actor: str) -> None:
        self.note("nemesis", at, "kill", actor=actor)

    def row(self, job: int, status: str = "done", fence: int = 1, **changes: Any) -> None:
        self.rows.append(
            {"is": "job", "id": job, "queue": "q", "item": f"item {job}", "status": status, "fence": fence,
             "attempts": 1, "max_attempts": 3, "lease_until": 1 if status == "processing" else None,
             "finished_at": 1 if status in ("done", "failed", "cancelled") else None} | changes
        )  # fmt: skip

    def expired(self, job: int, attempt: int) -> None:
        self.rows.append({"is": "event", "job": job, "kind": "crashed", "attempt": attempt, "at": 1, "expired": True})

    def end(self) -> Path:
        counted: dict[str, int] = defaultdict(int)
        for row in self.rows:
            counted[row.get("status", "")] += row["is"] == "job"
        tallies = [{"is": "tally", "queue": "q", "status": s, "count": n} for s, n in counted.items() if s]
        (self.folder / "meta.json").write_text(json.dumps(self.meta))
        final = [*self.rows, *([] if any(row["is"] == "tally" for row in self.rows) else tallies), {"is": "end"}]
        self.pages["final"] = [json.dumps(row) + "\n" for row in final]
        for actor, lines in self.pages.items():
            (self.folder / f"{actor}.jsonl").write_text("".join(lines))
        return self.folder

    def broken(self) -> set[str]:
        return {violation.invariant for violation in verifier.violations(read(self.end()))}


@pytest.fixture
def book(tmp_path: Path) -> Book:
    """A run in which job 1 is enqueued; what becomes of it is the test's."""
    made = Book(tmp_path)
    made.enqueue(0, 1)
    return made


def performed(book: Book, job: int = 1, at: float = 2) -> None:
    book.claim("a", at, job, 1)
    book.settle("a", at + 1, job, 1)
    book.row(job)


def died(book: Book, at: float = 2) -> None:
    """Job 1 is claimed by one who dies, and its lease is over at 12.5 at the latest."""
    book.claim("dead", at, 1, 1)
    book.kill(at + 1, "dead")


def test_an_ordinary_run_is_good(book):
    performed(book)
    assert book.broken() == set()


def test_a_run_with_every_kind_of_trouble_is_good(book):
    died(book)
    book.recover(13)
    book.expired(1, 1)
    book.claim("a", 14, 1, 3, attempts=2)
    book.renew("a", 16, 1, 3)
    book.settle("late", 17, 1, 1, lost=True)
    book.settle("a", 18, 1, 3, "release")
    book.claim("b", 19, 1, 4, attempts=2)
    book.settle("b", 20, 1, 4, "fail", delay=5)
    book.claim("b", 26, 1, 5, attempts=3)
    book.settle("b", 27, 1, 5)
    book.row(1, fence=5, attempts=3)
    book.enqueue(0, 2, key="k")
    book.enqueue(3, 2, key="k")
    book.see(5, 2, "pending", 0)
    book.decide(6, "cancel", 2)
    book.row(2, "cancelled")
    book.see(7, 2, "cancelled", 1)
    assert book.broken() == set()


@pytest.mark.parametrize("appeared", [True, False])
def test_an_enqueue_that_was_never_answered_may_have_worked_or_not(book, appeared):
    performed(book)
    book.enqueue(5, 0, end=None, item="item 2")
    book.kill(6, "p")
    if appeared:
        performed(book, 2, 7)
    assert book.broken() == set()


def test_a_settling_that_was_never_answered_may_have_worked(book):
    book.claim("a", 2, 1, 1)
    book.settle("a", 3, 1, 1, end=None)
    book.kill(4, "a")
    book.row(1)
    assert book.broken() == set()


def test_the_last_line_of_one_who_was_killed_may_be_torn(book):
    performed(book)
    book.pages["p"].append('{"t": 5, "c": 9, "op": "enq')
    with pytest.raises(Unreadable, match="nobody killed it"):
        book.broken()
    book.kill(5, "p")
    assert book.broken() == set()


def test_no_other_line_may_be_torn(book):
    performed(book)
    book.kill(5, "p")
    book.pages["p"].insert(1, '{"t": 5, "c"\n')
    with pytest.raises(Unreadable, match=r"p\.jsonl, line 2"):
        book.broken()


def test_a_table_that_was_cut_short_is_no_proof(book):
    performed(book)
    final = book.end() / "final.jsonl"
    final.write_text("".join(final.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(Unreadable, match="not complete"):
        read(book.folder)


def gone(book):
    """An acknowledged job is not there."""


def done_by_nobody(book):
    book.claim("a", 2, 1, 1)
    book.kill(3, "a")
    book.row(1)


def id_used_twice(book):
    book.enqueue(2, 1, item="item 2")
    book.row(1, "cancelled", item="item 2")


def from_nowhere(book):
    performed(book)
    book.row(2, "cancelled")


def item_changed(book):
    book.claim("a", 2, 1, 1, item="changed")
    book.settle("a", 3, 1, 1)
    book.row(1)


def refused_and_there(book):
    performed(book)
    book.enqueue(5, 2, outcome="fail")
    book.row(2, "cancelled")


def fence_falls(book):
    book.claim("a", 2, 1, 2)
    book.settle("a", 3, 1, 2, "release")
    book.claim("b", 4, 1, 1)
    book.settle("b", 5, 1, 1)
    book.row(1)


def settled_late(book):
    died(book)
    book.expired(1, 1)
    book.claim("a", 14, 1, 3, attempts=2)
    book.settle("dead", 15, 1, 1, "fail")
    book.settle("a", 16, 1, 3)
    book.row(1, fence=3, attempts=2)


def settled_after_cancel(book):
    book.claim("a", 2, 1, 1)
    book.decide(3, "assign", 1)
    book.settle("a", 4, 1, 1)
    book.row(1)


def claimed_while_leased(book):
    book.claim("a", 2, 1, 1)
    book.renew("a", 9, 1, 1)
    book.claim("b", 15, 1, 3, attempts=2)
    book.settle("b", 16, 1, 3)
    book.row(1, fence=3, attempts=2)


def claimed_when_done(book):
    book.claim("a", 2, 1, 1)
    book.settle("a", 3, 1, 1)
    book.claim("b", 14, 1, 3, attempts=2)
    book.row(1, "failed", fence=3, attempts=3)


def settled_in_two_ways(book):
    book.claim("a", 2, 1, 1)
    book.settle("a", 3, 1, 1, "release")
    book.settle("a", 4, 1, 1)
    book.row(1, attempts=0)


def one_delivery_too_many(book):
    for n in (1, 2, 3, 4):
        book.claim("a", 2 * n, 1, n, attempts=n)
        book.settle("a", 2 * n + 1, 1, n, "fail")
    book.row(1, "failed", fence=4, attempts=4)


def delivery_not_counted(book):
    book.claim("a", 2, 1, 1)
    book.settle("a", 3, 1, 1, "fail")
    book.claim("a", 4, 1, 2)
    book.settle("a", 5, 1, 2)
    book.row(1, fence=2)


def release_counted(book):
    book.claim("a", 2, 1, 1)
    book.settle("a", 3, 1, 1, "release")
    book.claim("a", 4, 1, 2, attempts=2)
    book.settle("a", 5, 1, 2)
    book.row(1, fence=2, attempts=2)


def given_up_early(book):
    book.claim("a", 2, 1, 1)
    book.settle("a", 3, 1, 1, "fail")
    book.row(1, "failed")


def moved_under_one_fence(book):
    book.see(2, 1, "pending", 0)
    book.see(3, 1, "cancelled", 0)
    book.row(1, "cancelled", fence=0)


def raised_from_the_dead(book):
    book.see(2, 1, "cancelled", 1)
    book.see(3, 1, "pending", 2)
    book.decide(4, "cancel", 1)
    book.row(1, "cancelled", fence=3)


def done_without_an_end(book):
    book.claim("a", 2, 1, 1)
    book.settle("a", 3, 1, 1)
    book.row(1, finished_at=None)


def overtaken(book):
    book.enqueue(0, 2)
    for job, at in ((2, 2), (1, 4)):
        performed(book, job, at)


def priority_ignored(book):
    book.enqueue(0, 2, priority=5)
    performed(book, 1, 2)
    book.claim("a", 4, 2, 1, priority=5)
    book.settle("a", 5, 2, 1)
    book.row(2)


def passed_over(book):
    died(book)
    book.recover(13)
    book.see(14, 1, "processing", 1)
    book.expired(1, 1)
    book.claim("a", 15, 1, 3, attempts=2)
    book.settle("a", 16, 1, 3)
    book.row(1, fence=3, attempts=2)


def too_early(book):
    book.enqueue(2, 2, delay=100)
    performed(book)
    performed(book, 2, 50)


def back_too_early(book):
    book.claim("a", 2, 1, 1)
    book.settle("a", 3, 1, 1, "fail", delay=100)
    book.claim("a", 50, 1, 2, attempts=2)
    book.settle("a", 51, 1, 2)
    book.row(1, fence=2, attempts=2)


def performed_twice(book):
    performed(book)
    book.effect("a", 2.7, 1, 1)


def not_explained(book):
    died(book)
    book.claim("a", 14, 1, 3, attempts=2)
    book.settle("a", 15, 1, 3)
    book.row(1, fence=3, attempts=2)


def more_than_may_wait(book):
    book.enqueue(2, 2, most=1)
    performed(book, 1, 5)
    performed(book, 2, 7)


def two_of_one_unknown(book):
    performed(book)
    book.enqueue(5, 0, end=None, item="lost")
    book.kill(6, "p")
    for job in (2, 3):
        book.row(job, "cancelled", item="lost")


def two_of_one_key(book):
    performed(book)
    for job in (2, 3):
        book.enqueue(5 + job, job, item="keyed", key="k")
        book.row(job, "cancelled", item="keyed")


def performed_without_a_claim(book):
    performed(book)
    book.effect("b", 2.7, 1, 7)
    book.settle("b", 2.8, 1, 7, lost=True)


def counts_off(book):
    performed(book)
    book.rows.append({"is": "tally", "queue": "q", "status": "done", "count": 2})


def database_damaged(book):
    performed(book)
    book.rows.append({"is": "fault", "what": "page 3 is never used"})


def never_ended(book):
    book.row(1, "pending", fence=0)


def refused_at_once(book):
    performed(book)
    book.call("a", 5, 5.1, "recover", "fail", told={"error": "DatabaseUnavailable"})


def a_call_hangs(book):
    performed(book)
    book.call("a", 5, None, "recover")


def the_drain_failed(book):
    performed(book)
    book.meta["drained"] = 75


BAD = {
    gone: "I1", done_by_nobody: "I1", id_used_twice: "I1", from_nowhere: "I2", item_changed: "I2",
    refused_and_there: "I3", fence_falls: "I4 I5 I7 I15", settled_late: "I4", settled_after_cancel: "I4",
    claimed_while_leased: "I5", claimed_when_done: "I6 I15", settled_in_two_ways: "I6", one_delivery_too_many: "I6 I7",
    delivery_not_counted: "I7", release_counted: "I7", given_up_early: "I7", moved_under_one_fence: "I8",
    raised_from_the_dead: "I8", done_without_an_end: "I8", overtaken: "I9", priority_ignored: "I9", passed_over: "I10",
    too_early: "I11", back_too_early: "I11", performed_twice: "I12", not_explained: "I12", more_than_may_wait: "I13",
    two_of_one_unknown: "I14", two_of_one_key: "I14", performed_without_a_claim: "I15", counts_off: "I18",
    database_damaged: "I18", never_ended: "I19", refused_at_once: "I19", a_call_hangs: "I19", the_drain_failed: "I19",
}  # fmt: skip


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_a_bad_run_breaks_what_it_should_and_nothing_else(book, spoil):
    spoil(book)
    assert book.broken() == set(BAD[spoil].split())


def test_every_invariant_has_a_bad_run():
    broken = {name for names in BAD.values() for name in names.split()}
    assert broken == {f"I{n}" for n in range(1, 20)} - {"I16", "I17"}  # those are about batches and job files


@pytest.mark.parametrize("most", [2, 3])
def test_the_bound_itself_may_be_reached(book, most):
    book.enqueue(2, 2, most=most)
    for job in (1, 2):
        performed(book, job, 3 + 2 * job)
    assert book.broken() == set()


def test_a_second_consumer_excuses_the_order(book):
    book.enqueue(0, 2)
    book.claim("b", 2, 2, 1)
    book.settle("b", 3, 2, 1)
    book.row(2)
    performed(book, 1, 4)
    assert book.broken() == set()


def test_a_resubmitted_job_may_be_performed_again(book):
    book.claim("a", 2, 1, 1)
    book.settle("a", 3, 1, 1, "permanent")
    book.decide(4, "resubmit", 1)
    book.claim("a", 5, 1, 3)
    book.settle("a", 6, 1, 3)
    book.row(1, fence=3)
    assert book.broken() == set()


def test_figures_tell_duplicates_and_waits(book):
    died(book)
    book.recover(13)
    book.expired(1, 1)
    book.claim("a", 14, 1, 3, attempts=2)
    book.settle("a", 15, 1, 3)
    book.row(1, fence=3, attempts=2)
    found = figures(read(book.end()))
    assert (found["kills"], found["jobs"], found["deliveries"], found["duplicates"]) == (1, 1, 2, 1)
    assert found["claimed again after the kill"] == [11.5]


def verify(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "proof.verifier", folder], cwd=TESTS, capture_output=True, text=True)


def test_the_program_says_so_by_its_exit_code(book):
    performed(book)
    good = verify(book.end())
    assert (good.returncode, good.stdout.splitlines()[-1]) == (0, "every invariant holds")

    book.effect("a", 2.7, 1, 1)
    bad = verify(book.end())
    assert bad.returncode == 1
    example = bad.stdout.splitlines()[-3:]
    assert example[0] == "I12 job 1 was performed twice at fence 1"
    assert [line.split(":")[1] for line in example[1:]] == [" effect job 1 fence 1 item='item 1'"] * 2

    (book.folder / "final.jsonl").unlink()
    assert verify(book.folder).returncode == 2


def test_it_imports_nothing_of_what_it_judges():
    program = (
        "import sys; from proof import verifier; sys.exit('persistq' in sys.modules or 'sqlalchemy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=TESTS).returncode == 0
