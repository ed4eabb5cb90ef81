"""The power cut: a file system of one's own, shut down amid the work, mounted again."""

import fcntl
import os
import random
import struct
import subprocess
from pathlib import Path

import pytest
from support.batch_children import Child, strays
from support.batches import drain

from persistq import batch
from persistq.batch import BatchWriter

pytestmark = pytest.mark.needs("root", "mkfs.ext4", "losetup")

SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2


class Disk:
    """An ext4 file system in a file, which writes back late."""

    def __init__(self, folder: Path) -> None:
        self.image, self.place = folder / "image", folder / "disk"
        self.place.mkdir()
        with self.image.open("wb") as file:
            file.truncate(128 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", self.image], check=True)
        self.mount()

    def mount(self) -> None:
        if subprocess.run(["mount", "-o", "loop,commit=300", self.image, self.place]).returncode:
            pytest.skip("loop devices do not work here")

    def cut(self) -> None:
        """Stop every write to the disk at once, as if the power had gone."""
        handle = os.open(self.place, os.O_RDONLY)
        fcntl.ioctl(handle, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        os.close(handle)

    def cycle(self) -> None:
        """Cut, and switch on again."""
        self.cut()
        self.umount()
        self.mount()

    def umount(self) -> None:
        subprocess.run(["umount", self.place], check=True)


@pytest.fixture
def disk(tmp_path):
    made = Disk(tmp_path)
    yield made
    subprocess.run(["umount", "--lazy", made.place], check=False)


def test_what_was_safe_survives_every_cut(disk, long):
    chance = random.Random(4)
    for turn in range(100 if long else 3):
        root = disk.place / str(turn)

        def write(tell, root=root):
            with BatchWriter(root, "q", max_items=40, block_items=10) as writer:
                for number in range(1 << 40):
                    writer.add(number)
                    if number % 40 == 39 or number % 7 == 0:  # a full batch is as safe as a flush
                        writer.flush()
                        tell(number)

        child = Child(write)
        safe = [child.hear() for _ in range(chance.randrange(1, 40))]
        disk.cut()
        # What it told before it was killed may have been told after the cut: only what was heard before it counts.
        child.kill()
        disk.umount()
        disk.mount()
        batch.recover(root, "q")
        assert strays(root) == []
        got = drain(root)
        assert got == list(range(len(got))), turn
        assert len(got) > safe[-1], turn
        assert not [name for name in os.listdir(root / "q") if name.startswith("invalid")], turn
