"""The names of the seed documents: Pq and the rest, as their samples use them."""

from datetime import timedelta

from support.clock import FakeClock
from support.jobs import MakeQueue, Queue, claim

import persistq


def test_the_sample_consumer_of_the_document_works(queue: Queue) -> None:
    item_id = queue.put_item("/some/file")
    got, item = queue.get_item()
    assert (got, item) == (item_id, "/some/file")
    assert queue.get_item() == (None, None)
    queue.update_status(item_id, "Processed")
    assert queue.get_job(item_id).status == persistq.DONE


def test_items_are_handed_out_in_order(queue: Queue) -> None:
    ids = [queue.put_item(item) for item in "abc"]
    assert [queue.get_item() for _ in "abcd"] == [*zip(ids, "abc", strict=True), (None, None)]


def test_the_sample_manager_of_the_document_works(queue: Queue) -> None:
    for item in ("crashes", "hopeless", "fine"):
        queue.put_item(item)
    for _ in range(3):
        queue.get_item()
    assert queue.update_q(1, "unprocessed").status == "pending"
    assert queue.update_q(2, "Manual_intervention").status == "failed"
    assert queue.update_q(3, "DONE").status == "done"


def test_every_item_is_a_dict(queue: Queue, clock: FakeClock) -> None:
    queue.put_item("a")
    queue.put_item("b")
    queue.get_item()
    rows = queue.get_all_items()
    assert [(row["id"], row["item"], row["status"], row["submission_count"]) for row in rows] == [
        (1, "a", "processing", 1), (2, "b", "pending", 0),
    ]  # fmt: skip
    assert rows[0]["timestamp"] == clock.now().isoformat()


def test_all_items_means_all(queue: Queue) -> None:
    assert queue.get_all_items() == []
    queue.enqueue_many(["x"] * 2_100)
    assert [row["id"] for row in queue.get_all_items()] == list(range(1, 2_101))


def test_three_submissions_are_the_most(queue: Queue, clock: FakeClock) -> None:
    queue.put_item("x")
    counts = []
    while queue.get_item() != (None, None):
        counts.append(queue.get_all_items()[0]["submission_count"])
        queue.update_status(1, "Crashed")
        clock.advance(600)
    assert counts == [1, 2, 3]
    assert queue.get_all_items()[0]["status"] == "failed"


def test_purging_is_by_duration_and_status_done_by_default(queue: Queue, clock: FakeClock) -> None:
    queue.put_item("a")
    queue.complete(claim(queue))
    clock.advance(10)
    assert queue.purge(timedelta(days=1), status=persistq.DONE) == 0
    clock.advance(timedelta(days=1))
    assert queue.purge(86_400) == 1


def test_each_process_claims_under_its_own_id(make_queue: MakeQueue) -> None:
    first, second = make_queue(), make_queue()
    first.enqueue_many(["a", "b"])
    first.get_item()
    second.get_item()
    holders = {job.consumer_id for job in first.list_jobs()}
    assert holders == {first.default_consumer, second.default_consumer}
    assert len(holders) == 2


def test_the_interface_is_what_connect_returns(queue: Queue) -> None:
    assert isinstance(queue, persistq.PersistentQInterface)
    assert isinstance(queue, persistq.PersistentQSQLAlchemy)
    assert persistq.persistentQ is persistq.connect
