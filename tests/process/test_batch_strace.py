"""A kill, a power cut or an error at each system call of a batch's life; and the order of what is made durable."""

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from support.batch_children import strays
from support.batches import drain, names
from support.strace import CALLS, inject, points, touching

from persistq import batch

from .test_batch_power import Disk

pytestmark = pytest.mark.needs("strace")

BLOCK, BATCH = 4, 10
DRIVER = """
import os, sys
from datetime import UTC, datetime
from persistq.batch import names, BatchReader, BatchWriter
from persistq.errors import PersistQError

class Clock:
    def now(self): return datetime(2024, 2, 29, tzinfo=UTC)
    def monotonic(self): return 0.0

ids = iter(f"{n:016x}" for n in range(1, 9))
names.secrets.token_hex = lambda size: next(ids)
journal = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
note = lambda word, n: os.write(journal, f"{word} {n}\\n".encode())
with BatchWriter("spool", "q", max_items=10, block_items=4, durability="power", clock=Clock()) as writer:
    for n in range(15):
        writer.add(n)
        if n in (5, 8):
            writer.flush()
            note("safe", n)
note("safe", 14)
with BatchReader("spool", "q", owner=1, clock=Clock()) as reader:
    for item in reader:
        note("seen", item)
        if item == 12:
            break
with BatchReader("spool", "q", owner=1, clock=Clock()) as reader:
    for item in reader:
        note("seen", item)
"""
STAMP = 1_709_164_800_000_000_000


def paths(folder: Path) -> list[str]:
    """Return every path of the spool that the driver may touch: strace wants each by its name."""
    files = [
        f"{word}_{STAMP + n:019d}_{n + 1:016x}{end}.db"
        for n in range(2)
        for word, end in (("loading", ""), ("ready", ""), ("unload", "_1"))
    ]
    queue = folder / "spool" / "q"
    return [str(queue), *(str(queue / (name + tail)) for name in files for tail in ("", "-journal"))]


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "spool" / "q").mkdir(parents=True, mode=0o700)
    (folder / "spool").chmod(0o700)
    strace = ["strace", "-f", "-qq", "-y", "-o", "trace", *touching(paths(folder)), *options]
    return subprocess.run(
        [*strace, sys.executable, "-c", DRIVER, str(journal_of(folder))],
        cwd=folder, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def journal_of(folder: Path) -> Path:
    """Return where the driver notes what it was told: never in the folder's own file system, if that is to be cut."""
    return (folder.parent.parent if folder.parent.is_mount() else folder.parent) / "journal"


def journal(folder: Path) -> tuple[int, list[int]]:
    """Return the last number that was said to be safe, and the items that were seen."""
    path = journal_of(folder)
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    path.unlink(missing_ok=True)
    return (
        max([int(n) for word, n in lines if word == "safe"], default=-1),
        [int(n) for word, n in lines if word == "seen"],
    )


def assert_recovered(folder: Path, what: object, again: int = BLOCK) -> None:
    safe, seen = journal(folder)
    found = batch.recover(folder / "spool", "q")
    assert not found.invalid, what
    assert strays(folder / "spool") == [], what
    rest = drain(folder / "spool")
    everything = sorted({*seen, *rest})
    assert everything == list(range(len(everything))), what
    assert len(everything) > safe, what
    assert rest == sorted(rest), what
    assert len(seen) + len(rest) - len(everything) <= again, what
    assert names(folder / "spool") == [], what


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """The lines of one run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("calm") / "0"
    folder.mkdir()
    done = run(folder, *CALLS)
    assert done.returncode == 0, done.stderr
    assert journal(folder) == (14, list(range(15)))
    assert names(folder / "spool") == []
    return (folder / "trace").read_text().splitlines()


def sample(calls: list[str], number: int, *, long: bool) -> list[tuple[str, int, str]]:
    """Return about so many of the calls that change something; all calls there are in the long run."""
    every = points(calls) if long else points(calls, "openat|pwrite64|pwritev|unlink|rename|f(data)?sync|flock")
    return every if long else every[:: len(every) // number]


def test_a_kill_at_each_system_call_recovers(tmp_path, calls, long):
    chosen = sample(calls, 16, long=long)
    assert len({name for name, _, _ in chosen}) > 4
    killed = 0
    for place, (name, number, line) in enumerate(chosen):
        folder = tmp_path / str(place)
        folder.mkdir()
        killed += run(folder, *inject(name, number, "signal=KILL")).returncode != 0
        assert_recovered(folder, line)
    assert killed > 0.9 * len(chosen)  # a run may look into the folder once less than another


@pytest.mark.needs("root", "mkfs.ext4", "losetup")
def test_a_power_cut_at_each_system_call_recovers(tmp_path, calls, long):
    """Whoever is killed before a call writes nothing more: to cut then is to cut there."""
    disk = Disk(tmp_path)
    try:
        for place, (name, number, line) in enumerate(sample(calls, 12, long=long)):
            folder = disk.place / str(place)
            folder.mkdir()
            subprocess.run(["sync", "-f", folder], check=True)
            run(folder, *inject(name, number, "signal=KILL"))
            disk.cycle()
            assert_recovered(folder, ("cut", line), again=BATCH)
    finally:
        subprocess.run(["umount", "--lazy", disk.place], check=False)


@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EINTR"])
def test_an_error_at_a_write_loses_nothing(tmp_path, calls, error, long):
    """The driver may end with an error or get over it; what it called safe or has not consumed is there."""
    every = points(calls, "pwrite64|pwritev|fsync|fdatasync|rename|unlink")
    for place, (name, number, line) in enumerate(every if long else every[:: len(every) // 5]):
        folder = tmp_path / str(place)
        folder.mkdir()
        run(folder, *inject(name, number, f"error={error}"))
        assert_recovered(folder, (error, line))


def test_the_file_then_its_folder_then_the_name_then_the_folder(calls):
    steps = []
    for line in calls:
        if found := re.search(
            r"f(?:data)?sync\(\d+<([^>]*)>|rename\(\"[^\"]*\", \"([^\"]*)\"|unlink\(\"([^\"]*)\"", line
        ):
            steps.append(Path(next(filter(None, found.groups()))).name)
    first, ready = f"loading_{STAMP:019d}_{1:016x}.db", f"ready_{STAMP:019d}_{1:016x}.db"
    sealed = steps.index(ready)
    before = [name for name in steps[:sealed] if not name.endswith("-journal")]
    assert before[-2:] == [first, "q"]
    assert steps[sealed + 1] == "q"
    gone = steps.index(f"unload_{STAMP:019d}_{1:016x}_1.db", sealed + 1)  # the claim
    gone = steps.index(f"unload_{STAMP:019d}_{1:016x}_1.db", gone + 1)  # the deletion
    assert steps[gone + 1] == "q"
    journals = [name for name in steps if name.endswith("-journal")]
    assert journals
    assert all(name.startswith("loading_") for name in journals)
    # That it is there, and that it is gone, is as durable as what is in it.
    assert {after for name, after in pairwise(steps) if name in journals} == {"q", first}
