"""The dashboard's pages and actions, drawn without a browser: what they show is what the database holds."""

import asyncio
import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from persistq.ops import access, acting, session, snapshot
from support.generated import ROOT
from support.jobs import WORKER, claim
from support.visits import Visit

import persistq
from persistq import batch
from persistq.sharded import Handler, Route, SQLAlchemyStorage
from persistq.storage import search

PAGES = [path.stem for path in sorted((ROOT / "ops" / "views").glob("[a-z]*.py"))]


@pytest.fixture(autouse=True)
def writing(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """Visitors may write, unless the test says otherwise, and no door is guarded in this process."""
    monkeypatch.setattr(access, "_rules", None)
    if "read_only" not in request.fixturenames:
        monkeypatch.setenv("QUEUE_OPS_WRITE", "1")
    logging.getLogger("streamlit").setLevel(logging.ERROR)
    yield
    session._connect.cache_clear()


@pytest.fixture
def read_only() -> None:
    """Visitors may look only, as when nothing is set."""


@pytest.mark.parametrize("page", PAGES)
def test_each_page_can_be_drawn_with_nothing_and_with_one_of_each(page: str, q: persistq.PersistentQSQLAlchemy) -> None:
    visit = Visit(page)
    assert [title.value for title in visit.at.title]
    done = q.enqueue("work")
    q.complete(claim(q, WORKER))
    q.fail(claim_new(q), ValueError("broken"), permanent=True)
    q.pause("mail")
    if page == "job":
        visit.at.text_input(key="id").set_value(str(done))
    assert not visit.run().at.error


def claim_new(q: persistq.PersistentQSQLAlchemy, item: str = "more", **options: Any) -> persistq.Job:
    q.enqueue(item, **options)
    return claim(q, WORKER)


def test_the_figures_are_what_sql_counts(q: persistq.PersistentQSQLAlchemy, one_of_each: dict[str, int]) -> None:
    q.enqueue_many(["more"] * 7)
    q.close()  # what it has counted of attempts is written now at the latest
    with q.engine.connect() as connection:
        counted = dict(connection.exec_driver_sql("SELECT status, count(*) FROM jobs GROUP BY status").all())
    visit = Visit()
    shown = {metric.label: int(metric.value) for metric in visit.at.metric if metric.label in counted}
    assert shown == counted == {"pending": 8, "processing": 1, "done": 1, "failed": 1, "cancelled": 1}
    assert any("12 enqueued, 1 done, 1 failed" in caption.value for caption in visit.at.caption)
    assert visit.says("8 pending jobs are in queues that no live consumer serves.")


def test_a_backlog_that_a_live_consumer_serves_is_no_warning(q: persistq.PersistentQSQLAlchemy) -> None:
    q.enqueue("work", "mail")
    assert Visit().says("no live consumer serves")
    q.beat(consumer(q, "worker", queues=("other",)))
    assert Visit().says("no live consumer serves")
    q.beat(consumer(q, "mailer", queues=("mail",)))
    assert not Visit().says("no live consumer serves")


def consumer(q: persistq.PersistentQSQLAlchemy, name: str, **more: Any) -> persistq.ConsumerInfo:
    now = q.clock.now()
    fields = {"queues": (), "started_at": now, "seen_at": now, **more}
    return persistq.ConsumerInfo(
        id=f"{name}@host:1:aaaa", name=name, host="host", pid=1, concurrency=2, running=0, **fields
    )


def test_failures_are_grouped_and_lead_to_their_jobs(q: persistq.PersistentQSQLAlchemy) -> None:
    for number in range(3):
        q.fail(claim_new(q), ValueError(f"number {number}"), permanent=True)
    q.fail(claim_new(q, queue="mail"), KeyError("gone"), permanent=True)
    visit = Visit()
    groups = visit.table(len(visit.at.dataframe) - 1)
    assert [(row["jobs"], row["error"]) for row in groups] == [(3, "ValueError"), (1, "KeyError")]
    visit.select(0, table=len(visit.at.dataframe) - 1).press("show_group")
    assert [row["error"] for row in visit.table()] == [
        "ValueError: number 2",
        "ValueError: number 1",
        "ValueError: number 0",
    ]


def test_the_address_says_what_is_listed(q: persistq.PersistentQSQLAlchemy, one_of_each: dict[str, int]) -> None:
    assert [row["id"] for row in Visit("jobs", status="failed").table()] == [one_of_each["failed"]]
    assert [row["id"] for row in Visit("jobs", item="cancel").table()] == [one_of_each["cancelled"]]
    assert [row["id"] for row in Visit("jobs", consumer=WORKER, status="done").table()] == [one_of_each["done"]]
    assert len(Visit("jobs", since="1h").table()) == len(one_of_each)
    assert Visit("jobs", until="1h").says("No job matches.")
    assert Visit("jobs", since="soon").says("no span of time")


def test_an_address_with_a_job_opens_the_job(q: persistq.PersistentQSQLAlchemy, one_of_each: dict[str, int]) -> None:
    visit = Visit("jobs", job=str(one_of_each["failed"]))
    assert visit.says(f"Job {one_of_each['failed']} is failed")


def test_pages_follow_each_other_without_a_gap(q: persistq.PersistentQSQLAlchemy) -> None:
    ids = q.enqueue_many(["work"] * 120)
    visit = Visit("jobs")
    seen = [row["id"] for row in visit.table()]
    for _ in range(2):
        q.enqueue("newer")
        seen += [row["id"] for row in visit.press("older").table()]
    assert seen == ids[::-1]
    assert visit.at.button(key="older").disabled
    assert visit.press("newest").table()[0]["item"] == "newer"


def test_a_search_begins_with_the_newest_and_goes_on_when_asked(
    q: persistq.PersistentQSQLAlchemy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SPAN", 10)
    q.fail(claim_new(q, "needle"), "needle", permanent=True)
    q.enqueue_many(["hay"] * 34)
    assert [row["id"] for row in Visit("jobs", status="failed", error="needle").table()] == [1], "few are failed"

    monkeypatch.setattr(snapshot, "PATIENCE", 0.0)
    visit = Visit("jobs", item="needle")
    for down_to in (26, 16, 6):
        assert visit.says("None of the jobs that were searched matches.")
        assert any(f"down to id {down_to}; older ones" in caption.value for caption in visit.at.caption)
        visit.press("search_older")
    assert [row["id"] for row in visit.table()] == [1]
    assert "search_older" not in [button.key for button in visit.at.button]

    monkeypatch.setattr(snapshot, "PATIENCE", 60.0)
    visit = Visit("jobs", item="nothing like it").press("search_older")
    assert visit.says("No job matches.")


def test_the_table_stands_still_until_it_is_refreshed(q: persistq.PersistentQSQLAlchemy) -> None:
    first = q.enqueue_many(["work"] * 3)
    visit = Visit("jobs")
    q.enqueue_many(["newer"] * 2)
    assert [row["id"] for row in visit.run().table()] == first[::-1]
    assert any("2 new since then" in caption.value for caption in visit.at.caption)
    assert len(visit.press("refresh_jobs").table()) == 5


def test_an_action_hits_the_selected_job_whatever_was_enqueued_since(q: persistq.PersistentQSQLAlchemy) -> None:
    ids = q.enqueue_many(["work"] * 5)
    visit = Visit("jobs").select(1)
    q.enqueue_many(["newer"] * 3)
    visit.press("cancel_selected")
    q.enqueue_many(["newest"] * 3)
    visit.confirm(reason="not needed")
    assert [job.id for job in q.list_jobs("cancelled")] == [ids[3]]
    assert visit.says("Cancel: 1 job changed.")
    entry = q.audit()[0]
    assert (entry.action, entry.via, entry.actor, entry.reason) == (
        "cancel", "dashboard", persistq.default_actor(), "not needed",
    )  # fmt: skip


def test_a_selection_does_not_outlive_its_rows(q: persistq.PersistentQSQLAlchemy) -> None:
    q.enqueue_many(["work"] * 3)
    visit = Visit("jobs").select(0)
    assert not visit.at.button(key="cancel_selected").disabled
    q.enqueue("newer")
    assert visit.press("refresh_jobs").at.button(key="cancel_selected").disabled


def test_what_changed_since_the_question_is_left_as_it_is(q: persistq.PersistentQSQLAlchemy) -> None:
    q.enqueue("work")
    visit = Visit("jobs").select(0).press("cancel_selected")
    job = claim(q, WORKER)
    visit.confirm()
    assert q.get_job(job.id).status == "processing"
    assert visit.says("0 jobs changed, 1 left as they are.")


def test_leaving_a_question_changes_nothing(q: persistq.PersistentQSQLAlchemy) -> None:
    q.enqueue("work")
    visit = Visit("jobs").select(0).press("delete_selected").press("ask_no")
    assert q.counts()["pending"] == 1
    assert "ask" not in visit.at.session_state


@pytest.mark.parametrize(
    ("verb", "status"), {"resubmit": "failed", "cancel": "pending", "mark_failed": "pending"}.items()
)
def test_all_that_match_is_what_the_filter_says(verb: str, status: str, q: persistq.PersistentQSQLAlchemy) -> None:
    if status == "failed":
        for _ in range(30):
            q.fail(claim_new(q, queue="meant"), "broken", permanent=True)
    else:
        q.enqueue_many(["work"] * 30, "meant")
    q.enqueue("other")
    visit = Visit("jobs", queue="meant").press(f"{verb}_all")
    assert visit.says("30 jobs?")
    visit.confirm(word="29")
    assert q.counts("meant")[status] == 30, "the wrong number was typed"
    visit.confirm(word="30")
    assert q.counts("meant")[status] == 0
    assert q.counts("default")["pending"] == 1
    assert visit.says("30 jobs changed.")


def test_deletion_wants_the_number_typed(q: persistq.PersistentQSQLAlchemy) -> None:
    q.enqueue_many(["work"] * 2)
    visit = Visit("jobs").select(0).press("delete_selected").confirm()
    assert q.counts()["pending"] == 2
    Visit("jobs").select(0).press("delete_selected").confirm(word="1")
    assert [job.id for job in q.list_jobs()] == [1]
    assert visit.says("nothing was done")


def test_one_job_from_all_sides(q: persistq.PersistentQSQLAlchemy) -> None:
    try:
        raise ValueError("a deep reason")
    except ValueError as error:
        q.fail(claim_new(q, '{"user": [1, 2]}'), error, permanent=True)
    visit = Visit("job", id="1")
    codes = [code.value for code in visit.at.code]
    assert codes[0] == '{\n  "user": [\n    1,\n    2\n  ]\n}'
    assert any("Traceback" in code and "a deep reason" in code for code in codes)
    assert ("status", "failed") in [(row["field"], row["value"]) for row in visit.table(1)]
    assert [row["what"] for row in visit.table(0)] == ["enqueued", "started", "crashed", "failed"]
    assert visit.says("It was given up")
    visit.press("resubmit").confirm()
    assert q.get_job(1).status == "pending"
    assert visit.says("Job 1 is pending")


@pytest.mark.parametrize(
    ("button", "word", "wanted"),
    [
        ("cancel", "", {"status": "cancelled"}),
        ("mark_failed", "", {"status": "failed"}),
        ("delete", "1", None),
        ("edit", "", {"priority": 5}),
        ("assign", "", {"assigned_to": "worker"}),
    ],
)
def test_each_button_of_a_job_does_what_it_says(
    button: str, word: str, wanted: dict[str, Any] | None, q: persistq.PersistentQSQLAlchemy
) -> None:
    q.enqueue("work", delay=3600)
    visit = Visit("job", id="1")
    visit.at.number_input(key="priority").set_value(5)
    visit.at.text_input(key="assign_to").set_value("worker")
    visit.run().press(button).confirm(word=word)
    if wanted is None:
        assert visit.says("There is no job 1.")
        return
    found = q.get_job(1).to_dict()
    assert {name: found[name] for name in wanted} == wanted


def test_a_running_job_is_taken_back(q: persistq.PersistentQSQLAlchemy) -> None:
    claim_new(q)
    Visit("job", id="1").press("release").confirm()
    assert q.get_job(1).status == "pending"


@pytest.mark.parametrize(
    ("wanted", "answer"),
    [("77", "There is no job 77."), ("-1", "An id is a number."), ("", "Which job?"), ("9" * 19, "There is no job")],
)
def test_ids_that_are_none_are_told(wanted: str, answer: str, q: persistq.PersistentQSQLAlchemy) -> None:
    assert Visit("job", id=wanted).says(answer)


def test_queues_are_paused_and_resumed(q: persistq.PersistentQSQLAlchemy) -> None:
    q.enqueue("work", "mail")
    visit = Visit("queues").select(0).press("pause").confirm(reason="repairs")
    assert [info.paused for info in q.queues()] == [True]
    assert visit.table()[0]["state"] == "paused"
    visit.select(0).press("resume").confirm()
    assert [info.paused for info in q.queues()] == [False]
    assert [entry.action for entry in q.audit()] == ["queue_resume", "queue_pause"]


def test_consumers_are_told_and_forgotten(q: persistq.PersistentQSQLAlchemy) -> None:
    q.beat(consumer(q, "worker"))
    q.beat(consumer(q, "silent", seen_at=q.clock.now() - timedelta(hours=2)))
    visit = Visit("consumers")
    assert [(row["name"], row["state"]) for row in visit.table()] == [("silent", "lost"), ("worker", "alive")]
    visit.select(1).press("wish_quiet").confirm()
    assert [info.wish for info in q.consumers()] == [None, "quiet"]
    visit.press("prune").confirm()
    assert [info.name for info in q.consumers()] == ["worker"]


def test_maintenance_does_what_its_buttons_say(
    q: persistq.PersistentQSQLAlchemy, one_of_each: dict[str, int], tmp_path: Path
) -> None:
    visit = Visit("maintenance")
    visit.at.text_input(key="purge_age").set_value("0")
    visit.run().press("purge").confirm(word="purge")
    assert q.counts()["done"] == 0
    visit.press("backup").confirm()
    (copy,) = tmp_path.glob("queue.db.backup-*")
    assert persistq.connect(copy).counts() == q.counts()
    visit.press("delete_all").confirm(word="delete")
    assert q.counts() == {"pending": 0, "processing": 1, "done": 0, "failed": 0, "cancelled": 0}
    visit.press("vacuum").confirm()
    visit.press("mend").confirm()
    visit.press("recover").confirm()
    noted = {word for entry in q.audit() for word in (entry.action, entry.reason)}
    assert {"purge", "backup", "delete", "vacuum", "mend_counts", "recover"} <= noted


def test_the_audit_can_be_searched(q: persistq.PersistentQSQLAlchemy, one_of_each: dict[str, int]) -> None:
    q.pause("mail", "repairs")
    assert [row["action"] for row in Visit("audit").table()] == ["queue_pause", "cancel"]
    found = Visit("audit", action="cancel").table()
    assert [(row["action"], row["result"]) for row in found] == [("cancel", "matched 1, changed 1")]
    assert Visit("audit", actor="nobody").says("Nothing was decided that matches.")


def test_batches_are_put_aside_and_made_ready(q: persistq.PersistentQSQLAlchemy) -> None:
    with batch.BatchWriter("spool", "mail", max_items=2) as writer:
        for number in range(4):
            writer.add(f"item {number}")
    visit = Visit("batches")
    assert visit.table()[0]["ready"] == 2
    assert [row["items"] for row in visit.table(1)] == ["2", "2"]
    visit.select(0, table=1).press("put_aside").confirm()
    assert batch.counts("spool", "mail")["invalid"]["all"] == 1
    place = [row["status"] for row in visit.table(1)].index("invalid")
    visit.select(place, table=1).press("replay").confirm()
    assert batch.counts("spool", "mail")["ready"]["all"] == 2
    visit.press("recover").confirm()
    assert [entry.action for entry in q.audit()] == ["batches_recover", "batch_replay", "batch_put_aside"]


class Notify(Handler):
    def __init__(self, thread: int = 0) -> None:
        self.to = thread

    def route(self) -> Route:
        return Route(thread=self.to)


def test_shards_show_what_waits_where(q: persistq.PersistentQSQLAlchemy) -> None:
    async def fill() -> None:
        storage = SQLAlchemyStorage(q)
        for tube, number in (("Notify/1", 3), ("Notify/2", 1)):
            await storage.append(tube, *(b"{}" for _ in range(number)))
        await storage.close()

    asyncio.run(fill())
    visit = Visit("shards")
    assert [(row["tube"], row["ready"], row["state"]) for row in visit.table()] == [
        ("Notify/1", 3, "waiting"), ("Notify/2", 1, "waiting"),
    ]  # fmt: skip
    visit.select(0).press("release").confirm()
    assert visit.says("Nobody held it")


@pytest.fixture
def furnished(q: persistq.PersistentQSQLAlchemy, tmp_path: Path) -> None:
    """There is something to act on, on every page."""
    q.enqueue("work")
    q.beat(consumer(q, "worker", seen_at=q.clock.now() - timedelta(hours=2)))
    (tmp_path / "jobs").mkdir()
    with batch.BatchWriter("spool", "mail") as writer:
        writer.add("item")
    asyncio.run(SQLAlchemyStorage(q).append("Notify/1", b"{}"))


ACTIONS = {
    "jobs": ["cancel_selected", "mark_failed_selected", "delete_selected", "cancel_all", "delete_all"],
    "queues": ["pause"],
    "consumers": ["wish_quiet", "wish_stop", "prune"],
    "maintenance": ["purge", "delete_all", "delete_files", "backup", "vacuum", "mend", "recover"],
    "batches": ["recover", "put_aside"],
    "shards": ["release"],
}


@pytest.mark.parametrize("page", ACTIONS)
def test_who_may_not_write_is_refused_by_the_queue_itself(
    page: str, q: persistq.PersistentQSQLAlchemy, furnished: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question was asked while the visitor was allowed to; so no button is what refuses."""
    visit = Visit(page)
    for button in ACTIONS[page]:
        monkeypatch.setenv("QUEUE_OPS_WRITE", "1")
        del visit.at.session_state["settings"]
        visit.run()
        if page != "maintenance":
            visit.select(0, table=1 if page == "batches" else 0)
        visit.press(button)
        monkeypatch.setenv("QUEUE_OPS_WRITE", "0")
        del visit.at.session_state["settings"]
        visit.confirm(word=visit.at.session_state["ask"].word)
        assert visit.says(acting.READ_ONLY), button
        assert all(visit.at.button(key=one).disabled for one in ACTIONS[page])
        assert (q.audit(), [info.wish for info in q.consumers()], q.queues()[0].paused) == ([], [None], False), button
        assert q.counts()["pending"] == 1, button
        assert batch.counts("spool", "mail")["ready"]["all"] == 1, button
        assert not list(tmp_path.glob("*.backup-*")), button


@pytest.mark.usefixtures("read_only")
def test_by_default_nobody_may_write(q: persistq.PersistentQSQLAlchemy) -> None:
    q.enqueue("work")
    visit = Visit("jobs").select(0)
    assert all(visit.at.button(key=one).disabled for one in ACTIONS["jobs"])


HOSTILE = [
    '<img src=x onerror="alert(1)">',
    "javascript:alert(1)",
    "![x](http://127.0.0.1:1/x)",
    "**bold** :red[x] $x$",
    "\x1b[31mred\x07",
    "a\u202eb\u200bc",
    "=1+1",
    "'; DROP TABLE jobs; --",
    "{" * 3000,
]


def test_what_data_says_is_never_markdown(q: persistq.PersistentQSQLAlchemy) -> None:
    for text in HOSTILE:
        q.fail(claim_new(q, text, task=None), text, permanent=True)
    visit = Visit("jobs")
    assert len(visit.table()) == len(HOSTILE)
    visit.select(*range(len(HOSTILE))).press("resubmit_selected")
    check_drawn(visit)
    check_drawn(Visit())
    visit = Visit("job")
    for number in range(len(HOSTILE)):
        visit.at.text_input(key="id").set_value(str(number + 1))
        check_drawn(visit.run())


def check_drawn(page: Visit) -> None:
    """Fail if anything hostile stands where the browser would take it for more than text."""
    drawn = [element.value for kind in (page.at.markdown, page.at.caption, page.at.title, page.at.subheader,
             page.at.error, page.at.warning, page.at.info, page.at.success) for element in kind]  # fmt: skip
    for text in (*HOSTILE[:4], "\u202e", "\x1b"):
        assert not [value for value in drawn if text in value], text
    assert not [text.value for text in page.at.text if "\u202e" in text.value or "\x1b" in text.value]
    assert not [code.value for code in page.at.code if "\u202e" in code.value or "\x1b" in code.value]


def test_a_csv_is_no_program(q: persistq.PersistentQSQLAlchemy) -> None:
    from persistq.ops import parts

    text = parts.csv_text([{"id": -1, "item": '=HYPERLINK("http://x")'}, {"id": 2, "item": "+1\r\n"}], ("id", "item"))
    assert text.split("\r\n")[1] == '\'-1,"\'=HYPERLINK(""http://x"")"'
    assert "\"'+1" in text


def test_items_can_be_hidden(q: persistq.PersistentQSQLAlchemy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE_OPS_HIDE_ITEMS", "1")
    q.enqueue("a secret item")
    for visit in (Visit("jobs"), Visit("job", id="1"), Visit("jobs").select(0).press("cancel_selected")):
        shown = [
            *visit.said(),
            *(code.value for code in visit.at.code),
            *(str(frame.value) for frame in visit.at.dataframe),
        ]
        assert not [text for text in shown if "secret" in text]


def test_a_database_that_is_not_there_is_told_and_not_made(tmp_path: Path) -> None:
    visit = Visit("jobs")
    assert visit.says("The queue cannot be read now.")
    assert not (tmp_path / "queue.db").exists()
    q = persistq.connect()
    q.enqueue("work")
    q.close()
    assert len(visit.run().table()) == 1


def test_a_database_that_goes_and_comes_back_is_told(q: persistq.PersistentQSQLAlchemy, tmp_path: Path) -> None:
    q.enqueue("work")
    visit = Visit()
    (tmp_path / "queue.db").rename(tmp_path / "elsewhere.db")
    assert visit.run().says("The queue cannot be read now.")
    (tmp_path / "elsewhere.db").rename(tmp_path / "queue.db")
    assert not visit.run().says("The queue cannot be read now.")
    assert visit.at.metric


def test_the_script_that_is_the_server_draws_the_same_pages(q: persistq.PersistentQSQLAlchemy) -> None:
    q.enqueue_many(["work"] * 3)
    visit = Visit(script="ops.py")
    assert [metric.value for metric in visit.at.metric if metric.label == "pending"] == ["3"]
