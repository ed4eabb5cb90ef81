"""One suite, every database: no test below asks which one it runs on."""

from collections.abc import Iterator
from typing import Any

import pytest
from support.clock import FakeClock
from support.databases import EVERY_KIND, Database, Databases
from support.jobs import MakeQueue, Queue

import persistq


@pytest.fixture(scope="session", params=EVERY_KIND)
def database(request: pytest.FixtureRequest, every_database: Databases) -> Database:
    """The database that the suite runs on."""
    return every_database[request.param]


@pytest.fixture
def target(database: Database) -> str:
    """An empty database, reached by every queue that the test makes."""
    return database.fresh()


@pytest.fixture
def make_queue(target: str, clock: FakeClock) -> Iterator[MakeQueue]:
    """Make queues on the test's database, each as another process would: ``make_queue(max_attempts=1)``."""
    made: list[Queue] = []

    def make(**overrides: Any) -> Queue:
        # No test here cuts the power, and waiting for the disk would take most of the suite's time.
        options = {"clock": clock, "queue_durability": "process", **overrides}
        made.append(persistq.connect(target, **options))
        return made[-1]

    yield make
    for q in made:
        q.close()


@pytest.fixture
def queue(make_queue: MakeQueue) -> Queue:
    """A queue with the default settings."""
    return make_queue(actor="tester@here")
