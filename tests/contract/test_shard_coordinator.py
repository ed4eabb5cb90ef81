"""What every coordinator of shards promises."""

import asyncio
from typing import Any

import pytest
from support.clock import FakeClock
from support.databases import Databases
from support.shards import EVERY_DRIVER, World, Worlds, asynchronous, bound

from persistq import LeaseLost


@pytest.fixture(params=EVERY_DRIVER)
def world(request: pytest.FixtureRequest, every_database: Databases, stores: Any, clock: FakeClock) -> World:
    return Worlds(every_database, stores).fresh(request.param, clock)


@asynchronous
async def test_a_tube_is_held_by_one_at_a_time(world: World) -> None:
    mine, theirs = world.coordinator(), world.coordinator()
    lease = await bound(mine, "H/0")
    assert (lease.tube, lease.tries, lease.taken_over) == ("H/0", 0, False)
    assert await theirs.bind("H/0") is None
    assert await mine.bind("H/0") is None
    assert (await bound(theirs, "H/1")).tube == "H/1"
    await mine.unbind(lease)
    assert [lease.tube for lease in await mine.leases()] == ["H/1"]
    assert (await bound(theirs, "H/0")).token != lease.token


@asynchronous
async def test_the_first_that_is_free_is_bound(world: World) -> None:
    coordinator = world.coordinator()
    await bound(coordinator, "H/0")
    await bound(coordinator, "H/1")
    lease = await coordinator.bind_first(["H/0", "H/1", "H/2", "H/3"])
    assert lease is not None and lease.tube == "H/2"
    assert await coordinator.bind_first(["H/0", "H/2"]) is None
    assert await coordinator.bind_first([]) is None


@asynchronous
async def test_of_many_at_once_one_gets_it(world: World) -> None:
    coordinators = [world.coordinator() for _ in range(4)]
    names = [f"H/{n}" for n in range(20)]
    found = await asyncio.gather(*[one.bind(name) for name in names for one in coordinators])
    leases = [lease for lease in found if lease is not None]
    assert sorted(lease.tube for lease in leases) == sorted(names)


@asynchronous
async def test_only_its_own_lease_gives_a_tube_back(world: World) -> None:
    coordinator = world.coordinator()
    old = await bound(coordinator, "H/0")
    await coordinator.unbind(old)
    new = await bound(coordinator, "H/0")
    await coordinator.unbind(old)
    await coordinator.unbind(old, tries=2, pause=5)
    assert await coordinator.bind("H/0") is None
    await coordinator.renew(new)


@asynchronous
async def test_a_lease_that_runs_out_is_taken_over_and_counts_as_a_try(world: World) -> None:
    coordinator = world.coordinator()
    lost = await bound(coordinator, "H/0")
    await world.let_pass(29)
    assert await world.coordinator().bind("H/0") is None
    await world.let_pass(2)
    taken = await bound(world.coordinator(), "H/0")
    assert (taken.tube, taken.tries, taken.taken_over) == ("H/0", 1, True)
    with pytest.raises(LeaseLost, match="H/0"):
        await coordinator.renew(lost)
    await coordinator.unbind(lost)
    assert await world.coordinator().bind("H/0") is None
    await world.let_pass(31)
    assert (await bound(coordinator, "H/0")).tries == 2


@asynchronous
async def test_a_lease_that_is_renewed_lasts(world: World) -> None:
    coordinator = world.coordinator()
    lease = await bound(coordinator, "H/0")
    for _ in range(3):
        await world.let_pass(20)
        await coordinator.renew(lease)
    assert await world.coordinator().bind("H/0") is None
    await world.let_pass(31)
    await coordinator.renew(lease)  # it ran out, but nobody was there
    assert await world.coordinator().bind("H/0") is None


@asynchronous
async def test_no_renewal_goes_past_the_cap(world: World) -> None:
    coordinator = world.coordinator(queue_coordinator_timeout=50.0)
    lease = await bound(coordinator, "H/0")
    await world.let_pass(29)
    await coordinator.renew(lease)
    await world.let_pass(20)
    await coordinator.renew(lease)
    await world.let_pass(1)
    with pytest.raises(LeaseLost, match="H/0"):
        await coordinator.renew(lease)
    assert (await bound(world.coordinator(), "H/0")).taken_over


@asynchronous
async def test_the_cap_bounds_a_lease_that_is_never_renewed(world: World) -> None:
    await bound(world.coordinator(queue_coordinator_timeout=5.0), "H/0")
    await world.let_pass(6)
    assert (await bound(world.coordinator(), "H/0")).taken_over


@asynchronous
async def test_a_tube_that_rests_is_bound_by_nobody_and_its_tries_are_remembered(world: World) -> None:
    coordinator = world.coordinator()
    await coordinator.unbind(await bound(coordinator, "H/0"), tries=2, pause=40)
    assert await world.coordinator().bind("H/0") is None
    await world.let_pass(41)
    lease = await bound(world.coordinator(), "H/0")
    assert (lease.tries, lease.taken_over) == (2, False)
    await coordinator.unbind(lease)
    assert (await bound(coordinator, "H/0")).tries == 0


@asynchronous
async def test_the_shortest_rest_is_one(world: World) -> None:
    coordinator = world.coordinator()
    await coordinator.unbind(await bound(coordinator, "H/0"), pause=1)
    assert await world.coordinator().bind("H/0") is None
    await world.let_pass(2)
    assert (await bound(world.coordinator(), "H/0")).tries == 0


@asynchronous
async def test_a_clock_that_is_set_takes_no_tube_from_its_holder(world: World) -> None:
    holder, other = world.coordinator(), world.coordinator()
    await bound(holder, "H/0")
    await other.unbind(await bound(other, "H/1"), tries=1, pause=5)
    world.clock.jump(3600)
    assert await other.bind("H/0") is None
    await world.let_pass(6)
    assert await other.bind("H/0") is None
    assert (await bound(other, "H/1")).tries == 1  # a rest is nobody's, and over
    await world.let_pass(30)
    assert (await bound(other, "H/0")).taken_over


@asynchronous
async def test_whoever_removes_a_request_begins_with_no_tries(world: World) -> None:
    storage, coordinator = world.storage(), world.coordinator()
    await storage.append("H/0", b"1", b"2")
    await coordinator.unbind(await bound(coordinator, "H/0"), tries=2)
    lease = await bound(coordinator, "H/0")
    assert lease.tries == 2
    await storage.remove("H/0", [(await storage.peek("H/0", 1))[0].id], lease)
    await world.let_pass(31)
    assert (await bound(coordinator, "H/0")).tries == 1


@asynchronous
async def test_a_person_can_take_a_tube_from_its_holder(world: World) -> None:
    coordinator = world.coordinator()
    lease = await bound(coordinator, "H/0")
    assert await world.coordinator().release("H/0")
    assert not await world.coordinator().release("H/0")
    with pytest.raises(LeaseLost):
        await coordinator.renew(lease)
    await coordinator.unbind(await bound(coordinator, "H/0"), tries=1, pause=99)
    assert await coordinator.release("H/0")
    assert (await bound(coordinator, "H/0")).tries == 0


@asynchronous
async def test_leases_can_be_looked_at(world: World) -> None:
    coordinator = world.coordinator()
    lease = await bound(coordinator, "H/1")
    await coordinator.unbind(await bound(coordinator, "H/0"), tries=1, pause=60)
    resting, held = await world.coordinator().leases()
    assert (resting.tube, resting.owner, resting.tries) == ("H/0", "", 1)
    assert (held.tube, held.owner, held.tries) == ("H/1", lease.token, 0)
    assert 29 <= (held.lease_until - held.bound_at).total_seconds() <= 31
    assert held.owner.startswith("consumer@")
    assert len(await coordinator.leases(1)) == 1


@asynchronous
async def test_another_prefix_holds_other_locks(world: World) -> None:
    await bound(world.coordinator(), "H/0")
    other = world.coordinator(queue_coordinator_prefix="other_")
    await bound(other, "H/0")
    await bound(world.coordinator(queue_coordinator_prefix="otherX"), "H/1")
    assert [lease.tube for lease in await other.leases()] == ["H/0"]
    assert await world.coordinator().bind("H/0") is None


@asynchronous
async def test_the_settings_hold_from_the_next_time_on(world: World) -> None:
    coordinator = world.coordinator()
    coordinator.settings.coordinator_lease = 3.0
    lease = await bound(coordinator, "H/0")
    assert lease.seconds == 3.0
    await world.let_pass(4)
    assert (await bound(world.coordinator(), "H/0")).taken_over
