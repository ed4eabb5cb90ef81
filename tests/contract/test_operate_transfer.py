"""Export and import: what one queue holds, another of any kind holds afterwards; or nothing."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clock import FakeClock
from support.jobs import STATUSES, Queue, claim, job_in
from support.servers import OWNER

import persistq
from persistq import ConfigError, JobFilter, PayloadError, ReadOnly, upkeep


@pytest.fixture
def lines(tmp_path: Path, clock: FakeClock) -> list[str]:
    """An export of a SQLite queue that holds a job of each kind."""
    q = persistq.connect(tmp_path / "origin.db", clock=clock, queue_durability="process")
    for status in STATUSES:
        job_in(q, status, item=f"é\U0001f600'\" {status}")
    q.enqueue("later", delay=30, priority=-3, timeout=1.5, unique_key="k")
    q.enqueue("result")
    q.complete(claim(q, queue="default"), {"deep": [1, None, "x"]})
    q.pause("mail")
    found = list(upkeep.export(q))
    q.close()
    return found


@pytest.fixture
def owned(target: str, clock: FakeClock) -> Iterator[Queue]:
    """The queue as its schema's owner reaches it: to say which id comes next takes more rights than a worker has."""
    q = persistq.connect(target.replace("worker:", f"{OWNER}:"), clock=clock, queue_durability="process")
    yield q
    q.close()


def test_everything_arrives(owned: Queue, lines: list[str], tmp_path: Path, clock: FakeClock) -> None:
    origin = persistq.connect(tmp_path / "origin.db", clock=clock)
    assert upkeep.take_in(owned, lambda: lines) == 7
    assert owned.list_jobs() == origin.list_jobs()
    for job in origin.list_jobs():
        assert owned.events(job.id) == origin.events(job.id)
    assert owned.counts() == origin.counts()
    assert owned.tally_drift() == {}
    assert [info.name for info in owned.queues() if info.paused] == ["mail"]
    assert list(upkeep.export(owned)) == lines
    assert owned.audit()[0].action == "import"
    origin.close()


def test_life_goes_on_after_it(owned: Queue, lines: list[str], clock: FakeClock) -> None:
    upkeep.take_in(owned, lambda: lines)
    assert owned.enqueue("next") == 8
    assert owned.enqueue("twice", unique_key="k") == 6
    owned.resubmit(owned.list_jobs("failed")[0].id)
    assert owned.events(owned.list_jobs("cancelled")[0].id)
    clock.advance(31)
    assert {job.item for job in owned.dequeue_many("w")} >= {"later", "next"}


def test_nothing_is_added_to_a_queue_that_holds_jobs(queue: Queue, lines: list[str]) -> None:
    queue.enqueue("mine")
    with pytest.raises(ConfigError, match="holds jobs"):
        upkeep.take_in(queue, lambda: lines)
    assert [job.item for job in queue.list_jobs()] == ["mine"]


def _job(lines: list[str], **changes: Any) -> str:
    found = json.loads(lines[2])
    found["job"] |= changes
    return json.dumps(found)


BAD_LINES: list[Any] = [
    "", "no json", "[]", "{}", "null", '{"job": 1}', '{"job": {}}', "[" * 10_000, '{"queue": {"name": 1}}',
    {"id": "1"}, {"id": True}, {"priority": 1.5}, {"item": None}, {"run_at": "now"}, {"more": 1},
]  # fmt: skip


def test_one_bad_line_and_nothing_is_added(queue: Queue, lines: list[str]) -> None:
    for line in BAD_LINES:
        bad = _job(lines, **line) if isinstance(line, dict) else line
        given = [*lines, bad] if bad else ['{"job": {}}', *lines]
        with pytest.raises(PayloadError, match="line"):
            pytest.fail(f"{line!r:.40} as {upkeep.take_in(queue, lambda given=given: given)}")  # type: ignore[misc]
        assert queue.list_jobs() == []
        assert queue.queues() == []
    assert queue.tally_drift() == {}


def test_one_who_may_only_look_is_refused(target: str, queue: Queue, lines: list[str]) -> None:
    looking = persistq.connect(target, read_only=True)
    for act in (lambda: upkeep.take_in(looking, lambda: lines), lambda: upkeep.vacuum(looking)):
        with pytest.raises(ReadOnly):
            act()
    looking.close()
    assert queue.list_jobs() == []


def test_the_database_says_what_it_is_and_is_vacuumed(queue: Queue) -> None:
    queue.enqueue_many(["x" * 1000] * 50)
    queue.delete_jobs(JobFilter())
    upkeep.vacuum(queue)
    found = upkeep.info(queue)
    assert found["kind"] == queue.dbtype
    assert found["bytes"] > 0
    assert found["jobs"] == 0
    assert "***" in found["place"] or found["kind"] == "sqlite"
