"""Items that kill whoever performs them: found out, given up as jobs, and their neighbours hardly troubled."""

import os
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support.batch_children import Child
from support.batches import drain, fill, names, only
from support.clock import FakeClock

from persistq import tasks
from persistq.batch import BatchName, BatchReader, BatchStatus, file
from persistq.batch.source import BatchSource
from persistq.model import Done, NewJob, Released
from persistq.tasks import Cancellation

ATTEMPTS = 3


@pytest.fixture
def task():
    """A task that does nothing: what these tests perform, they perform by hand."""

    @tasks.task(name="suspected")
    def suspected(item: object) -> None:
        pass

    return suspected.name


def reader_of(root: Path, until: int) -> Callable[[Callable[[int], None]], None]:
    """Return what a reader does that is killed by an item: it tells each item that it begins."""

    def act(tell: Callable[[int], None]) -> None:
        with BatchReader(root, "q") as reader:
            for item in reader:
                tell(item)
                if item == until:
                    os._exit(9)

    return act


def test_a_name_keeps_the_deaths_and_where_they_were():
    name = BatchName.new(1700000000000000000)
    first = name.become(BatchStatus.UNLOAD, 7).after_death(8)
    assert (first.deaths, first.at, first.status, first.owner) == (1, 8, BatchStatus.READY, None)
    assert BatchName.parse(first.text) == first
    held = first.become(BatchStatus.UNLOAD, "me", first.deaths, first.at)
    assert BatchName.parse(held.text) == held
    assert held.after_death(8).deaths == 2  # the very item
    assert (held.after_death(9).deaths, held.after_death(9).at) == (2, 9)  # it was in the block as well
    assert first.become(BatchStatus.READY).deaths == 0


def test_after_a_death_the_block_comes_item_by_item_and_the_next_one_whole(tmp_path):
    fill(tmp_path, range(12), block_items=4)
    assert Child(reader_of(tmp_path, 5)).wait() == (9, list(range(6)))
    with BatchReader(tmp_path, "q") as reader:
        assert [(reader.get_block(), reader.deaths) for _ in range(4)] == [([4], 1), ([5], 1), ([6], 1), ([7], 1)]
        assert BatchName.parse(only(tmp_path).name).deaths == 1
        assert (reader.get_block(), reader.deaths) == ([8, 9, 10, 11], 0)
        assert BatchName.parse(only(tmp_path).name).deaths == 0
    assert names(tmp_path) == []


def test_one_by_one_a_death_repeats_one_item_and_is_counted_for_it(tmp_path):
    fill(tmp_path, range(12), block_items=4)
    told = [Child(reader_of(tmp_path, 6)).wait() for _ in range(4)]
    assert told == [(9, [0, 1, 2, 3, 4, 5, 6]), (9, [4, 5, 6]), (9, [6]), (9, [6])]
    with BatchReader(tmp_path, "q") as reader:
        assert (reader.get(), reader.deaths) == (6, 4)
        assert (reader.get(), reader.deaths) == (7, 1)
        assert (reader.get(), reader.deaths) == (8, 0)
    assert drain(tmp_path) == [9, 10, 11]


def test_who_gives_a_suspect_back_alive_changes_nothing(tmp_path):
    fill(tmp_path, range(8), block_items=4)
    for _ in range(2):
        Child(reader_of(tmp_path, 1)).wait()
    for _ in range(3):
        with BatchReader(tmp_path, "q") as reader:
            assert (reader.get(), reader.deaths) == (1, 2)
            assert reader.release(1)
    with BatchReader(tmp_path, "q") as reader:
        assert [reader.get(), reader.get()] == [1, 2]
    with BatchReader(tmp_path, "q") as reader:
        assert (reader.get(), reader.deaths) == (3, 1)
        assert reader.release(1 << 40)  # all of it, as if nothing had been: then nobody has died of it either
    assert drain(tmp_path) == list(range(8))


def source(
    root: Path, promoted: list[NewJob], task: str, concurrency: int = 1, attempts: int = ATTEMPTS
) -> BatchSource:
    return BatchSource(
        str(root), "q", name="me", task=task, concurrency=concurrency, max_attempts=attempts, clock=FakeClock(),
        promote=lambda job, reason: promoted.append((job.unique_key, job.item, reason)),
    )  # fmt: skip


def test_an_item_that_kills_is_given_up_and_its_neighbours_pay_one_repetition(tmp_path, task):
    """Every consumer dies, by the same items, until these are jobs."""
    fill(tmp_path, range(30), block_items=10, max_items=20)
    killers = {3, 7, 25}
    performed: Counter[int] = Counter()
    promoted: list = []
    deaths = 0

    def consume(tell):
        with closing(source(tmp_path, promoted, task)) as works:
            settled = []
            while turn := works.exchange(settled, [], 1).claimed:
                (work,) = turn
                for item in work.items:
                    tell(item)
                    if item in killers:
                        os._exit(9)
                    work.done += 1
                settled = [Done(work)]
        for key, *_ in promoted:
            tell(1000 + int(key.rpartition(":")[2]))

    while True:
        code, told = Child(consume).wait()
        performed.update(told)
        if not code:
            break
        deaths += 1
        assert deaths <= 3 * ATTEMPTS
    assert all(performed[item] == ATTEMPTS for item in killers - {7})
    assert performed[7] == ATTEMPTS - 1  # it was in the block that 3 has killed, and so had one death to its name
    assert all(performed[item] <= 2 for item in set(range(30)) - killers)
    assert names(tmp_path) == []


def test_what_was_given_up_is_a_job_with_the_reason(tmp_path, task):
    fill(tmp_path, ["good", "killer", "fine"], block_items=3)
    for _ in range(ATTEMPTS):

        def die(tell):
            with BatchReader(tmp_path, "q") as reader:
                for item in reader:
                    if item == "killer":
                        os._exit(9)

        Child(die).wait()
    promoted: list = []
    works = source(tmp_path, promoted, task)
    (work,) = works.exchange([], [], 1).claimed
    assert (work.items, work.suspect, work.attempts) == (["fine"], True, 1)
    ((key, item, reason),) = promoted
    assert key.startswith("batch:")
    assert key.endswith(":1")
    assert item == '{"item":"killer"}'
    assert "3 consumers in a row died" in reason
    work.done = 1
    assert works.exchange([Done(work)], [], 1).claimed == []
    works.close()
    assert names(tmp_path) == []


def test_with_one_attempt_the_killer_is_given_up_and_its_neighbours_are_performed(tmp_path, task):
    """The first death says only that it was one of the block, so it may take nobody's last attempt."""
    fill(tmp_path, ["good", "killer", "fine"], block_items=3)
    promoted: list = []

    def die(tell):
        with BatchReader(tmp_path, "q") as reader:
            for item in reader:
                if item == "killer":
                    os._exit(9)

    Child(die).wait()
    with closing(source(tmp_path, promoted, task, attempts=1)) as works:
        (work,) = works.exchange([], [], 1).claimed
        assert (work.items, work.suspect) == (["good"], True)
        work.done = 1
        (work,) = works.exchange([Done(work)], [], 1).claimed
        assert (work.items, work.suspect) == (["killer"], True)
        assert promoted == []
    Child(die).wait()
    with closing(source(tmp_path, promoted, task, attempts=1)) as works:
        (work,) = works.exchange([], [], 1).claimed
        assert (work.items, work.suspect) == (["fine"], True)
        ((_, item, reason),) = promoted
        assert item == '{"item":"killer"}'
        assert "2 consumers in a row died" in reason
        work.done = 1
        assert works.exchange([Done(work)], [], 1).claimed == []
    assert names(tmp_path) == []


def test_a_suspect_is_performed_alone(tmp_path, task):
    fill(tmp_path, range(12), block_items=2, max_items=4)
    assert Child(reader_of(tmp_path, 1)).wait()[0] == 9
    works = source(tmp_path, [], task, concurrency=3)

    def done(work):
        work.done = len(work.items)
        return Done(work)

    first = only(tmp_path, f"ready_{min(names(tmp_path)).split('_')[1]}")
    aside = first.with_name(first.name.replace("ready_", "aside_"))
    first.rename(aside)  # so that others run already when it comes
    (running,) = works.exchange([], [], 1).claimed
    aside.rename(first)
    os.utime(first.parent)
    assert works.exchange([], [running], 2).claimed == []
    assert works.exchange([], [running], 2).claimed == []
    assert works.pause() > 0
    left = works.perform(running, Cancellation())  # it ends at its next item, which is its first
    assert isinstance(left, Released)
    assert running.done == 0
    (alone,) = works.exchange([left], [], 3).claimed
    assert (alone.items, alone.suspect) == ([0], True)
    assert works.exchange([], [alone], 2).claimed == []
    (alone,) = works.exchange([done(alone)], [], 3).claimed
    assert alone.items == [1]
    together = works.exchange([done(alone)], [], 3).claimed
    assert sorted(work.items for work in together) == [[2, 3], [4, 5], [8, 9]]
    works.close()
    assert sorted(drain(tmp_path)) == [*range(2, 12)]


def test_a_recovery_that_cannot_read_the_progress_puts_the_batch_aside(tmp_path):
    fill(tmp_path, range(5))
    path = only(tmp_path)
    unload = path.with_name(path.name.replace("ready_", "unload_"))
    path.rename(unload)
    data = bytearray(unload.read_bytes())
    data[62] ^= 4
    unload.write_bytes(data)
    assert drain(tmp_path) == []
    assert len(names(tmp_path, "invalid_")) == 1


@pytest.mark.parametrize("number", [file.MAX_ITEMS + 1, 10_000_000, (1 << 24) - 1])
def test_a_progress_that_no_name_has_room_for_puts_the_batch_aside(tmp_path, number):
    fill(tmp_path, range(5))
    path = only(tmp_path)
    unload = path.rename(path.with_name(path.name.replace("ready_", "unload_")))
    with unload.open("r+b") as opened:
        file.write_progress(opened.fileno(), number)
    assert drain(tmp_path) == []
    assert [BatchName.parse(name).status for name in names(tmp_path)] == [BatchStatus.INVALID]


def test_damage_behind_the_suspects_puts_the_batch_aside(tmp_path):
    """Their batch has another name by then, under which SQLite has to look for what is wrong."""
    fill(tmp_path, ["one", "two", "three", "four"], block_items=2)
    path = only(tmp_path)
    data = bytearray(path.read_bytes())
    data[data.index(b"three")] ^= 1
    path.write_bytes(data)
    fill(tmp_path, ["good"])

    def die(_tell):
        BatchReader(tmp_path, "q").get()
        os._exit(9)

    assert Child(die).wait()[0] == 9
    assert drain(tmp_path) == ["one", "two", "good"]
    assert [BatchName.parse(name).status for name in names(tmp_path)] == [BatchStatus.INVALID]


def test_a_block_that_could_not_be_read_for_once_is_not_passed_over(tmp_path, monkeypatch):
    fill(tmp_path, range(9), block_items=3)
    with BatchReader(tmp_path, "q") as reader:
        assert reader.get_block() == [0, 1, 2]
        with monkeypatch.context() as broken:
            broken.setattr(os, "preadv", _fails)
            with pytest.raises(Exception, match="Input/output"):
                reader.get_block()
        assert reader.get_block() == [3, 4, 5]
    assert drain(tmp_path) == [6, 7, 8]


def _fails(*_args: object) -> int:
    raise OSError(5, "Input/output error")
