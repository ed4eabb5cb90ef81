"""A kill, a power cut or an error of the disk at each system call of what is done with jobs on SQLite."""

import os
import random
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine
from support.clock import FakeClock
from support.databases import SQLite
from support.jobs import Queue
from support.strace import Warm, inject, points

import persistq
from persistq import Done, Job
from persistq.storage.schema import REVISION

from .test_batch_power import Disk
from .yard import integrity

pytestmark = pytest.mark.needs("strace")

Jobs = dict[int, Job]
Run = Callable[..., tuple[list[list[str]], list[str]]]
ITEMS = [f"item {n}" for n in range(4)]
ACTS = ("enqueue", "exchange", "recover", "backup", "migrate")
# Each act in a child of its own, which has opened nothing before: one run strikes all of them at the same call.
DRIVER = """
import os, sys
from pathlib import Path
import alembic.command, alembic.config, alembic.script
import persistq, persistq.upkeep
from persistq import Done, Failed, PersistQError
from persistq.storage import backup

backup.secrets.token_hex = lambda size: "0"

journal = os.open("journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

def note(*words):
    os.write(journal, (" ".join(map(str, words)) + "\\n").encode())

def enqueue(q):
    for n in range(4):
        note("enqueue kept", n, q.enqueue(f"item {n}", unique_key=f"item {n}"))

def exchange(q):
    held = q.exchange("me", limit=3)
    note("exchange held", *(job.id for job in held))
    q.exchange("me", settled=[Done(held[0], "result"), Failed(held[1], "error", delay=0)], renew=held[2:], limit=1)
    note("exchange done", held[0].id)
    q.complete(held[2])
    note("exchange done", held[2].id)

def recover(q):
    note("recover recovered", q.recover())

def backup(q):
    note("backup copied", persistq.upkeep.make_backup(q, Path("backup/backup.db")))

def migrate(q):
    note("migrate upgraded", q.database.upgrade())

def perform(act):
    try:
        act(persistq.connect(f"{act.__name__}/queue.db"))
    except PersistQError as error:
        note(act.__name__, "refused", type(error).__name__)
    except BaseException as error:
        note(act.__name__, "broken", repr(error))

persistq.connect("none.db").engine
print("ready", flush=True)
for folder in iter(sys.stdin.readline, ""):
    for act in (enqueue, exchange, recover, backup, migrate):
        if not os.fork():
            os.chdir(folder.strip())
            perform(act)
            os._exit(0)
        os.wait()
    print("done", flush=True)
"""


def paths(folder: Path) -> list[Path]:
    """Return every path that the driver may touch: strace wants each by its name."""
    ends = ("", "-wal", "-shm", "-journal", "-reserve")
    named = [folder / act / f"queue.db{end}" for act in ACTS for end in ends]
    copies = [folder / "backup" / name for name in ("backup.db", ".backup.db.0.part", ".backup.db.0.part-journal")]
    return [*named, *copies, *(folder / act for act in ACTS)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database for each act, as it stands before: of four jobs, or empty for the first act."""
    folder = tmp_path_factory.mktemp("prepared")
    empty = SQLite(folder)
    for act in ACTS:
        (folder / "all" / act).mkdir(parents=True)
        path = folder / "all" / act / "queue.db"
        if act == "migrate":
            make_old(path)
            continue
        Path(empty.fresh()).rename(path)
        q = persistq.connect(path, clock=FakeClock())  # whose leases have expired by today
        if act != "enqueue":
            q.enqueue_many(ITEMS, max_attempts=2)
        if act == "recover":
            (spent,) = q.exchange("dead", limit=1)
            q.fail(spent, "error", delay=0)
            q.exchange("dead", limit=3, queue="default")
        q.close()
    return folder / "all"


def make_old(path: Path) -> None:
    """Make a database of the first version."""
    engine = create_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", "persistq.storage:migrations")
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        row = "INSERT INTO jobs (queue, item, status, priority, max_attempts, run_at, created_at)"
        for item in ITEMS:
            connection.exec_driver_sql(f"{row} VALUES ('default', '{item}', 'pending', 0, 2, 1, 1)")
        connection.exec_driver_sql(
            "INSERT INTO tallies (queue, slot, pending, processing, done, failed, cancelled)"
            " VALUES ('default', 0, 4, 0, 0, 0, 0)"
        )
    engine.dispose()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> Iterator[Run]:
    """Have every act done in a folder; return what they noted, elsewhere, and their calls."""
    home = tmp_path_factory.mktemp("driver")
    journal = home / "journal"
    with Warm(DRIVER, home) as driver:

        def run(folder: Path, *options: str) -> tuple[list[list[str]], list[str]]:
            shutil.copytree(prepared, folder)
            if folder.parent.is_mount():  # the power is to be cut: what was there before the first act, is
                subprocess.run(["sync", "-f", folder], check=True)
            os.truncate(journal, 0)
            calls = driver.run(folder, paths(folder), *options)
            noted = [line.split() for line in journal.read_text().splitlines()]
            assert not [words for words in noted if words[1] == "broken"], (options, noted)
            return noted, calls

        yield run


def assert_kept(folder: Path, noted: list[list[str]], what: object, acts: Iterable[str] = ACTS) -> None:
    """Fail unless what was acknowledged is there, and all the rest can go on."""
    for act in acts:
        said = [words for words in noted if words[0] == act]
        with closing(persistq.connect(folder / act / "queue.db")) as q:
            assert integrity(q) == ["ok"], (what, act)
            assert q.tally_drift() == {}, (what, act)
            before = {job.id: job for job in q.list_jobs()}
            CHECKS[act](q, before, said)
            # Whatever was held is taken back, and everything ends.
            with q.engine.begin() as connection:
                connection.exec_driver_sql("UPDATE jobs SET lease_until = 1 WHERE status = 'processing'")
            q.recover()
            while held := q.exchange("after", limit=100):
                q.exchange("after", settled=[Done(job) for job in held])
            after = {job.id: str(job.status) for job in q.list_jobs()}
            assert [job.item for job in q.list_jobs()] == ITEMS, (what, act)
            assert set(after.values()) <= {"done", "failed"}, (what, act)
            assert q.tally_drift() == {}, (what, act)


def check_enqueue(q: Queue, before: Jobs, said: list[list[str]]) -> None:
    kept = {int(n): int(job_id) for _, word, n, *ids in said if word == "kept" for job_id in ids}
    assert kept.items() <= dict(enumerate(before)).items()
    # Each is repeated with its key, as whoever got no answer would do.
    ids = [q.enqueue(item, unique_key=item) for item in ITEMS]
    assert {n: ids[n] for n in kept} == kept


def check_exchange(_q: Queue, before: Jobs, said: list[list[str]]) -> None:
    for _, word, *ids in said:
        for job_id in map(int, ids if word in ("held", "done") else ()):
            assert before[job_id].attempts >= 1
            assert word == "held" or before[job_id].status == "done"
    assert sum(job.status == "done" for job in before.values()) <= 2
    assert all(job.result in (None, "result") for job in before.values())


def check_recover(_q: Queue, before: Jobs, said: list[list[str]]) -> None:
    statuses = [str(job.status) for job in before.values()]
    assert statuses in (["processing"] * 3 + ["pending"], ["failed", "pending", "pending", "pending"])
    assert ["recover", "recovered", "3"] not in said or statuses[0] == "failed"


def check_backup(q: Queue, before: Jobs, said: list[list[str]]) -> None:
    copy = Path(q.dbname).with_name("backup.db")
    assert ["backup", "copied", "4"] not in said or copy.exists()
    if copy.exists():
        with closing(persistq.connect(copy)) as kept:
            assert integrity(kept) == ["ok"]
            assert {job.id: job for job in kept.list_jobs()} == before


def check_migrate(q: Queue, before: Jobs, _said: list[list[str]]) -> None:
    assert len(before) == 4  # and to list them has brought it here, wherever it had come to
    assert q.database.revision() == REVISION


CHECKS = {
    "enqueue": check_enqueue, "exchange": check_exchange, "recover": check_recover, "backup": check_backup,
    "migrate": check_migrate,
}  # fmt: skip


@pytest.fixture(scope="module")
def calls(run: Run, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, int]]:
    """The calls of a run that nobody disturbs: name and number, as one of the acts at least makes them."""
    folder = tmp_path_factory.mktemp("calm") / "all"
    noted, lines = run(folder)
    assert [words[1] for words in noted] == [*["kept"] * 4, "held", "done", "done", "recovered", "copied", "upgraded"]
    assert_kept(folder, noted, "calm")
    print(len(lines), "calls")
    return sorted({(name, number) for name, number, _ in points(lines)})


CHANGES = "openat|pwrite64|ftruncate|unlink|link|linkat|rename|renameat|renameat2|fsync|fdatasync|fallocate"


def sample(calls: list[tuple[str, int]], number: int, *, long: bool) -> list[tuple[str, int]]:
    """Return so many of the calls that change something, of many names; all calls there are in the long run."""
    if long:
        return calls
    chosen = [one for one in calls if re.fullmatch(CHANGES, one[0])]
    random.Random(number).shuffle(chosen)
    seen: Counter[str] = Counter()
    turns = []
    for one in chosen:
        seen[one[0]] += 1
        turns.append((seen[one[0]], one))
    return [one for _, one in sorted(turns)[:number]]


def hit(lines: list[str]) -> list[str]:
    """Return the acts that were struck: one for each process that was killed or told of an error."""
    last: dict[str, str] = {}
    found = []
    for line in lines:
        process, rest = line.split(maxsplit=1)
        if "(INJECTED)" in rest or "killed by SIGKILL" in rest:
            path = rest if "(INJECTED)" in rest else last[process]
            found += re.findall(rf"/all-\w+-\d+/({'|'.join(ACTS)})\b", path)[:1]
        last[process] = rest
    return found


def strike(
    run: Run, place: Path, chosen: list[tuple[str, int]], what: str, cut: Callable[[], None] | None = None
) -> int:
    """Have every act done once for each call, struck there, and return how many acts were."""
    struck = 0
    for name, number in chosen:
        folder = place / f"all-{name}-{number}"
        noted, lines = run(folder, *inject(name, number, what))
        acts = hit(lines)
        struck += len(acts)
        if cut:
            cut()
        # What was not struck has ended as it does when nobody disturbs it, unless the power was cut for all of them.
        assert_kept(folder, noted, (what, name, number), ACTS if cut else sorted(set(acts)))
        shutil.rmtree(folder)
    print(f"{what}: {len(chosen)} calls, {struck} acts were struck")
    return struck


@pytest.mark.timeout(7200)
def test_a_kill_at_each_system_call_loses_nothing(run, tmp_path, calls, long):
    chosen = sample(calls, 10, long=long)
    assert strike(run, tmp_path, chosen, "signal=KILL") >= len(chosen)


@pytest.mark.timeout(7200)
@pytest.mark.needs("root", "mkfs.ext4", "losetup")
def test_a_power_cut_at_each_system_call_loses_nothing_acknowledged(run, tmp_path, calls, long):
    """Whoever is killed before a call writes nothing more: to cut then is to cut there."""
    disk = Disk(tmp_path)
    chosen = sample(calls, 6, long=long)
    try:
        assert strike(run, disk.place, chosen, "signal=KILL", disk.cycle) >= len(chosen)
    finally:
        subprocess.run(["umount", "--lazy", disk.place], check=False)


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EINTR"])
def test_an_error_at_each_system_call_is_one_of_ours_and_loses_nothing(run, tmp_path, calls, long, error):
    chosen = sample(calls, 5, long=long)
    assert strike(run, tmp_path, chosen, f"error={error}") >= len(chosen)
