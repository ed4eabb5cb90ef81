"""The clock of the machine is set while consumers run, an hour forward and back: nobody living loses a job by it."""

import time
from pathlib import Path

import pytest
from support.databases import every_kind

from .yard import Process, Yard, eventually

pytestmark = pytest.mark.needs("faketime")

HOUR = 3600
YEARS = 10 * 365 * 24 * HOUR
LEASE = 1.5
APP = """
# The library that fakes the clock breaks this one call; whatever else waits goes by a clock that is not faked.
time.sleep = lambda seconds: threading.Event().wait(seconds)

@persistq.task
def perform(item):
    word, which = item.split()
    note(word, which, time.time())
    if word == "hold":
        wait_for(which)
"""


class Clock:
    """A wall clock that the processes started with ``before`` share; the monotonic clock stays the machine's."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
        self.before = (
            "env", f"LD_PRELOAD={library}", f"FAKETIME_TIMESTAMP_FILE={self._file}", "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
        )  # fmt: skip
        self.set(0)

    def set(self, seconds: int) -> None:
        """Let it be so much ahead of the machine's; at once, for every process."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}s\n")
        new.rename(self._file)


def consumer(yard: Yard, clock: Clock, name: str) -> Process:
    return yard.consumer("--task", "perform", "--concurrency", "2", queue_name=name, before=clock.before)


def noted(yard: Yard, word: str) -> list[tuple[str, float]]:
    """Return which were performed of what is called so, and when by the clock of who performed it."""
    lines = [line.split() for line in yard.journal()]
    return [(which, float(at)) for one, which, at in lines if one == word]


def outlive(yard: Yard, job_ids: list[int]) -> None:
    """Wait until the jobs' leases would have ended, had they not been renewed since."""
    seen: dict[int, set[object]] = {job_id: set() for job_id in job_ids}

    def renewed() -> bool:
        for job_id, leases in seen.items():
            leases.add(yard.q.get_job(job_id).lease_until)
        return all(len(leases) > 4 for leases in seen.values())

    eventually(renewed, "the leases are renewed")


@every_kind
def test_clocks_that_are_set_while_consumers_run_take_nothing_from_the_living(make_yard, tmp_path, long):
    yard: Yard = make_yard(timeout_seconds=LEASE)
    yard.app(APP)
    clock = Clock(tmp_path)
    consumers = [consumer(yard, clock, name) for name in ("a", "b")]
    # On SQLite one that starts after the clock was set knows nothing of it; docs/promises.md says so.
    eventually(lambda: all(one.lines("serves all queues") for one in consumers), "both have seen the clock")
    held = [yard.q.enqueue(f"hold {gate}") for gate in ("here", "there")]
    eventually(lambda: len(noted(yard, "hold")) == 2, "both are begun")
    turns = [HOUR, -HOUR, YEARS, 0] * (5 if long else 1)
    for turn, seconds in enumerate(turns if long else turns[: 3 if yard.server is None else 2]):
        clock.set(seconds)
        outlive(yard, held)
        yard.q.enqueue(f"look {turn}")
        eventually(lambda turn=turn: len(noted(yard, "look")) > turn, "work goes on")
        which, at = noted(yard, "look")[-1]
        assert which == str(turn)
        assert abs(at - time.time() - seconds) < HOUR / 2, "the clock was set"
    for gate in ("here", "there"):
        yard.open(gate)
    eventually(yard.all_done, "all is done")
    assert {job.attempts for job in yard.jobs()} == {1}
    assert not [line for one in consumers for line in one.lines("no longer leased")]
    yard.assert_sound()


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_what_the_dead_held_is_taken_back_after_a_jump_as_well(make_yard, tmp_path, seconds):
    yard: Yard = make_yard(timeout_seconds=LEASE)
    yard.app(APP)
    clock = Clock(tmp_path)
    doomed = consumer(yard, clock, "doomed")
    job_id = yard.q.enqueue("hold gate")
    eventually(lambda: noted(yard, "hold"), "it is begun")
    consumer(yard, clock, "other")
    eventually(lambda: len(yard.q.consumers()) == 2, "another is there")
    clock.set(seconds)
    outlive(yard, [job_id])
    doomed.kill()
    eventually(lambda: len(noted(yard, "hold")) == 2, "it is begun again")
    yard.open("gate")
    eventually(yard.all_done, "it is done")
    assert yard.q.get_job(job_id).attempts == 2
    yard.assert_sound()
