"""The database out of reach: locked by somebody, or its file gone."""

import shutil

import pytest

import persistq
from persistq import jobfiles

from .yard import eventually

RECORD = "@persistq.task\ndef record(item):\n    note(me().id)\n"


def test_a_locked_database_is_a_clear_error_and_the_consumer_waits_it_out(make_yard, long):
    yard = make_yard(queue_busy_seconds=0.3)
    yard.app(RECORD)
    acknowledged = yard.q.enqueue_many(["item"] * 20)
    holder = yard.lock()
    consumer = yard.consumer("--task", "record", "--concurrency", "4")
    maintenance = yard.maintenance()
    for _ in range(67 if long else 4):  # many times what a call is willing to wait; at length 20 s
        with pytest.raises(persistq.DatabaseUnavailable, match="another process has held its lock"):
            yard.q.enqueue("refused")
    assert yard.q.counts()["pending"] == 20, "reading goes on"
    eventually(lambda: len(consumer.lines("trying again")) >= 2, "the consumer keeps trying")
    eventually(lambda: maintenance.lines("trying again"), "so does maintenance")
    assert yard.journal() == []

    holder.hang_up()
    acknowledged.append(yard.q.enqueue("accepted again"))
    eventually(yard.all_done, "everything acknowledged is done")
    assert sorted(map(int, yard.journal())) == acknowledged
    assert not consumer.ended()
    assert not maintenance.ended()
    assert consumer.lines("the database is back")
    yard.assert_sound()


def test_a_short_lock_is_not_even_noticed(make_yard):
    yard = make_yard(queue_busy_seconds=30)
    yard.q.enqueue("first")
    holder = yard.lock()
    other = yard.script("note('asks')\nprint(persistq.connect().enqueue('second'), flush=True)")
    eventually(lambda: yard.journal() and other.state() == "S", "it waits")
    assert not other.out
    holder.hang_up()
    assert other.wait() == 0
    assert [job.item for job in yard.jobs()] == ["first", "second"]


def test_a_job_that_outlives_its_lease_in_an_outage_is_done_once_if_nobody_took_it(make_yard):
    """An expired lease that nobody took back may still be settled; the only consumer must not take its own."""
    yard = make_yard(queue_busy_seconds=0.2, timeout_seconds=0.5)
    yard.app("@persistq.task\ndef perform(item):\n    note('begin')\n    wait_for('gate')\n    note('end')\n")
    job_id = yard.q.enqueue("item")
    consumer = yard.consumer("--task", "perform")
    eventually(yard.journal, "the job runs")
    lease = yard.q.get_job(job_id).lease_until
    holder = yard.lock()
    eventually(lambda: yard.q.clock.now() > lease and len(consumer.lines("trying again")) >= 2, "the lease is over")
    yard.open("gate")
    eventually(lambda: consumer.lines(f"job {job_id} (attempt 1 of 3) done"), "the handler came to its end")
    holder.hang_up()
    eventually(yard.all_done, "the job is done")
    assert yard.journal() == ["begin", "end"]
    assert yard.q.get_job(job_id).attempts == 1


@pytest.mark.parametrize("way", ["moved", "copied"])
def test_a_missing_file_is_a_clear_error_and_work_goes_on_once_it_is_back(make_yard, way):
    yard = make_yard()
    yard.app(RECORD)
    acknowledged = yard.q.enqueue_many(["item"] * 10)
    consumer = yard.consumer("--task", "record")
    eventually(yard.all_done, "the first ones are done")
    acknowledged += yard.q.enqueue_many(["next year"] * 10, delay=86_400 * 365)
    yard.q.database.checkpoint("TRUNCATE")  # what was moved away is then complete without its -wal
    away = yard.folder / "away.db"
    yard.database.rename(away)

    eventually(lambda: consumer.lines("queue.db is gone; put it back"), "the consumer says what is wrong")
    with pytest.raises(persistq.DatabaseUnavailable, match="is gone; put it back"):
        yard.q.enqueue("refused")
    assert not yard.database.exists(), "nobody makes an empty one in its place"

    if way == "copied":  # another file then stands under the name
        for rest in ("-wal", "-shm"):
            (yard.folder / f"queue.db{rest}").unlink()
        shutil.copy(away, yard.folder / "copy.db")
        (yard.folder / "copy.db").rename(yard.database)  # in one step: half a copy is a broken database
    else:
        away.rename(yard.database)
    acknowledged.append(eventually(lambda: _enqueue(yard), "enqueue works again"))
    eventually(lambda: yard.q.counts()["done"] == 11, "the new job is done")
    assert [job.id for job in yard.jobs()] == acknowledged
    assert not consumer.ended()
    yard.assert_sound()


def test_files_are_still_stamped_once_after_an_outage(make_yard):
    yard = make_yard(queue_busy_seconds=0.2, timeout_seconds=0.5)
    paths = [jobfiles.create(yard.folder / "jobs", "text\n") for _ in range(60)]
    yard.q.enqueue_many(map(str, paths))
    consumer = yard.consumer("--concurrency", "4")
    for done in (1, 20, 40):
        eventually(lambda done=done: yard.q.counts()["done"] >= done, "some are done")
        seen = len(consumer.lines("trying again"))
        holder = yard.lock()
        eventually(lambda seen=seen: len(consumer.lines("trying again")) > seen, "it notices")
        holder.hang_up()
    eventually(yard.all_done, "all are done")
    assert {len(path.read_text().splitlines()) for path in paths} == {2}


def _enqueue(yard):
    try:
        return yard.q.enqueue("accepted again")
    except persistq.DatabaseUnavailable:
        return None
