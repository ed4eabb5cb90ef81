"""Queues on a SQLite file in the test's own folder, for what only SQLite has."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clock import FakeClock
from support.jobs import MakeQueue, Queue

import persistq


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the queue of the test lives."""
    return tmp_path / "queue.db"


@pytest.fixture
def make_queue(path: Path, clock: FakeClock) -> Iterator[MakeQueue]:
    """Make queues on the test's file: ``make_queue(max_attempts=1)``."""
    made: list[Queue] = []

    def make(**overrides: Any) -> Queue:
        made.append(persistq.connect(path, clock=clock, **overrides))
        return made[-1]

    yield make
    for q in made:
        q.close()


@pytest.fixture
def queue(make_queue: MakeQueue) -> Queue:
    """A queue with the default settings."""
    return make_queue()
