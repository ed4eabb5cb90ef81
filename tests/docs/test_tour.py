"""The tour names the files that one job passes through, each with one purpose."""

import re
from pathlib import Path

import pytest
from support.generated import ROOT

TOUR = (ROOT / "docs/tour.md").read_text(encoding="utf-8")
STOPS = re.findall(r"^\d+\. \*\*`([^`]+)`\*\*: (.+)\.$", TOUR, re.MULTILINE)


def test_the_tour_has_its_stops_in_order() -> None:
    names = [name for name, _ in STOPS]
    assert names[0] == "producer/producer.py"
    assert names[-1] == "consumer/stamp.py"
    assert len(names) == len(set(names)) >= 15


@pytest.mark.parametrize(("name", "purpose"), STOPS)
def test_a_stop_exists_and_one_line_without_an_and_says_what_it_is_for(name: str, purpose: str) -> None:
    assert (ROOT / name).is_file()
    assert not re.search(r"\band\b", purpose)


def test_the_files_that_a_job_really_passes_through_are_the_tours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trace one job from producer to done: no file of ours does any work for it that the tour leaves out."""
    import sys
    import threading

    from persistq.consumer import consumer
    from persistq.producer import producer

    monkeypatch.chdir(tmp_path)
    passed: set[str] = set()

    def trace(frame: object, _event: str, _argument: object) -> None:
        passed.add(frame.f_code.co_filename)  # type: ignore[attr-defined]

    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("persistq.logs.configure", lambda **_: None)
    threading.setprofile(trace)
    sys.setprofile(trace)
    try:
        assert producer.main(["--count", "1", "--interval", "0"]) == 0
        assert consumer.main(["--drain"]) == 0
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    ours = {str(Path(name).relative_to(ROOT)) for name in passed if name.startswith(f"{ROOT}/") and ".venv" not in name}
    helpers = {
        # Values, checks, time and text that every stop may use; making the schema; what eyes alone need.
        "persistq/model.py", "persistq/codec.py", "persistq/clock.py", "persistq/settings.py", "persistq/events.py",
        "persistq/retry.py", "persistq/interface.py", "persistq/errors.py", "persistq/logs.py", "persistq/__init__.py",
        "persistq/storage/schema.py", "persistq/storage/migrate.py", "persistq/storage/reserve.py",
        "persistq/storage/room.py", "persistq/storage/sqlite_connections.py", "persistq/mounts.py",
        "persistq/storage/consumers.py", "persistq/storage/history.py", "persistq/worker/source.py",
        "persistq/cleanup.py",
        # What is asked whether it has anything to do with this job, and has not.
        "persistq/tracing.py", "consumer/shards.py", "persistq/sharded/promotion.py",
    }  # fmt: skip
    visited = {name for name in ours if not name.startswith(("tests/", "persistq/storage/migrations/"))}
    imported_only = {name for name in visited if name.endswith("__init__.py")}
    stops = {name for name, _ in STOPS}
    assert stops - visited == {"persistq/states.py"}, "a table, which runs no code of its own"
    assert visited - helpers - imported_only <= stops
