"""Batches by the million: memory stays flat on both sides, and a claim costs the same beside 100,000 ready files."""

import os
import shutil
import statistics
import time

from support.batch_children import Child
from support.batches import drain, fill, names, only

from persistq.batch import BatchReader, BatchWriter

MEGABYTE = 1 << 20


def resident() -> int:
    """Return the bytes of memory that this process has now."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_is_flat_on_both_sides(tmp_path, long):
    number = 50_000_000 if long else 200_000
    texts = [f"{n:0100d}" for n in range(10_000)]

    def produce(tell):
        with BatchWriter(tmp_path, "q", 10_000, max_ready_files=20, durability="process") as writer:
            for turn in range(number // len(texts)):
                for text in texts:
                    writer.add(text)
                if turn % 100 == 9:
                    tell(resident())
        tell(resident())

    def consume(tell):
        count = 0
        with BatchReader(tmp_path, "q", wait=300, durability="process") as reader:
            for _ in reader:
                count += 1
                if count % 1_000_000 == 100_000:
                    tell(resident())
                if count == number:
                    break
        tell(resident())

    sides = [Child(produce), Child(consume)]
    for code, told in [child.wait() for child in sides]:
        assert code == 0
        assert max(told) - told[0] < 8 * MEGABYTE, [n // MEGABYTE for n in told]
    assert names(tmp_path) == []


def test_a_claim_costs_the_same_beside_100_000_ready_files(tmp_path, long):
    fill(tmp_path, ["one"], "made", max_items=1)
    sound = only(tmp_path, queue="made")

    def claims(waiting):
        folder = tmp_path / str(waiting)
        (folder / "q").mkdir(parents=True, mode=0o700)
        for n in range(waiting):
            path = folder / "q" / f"ready_{n:019d}_00000000.db"
            shutil.copyfile(sound, path)
            path.chmod(0o600)
        took = []
        with BatchReader(folder, "q", durability="process") as reader:
            assert reader.get() == "one"  # what looks into the folder, once for thousands of claims
            for _ in range(9):
                began = time.perf_counter()
                assert reader.get() == "one"
                took.append(time.perf_counter() - began)
        return statistics.median(took)

    few, many = claims(10), claims(100_000 if long else 500)
    print(f"a claim beside 10 ready files: {few * 1e6:.0f} us, beside many: {many * 1e6:.0f} us")
    if long:
        assert many < 2 * few
    assert drain(tmp_path / "10") == []
