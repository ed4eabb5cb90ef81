"""The full-screen manager: every screen, every key that looks, and what is drawn at which size."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from persistq.manager import registry
from support.jobs import WORKER, claim
from support.tui import DOWN, ENTER, ESCAPE, UP, Manager

import persistq
from persistq import ConsumerInfo
from persistq.storage import search

Start = Callable[..., Manager]
SIZES = [(60, 12), (80, 24), (200, 50)]


def some_jobs(q: persistq.PersistentQSQLAlchemy) -> None:
    """Make a job in each status, the failed one with a traceback, and a consumer that lives."""
    q.enqueue_many([f"/data/{number}.csv" for number in range(30)], "mail")
    q.enqueue('{"user": 7}', "reports", task="send_report", priority=5)
    try:
        raise TimeoutError("no answer in 30 s")
    except TimeoutError as error:
        q.fail(claim(q, WORKER), error, permanent=True)
    q.complete(claim(q, WORKER), {"sent": True})
    claim(q, WORKER)
    q.cancel(30)
    q.enqueue('{"user": 8}', "reports", task="send_report")
    now = q.clock.now()
    q.beat(
        ConsumerInfo(
            id=WORKER, name="worker", host="here", pid=42, queues=("mail",), concurrency=4, running=1,
            started_at=now, seen_at=now, tasks=("send_report",),
        )
    )  # fmt: skip
    q.beat(
        ConsumerInfo(
            id="gone@there:1:a", name="gone", host="there", pid=1, queues=(), concurrency=1, running=0,
            started_at=now, seen_at=now - timedelta(minutes=5),
        )
    )  # fmt: skip


SCREENS = {
    "1": ("Overview", "attempts a minute", "lost, silent", "queue reports"),
    "2": ("Jobs", "newest first", "/data/28.csv"),
    "3": ("Job ·", "Job 32"),
    "4": ("Queues and tasks", "mail", "reports", "send_report"),
    "5": ("Consumers", "worker", "alive", "gone", "lost", "1/4"),
    "6": ("Batches",),
    "7": ("Shards",),
    "8": ("Errors", "TimeoutError", "no answer in"),
    "9": ("Audit ·", "library:"),
    "?": ("Help", "list-jobs"),
}


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
def test_every_screen_is_drawn_at_every_size(q: persistq.PersistentQSQLAlchemy, start: Start, size: Any) -> None:
    some_jobs(q)
    columns, rows = size
    shown = start(columns, rows)
    for key, texts in SCREENS.items():
        shown.press(key)
        shown.until(*(texts if rows > 12 else texts[:2]))
        shown.until_gone("looking …")
        lines = shown.lines()
        assert "persistq" in lines[0]
        assert " UTC" in lines[0], "the clock has to be whole"
        assert "pend" in lines[1]
        assert lines[1].endswith("1 alive")
        assert "? help" in lines[-1]
        assert "q quit" in lines[-1]
        assert "cannot be drawn" not in shown.text()
    assert shown.quit() == 0


def test_tab_goes_through_the_screens_and_shift_tab_back(q: persistq.PersistentQSQLAlchemy, start: Start) -> None:
    some_jobs(q)
    shown = start()
    titles = [texts[0] for key, texts in SCREENS.items() if key != "?"]
    for title in [*titles[1:], titles[0]]:
        shown.go("\t", title)
    for title in reversed(titles):
        shown.go("\x1b[Z", title)


def test_the_cursor_moves_by_every_key(q: persistq.PersistentQSQLAlchemy, start: Start) -> None:
    q.enqueue_many([f"item-{number}" for number in range(1, 101)])
    shown = start(80, 20)
    shown.go("2", "item-100")

    def at(number: int) -> None:
        shown.wait(lambda: shown.cursor_row().split()[:1] == [str(number)], f"the cursor on {number}")

    at(100)
    for keys, number in [
        ("j", 99), (DOWN, 98), ("k", 99), (UP, 100), ("k", 100), ("G", 1), ("j", 1), ("gg", 100), ("\x1b[F", 1),
        ("\x1b[H", 100), ("\x1b[6~", 86), ("\x06", 72), ("\x1b[5~", 86), ("\x02", 100),
    ]:  # fmt: skip
        shown.press(keys)
        at(number)


def test_text_scrolls(q: persistq.PersistentQSQLAlchemy, start: Start) -> None:
    shown = start(80, 14)
    shown.go("?", "list-jobs")
    shown.press("G")
    shown.until("The filter line")
    shown.press("gg")
    shown.until("list-jobs")
    shown.press("j", "j", "j", "j", "j")
    shown.until_gone("list-jobs")


def test_enter_leads_in_and_escape_leads_out(q: persistq.PersistentQSQLAlchemy, start: Start) -> None:
    some_jobs(q)
    shown = start(100, 40)
    shown.go("2", "newest first")
    shown.go("/", "filter:")
    shown.press("state:failed", ENTER)
    shown.until("page 1  1 jobs", "state:failed")
    shown.go(ENTER, "Job 31", "TimeoutError: no answer in 30 s")
    assert "Traceback" in shown.text()
    assert "given up" in shown.text()
    shown.press(ESCAPE)
    shown.until("page 1  1 jobs", "state:failed")
    shown.go("4", "Queues and tasks", "send_report")
    shown.press("j", ENTER)
    shown.until("queue:reports")
    shown.press(ESCAPE)
    shown.until("Queues and tasks")
    shown.go("5", "Consumers", "worker")
    shown.press("G", ENTER)
    shown.until(f"consumer:{WORKER}", "page 1  3 jobs")
    shown.press(ESCAPE)
    shown.go("8", "Errors ·", "no answer in")
    shown.press(ENTER)
    shown.until("state:failed", "page 1  1 jobs")
    shown.press(ESCAPE)
    shown.until("Errors")
    shown.go("9", "Audit ·", "library:")
    shown.press(ENTER)
    shown.until("Decision 1")
    shown.press(ESCAPE)
    shown.until("Audit ·")


def test_filters_narrow_cycle_and_end(q: persistq.PersistentQSQLAlchemy, start: Start) -> None:
    some_jobs(q)
    shown = start(140, 30)
    shown.go("2", "page 1  32 jobs")
    for line, texts in {
        "queue:reports": ("page 1  2 jobs", "queue:reports"),
        "state:done,cancelled": ("page 1  2 jobs",),
        "state:crashed": ("page 1  0 jobs", "no job matches the filter"),
        "task:send_report state:dead": ("page 1  1 jobs",),
        f"consumer:{WORKER}": ("page 1  3 jobs",),
        'error:"in 30"': ("page 1  1 jobs", "error:'in 30'"),
        "data/2 since:1h": ("page 1  11 jobs", "item:data/2"),
        "until:1h": ("page 1  0 jobs",),
        "item:no-such-thing": ("page 1  0 jobs",),
    }.items():
        shown.go("/", "filter:", "Enter does it")
        shown.press("\x15" + line, ENTER)  # Ctrl-U: without the filter that there was
        shown.until(*texts)
    shown.go("/", "Enter does it")
    shown.press(ESCAPE)
    shown.until("page 1  32 jobs")
    for status in ("pending", "processing", "failed", "crashed", "done", "cancelled"):
        shown.go("f", f"state:{status}")
    shown.press("f")
    shown.until("page 1  32 jobs")
    shown.go("f", "state:pending")
    shown.press(ESCAPE)
    shown.until("page 1  32 jobs")


def test_a_filter_that_makes_no_sense_can_be_corrected(q: persistq.PersistentQSQLAlchemy, start: Start) -> None:
    some_jobs(q)
    shown = start(60, 12)
    shown.go("2", "page 1  32 jobs")
    shown.go("/", "Enter does it")
    shown.press("state:fialed", ENTER)
    shown.until("no such job status", "filter: state:fialed")
    shown.press("\x7f" * 6, "failed", ENTER)
    shown.until("page 1  1 jobs")


def test_other_tables_are_sifted_by_what_they_show(q: persistq.PersistentQSQLAlchemy, start: Start) -> None:
    some_jobs(q)
    shown = start()
    shown.go("5", "worker", "gone")
    shown.go("/", "show rows with:")
    shown.press("LOST", ENTER)
    shown.until("filter: LOST")
    assert "worker " not in shown.text()
    shown.press(ESCAPE)
    shown.until("worker ")
    shown.press("1", "/")
    shown.until("nothing to filter")


def test_pages_are_turned(q: persistq.PersistentQSQLAlchemy, start: Start) -> None:
    ids = q.enqueue_many([f"item-{number}" for number in range(450)])
    shown = start()
    shown.go("2", "200 jobs, more behind n", "page 1", "item-449")
    shown.go("n", "page 2", "item-249")
    shown.go("n", "page 3", "50 jobs", "item-49")
    shown.go("n", "this is the last page")
    shown.go("N", "page 2", "item-249")
    shown.go("N", "page 1", "item-449")
    shown.go("N", "this is the first page")
    shown.go("S", "oldest first", "item-0")
    shown.go("n", "page 2", f"item-{ids[200] - 1}")


def test_a_page_is_sorted_by_any_column(q: persistq.PersistentQSQLAlchemy, start: Start) -> None:
    q.enqueue_many(["b", "c", "a"], "mail")
    shown = start(160, 20)
    shown.go("2", "page 1  3 jobs")
    for name in ("id", "status", "queue", "task", "tries", "prio", "age", "consumer", "item"):
        shown.go("s", f"by {name}")

    def items() -> list[str]:
        return [line.split()[-1] for line in shown.lines() if " mail " in line]

    assert items() == ["a", "b", "c"]
    shown.go("S", "by item reversed")
    assert items() == ["c", "b", "a"]


def test_the_cursor_follows_its_job(q: persistq.PersistentQSQLAlchemy, start: Start) -> None:
    q.enqueue_many([f"item-{number:02}" for number in range(50)])
    shown = start(80, 20)
    shown.go("2", "50 jobs")
    shown.press("j")
    shown.wait(lambda: "item-48" in shown.cursor_row(), "the cursor on item-48")
    q.enqueue("new-1")
    shown.go("r", "page 1  51 jobs", "new-1")
    assert "item-48" in shown.cursor_row()
    shown.press("\x1b[6~", "\x1b[6~")
    shown.wait(lambda: "item-20" in shown.cursor_row(), "the cursor on item-20")
    before = next(at for at, line in enumerate(shown.lines()) if "item-20" in line)
    q.enqueue("new-2")
    shown.go("r", "page 1  52 jobs")
    assert "item-20" in shown.cursor_row()
    assert next(at for at, line in enumerate(shown.lines()) if "item-20" in line) == before, "nor on the screen"
    q.delete_job(21)
    shown.go("r", "page 1  51 jobs")
    assert "item-19" in shown.cursor_row(), "the next one takes the place of one that is gone"


def test_no_row_moves_under_a_mark(q: persistq.PersistentQSQLAlchemy, start: Start) -> None:
    q.enqueue_many(["one", "two", "three", "four"])
    shown = start(80, 20)
    shown.go("2", "page 1  4 jobs")
    shown.go(" ", "1 marked", "HELD")
    rows = [line.split()[-1] for line in shown.lines() if " default " in line]
    q.enqueue("five")
    q.cancel(2)
    shown.go("r", "1 new wait", "cancelled")
    assert [line.split()[-1] for line in shown.lines() if " default " in line] == rows
    shown.press("\\")
    shown.until_gone("1 marked")
    shown.until("page 1  5 jobs", "five")


def test_the_screen_follows_the_queue_by_itself(q: persistq.PersistentQSQLAlchemy, start: Start) -> None:
    job_id = q.enqueue("one")
    shown = start(interval=1.0)
    shown.go("2", "page 1  1 jobs")
    q.enqueue("two")
    shown.until("page 1  2 jobs", "pending 2")
    shown.go("G", "one")
    shown.press(ENTER)
    shown.until(f"Job {job_id}  pending")
    q.cancel(job_id, "by somebody else")
    shown.until(f"Job {job_id}  cancelled", "by somebody else")


def test_freezing_and_the_pace(q: persistq.PersistentQSQLAlchemy, start: Start) -> None:
    q.enqueue("one")
    shown = start(interval=1.0)
    shown.go("2", "page 1  1 jobs")
    shown.go("-", "every 1 s")
    shown.go("+", "every 2 s")
    shown.go("p", "FROZEN")
    shown.wait(lambda: shown.session.last is not None and shown.session.poller.frozen, "frozen")
    q.enqueue("two")
    q.cancel(1)
    shown.press("r")
    shown.until("1 new wait", "cancelled 1")
    assert "two" not in shown.text()
    shown.press("p")
    shown.until("page 1  2 jobs", "two")


def test_a_terminal_too_small_says_so_and_grows_again(q: persistq.PersistentQSQLAlchemy, start: Start) -> None:
    q.enqueue("item")
    shown = start(80, 24)
    shown.go("2", "page 1  1 jobs")
    shown.resize(12, 3)
    shown.until("12x3 is too")
    shown.resize(60, 12)
    shown.until("page 1  1 jobs", "? help")
    shown.resize(200, 50)
    shown.until("page 1  1 jobs", "9 audit")


def test_the_id_goes_to_the_clipboard_and_the_page_into_a_file(
    q: persistq.PersistentQSQLAlchemy, start: Start, tmp_path: Path
) -> None:
    q.enqueue_many(["=1+1", "plain"])
    shown = start()
    shown.go("y", "there is no id here")
    shown.go("2", "page 1  2 jobs")
    shown.go("y", "id 2")
    assert "\x1b]52;c;Mg==\x07" in shown.sent()
    shown.go("w", "2 rows are in persistq-jobs-")
    (path,) = tmp_path.glob("persistq-jobs-*.csv")
    assert path.stat().st_mode & 0o777 == 0o600
    header, newest, oldest = path.read_text().splitlines()
    assert header.startswith("id,status,queue")
    assert newest.startswith("2,pending,default")
    assert ",'=1+1," in oldest
    shown.go("1", "attempts a minute")
    shown.go("w", "there are no rows here")


def test_no_key_means_two_things_and_all_are_in_the_help(q: persistq.PersistentQSQLAlchemy, start: Start) -> None:
    screens = [
        "overview",
        "jobs",
        "job",
        "queues",
        "consumers",
        "batches",
        "shards",
        "errors",
        "audit",
        "entry",
        "help",
    ]
    for screen in screens:
        here = [key for one in registry.COMMANDS if not one.on or screen in one.on for key in one.keys]
        assert len(here) == len(set(here)), screen
    assert all(key[0].isupper() or not one.writes for one in registry.COMMANDS for key in one.keys)
    names = [one.name for one in registry.COMMANDS]
    assert len(names) == len(set(names))
    shown = start(160, 100)
    text = shown.go("?", "The filter line")
    for one in registry.COMMANDS:
        assert one.name in text
        assert one.help in text


def test_typed_commands_are_those_of_the_command_line() -> None:
    from persistq.admin.admin import app
    from typer.main import get_command

    found = []
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        found += [f"{name} {sub}" for sub in getattr(command, "commands", {})] or [name]
    own = {"help", "quit", "refresh"}
    assert {one.name for one in registry.COMMANDS if one.typed} - own <= set(found)


def test_a_search_says_how_far_it_looked_and_goes_on_with_the_next_page(
    q: persistq.PersistentQSQLAlchemy, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SPAN", 10)
    q.enqueue_many(["needle"] + ["hay"] * 20 + ["needle"])
    shown = start()
    shown.go("2", "22 jobs")
    shown.press("/")
    shown.until("Enter does it")
    shown.press("needle", ENTER)
    shown.until("1 jobs, looked as far as 13, n goes on")
    shown.go("n", "page 2", "none as far as job 3; n looks further")
    shown.go("n", "page 3", "1 jobs")
    assert "n goes on" not in shown.text()
    shown.go("N", "page 2", "n looks further")


def test_items_can_be_left_out(q: persistq.PersistentQSQLAlchemy, start: Start) -> None:
    q.complete(claim_new(q), "the secret")
    q.enqueue("the secret")
    shown = start(hides_items=True)
    shown.go("2", "2 jobs", "(hidden)")
    shown.go("C", "cancel 1 job?", "pending default (hidden)")
    shown.press("n")
    shown.until("nothing was done")
    shown.go("j", "done")
    shown.go(ENTER, "Job 1", "(hidden)")
    assert "secret" not in shown.sent()


def claim_new(q: persistq.PersistentQSQLAlchemy) -> persistq.Job:
    q.enqueue("the secret")
    return claim(q, WORKER)
