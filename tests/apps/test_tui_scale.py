"""A million jobs behind the full-screen manager are as quick to look at as a thousand."""

import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.crowd import crowd
from support.tui import DOWN, UP, Manager

PAGE_DOWN, PAGE_UP = "\x1b[6~", "\x1b[5~"


def _seconds(shown: Manager, key: str) -> float:
    """Return how long a key takes to show other rows or a moved cursor; ages and the clock change by themselves."""

    def rows() -> list[list[str]]:
        return [line.split()[:1] for line in (*shown.lines()[1:], shown.cursor_row())]

    before = rows()
    began = time.perf_counter()
    shown.press(key)
    shown.wait(lambda: "looking …" not in shown.text() and rows() != before, f"an answer to {key!r}")
    return time.perf_counter() - began


def _medians(many: Manager, few: Manager, keys: list[str], rounds: int) -> tuple[float, float]:
    times: dict[str, list[float]] = {"many": [], "few": []}
    for _ in range(rounds):
        for key in keys:  # interleaved, so that a busy machine slows both
            times["many"].append(_seconds(many, key))
            times["few"].append(_seconds(few, key))
    return statistics.median(times["many"]), statistics.median(times["few"])


def _resident() -> int:
    """Return this process's memory in KiB."""
    gc.collect()
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


@pytest.mark.timeout(600)
def test_a_key_answers_as_fast_beside_a_million_jobs(start: Callable[..., Manager], tmp_path: Path, long: bool) -> None:
    counts = (1_000_000 if long else 50_000, 1_000)
    for count in counts:
        crowd(tmp_path / f"{count}.db", count)
    many, few = (start(100, 30, on=tmp_path / f"{count}.db") for count in counts)
    for shown in (many, few):
        shown.go("2", "newest first")
    actions = {"cursor": [DOWN, UP], "page": [PAGE_DOWN, PAGE_UP], "next page": ["n", "N"], "screen": ["1", "2"],
               "errors": ["8", "2"]}  # fmt: skip
    for action, keys in actions.items():
        ratios = []
        for _ in range(5):
            slow, quick = _medians(many, few, keys, 5 if long else 2)
            ratios.append(slow / quick)
            print(f"{action}: {slow * 1e3:.0f} ms of {counts[0]:,}, {quick * 1e3:.0f} ms of {counts[1]:,} jobs")
            if ratios[-1] < 2:
                break
        assert min(ratios) < 2, action
    before = _resident()
    for _ in range(200 if long else 20):
        _seconds(many, "n")
    after = _resident()
    print(f"memory: {before} KiB, {after} KiB after the pages")
    assert after - before < 16 * 1024
