"""Every test runs in a folder of its own, untouched by the environment of whoever runs it."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import configuration
from support.clock import FakeClock
from support.databases import Databases
from support.servers import KINDS, find_program
from support.shard_servers import STORES

from persistq import events, tasks
from persistq.sharded import handler

OURS = re.compile(r"QUEUE_.*|MAX_ATTEMPTS|TIMEOUT_SECONDS|INTERVAL_TIME|SUPERVISOR_PROCESS_NAME", re.IGNORECASE)

configuration.set_hypothesis_home_dir(Path(__file__).parent.parent / ".pytest_cache" / "hypothesis")
hypothesis.settings.register_profile(
    "deterministic", derandomize=True, deadline=None, database=None, max_examples=60, print_blob=False
)
hypothesis.settings.load_profile("deterministic")

# PyMySQL reads every certificate of the system at each connection, which takes it longer than all else; none is needed.
os.environ |= {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}

# A shell that starts the suite in the background lets it ignore Ctrl-C, and so would every program the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="outages as long and walks as far as in production")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a missing tool on a laptop, and fail it in CI, where nothing may be missing."""
    for mark in item.iter_markers("needs"):
        for what in mark.args:
            if _has(what):
                continue
            if os.environ.get("CI") == "true":
                pytest.fail(f"CI has to have {what}", pytrace=False)
            pytest.skip(f"needs {what}")


def _has(what: str) -> bool:
    if what in KINDS:
        return KINDS[what].exists()
    if what in STORES:
        return STORES[what].exists()
    return os.geteuid() == 0 if what == "root" else find_program(what) is not None


@pytest.fixture(autouse=True)
def clean_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable, no .env and no database of ours is in sight."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if OURS.fullmatch(name)]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def clean_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks and observers that a test registers are gone after it."""
    monkeypatch.setattr(tasks, "_registry", dict(tasks._registry))
    monkeypatch.setattr(handler, "_registry", dict(handler._registry))
    monkeypatch.setattr(events, "_observers", list(events._observers))
    monkeypatch.setattr(events, "_carriers", list(events._carriers))


@pytest.fixture(scope="session")
def every_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """Databases of each kind: ``every_database["postgresql"]``. The servers end with the run."""
    found = Databases(tmp_path_factory.mktemp("databases"))
    yield found
    found.close()


@pytest.fixture(scope="session")
def stores() -> Iterator[Callable[[str], Any]]:
    """Redis and Valkey servers: ``stores("redis")``. They end with the run."""
    with ExitStack() as running:
        found: dict[str, Any] = {}

        def start(kind: str) -> Any:
            if kind not in found:
                found[kind] = running.enter_context(STORES[kind]())
            return found[kind]

        yield start


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of database that the test is about; ``@every_kind`` makes it each of them in turn."""
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether the test may take minutes."""
    return bool(request.config.getoption("--long"))


@pytest.fixture
def clock() -> FakeClock:
    """The clock that the test's queues go by."""
    return FakeClock()
