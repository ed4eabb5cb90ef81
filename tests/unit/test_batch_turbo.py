"""turbo-queue's names: both quickstarts with only the import changed, and what its files were called."""

import sqlite3

import pytest
from support.batches import drain, fill, names, only

import persistq
from persistq import batch
from persistq.batch import BatchName, BatchReader, Dequeue, Enqueue, Startup


def test_the_quickstart(tmp_path):
    """The text of the seed, its typing mistakes put right."""
    from persistq import batch as turbo_queue

    enqueue = turbo_queue.enqueue()
    enqueue.queue_name = "data_in"
    enqueue.root_path = str(tmp_path)
    enqueue.max_avail_files = 5
    enqueue.max_events_per_file = 1000
    enqueue.start()

    enqueue.update_enqueue_active_state()
    added = 0
    while enqueue.enqueue_active:
        enqueue.add("""{"data":"add_to_queue"}""")
        added += 1
        enqueue.update_enqueue_active_state()
    assert added == 5000
    assert enqueue.get_avail_length() == enqueue.get_ready_length() == 5

    dequeue = turbo_queue.dequeue(1)
    dequeue.root_path = str(tmp_path)
    dequeue.queue_name = "data_in"

    get_data = dequeue.get()
    data = next(get_data)
    got = 0
    while data:
        assert data == """{"data":"add_to_queue"}"""
        got += 1
        data = next(get_data)
    assert got == 5000
    assert (dequeue.total_gets(), dequeue.total_batch()) == (5000, 5)

    assert next(get_data) is None  # again, and again
    enqueue.update_enqueue_active_state()
    assert enqueue.enqueue_active
    enqueue.add({"more": 1})
    enqueue.roll()
    assert next(get_data) == {"more": 1}
    assert next(get_data) is None
    enqueue.close()
    dequeue.close()
    assert names(tmp_path, queue="data_in") == []


def opened(tmp_path, door, **attributes):
    door.root_path, door.queue_name = tmp_path, "q"
    for name, value in attributes.items():
        setattr(door, name, value)
    return door


def test_adding_beyond_the_limit_is_refused_not_dropped(tmp_path):
    door = opened(tmp_path, Enqueue(), max_ready_files=2, max_events_per_file=1, on_full="refuse")
    with pytest.raises(persistq.ConfigError, match="start"):
        door.add(1)
    door.start()
    assert [door.add(n) for n in range(4)] == [True, True, True, False]
    door.close()
    assert drain(tmp_path) == [0, 1, 2]


def test_the_number_of_the_process_is_in_the_name_of_its_batch(tmp_path):
    fill(tmp_path, [1])
    door = opened(tmp_path, Dequeue(17))
    assert next(door.get()) == 1
    assert only(tmp_path, "unload_").name.endswith("_17.db")


def test_roll_back_restores_the_batch_and_a_second_one_does_nothing(tmp_path):
    fill(tmp_path, range(10), block_items=4)
    (before,) = names(tmp_path)
    door = opened(tmp_path, Dequeue())
    assert door.roll_back() is False
    items = door.get()
    assert [next(items) for _ in range(7)] == list(range(7))
    assert door.roll_back() is True
    assert door.roll_back() is False
    assert names(tmp_path) == [before]
    assert [next(items) for _ in range(11)] == [*range(10), None]


def test_without_auto_cleanup_the_batch_stays_until_it_is_cleaned_up(tmp_path):
    fill(tmp_path, range(4), max_items=2)
    door = opened(tmp_path, Dequeue(), auto_cleanup=False)
    assert next(door.get()) == 0
    second = door.get()
    assert [next(second), next(second), next(second)] == [1, None, None]
    assert len(names(tmp_path, "unload_")) == 1
    door.clean_up()
    assert names(tmp_path, "unload_") == []
    assert [next(second), next(second), next(second)] == [2, 3, None]
    door.clean_up()
    door.clean_up()
    assert next(second) is None
    assert names(tmp_path) == []


def test_a_batch_rolls_by_age(tmp_path):
    producer = opened(tmp_path, Enqueue(), max_batch_age=0.02)
    producer.start()
    producer.add("aged")
    with BatchReader(tmp_path, "q") as reader:
        assert reader.get(timeout=30) == "aged"
    producer.close()


OLD = {
    "load_1700000001_{id}.db": "loading", "loading_1700000001_{id}.db": "loading", "avail_1700000001_{id}.db": "ready",
    "ready_1700000001_{id}.db": "ready", "ready_1700000001_{id}.db_temp_hold": "unload",
    "ready_1700000001_{id}_recovered.db": "ready", "unload_1700000001_{id}.db_7": "unload",
    "unload_1700000001_{id}.db": "unload", "assigned_7_1700000001_{id}.db": "unload",
    "chosen_1700000001_{id}.db": "unload", "invalid_file_1700000001_{id}_recovered.db": "invalid",
}  # fmt: skip
UUID = "0b5a8f2e-7d54-4b5e-9a53-6a1d7c2f7e10"


@pytest.mark.parametrize("pattern", OLD)
def test_old_names_are_read(pattern):
    name = BatchName.parse(pattern.format(id=UUID))
    assert (name.status, name.created, name.id) == (OLD[pattern], 1_700_000_001 * 10**9, UUID)
    assert name.owner == ("7" if "7_1" in pattern or "db_7" in pattern else None)
    assert BatchName.parse(name.become(batch.BatchStatus.READY).text) == name.become(batch.BatchStatus.READY)


@pytest.mark.parametrize(
    "text", ["", "ready_1_a.db", "ready_1700000000000000000_0.db", "notes.txt", "ready_x_00000000.db",
             "ready_1700000000000000000_00000000.db-journal", "ready_1700000000000000000_00000000_a/b.db"]
)  # fmt: skip
def test_other_names_are_nobodys(text):
    assert BatchName.parse(text) is None


@pytest.mark.parametrize("pattern", [name for name, status in OLD.items() if status != "invalid"])
def test_old_files_are_read_and_what_old_processes_left_is_recovered(tmp_path, pattern):
    values = ['{"a": 1}', '"text"', "[1, 2]", "7", "1.5", "true", '""', "{}"]
    (tmp_path / "q").mkdir(mode=0o700)
    path = tmp_path / "q" / pattern.format(id=UUID)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE logs (log_data json)")
    connection.executemany("INSERT INTO logs VALUES (?)", [(value,) for value in values])
    connection.commit()
    connection.close()
    fill(tmp_path, ["later"])
    opened(tmp_path, Startup()).on_start_cleanup()
    assert drain(tmp_path) == [{"a": 1}, "text", [1, 2], 7, 1.5, True, "", {}, "later"]
    assert names(tmp_path) == []


def test_an_old_file_that_its_producer_never_committed_leaves_nothing(tmp_path):
    (tmp_path / "q").mkdir(mode=0o700)
    (tmp_path / "q" / f"load_1700000001_{UUID}.db").touch(mode=0o600)
    assert opened(tmp_path, Startup()).on_start_cleanup().empty == 1
    assert names(tmp_path) == []
