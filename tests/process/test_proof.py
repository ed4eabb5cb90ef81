"""The verifier catches bugs sown into a real queue, and finds none in the queue as it is, whatever is killed."""

import os
import re
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from proof import bugs, day, stream_bugs, verifier
from proof.bugs import BUGS
from proof.figures import figures
from proof.reading import World, read
from support.databases import Databases, every_kind

TESTS = Path(__file__).parents[1]


@pytest.fixture
def live(tmp_path: Path, every_database: Databases):
    """Live through a day in a process of its own, with a bug or without, and return what it left behind."""
    target = every_database["sqlite"].apart()

    def live(bug: str | None = None) -> World:
        child = os.fork()
        if not child:
            signal.alarm(100)  # a bug may as well hang
            _live(tmp_path, target, bug)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert bug or code == 0, "the day was cut short"
        return read(tmp_path)

    return live


def _live(folder: Path, target: str, bug: str | None) -> None:
    try:
        gap = day.Gap()
        if bug:
            bugs.sow(bug, gap)
        os._exit(day.live(folder, target, gap))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(99)


def test_a_day_of_the_queue_as_it_is_keeps_every_invariant(live):
    world = live()
    assert verifier.report(verifier.violations(world)) == ""
    found = figures(world)
    # It would prove nothing if nothing had happened in it.
    assert (found["kills"], found["outcomes unknown"], found["stale leases refused"]) == (5, 1, 6)
    assert found["duplicates"] >= 5


@pytest.mark.parametrize("bug", BUGS)
def test_each_bug_is_caught_by_the_invariant_that_names_it(live, bug):
    invariant, _ = BUGS[bug]
    found = verifier.violations(live(bug))
    assert invariant in {violation.invariant for violation in found}, verifier.report(found)


def test_every_invariant_of_jobs_has_its_bug():
    caught = {invariant for invariant, _ in BUGS.values()}
    assert caught == {f"I{n}" for n in range(1, 20)} - {"I16", "I17"}  # those are about batches and job files


KILLS = {"jobs": 60, "batches": 60, "shards": 30}
"""On each of three databases, in one spool, and in two stores."""


def storm(of: str, folder: Path, target: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "proof.storm", of, str(folder), "--every", "0.04", *options],
        cwd=TESTS, env=os.environ | {"PROOF_TARGET": target}, capture_output=True, text=True,
    )  # fmt: skip


def rage(of: str, folder: Path, target: str, long: bool) -> dict[str, int]:
    """Have a storm rage, which is to break nothing, and return its figures."""
    kills = KILLS[of] * (20 if long else 1)
    done = storm(of, folder, target, "--kills", str(kills), "--seed", "20251122")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = {name: int(number.replace(",", "")) for name, number in re.findall(r"^(.+): ([\d,]+)$", done.stdout, re.M)}
    assert found["kills"] >= kills
    # It would prove nothing if the kills had struck nobody who was at work.
    assert min(found[name] for name in ("deliveries", "duplicates", "outcomes unknown")) > 0, done.stdout
    return found


@pytest.mark.timeout(900)  # on a busy machine what the dead left takes long to be performed, one at a time
@every_kind
def test_a_storm_of_kills_on_jobs_breaks_nothing(kind, tmp_path, every_database, long):
    assert rage("jobs", tmp_path / "run", every_database[kind].apart(), long)["jobs"] > KILLS["jobs"]


@pytest.mark.timeout(900)
def test_a_storm_of_kills_on_batches_breaks_nothing(tmp_path, long):
    assert rage("batches", tmp_path / "run", str(tmp_path / "spool"), long)["items"] > 10_000


@pytest.mark.timeout(900)
@pytest.mark.parametrize("store", ["sqlite", pytest.param("valkey", marks=pytest.mark.needs("valkey"))])
def test_a_storm_of_kills_on_shards_breaks_nothing(store, tmp_path, every_database, stores, long):
    if store == "sqlite":
        target = every_database["sqlite"].apart()
    else:
        client = stores(store).connect()
        client.flushall()
        client.close()
        target = stores(store).url("0")
    assert rage("shards", tmp_path / "run", target, long)["leases"] > KILLS["shards"]


@pytest.mark.parametrize("bug", stream_bugs.BUGS)
def test_a_storm_finds_each_bug_of_batches_and_shards(bug, tmp_path, every_database):
    of, invariant, _ = stream_bugs.BUGS[bug]
    # So much is to be done meanwhile that the kills strike people at work, however busy the machine is.
    number = "600" if of == "shards" else "300000"
    options = ["--kills", "40", "--number", number, "--paused", "0.2", "--bug", bug]
    said = []
    for turn in range(4):  # whether it shows is a matter of chance
        target = every_database["sqlite"].apart() if of == "shards" else str(tmp_path / f"spool-{turn}")
        done = storm(of, tmp_path / str(turn), target, *options, "--seed", str(turn))
        assert done.returncode == 1 or not done.stderr, done.stderr
        said.append(done.stdout)
        if re.search(rf"^{invariant} ", done.stdout, re.MULTILINE):
            return
    pytest.fail(f"no storm broke {invariant}: {said}")
