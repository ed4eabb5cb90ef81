"""The settings of shards: those of the seed document, each with what it changes."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.clock import FakeClock
from support.shards import QUICK, Note, World, Worlds, asynchronous, bound, make_handler

from persistq import ConfigError
from persistq.settings import Settings
from persistq.sharded import (
    Queue,
    Route,
    RuntimeCoordinator,
    RuntimeStorage,
    ShardSettings,
    Worker,
    memory,
    session,
    settings,
)


@pytest.fixture(autouse=True)
def fresh_settings() -> Iterator[None]:
    memory._locks.forget()
    settings.reload()
    yield
    settings.reload()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long workers meant to wait; they do not."""
    told: list[float] = []

    async def pause(_self: Any, seconds: float) -> None:
        told.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(session.Surroundings, "pause", pause)
    return told


def names() -> list[str]:
    return ["COORDINATOR_DELAY", "COORDINATOR_PREFIX", "COORDINATOR_TIMEOUT", "DEFAULT_PRIORITY", "DEFAULT_THREAD",
            "TUBE_PREFIX", "WORKER_BATCH_SIZE", "WORKER_EMPTY_LIMIT", "WORKER_EMPTY_PAUSE"]  # fmt: skip


def test_the_defaults_are_the_seed_documents() -> None:
    found = [getattr(settings, name.lower()) for name in names()]
    assert found == [1, "lock_", 24 * 60 * 60, 0, 0, "tube_", 128, 16, 0.1]
    assert settings.coordinator_lease == 30


@pytest.mark.parametrize("name", names())
def test_each_is_a_variable_of_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"QUEUE_{name}", "7")
    assert str(getattr(settings, name.lower())) in ("7", "7.0")


@pytest.mark.parametrize(
    ("name", "value"), [("coordinator_delay", -1), ("worker_batch_size", 0), ("coordinator_lease", 0),
                        ("coordinator_timeout", float("nan")), ("tube_prefix", "x" * 99),
                        ("worker_empty_limit", "many")],
)  # fmt: skip
def test_a_value_that_is_no_good_changes_nothing(name: str, value: Any) -> None:
    before = getattr(settings, name)
    with pytest.raises(ConfigError, match=name.upper()):
        setattr(settings, name, value)
    assert getattr(settings, name) == before


@asynchronous
async def test_the_coordinator_delay_is_the_wait_when_there_is_nothing(waits: list[float]) -> None:
    make_handler()
    worker = Worker(RuntimeCoordinator(), Queue(RuntimeStorage()))
    settings.coordinator_delay = 5
    task = asyncio.create_task(worker.loop())
    while len(waits) < 3:
        await asyncio.sleep(0)
    worker.stop()
    await task
    assert set(waits) == {5}


@asynchronous
async def test_empty_limit_and_empty_pause_are_the_wait_for_late_requests(waits: list[float]) -> None:
    handler, _noted = make_handler()
    queue = Queue(RuntimeStorage())
    await queue.register(handler, Note(0, 0))
    settings.worker_empty_limit, settings.worker_empty_pause = 3, 0.25
    assert await Worker(RuntimeCoordinator(), queue).loop(9) == 1
    assert waits == [0.25] * 3


@asynchronous
async def test_an_empty_tube_is_left_at_once_when_another_one_waits(waits: list[float]) -> None:
    handler, _noted = make_handler()
    queue = Queue(RuntimeStorage())
    await queue.register(handler, *[Note(n, n) for n in range(64)])
    assert await Worker(RuntimeCoordinator(), queue).loop(64) == 64
    assert waits == []


@asynchronous
async def test_the_batch_size_is_the_most_requests_of_a_call_unless_the_handler_says_otherwise() -> None:
    handler, noted = make_handler()
    queue = Queue(RuntimeStorage())
    await queue.register(handler, *[Note(0, n) for n in range(300)])
    await Worker(RuntimeCoordinator(), queue).loop(300)
    assert [len(batch) for batch in noted] == [128, 128, 44]
    noted.clear()
    settings.worker_batch_size = 64
    await queue.register(handler, *[Note(0, n) for n in range(100)])
    await Worker(RuntimeCoordinator(), queue).loop(100)
    assert [len(batch) for batch in noted] == [64, 36]
    noted.clear()
    handler.batch_size = 50
    await queue.register(handler, *[Note(0, n) for n in range(100)])
    await Worker(RuntimeCoordinator(), queue).loop(100)
    assert [len(batch) for batch in noted] == [50, 50]


def test_thread_and_priority_are_those_of_a_route_that_names_none() -> None:
    settings.default_thread, settings.default_priority = 4, -2
    assert Route() == Route(4, -2)
    assert Route(1) == (1, -2)
    assert Route(priority=9) == (4, 9)


@pytest.mark.parametrize("kind", ["redis"])
@pytest.mark.needs("redis")
@asynchronous
async def test_the_prefixes_are_those_of_the_keys(kind: str, stores: Callable[[str], Any], clock: FakeClock) -> None:
    world: World = Worlds(None, stores).fresh(kind, clock)  # type: ignore[arg-type]
    storage = world.storage(queue_tube_prefix="t:")
    coordinator = world.coordinator(queue_coordinator_prefix="l:")
    await storage.append("H/0", b"1")
    lease = await bound(coordinator, "H/0")
    assert lease.name == "l:H/0"
    keys = await world.client(decode_responses=True).keys("*")
    assert "l:H/0" in keys
    assert all(key.startswith(("t:", "l:")) for key in keys)
    await world.close()


@asynchronous
async def test_the_timeout_caps_how_long_a_tube_is_held() -> None:
    settings.coordinator_timeout = 12.0
    lease = await bound(RuntimeCoordinator(), "H/0")
    assert lease.seconds == 12.0


def test_an_objects_own_settings_stay_its_own() -> None:
    own = ShardSettings(Settings.load(None, **QUICK))
    own.worker_batch_size = 5
    assert (own.worker_batch_size, settings.worker_batch_size) == (5, 128)
    assert RuntimeStorage(settings=own).settings.worker_batch_size == 5
