"""What each command on jobs does to them."""

from datetime import UTC, datetime

import pytest
from support.cli import invoke, ok, run
from support.jobs import WORKER, claim

import persistq


def test_enqueue_hands_every_option_on(q: persistq.PersistentQSQLAlchemy) -> None:
    out = ok("enqueue", "item", "--queue", "mail", "--priority", "9", "--delay", "1h", "--max-attempts", "7",
             "--timeout", "5m", "--key", "once")  # fmt: skip
    job = q.get_job(int(out))
    assert (job.item, job.queue, job.priority, job.max_attempts, job.timeout, job.unique_key) == (
        "item", "mail", 9, 7, 300, "once")  # fmt: skip
    assert (job.run_at - job.created_at).total_seconds() == pytest.approx(3600, abs=1)


def test_a_repeated_key_prints_the_first_id(q: persistq.PersistentQSQLAlchemy) -> None:
    assert ok("enqueue", "item", "--key", "once") == ok("enqueue", "item", "--key", "once") == "1\n"
    assert q.counts()["pending"] == 1


def test_enqueue_for_a_task_takes_arguments_as_json(q: persistq.PersistentQSQLAlchemy) -> None:
    job = q.get_job(int(ok("enqueue", '{"user_id":3}', "--task", "send")))
    assert (job.task, job.item) == ("send", '{"user_id":3}')


def test_an_item_may_look_like_an_option(q: persistq.PersistentQSQLAlchemy) -> None:
    assert q.get_job(int(ok("enqueue", "--", "-rf"))).item == "-rf"


def test_each_action_leaves_its_line_in_the_history(
    one_of_each: dict[str, int], q: persistq.PersistentQSQLAlchemy
) -> None:
    ok("cancel", str(one_of_each["pending"]), "--reason", "not needed")
    ok("resubmit", str(one_of_each["pending"]))
    ok("assign-job", str(one_of_each["pending"]), "consumer_00")
    ok("mark-failed", str(one_of_each["pending"]), "--reason", "bad address")
    events = q.events(one_of_each["pending"])
    assert [event.kind for event in events] == ["cancelled", "resubmitted", "assigned", "failed"]
    assert all((event.actor or "").startswith("cli:") for event in events)
    assert q.get_job(one_of_each["pending"]).error == "bad address"
    shown = ok("show-job", str(one_of_each["pending"]))
    for word in ("cancelled", "not needed", "resubmitted", "assigned", "consumer_00", "bad address", "by cli:"):
        assert word in shown


def test_a_done_job_is_resubmitted_by_force_only(
    one_of_each: dict[str, int], q: persistq.PersistentQSQLAlchemy
) -> None:
    done = one_of_each["done"]
    assert invoke("resubmit", str(done)).exit_code == 4
    ok("resubmit", str(done), "--force")
    assert (q.get_job(done).status, q.get_job(done).attempts) == ("pending", 0)


def test_a_traceback_is_shown_line_by_line(q: persistq.PersistentQSQLAlchemy) -> None:
    job_id = q.enqueue("item")
    try:
        raise ValueError("broken")
    except ValueError as error:
        q.fail(claim(q, WORKER), error)
    shown = ok("show-job", str(job_id))
    assert "ValueError: broken" in shown
    assert "    Traceback (most recent call last):\n" in shown


def test_assigning_to_nobody_present_warns(q: persistq.PersistentQSQLAlchemy) -> None:
    job_id = str(q.enqueue("item"))
    result = invoke("assign-job", job_id, "consumer_99")
    assert result.exit_code == 0
    assert "consumer_99" in result.stderr
    assert "consumer_99" not in result.stdout.splitlines()[0].split("\t")[:-1]
    assert run("consumer", "--drain", "--name", "consumer_00", "--queue", "other").returncode == 0
    assert q.get_job(int(job_id)).assigned_to == "consumer_99"


@pytest.mark.parametrize("by", ["name", "id"])
def test_assigning_to_a_consumer_that_is_there_does_not_warn(q: persistq.PersistentQSQLAlchemy, by: str) -> None:
    info = persistq.ConsumerInfo(
        id="consumer_00@host:1:aaaa", name="consumer_00", host="host", pid=1, queues=(), concurrency=1, running=0,
        started_at=datetime.now(UTC), seen_at=datetime.now(UTC),
    )  # fmt: skip
    q.beat(info)
    job_id = str(q.enqueue("item"))
    result = invoke("assign-job", job_id, getattr(info, by))
    assert (result.exit_code, result.stderr) == (0, "")


def test_stats_count_by_queue(q: persistq.PersistentQSQLAlchemy) -> None:
    q.enqueue_many(["a", "b"], queue="mail")
    q.enqueue("c")
    q.pause("mail")
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in ok("stats").splitlines()}
    assert rows["all"][0] == "3"
    assert (rows["mail"][0], rows["mail"][-1]) == ("2", "true")
    assert (rows["default"][0], rows["default"][-1]) == ("1", "false")
    assert list(dict.fromkeys(line.split("\t")[0] for line in ok("stats", "--queue", "mail").splitlines())) == ["mail"]


FILTERS = {
    "status": (["--status", "failed"], ["failed"]),
    "state": (["--state", "dead"], ["failed"]),
    "two": (["--status", "failed", "--status", "done"], ["done", "failed"]),
    "item": (["--item", "cancel"], ["cancelled"]),
    "error": (["--error", "brok"], ["failed"]),
    "consumer": (["--consumer", WORKER, "--status", "processing"], ["processing"]),
    "queue": (["--queue", "other"], []),
    "since": (["--since", "1h", "--limit", "1"], ["done"]),
    "until": (["--until", "1h"], []),
    "after": (["--after", "4"], ["pending"]),
}


@pytest.mark.parametrize(("options", "found"), FILTERS.values(), ids=FILTERS.keys())
def test_each_filter_narrows(one_of_each: dict[str, int], options: list[str], found: list[str]) -> None:
    assert [line.split("\t")[1] for line in ok("list-jobs", *options).splitlines()] == found


def test_text_is_matched_as_it_stands(q: persistq.PersistentQSQLAlchemy) -> None:
    """The wildcards of LIKE are ordinary characters to a person."""
    q.enqueue_many(["100%", "1000", "a_b", "axb", "back\\slash"])
    assert ok("--format", "ids", "list-jobs", "--item", "100%") == "1\n"
    assert ok("--format", "ids", "list-jobs", "--item", "a_b") == "3\n"
    assert ok("--format", "ids", "list-jobs", "--item", "\\") == "5\n"


def test_a_filter_is_data_and_not_sql(one_of_each: dict[str, int]) -> None:
    assert ok("list-jobs", "--item", "' OR '1'='1") == ""
    assert ok("list-jobs", "--consumer", "x'; DROP TABLE jobs; --") == ""
    assert len(ok("list-jobs").splitlines()) == 5
