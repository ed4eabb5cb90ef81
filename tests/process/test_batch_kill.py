"""Producers and consumers of batches that are killed, stopped, and run by the hundred."""

import os
import random
import signal
from collections import Counter

import pytest
from support.batch_children import Child, consuming, producing, strays
from support.batches import drain, fill, names

from persistq import batch
from persistq.batch import BatchReader, BatchWriter

BLOCK = 10
OPTIONS = {"max_items": 4 * BLOCK, "block_items": BLOCK}


@pytest.mark.parametrize("durability", ["power", "process"])
def test_what_a_killed_producer_flushed_survives(tmp_path, durability, long):
    chance = random.Random(1)
    for turn in range(500 if long else 20):
        root = tmp_path / str(turn)
        child = Child(producing(root, 0, 1 << 40, durability=durability, **OPTIONS))
        safe = [child.hear() for _ in range(chance.randrange(1, 25))]
        safe += child.kill()
        batch.recover(root, "q")
        assert strays(root) == []
        got = drain(root)
        assert got == list(range(len(got))), turn  # in order, with no gap
        assert len(got) > safe[-1], turn
        assert names(root) == []


def test_a_killed_consumer_repeats_one_block_at_most(tmp_path, long):
    chance = random.Random(2)
    for turn in range(500 if long else 20):
        root = tmp_path / str(turn)
        fill(root, range(200), **OPTIONS)
        child = Child(consuming(root))
        seen = [child.hear() for _ in range(chance.randrange(1, 150))]
        seen += child.kill()
        rest = drain(root)
        assert seen == list(range(len(seen)))
        assert sorted({*seen, *rest}) == list(range(200)), turn
        assert len(seen) + len(rest) - 200 <= BLOCK, turn
        assert rest == list(range(200 - len(rest), 200)), turn
        assert strays(root) == [] == names(root)


def test_a_stopped_owner_keeps_its_batch_and_a_dead_one_loses_it_at_once(tmp_path):
    fill(tmp_path, range(40), **OPTIONS)

    def hold_a_batch(tell):
        reader = BatchReader(tmp_path, "q")
        tell(reader.get())
        signal.pause()

    def fill_a_batch(tell):
        writer = BatchWriter(tmp_path, "q")
        writer.add("safe")
        writer.flush()
        tell(0)
        signal.pause()

    children = [Child(hold_a_batch), Child(fill_a_batch)]
    for child in children:
        child.hear()
        os.kill(child.pid, signal.SIGSTOP)
        os.waitpid(child.pid, os.WUNTRACED)
    held = names(tmp_path)
    assert [name.partition("_")[0] for name in held] == ["loading", "unload"]

    assert batch.recover(tmp_path, "q") == batch.Recovered(alive=2)
    assert drain(tmp_path) == []
    assert names(tmp_path) == held
    found = batch.counts(tmp_path, "q")
    assert found["loading"] == found["unload"] == {"live": 1, "dead": 0}

    for child in children:
        child.kill()
    found = batch.counts(tmp_path, "q")
    assert found["loading"] == found["unload"] == {"live": 0, "dead": 1}
    assert batch.recover(tmp_path, "q") == batch.Recovered(ready=2)
    assert drain(tmp_path) == [*range(40), "safe"]


def test_a_reader_that_waits_takes_over_what_a_dead_one_left(tmp_path):
    """Nobody restarts anything and nobody calls recover."""
    fill(tmp_path, range(30), **OPTIONS)

    def consume_half(tell):
        reader = BatchReader(tmp_path, "q")
        for _ in range(15):
            tell(reader.get())
        signal.pause()

    with BatchReader(tmp_path, "q") as waiting:
        doomed = Child(consume_half)
        assert [doomed.hear() for _ in range(15)] == list(range(15))
        assert waiting.get() is None
        doomed.kill()
        assert [waiting.get(timeout=60) for _ in range(20)] == list(range(10, 30))


def test_six_producers_and_a_hundred_and_twenty_consumers(tmp_path):
    (tmp_path / "spool").mkdir(mode=0o700)
    each = 250
    gate = tmp_path / "over"

    def consume(tell):
        got = []
        with BatchReader(tmp_path / "spool", "q", durability="process") as reader:
            while True:
                over = gate.exists()
                item = reader.get(timeout=0 if over else 0.3)
                if item is not None:
                    got.append(item)
                elif over:
                    break
        for item in got:
            tell(item)

    def produce(number):
        def act(tell):
            with BatchWriter(tmp_path / "spool", "q", max_items=25, max_ready_files=10, durability="process") as writer:
                for n in range(each):
                    writer.add(number * each + n)

        return act

    consumers = [Child(consume) for _ in range(120)]
    producers = [Child(produce(number)) for number in range(6)]
    assert [child.wait() for child in producers] == [(0, [])] * 6
    gate.touch()
    seen = Counter()
    for child in consumers:
        code, got = child.wait()
        assert code == 0
        seen.update(got)
    assert seen == Counter(range(6 * each))
    assert names(tmp_path / "spool") == []
