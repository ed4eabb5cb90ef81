"""How batches come, go and keep their order: writers and readers of one process."""

import os
import stat
import threading
from pathlib import Path

import pytest
from support.batches import drain, fill, names, only
from support.clock import FakeClock

import persistq
from persistq import batch
from persistq.batch import BatchName, BatchReader, BatchStatus, BatchWriter


def test_exactly_full_is_exactly_one_ready_batch(tmp_path):
    with BatchWriter(tmp_path, "q", max_items=2500) as writer:
        for n in range(2500):
            writer.add(n)
        assert len(names(tmp_path, "ready_")) == len(names(tmp_path)) == 1
        writer.add(2500)
        assert [name.partition("_")[0] for name in names(tmp_path)] == ["loading", "ready"]
    assert len(names(tmp_path, "ready_")) == 2
    assert drain(tmp_path) == list(range(2501))
    assert names(tmp_path) == []


def test_a_batch_of_one_item_is_allowed(tmp_path):
    fill(tmp_path, ["a", "b"], max_items=1)
    assert len(names(tmp_path, "ready_")) == 2
    assert drain(tmp_path) == ["a", "b"]


def test_batches_come_in_the_order_of_their_creation_within_one_moment(tmp_path):
    fill(tmp_path, range(50), max_items=1, clock=FakeClock())
    assert drain(tmp_path) == list(range(50))


def test_a_clock_that_steps_back_changes_no_order(tmp_path):
    clock = FakeClock()
    with BatchWriter(tmp_path, "q", max_items=1, clock=clock) as writer:
        for n in range(6):
            writer.add(n)
            clock.jump(-3600)
    fill(tmp_path, [6, 7], max_items=1, clock=clock)  # nor does it for the next producer
    assert drain(tmp_path) == list(range(8))


def test_add_many_is_the_same_as_adding_each(tmp_path):
    items = [f"item {n}" for n in range(3333)]
    with BatchWriter(tmp_path, "q", max_items=1500) as writer:
        assert writer.add_many(items[:700]) == 700
        assert writer.add(items[700])
        assert writer.add_many(iter(items[701:])) == 3333 - 701
        assert writer.add_many([]) == 0
        assert len(names(tmp_path, "ready_")) == 2
    assert drain(tmp_path) == items


def test_flushed_items_are_in_the_file_before_it_is_ready(tmp_path):
    with BatchWriter(tmp_path, "q") as writer:
        writer.add("one")
        assert only(tmp_path).stat().st_size == 0
        writer.flush()
        writer.flush()
        writer.add("two")
        writer.flush()
        assert not names(tmp_path, "ready_")
        assert only(tmp_path, "loading_").stat().st_size > 0
    assert drain(tmp_path) == ["one", "two"]


def test_nothing_added_leaves_no_batch(tmp_path):
    with BatchWriter(tmp_path, "q", max_age=0.01) as writer:
        writer.flush()
        assert writer.roll() is False
        assert writer.roll_if_due() is None
        assert names(tmp_path) == []
    writer.close()
    assert names(tmp_path) == []


def test_a_batch_becomes_ready_by_age_without_further_adds(tmp_path):
    with BatchWriter(tmp_path, "q", max_age=0.02) as writer, BatchReader(tmp_path, "q") as reader:
        for n in range(3):
            writer.add(n)
            assert reader.get(timeout=30) == n
        assert reader.get() is None


def test_age_counts_from_the_first_item_and_by_the_monotonic_clock(tmp_path):
    clock = FakeClock()
    writer = BatchWriter(tmp_path, "q", max_age=10, clock=clock)
    writer._start_timer = lambda: None  # the test looks instead of the timer
    clock.advance(100)
    writer.add("first")
    clock.advance(9)
    writer.add("second")
    clock.jump(3600)
    assert writer.roll_if_due() == pytest.approx(1)
    clock.advance(1.5)
    assert writer.roll_if_due() is None
    assert len(names(tmp_path, "ready_")) == 1
    clock.advance(100)
    assert writer.roll_if_due() is None
    assert len(names(tmp_path)) == 1
    writer.close()


def test_a_writer_that_is_let_go_of_hands_its_items_over(tmp_path):
    writer = BatchWriter(tmp_path, "q")
    writer.add("kept")
    del writer
    assert drain(tmp_path) == ["kept"]


def test_a_closed_writer_takes_nothing(tmp_path):
    writer = BatchWriter(tmp_path, "q")
    writer.close()
    writer.close()
    for call in (lambda: writer.add("x"), lambda: writer.add_many(["x"])):
        with pytest.raises(persistq.ConfigError, match="closed"):
            call()
    assert names(tmp_path) == []


def test_threads_share_a_writer_and_every_item_comes_once(tmp_path):
    with BatchWriter(tmp_path, "q", max_items=700, block_items=90, max_age=0.001) as writer:
        threads = [threading.Thread(target=lambda n=n: [writer.add(f"{n} {k}") for k in range(3000)]) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    got = drain(tmp_path)
    assert sorted(got) == sorted(f"{n} {k}" for n in range(4) for k in range(3000))


# Back-pressure


def test_a_full_queue_refuses_and_keeps_what_it_took(tmp_path):
    with BatchWriter(tmp_path, "q", max_items=2, max_ready_files=2, on_full="refuse") as writer:
        taken = [writer.add(n) for n in range(9)]
        assert taken == [True] * 6 + [False] * 3  # the third batch is full, and waits for its place
        assert writer.add_many([9, 10]) == 0
        assert writer.roll() is False
        assert len(names(tmp_path, "ready_")) == 2
        with BatchReader(tmp_path, "q") as reader:
            assert [reader.get() for _ in range(3)] == [0, 1, 2]
        assert writer.add(11) is True
        assert len(names(tmp_path, "ready_")) == 2
    assert drain(tmp_path) == [3, 4, 5, 11]  # 2 counted as consumed when its reader was closed


def test_a_full_queue_raises(tmp_path):
    with BatchWriter(tmp_path, "q", max_items=1, max_ready_files=1, on_full="raise") as writer:
        assert writer.add("a")
        assert writer.add("b")
        for _ in range(2):
            with pytest.raises(persistq.QueueFull, match="ready already"):
                writer.add("c")
        with pytest.raises(persistq.QueueFull) as error:
            writer.add_many(["c", "d"])
        assert error.value.added == 0
        writer.flush()  # what was taken is safe all the same
    assert drain(tmp_path) == ["a", "b"]


def test_a_full_queue_blocks_until_there_is_room(tmp_path):
    writer = BatchWriter(tmp_path, "q", max_items=1, max_ready_files=1)
    adding = threading.Thread(target=lambda: [writer.add(n) for n in range(20)])
    adding.start()
    most, got = 0, []
    with BatchReader(tmp_path, "q", wait=30) as reader:
        for item in reader:
            most = max(most, len(names(tmp_path, "ready_")))
            got.append(item)
            if item == 18:
                break
    adding.join()
    writer.close()
    assert got == list(range(19))
    assert most <= 1
    assert drain(tmp_path) == [19]


def test_blocking_ends_after_its_timeout(tmp_path):
    with BatchWriter(tmp_path, "q", max_items=1, max_ready_files=1, timeout=0.05) as writer:
        writer.add_many(["a", "b"])
        with pytest.raises(persistq.QueueFull):
            writer.add("c")
    assert drain(tmp_path) == ["a", "b"]


# Reading


def test_a_reader_finds_nothing_again_and_again_and_then_what_comes(tmp_path):
    with BatchReader(tmp_path, "q") as reader:
        for n in range(3):
            assert [reader.get(), reader.get(), list(reader)] == [None, None, []]
            fill(tmp_path, [n, "more"])
            assert reader.get() == n
            assert list(reader) == ["more"]


def test_get_iteration_and_blocks_go_on_from_one_another(tmp_path):
    fill(tmp_path, range(20), block_items=4, max_items=10)
    with BatchReader(tmp_path, "q") as reader:
        assert reader.get() == 0
        iterator = iter(reader)
        assert [next(iterator), next(iterator), reader.get(), reader.get()] == [1, 2, 3, 4]
        assert next(reader.blocks()) == [5, 6, 7]
        assert reader.get_block() == [8, 9]
        assert reader.get() == 10
        assert list(reader) == list(range(11, 20))
        assert reader.get_block() == []


def test_a_list_is_its_owners_again_after_the_call(tmp_path: Path) -> None:
    given = [f"item {n}" for n in range(12)]
    with BatchWriter(tmp_path, max_items=9, block_items=3) as writer:
        for start in range(0, 12, 3):
            some = given[start : start + 3]
            assert writer.add_many(some) == 3  # a whole block
            some.clear()
    reader = BatchReader(tmp_path)
    blocks = reader.blocks()
    for start in (0, 3):
        block = next(blocks)
        assert block == given[start : start + 3]
        block.clear()
    assert reader.place is not None
    assert reader.place[1] == 6
    del reader, blocks  # without close, as if it had died: what was saved is the end of the first block
    with BatchReader(tmp_path) as another:
        assert list(another) == given[3:]


def test_a_closed_reader_gives_back_what_it_did_not_hand_out(tmp_path):
    fill(tmp_path, range(10), block_items=4)
    with BatchReader(tmp_path, "q") as reader:
        assert [reader.get() for _ in range(6)] == [0, 1, 2, 3, 4, 5]
        assert names(tmp_path, "unload_")
    assert len(names(tmp_path, "ready_")) == len(names(tmp_path)) == 1
    assert drain(tmp_path) == [6, 7, 8, 9]
    with pytest.raises(persistq.ConfigError, match="closed"):
        reader.get()


def test_an_exception_in_the_block_leaves_its_item_unconsumed(tmp_path):
    fill(tmp_path, range(10), block_items=4)
    for failing in (2, 3, 4, 9):
        with pytest.raises(ZeroDivisionError), BatchReader(tmp_path, "q") as reader:
            for item in reader:
                if item == failing:
                    raise ZeroDivisionError
        with BatchReader(tmp_path, "q") as again:
            assert again.get() == failing
            assert again.release(1)
    assert drain(tmp_path) == [9]


def test_release_gives_back_as_much_as_is_asked(tmp_path):
    fill(tmp_path, range(10), block_items=4)
    with BatchReader(tmp_path, "q") as reader:
        assert reader.release() is False
        assert [reader.get() for _ in range(7)][-1] == 6
        assert reader.release(2) is True
        assert reader.release() is False
        assert reader.get() == 5
        assert reader.release(1 << 40)
        assert list(reader) == list(range(10))


def test_the_owner_is_seen_in_the_name_and_made_harmless(tmp_path):
    fill(tmp_path, [1], max_items=1)
    with BatchReader(tmp_path, "q", owner="../7 of\n9") as reader:
        reader.get()
        name = BatchName.parse(only(tmp_path).name)
        assert (name.status, name.owner) == (BatchStatus.UNLOAD, "..-7-of-9")
        assert reader.batch == name.text
        reader.release(1)
    assert "of" not in only(tmp_path, "ready_").name


def test_readers_share_the_batches(tmp_path):
    fill(tmp_path, range(300), max_items=10)
    with BatchReader(tmp_path, "q") as one, BatchReader(tmp_path, "q") as other:
        got = [reader.get() for _ in range(150) for reader in (one, other)]
        assert sorted(got) == list(range(300))
        assert one.get() is None is other.get()


def test_counts_are_what_the_folder_shows(tmp_path):
    fill(tmp_path, range(3), max_items=1)
    writer = BatchWriter(tmp_path, "q")
    writer.add("x")
    reader = BatchReader(tmp_path, "q")
    reader.get()
    (tmp_path / "q" / "unload_1700000000000000000_00000000.db").touch(0o600)
    (tmp_path / "q" / "invalid_1700000000000000000_00000000.db").touch(0o600)
    (tmp_path / "q" / "notes.txt").touch()
    assert batch.counts(tmp_path, "q") == {
        "loading": {"live": 1, "dead": 0},
        "ready": {"all": 2},
        "unload": {"live": 1, "dead": 1},
        "invalid": {"all": 1},
    }
    assert batch.queues(tmp_path) == ["q"]
    writer.close()
    reader.close()


# Where


def test_everything_is_private_whatever_the_umask(tmp_path):
    old = os.umask(0)
    try:
        fill(tmp_path / "spool", range(5), block_items=2, max_items=4)
        with BatchReader(tmp_path / "spool", "q") as reader:
            reader.get()
            found = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "spool").rglob("*")}
            found[tmp_path / "spool"] = stat.S_IMODE((tmp_path / "spool").stat().st_mode)
    finally:
        os.umask(old)
    assert {mode for path, mode in found.items() if path.suffix == ".db"} == {0o600}
    assert {mode for path, mode in found.items() if not path.suffix} == {0o700}


@pytest.mark.parametrize("queue", ["", ".", "..", "a/b", "x" * 65, None])
def test_a_queue_needs_a_usable_name(tmp_path, queue):
    with pytest.raises(persistq.ConfigError):
        BatchWriter(tmp_path, queue)


def test_a_folder_that_others_can_write_to_is_refused(tmp_path):
    (tmp_path / "q").mkdir(mode=0o700)
    (tmp_path / "q").chmod(0o770)
    with pytest.raises(persistq.ConfigError, match="chmod"):
        BatchReader(tmp_path, "q")
    (tmp_path / "link").symlink_to(tmp_path / "q")
    with pytest.raises(persistq.ConfigError, match="link"):
        BatchReader(tmp_path, "link")


def test_a_network_file_system_is_refused_unless_told(tmp_path, monkeypatch):
    monkeypatch.setattr("persistq.batch.spool.is_network", lambda folder: True)
    for door in (BatchReader, BatchWriter):
        with pytest.raises(persistq.ConfigError, match="network"):
            door(tmp_path, "q")
        door(tmp_path, "q", allow_network=True).close()


@pytest.mark.parametrize(
    "options",
    [{"max_items": 0}, {"max_items": True}, {"max_items": 1 << 23}, {"max_ready_files": 0}, {"on_full": "drop"},
     {"durability": "none"}, {"block_items": 0}, {"max_item_bytes": 0}],
    ids=str,
)  # fmt: skip
def test_an_unusable_option_is_refused(tmp_path, options):
    with pytest.raises(persistq.ConfigError):
        BatchWriter(tmp_path, "q", **options)


def test_a_child_process_leaves_its_parents_items_and_batches_alone(tmp_path):
    fill(tmp_path, ["held"], max_items=1)
    writer, reader = BatchWriter(tmp_path, "q"), BatchReader(tmp_path, "q")
    writer.add("parent's")
    assert reader.get() == "held"
    child = os.fork()
    if not child:
        try:
            writer.add("child's")
            writer.close()
            reader.close()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert len(names(tmp_path, "unload_")) == 1
    assert drain(tmp_path) == ["child's"]
    reader.close()
    writer.close()
    assert drain(tmp_path) == ["parent's"]
    assert names(tmp_path) == []


def test_claiming_costs_the_same_however_many_batches_wait(tmp_path, monkeypatch):
    """Counted, not timed: one look into the folder serves thousands of claims."""
    folder = tmp_path / "q"
    fill(tmp_path, ["first"])
    (first,) = names(tmp_path)
    for n in range(3000):
        Path(folder / f"ready_9{n:018d}_00000000.db").touch(0o600)
    looks = []
    with BatchReader(tmp_path, "q") as reader:
        scan = reader.spool.names
        monkeypatch.setattr(reader.spool, "names", lambda: looks.append(1) or scan())
        assert reader.get() == "first"
        assert reader.get() is None  # all the others are empty files, put aside one by one
    assert first not in names(tmp_path)
    assert len(names(tmp_path, "invalid_")) == 3000
    assert len(looks) <= 4
