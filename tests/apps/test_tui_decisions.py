"""The full-screen manager: what writes asks first, does what the operator service does, and is in the audit log."""

import asyncio
import re
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from persistq.manager import registry
from persistq.manager.session import Question
from support.batches import fill
from support.jobs import WORKER, claim
from support.tui import ENTER, ESCAPE, Manager

import persistq
from persistq import ConsumerInfo
from persistq.sharded import SQLAlchemyCoordinator, SQLAlchemyStorage

Start = Callable[..., Manager]
Queue = persistq.PersistentQSQLAlchemy


def on_job(shown: Manager, job_id: int) -> None:
    """Open the job."""
    shown.press(":")
    shown.until("Enter does it")
    shown.press(f"show-job {job_id}", ENTER)
    shown.until(f"Job {job_id}  ")


def typed(shown: Manager, line: str) -> None:
    """Type a command."""
    shown.press(":")
    shown.until("Enter does it")
    shown.press(line, ENTER)


KEYS = {
    "R": ("failed", "resubmit", "pending"),
    "C": ("pending", "cancel", "cancelled"),
    "F": ("pending", "mark-failed", "failed"),
    "L": ("processing", "release", "pending"),
    "D": ("done", "delete", None),
}
NOES = ("n", ENTER, ESCAPE, " ", "q", "D", "\x1b[200~y\x1b[201~")  # the last is a paste


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("screen", ["jobs", "job"])
def test_a_job_is_acted_on_after_a_yes(
    q: Queue, one_of_each: dict[str, int], start: Start, key: str, screen: str
) -> None:
    before, verb, after = KEYS[key]
    job_id = one_of_each[before]
    shown = start()
    if screen == "job":
        on_job(shown, job_id)
    else:
        shown.go("2", "page 1  5 jobs")
        shown.press("/")
        shown.until("Enter does it")
        shown.press(f"item:{before}", ENTER)
        shown.until(f"item:{before}", "page 1  1 jobs")
    for no in NOES if (key, screen) == ("D", "jobs") else NOES[:1]:
        shown.press(key)
        shown.until(f"{verb} 1 job?", f"ids {job_id}", f"1 {before}")
        assert q.get_job(job_id).status == before, "nothing is done before the answer"
        shown.press(no)
        shown.until("nothing was done")
    assert q.get_job(job_id).status == before
    shown.go(key, f"{verb} 1 job?")
    shown.press("y")
    shown.until(f"{verb}: 1 changed")
    if after is None:
        with pytest.raises(persistq.JobNotFound):
            q.get_job(job_id)
    else:
        assert q.get_job(job_id).status == after
    entry = q.audit()[0]
    assert (entry.via, entry.actor, entry.action) == ("tui", "me@here", verb.replace("-", "_"))
    assert entry.scope["ids"] == [job_id]


def test_an_answer_typed_ahead_is_no_answer(q: Queue, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    q.enqueue("item")
    shown = start()
    shown.go("2", "page 1  1 jobs")
    gate, preview = threading.Event(), shown.q.preview

    def slow(*args: Any, **options: Any) -> Any:
        assert gate.wait(30)
        return preview(*args, **options)

    monkeypatch.setattr(shown.q, "preview", slow)
    shown.press("D", "y", "y")
    shown.until("looking which jobs")
    gate.set()
    shown.until("delete 1 job?")
    assert q.counts()["pending"] == 1
    shown.press("n")
    shown.until("nothing was done")
    assert q.counts()["pending"] == 1


@pytest.mark.parametrize("count", [None, 1])
def test_keys_that_come_with_the_question_are_no_answer(start: Start, count: int | None) -> None:
    """They were on their way when it was asked, so whoever pressed them had not read it."""
    shown, said = start(), threading.Event()

    def ask() -> None:
        shown.press(*(["y", "y"] if count is None else ["1", ENTER]))
        shown.session.ask(Question("really?", (), said.set), count=count)

    shown.session.post(ask)
    shown.until("really?")
    shown.go("n", "nothing was done" if count is None else "go ahead: n")
    assert not said.is_set()


def test_a_job_that_changed_since_the_question_is_left_as_it_is(q: Queue, start: Start) -> None:
    job_id = q.enqueue("item")
    shown = start()
    shown.go("2", "page 1  1 jobs")
    shown.go("C", "cancel 1 job?")
    claim(q, WORKER)
    shown.press("y")
    shown.until("0 changed, 1 left as they are", "changed meanwhile")
    assert q.get_job(job_id).status == "processing"


def test_marks_say_which_jobs_are_meant(q: Queue, start: Start) -> None:
    q.enqueue_many(["one", "two", "three", "four"])
    shown = start()
    shown.go("2", "page 1  4 jobs")
    shown.press(" ", "j", " ")
    shown.until("2 marked")
    shown.go("C", "cancel 2 jobs?", "ids 2, 4")
    q.enqueue("five")
    shown.press("y")
    shown.until("cancel: 2 changed", "page 1  5 jobs")
    assert [job.item for job in q.list_jobs("cancelled")] == ["two", "four"]
    assert "marked" not in shown.text()


def test_more_than_twenty_need_the_number(q: Queue, start: Start) -> None:
    ids = q.enqueue_many([f"item-{number}" for number in range(25)])
    shown = start(100, 40)
    shown.go("2", "page 1  25 jobs")
    shown.press(*(" " * 20))
    shown.go("C", "cancel 20 jobs?", "any other key does not")
    shown.press("n")
    shown.until("nothing was done")
    shown.go(" ", "21 marked")
    shown.go("C", "cancel 21 jobs?", "type 21 to go ahead")
    for wrong in ("", "y", "210"):
        shown.press(wrong, ENTER)
        shown.until("nothing was done")
        shown.go("C", "type 21 to go ahead")
    shown.press(ESCAPE)
    shown.until("nothing was done")
    assert q.counts()["cancelled"] == 0
    shown.go("C", "type 21 to go ahead")
    shown.press("21", ENTER)
    shown.until("cancel: 21 changed")
    assert [job.id for job in q.list_jobs("pending")] == ids[:4]


def test_everything_that_matches_is_more_than_the_page_and_no_more_than_there_was(q: Queue, start: Start) -> None:
    q.enqueue_many([f"item-{number}" for number in range(300)], "mail")
    q.enqueue_many(["other"] * 3)
    shown = start()
    shown.go("2", "200 jobs, more behind n")
    shown.press("/")
    shown.until("Enter does it")
    shown.press("queue:mail", ENTER)
    shown.until("queue:mail", "200 jobs, more behind n")
    shown.go("*", "ALL THAT MATCH")
    shown.go("C", "cancel 300 jobs?", "300 pending", "type 300")
    q.enqueue("late", "mail")
    shown.press("300", ENTER)
    shown.until("cancel: 300 changed")
    assert q.counts("mail") == {"pending": 1, "processing": 0, "done": 0, "failed": 0, "cancelled": 300}
    assert q.counts("default")["pending"] == 3
    assert q.audit()[0].scope["filter"]["queue"] == "mail"


def test_a_bulk_action_shows_how_far_it_is_and_can_be_stopped_and_resumed(
    q: Queue, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    q.enqueue_many(["item"] * 3000)
    shown = start()
    advance, gate, arrived = shown.q.advance_bulk, threading.Event(), threading.Event()

    def slowly(what: Any, so_far: Any, **options: Any) -> Any:
        if so_far.place == 1000:
            arrived.set()
            assert gate.wait(30)
        return advance(what, so_far, **options)

    monkeypatch.setattr(shown.q, "advance_bulk", slowly)
    typed(shown, "cancel --all --queue default --reason 'no more'")
    shown.until("cancel 3,000 jobs?", "reason: no more")
    shown.press("3000", ENTER)
    assert arrived.wait(30)
    shown.until("1,000 of 3,000", "Esc stops")
    shown.press("2")  # other keys mean nothing meanwhile
    shown.press(ESCAPE)
    shown.until("stopping after this step")
    gate.set()
    shown.until("cancel: 2,000 changed; stopped", ":audit resume 1")
    assert q.counts()["cancelled"] == 2000
    shown.go("9", "Audit ·", "cut off?")
    shown.go("R", "cancel 1,000 jobs?", "type 1000")
    shown.press("1000", ENTER)
    shown.until("cancel: 3,000 changed")
    assert q.counts() == {"pending": 0, "processing": 0, "done": 0, "failed": 0, "cancelled": 3000}
    shown.press("r")
    shown.until_gone("cut off?")


def test_a_refusal_is_told(q: Queue, one_of_each: dict[str, int], start: Start) -> None:
    shown = start()
    on_job(shown, one_of_each["done"])
    shown.go("C", "cancel 1 job?")
    shown.press("y")
    shown.until("0 changed, 1 left as they are", "is done; 'cancel' is for")
    assert q.get_job(one_of_each["done"]).status == "done"
    typed(shown, "cancel 4711")
    shown.until("nothing to cancel: there is no job 4711")
    typed(shown, "audit resume 99")
    shown.until("There is no such job")


def test_assigning_asks_for_a_consumer_and_completes_it(q: Queue, start: Start) -> None:
    job_id = q.enqueue("item")
    now = q.clock.now()
    q.beat(ConsumerInfo(id="bob@h:1:a", name="bob", host="h", pid=1, queues=(), concurrency=1, running=0,
                        started_at=now, seen_at=now))  # fmt: skip
    shown = start()
    shown.go("2", "page 1  1 jobs")
    shown.go("A", "assign to consumer:")
    shown.press("b")
    shown.until("bob@h:1:a")
    shown.press("ob", ENTER)
    shown.until("assign 1 job?", "consumer: bob")
    shown.press("y")
    shown.until("assign: 1 changed")
    assert q.get_job(job_id).assigned_to == "bob"
    shown.go("A", "assign to consumer:")
    shown.press(ESCAPE)
    shown.until("nothing was done")
    typed(shown, f"assign-job {job_id} alice")
    shown.until("assign 1 job?", "consumer: alice")
    shown.press("y")
    shown.until("assign: 1 changed")
    assert q.get_job(job_id).assigned_to == "alice"


def test_editing(q: Queue, start: Start) -> None:
    job_id = q.enqueue("item", delay=3600)
    shown = start()
    shown.go("2", "page 1  1 jobs")
    shown.go("E", ":edit-job --priority")
    shown.press("7 --run-at now", ENTER)
    shown.until("edit 1 job?", "priority: 7")
    shown.press("y")
    shown.until("edit: 1 changed")
    job = q.get_job(job_id)
    assert job.priority == 7
    assert job.run_at <= q.clock.now()
    typed(shown, f"edit-job {job_id} --priority high")
    shown.until("a priority is a whole number")


def test_queues_are_paused_and_resumed(q: Queue, start: Start) -> None:
    q.enqueue("item", "mail")
    shown = start()
    shown.go("4", "Queues and tasks", "mail")
    shown.go("P", "pause queue mail?")
    shown.press("n")
    shown.until("nothing was done")
    assert not q.queues()[0].paused
    shown.go("P", "pause queue mail?")
    shown.press("y")
    shown.until("queue mail is paused", "PAUSED")
    assert q.queues()[0].paused
    shown.go("P", "resume queue mail?")
    shown.press("y")
    shown.until("queue mail is open")
    assert not q.queues()[0].paused
    typed(shown, "queues pause mail --reason deploying")
    shown.go("", "pause queue mail?")
    shown.press("y")
    shown.until("queue mail is paused")
    assert (q.audit()[0].action, q.audit()[0].reason, q.audit()[0].via) == ("queue_pause", "deploying", "tui")


def test_consumers_are_quieted_stopped_and_forgotten(q: Queue, start: Start) -> None:
    now = q.clock.now()
    info = ConsumerInfo(id="bob@h:1:a", name="bob", host="h", pid=1, queues=(), concurrency=1, running=0,
                        started_at=now, seen_at=now)  # fmt: skip
    q.beat(info)

    def wish() -> str | None:
        return q.consumers()[0].wish

    def row_says(state: str) -> bool:
        return state in shown.cursor_row()

    shown = start()
    shown.go("5", "Consumers", "bob")
    for key, word, meant in (("Q", "quiet", "quiet"), ("Q", "resume", None), ("T", "stop", "stop")):
        shown.go(key, f"{word} consumer bob@h:1:a?")
        shown.press("y")
        shown.until(f"{word}: 1 told")
        assert wish() == meant
        # The message comes before the look that follows it, and the next key means what the row says.
        shown.wait(partial(row_says, meant or "alive"), f"a row that is {meant or 'alive'}")
    shown.go("X", "forget the consumers that have not been seen for 1h?")
    shown.press("y")
    shown.until("prune: 0 forgotten")
    typed(shown, "consumers prune --older-than 0s")
    shown.go("", "not been seen for 0s?")
    shown.press("y")
    shown.until("prune: 1 forgotten", "no consumer is on the list")


def test_batches_of_the_dead_are_recovered(q: Queue, start: Start, tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir(mode=0o700)
    fill(tmp_path / "spool", range(3), "mail")
    folder = tmp_path / "spool" / "mail"
    (ready,) = folder.iterdir()
    ready.rename(ready.with_name(ready.name.replace("ready_", "unload_", 1)))  # its owner holds no lock: it is dead
    shown = start()
    shown.go("6", "Batches ·", "mail")
    shown.go("R", "recover the batches of queue mail?")
    shown.press("n")
    shown.until("nothing was done")
    assert not list(folder.glob("ready_*"))
    shown.go("R", "recover the batches of queue mail?")
    shown.press("y")
    shown.until("recover: 1 ready")
    assert len(list(folder.glob("ready_*"))) == 1


def test_a_tube_is_taken_from_its_holder(q: Queue, start: Start) -> None:
    async def hold() -> None:
        storage = SQLAlchemyStorage(q)
        await storage.append("Mail/7", b"1", b"2")
        assert await SQLAlchemyCoordinator(storage).bind("Mail/7")

    async def held() -> list[str]:
        return [lease.tube for lease in await SQLAlchemyCoordinator(q).leases()]

    asyncio.run(hold())
    shown = start()
    row = shown.go("7", "Shards ·", "Mail/7")
    assert re.search(r"Mail/7 +2 +0 ", row)
    shown.go("L", "release tube Mail/7?")
    shown.press("n")
    shown.until("nothing was done")
    assert asyncio.run(held()) == ["Mail/7"]
    shown.go("L", "release tube Mail/7?")
    shown.press("y")
    shown.until("tube Mail/7 is free")
    assert asyncio.run(held()) == []
    shown.press(":")
    shown.until("Enter does it")
    shown.press("shards release Mail/7", ENTER)
    shown.until("release tube Mail/7?")
    shown.press("y")
    shown.until("nobody held tube Mail/7")


def test_jobs_are_enqueued_and_purged_by_line(q: Queue, start: Start) -> None:
    shown = start()
    typed(shown, "enqueue '/data/a b.csv' --queue mail --priority 3")
    shown.go("", "enqueue a job?", "item: /data/a b.csv")
    shown.press("y")
    shown.until("job 1 is enqueued", "pending 1")
    job = q.get_job(1)
    assert (job.item, job.queue, job.priority) == ("/data/a b.csv", "mail", 3)
    q.cancel(1)
    typed(shown, "purge --older-than 0s --status cancelled")
    shown.go("", "delete the cancelled jobs")
    shown.press("y")
    shown.until("purge: 1 deleted")
    assert sum(q.counts().values()) == 0


SENSELESS = {
    "nonsense": "there is no command 'nonsense'",
    "cancel --frobnicate": "cancel takes no --frobnicate",
    "cancel --queue": "--queue needs a value",
    "cancel 1 --all": "give ids; or --all",
    "cancel one": "an id is a number, not 'one'",
    "show-job 1 2": "it is: show-job [ID]",
    "purge": "give --older-than",
    "cancel --all --since lately": "is no span of time",
    "list-jobs --status odd": "no such job status",
    "cancel": "no job is meant",
    "assign-job 1": "it is: assign-job ID CONSUMER",
    "enqueue": "it is: enqueue ITEM",
    "queues": "no command 'queues'",
    "cancel '": 'an id is a number, not "\'"',
    "cancel -- -5": "an id is a number, not '-5'",
    "resubmit --all --status": "--status needs a value",
    "enqueue x --priority high": "a priority is a whole number",
}


def test_a_line_that_makes_no_sense_is_told_and_can_be_corrected(q: Queue, start: Start) -> None:
    shown = start(140, 20)
    shown.press(":")
    for line, said in SENSELESS.items():
        shown.until("Enter does it")
        shown.press("\x15", line, ENTER)
        shown.until(said, f":{line}")
    shown.press("\x15", "list-jobs", ENTER)
    shown.until("Jobs ·", "no jobs yet")
    assert q.audit() == []


def test_a_line_is_completed_with_commands_options_and_names(q: Queue, start: Start) -> None:
    q.enqueue("item", "mailroom")
    shown = start()
    shown.press(":")
    shown.until("Enter does it")
    shown.press("queues p")
    shown.until("queues pause  pause a queue")
    shown.press("\t")
    shown.until(":queues pause")
    shown.wait(lambda: shown.session.prompt.completer.names.queues, "the names of queues")
    shown.press(" ma")
    shown.wait(lambda: any("mailroom" in line for line in shown.lines()[-9:]), "the queue's name")
    shown.press("\t")
    shown.until(":queues pause mailroom")
    shown.press(" --r")
    shown.until("--reason")
    shown.press(ESCAPE)
    shown.until_gone("Enter does it")
    shown.press(":")
    shown.until("Enter does it")
    shown.press("list-jobs --status fa")
    shown.wait(lambda: any("failed" in line for line in shown.lines()[-9:]), "the status completed")
    shown.press("\t", ENTER)
    shown.until("state:failed")


def test_lines_typed_before_come_back(q: Queue, start: Start) -> None:
    shown = start()
    typed(shown, "list-jobs --queue mail")
    shown.until("queue:mail")
    shown.press(":")
    shown.until("Enter does it")
    shown.press("\x1b[A")
    shown.until(":list-jobs --queue mail")


def test_a_read_only_window_has_no_command_that_writes(q: Queue, one_of_each: dict[str, int], start: Start) -> None:
    before = [job.to_dict() for job in q.list_jobs()], q.audit()
    shown = start(160, 60, read_only=True)
    shown.until("READ-ONLY")
    text = shown.go("?", "The filter line")
    for one in registry.COMMANDS:
        if one.writes:
            assert one.help not in text
    screens = {"2": "jobs", "3": "job", "4": "queues", "5": "consumers", "6": "batches", "7": "shards", "9": "audit"}
    for screen, name in screens.items():
        shown.press(screen)
        shown.wait(lambda name=name: shown.session.current == name, name)
        for one in registry.COMMANDS:
            if one.writes and name in one.on:
                for key in one.keys:
                    shown.go(key, f"looking only, and nothing was written: {one.name} is refused")
    typed(shown, "cancel 1")
    shown.until("looking only, and nothing was written: cancel is refused")
    assert ([job.to_dict() for job in q.list_jobs()], q.audit()) == before


def test_two_operators_at_once(q: Queue, start: Start) -> None:
    q.enqueue("item")
    one, other = start(), start()
    for shown in (one, other):
        shown.go("2", "page 1  1 jobs")
        shown.go("C", "cancel 1 job?")
    one.press("y")
    one.until("cancel: 1 changed")
    other.press("y")
    other.until("0 changed, 1 left as they are", "changed meanwhile")
    other.until("cancelled 1")
    assert q.counts()["cancelled"] == 1
