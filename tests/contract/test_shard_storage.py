"""What every storage of shards promises."""

import asyncio
from typing import Any

import pytest
from support.clock import FakeClock
from support.databases import Databases
from support.shards import EVERY_DRIVER, World, Worlds, asynchronous, bound, said

from persistq import LeaseLost
from persistq.sharded import Entry

HOSTILE = [b"", b"\0", b"\xff\xfe\0\x80", b"0", b"null", b":" * 50, "ü\U0001f600".encode(), b"x" * 100_000, b"\r\n;,"]


@pytest.fixture(params=EVERY_DRIVER)
def world(request: pytest.FixtureRequest, every_database: Databases, stores: Any, clock: FakeClock) -> World:
    return Worlds(every_database, stores).fresh(request.param, clock)


@asynchronous
async def test_requests_come_back_as_they_are_in_the_order_they_were_added(world: World) -> None:
    storage = world.storage()
    assert await storage.append("H/0", *HOSTILE[:5]) == 5
    assert await storage.append("H/0", *HOSTILE[5:]) == len(HOSTILE) - 5
    found = await world.storage().peek("H/0", 100)
    assert said(found) == HOSTILE
    ids = [message.id for message in found]
    assert ids == sorted(set(ids))
    assert await storage.length("H/0") == len(HOSTILE)


@asynchronous
async def test_a_look_takes_nothing_and_keeps_to_its_limit(world: World) -> None:
    storage = world.storage()
    await storage.append("H/0", b"1", b"2", b"3")
    assert said(await storage.peek("H/0", 2)) == [b"1", b"2"]
    assert said(await storage.peek("H/0", 2)) == [b"1", b"2"]
    assert await storage.peek("H/0", 0) == []


@asynchronous
async def test_an_unknown_tube_is_an_empty_one(world: World) -> None:
    storage = world.storage()
    assert await storage.peek("H/0", 5) == []
    assert await storage.length("H/0") == 0
    assert await storage.append("H/0") == 0
    assert await storage.tubes() == []
    lease = await bound(world.coordinator(), "H/0")
    assert await storage.remove("H/0", [1, 2], lease) == 0


@asynchronous
async def test_places_go_before_the_order_of_adding(world: World) -> None:
    storage = world.storage()
    await storage.extend([Entry("H/0", [b"c1", b"c2"], 7), Entry("H/0", [b"b"], 5), Entry("H/0", [b"a"], 0)])
    await storage.extend([Entry("H/0", [b"b2"], 5), Entry("H/0", [b"d"], 1 << 33), Entry("H/0", [b"z"], -3)])
    assert said(await storage.peek("H/0", 10)) == [b"z", b"a", b"b", b"b2", b"c1", b"c2", b"d"]
    assert said(await storage.peek("H/0", 3)) == [b"z", b"a", b"b"]


@asynchronous
async def test_requests_are_removed_by_their_ids_wherever_they_stand(world: World) -> None:
    storage, lease = world.storage(), await bound(world.coordinator(), "H/0")
    await storage.extend([Entry("H/0", [b"1", b"2", b"3", b"4", b"5"], 1), Entry("H/0", [b"6", b"7"], 2)])
    ids = [message.id for message in await storage.peek("H/0", 10)]
    assert await storage.remove("H/0", [ids[1], ids[3], ids[6]], lease) == 3
    assert said(await storage.peek("H/0", 10)) == [b"1", b"3", b"5", b"6"]
    assert await storage.remove("H/0", [ids[1], ids[0], 0, 1 << 60], lease) == 1
    assert said(await storage.peek("H/0", 10)) == [b"3", b"5", b"6"]
    assert await storage.remove("H/0", [], lease) == 0
    assert await storage.remove("H/0", ids, lease) == 3
    assert await storage.length("H/0") == 0


@asynchronous
async def test_what_came_meanwhile_stays(world: World) -> None:
    storage, lease = world.storage(), await bound(world.coordinator(), "H/0")
    await storage.append("H/0", b"1", b"2")
    seen = await storage.peek("H/0", 10)
    await storage.append("H/0", b"3")
    await storage.extend([Entry("H/0", [b"0"], 0)])
    removed, left = await storage.exchange("H/0", [message.id for message in seen], lease, 10)
    assert (removed, said(left)) == (2, [b"0", b"3"])


@asynchronous
async def test_an_exchange_tells_what_is_left(world: World) -> None:
    storage, lease = world.storage(), await bound(world.coordinator(), "H/0")
    await storage.append("H/0", *[b"%d" % n for n in range(6)])
    removed, left = await storage.exchange("H/0", [], lease, 2)
    assert (removed, said(left)) == (0, [b"0", b"1"])
    removed, left = await storage.exchange("H/0", [message.id for message in left], lease, 3)
    assert (removed, said(left)) == (2, [b"2", b"3", b"4"])
    assert (await storage.exchange("H/0", [left[0].id], lease, 0)) == (1, [])
    assert await storage.length("H/0") == 3


@asynchronous
async def test_a_tube_reaches_no_other_ones_requests(world: World) -> None:
    storage, lease = world.storage(), await bound(world.coordinator(), "H/0")
    await storage.append("H/1", b"other")
    (other,) = await storage.peek("H/1", 1)
    assert await storage.remove("H/0", [other.id], lease) == 0
    assert said(await storage.peek("H/1", 5)) == [b"other"]


@asynchronous
async def test_a_lease_that_is_not_the_newest_removes_nothing(world: World) -> None:
    storage, coordinator = world.storage(), world.coordinator()
    await storage.append("H/0", b"1", b"2")
    ids = [message.id for message in await storage.peek("H/0", 2)]
    given_back = await bound(coordinator, "H/0")
    await coordinator.unbind(given_back)
    with pytest.raises(LeaseLost):
        await storage.remove("H/0", ids, given_back)
    run_out = await bound(coordinator, "H/0")
    await world.let_pass(31)
    taken = await bound(world.coordinator(), "H/0")
    with pytest.raises(LeaseLost):
        await storage.exchange("H/0", ids, run_out, 5)
    await world.coordinator().release("H/0")
    with pytest.raises(LeaseLost):
        await storage.remove("H/0", ids, taken)
    assert await storage.length("H/0") == 2


@asynchronous
async def test_a_lease_that_ran_out_still_holds_until_somebody_takes_the_tube(world: World) -> None:
    storage, coordinator = world.storage(), world.coordinator()
    await storage.append("H/0", b"1")
    lease = await bound(coordinator, "H/0")
    await world.let_pass(1000)
    assert await storage.remove("H/0", [(await storage.peek("H/0", 1))[0].id], lease) == 1


@asynchronous
async def test_the_tube_that_has_waited_longest_comes_first_and_an_empty_one_not_at_all(world: World) -> None:
    storage, coordinator = world.storage(), world.coordinator()
    for name in ("H/2", "H/0", "H/1"):
        await storage.append(name, b"1", b"2")
        await world.let_pass(1)
    await storage.append("H/2", b"3")
    assert await storage.tubes() == ["H/2", "H/0", "H/1"]
    assert await storage.tubes(2) == ["H/2", "H/0"]
    assert await storage.tubes(0) == []
    lease = await bound(coordinator, "H/2")
    ids = [message.id for message in await storage.peek("H/2", 5)]
    await storage.remove("H/2", ids[:1], lease)
    assert await storage.tubes() == ["H/0", "H/1", "H/2"]
    await storage.remove("H/2", ids[1:], lease)
    assert await storage.tubes() == ["H/0", "H/1"]
    await world.let_pass(1)
    await storage.append("H/2", b"4")
    assert await storage.tubes() == ["H/0", "H/1", "H/2"]


NAMES = ["H/0", "H/00", "H/-1", "H/0#1", "H/0:1", "H/a b", "H/a%_", "H/ü\U0001f600", "H/A", "H/a", "H/a ", "H/'\"\\;--"]


@asynchronous
async def test_a_tube_is_its_name_to_the_letter(world: World) -> None:
    storage = world.storage()
    for name in NAMES:
        await storage.append(name, name.encode())
    assert sorted(await storage.tubes()) == sorted(NAMES)
    for name in NAMES:
        assert said(await storage.peek(name, 5)) == [name.encode()]
        lease = await bound(world.coordinator(), name)
        assert await storage.remove(name, [(await storage.peek(name, 1))[0].id], lease) == 1
    assert await storage.tubes() == []


@asynchronous
async def test_another_prefix_is_another_world(world: World) -> None:
    ours, theirs = world.storage(), world.storage(queue_tube_prefix="other_")
    await ours.append("H/0", b"ours")
    await theirs.append("H/0", b"theirs")
    await theirs.append("H/1", b"theirs")
    assert (await ours.tubes(), sorted(await theirs.tubes())) == (["H/0"], ["H/0", "H/1"])
    assert (said(await ours.peek("H/0", 5)), said(await theirs.peek("H/0", 5))) == ([b"ours"], [b"theirs"])
    assert [info.tube for info in await ours.overview()] == ["H/0"]


@asynchronous
async def test_many_at_once_lose_nothing_and_keep_each_ones_order(world: World) -> None:
    storages = [world.storage() for _ in range(3)]

    async def produce(who: int) -> None:
        for number in range(12):
            await storages[who % 3].append(f"H/{number % 2}", b"%d %d" % (who, number))

    await asyncio.gather(*map(produce, range(6)))
    for thread in (0, 1):
        found = [tuple(map(int, one.split())) for one in said(await storages[0].peek(f"H/{thread}", 1000))]
        assert len(found) == 36
        for who in range(6):
            assert [number for other, number in found if other == who] == list(range(thread, 12, 2))


# Later


@asynchronous
async def test_what_is_deferred_joins_its_tube_in_the_order_in_which_it_is_due(world: World) -> None:
    storage = world.storage()
    await storage.extend([
        Entry("H/0", [b"late", b"late too"], defer=20), Entry("H/0", [b"now"]), Entry("H/0", [b"soon"], defer=10),
        Entry("H/1", [b"soon"], defer=10), Entry("H/0", [b"soon"], defer=10), Entry("H/0", [b"much later"], defer=99),
    ])  # fmt: skip
    assert said(await storage.peek("H/0", 10)) == [b"now"]
    assert await storage.tubes() == ["H/0"]
    assert await storage.mature() == pytest.approx(10, abs=1)
    await world.let_pass(25)
    assert await storage.mature() == pytest.approx(74, abs=1)
    assert said(await storage.peek("H/0", 10)) == [b"now", b"soon", b"soon", b"late", b"late too"]
    assert said(await storage.peek("H/1", 10)) == [b"soon"]
    assert sorted(await storage.tubes()) == ["H/0", "H/1"]
    assert await storage.mature() == pytest.approx(74, abs=1)
    assert await storage.length("H/0") == 5


@asynchronous
async def test_nothing_for_later_is_nothing_to_wait_for(world: World) -> None:
    assert await world.storage().mature() is None


@asynchronous
async def test_a_look_sees_what_is_due_now_and_when_more_will_be(world: World) -> None:
    storage = world.storage()
    assert await storage.look(10) == ([], None)
    await storage.append("H/1", b"1")
    many = [b"%d" % number for number in range(501)]  # more than a driver makes ready at a time
    await storage.extend([Entry("H/0", many, defer=5.0), Entry("H/2", [b"2"], defer=60.0)])
    await world.let_pass(6.0)
    found, due = await storage.look(10)
    assert found == ["H/1", "H/0"]
    assert due is not None
    assert 0 < due <= 54.0
    assert await storage.length("H/0") == 501
    assert (await storage.look(1))[0] == ["H/1"]


@asynchronous
async def test_a_deferred_request_keeps_its_place_in_the_tube(world: World) -> None:
    storage = world.storage()
    await storage.extend([Entry("H/0", [b"first"], 1, defer=5), Entry("H/0", [b"second"], 2)])
    await world.let_pass(6)
    await storage.mature()
    assert said(await storage.peek("H/0", 5)) == [b"first", b"second"]


@asynchronous
async def test_a_recurring_request_comes_again_and_missed_ticks_are_not_made_up_for(world: World) -> None:
    storage, lease = world.storage(), await bound(world.coordinator(), "H/0")

    async def take() -> list[bytes]:
        await storage.mature()
        found = await storage.peek("H/0", 10)
        await storage.remove("H/0", [message.id for message in found], lease)
        return said(found)

    await storage.extend([Entry("H/0", [b"tick"], every=10)])
    assert await take() == []
    await world.let_pass(11)
    assert await take() == [b"tick"]
    assert await take() == []
    await world.let_pass(35)
    assert await take() == [b"tick"]
    assert await storage.mature() == pytest.approx(4, abs=1)
    await world.let_pass(5)
    assert await take() == [b"tick"]


@asynchronous
async def test_a_tick_adds_nothing_while_an_earlier_one_waits(world: World) -> None:
    storage = world.storage()
    await storage.extend([Entry("H/0", [b"tick"], every=10, defer=0)])
    for _ in range(3):
        await storage.mature()
        await world.let_pass(10)
    assert said(await storage.peek("H/0", 10)) == [b"tick"]


@asynchronous
async def test_registering_a_recurring_request_again_leaves_it_as_it_is_unless_the_interval_is_another(
    world: World,
) -> None:
    storage = world.storage()
    assert await storage.extend([Entry("H/0", [b"tick"], every=10)]) == 1
    await world.let_pass(6)
    assert await storage.extend([Entry("H/0", [b"tick"], every=10)]) == 0
    assert await storage.mature() == pytest.approx(4, abs=1)
    assert await storage.extend([Entry("H/0", [b"tick"], every=50)]) == 1
    assert await storage.mature() == pytest.approx(50, abs=1)
    assert [(info.tube, info.ready, info.later) for info in await storage.overview()] == [("H/0", 0, 1)]


@asynchronous
async def test_what_is_for_later_can_be_withdrawn(world: World) -> None:
    storage = world.storage()
    await storage.extend([Entry("H/0", [b"a", b"a", b"b"], defer=5), Entry("H/0", [b"a", b"c"], every=5)])
    await storage.extend([Entry("H/1", [b"a"], defer=5), Entry("H/0", [b"a"])])
    assert await storage.withdraw("H/0", b"a", b"never there") == 3
    assert await storage.withdraw("H/0") == 0
    assert await storage.withdraw("H/0", b"c") == 1
    await world.let_pass(6)
    await storage.mature()
    assert said(await storage.peek("H/0", 10)) == [b"a", b"b"]
    assert said(await storage.peek("H/1", 10)) == [b"a"]


# Unique


@asynchronous
async def test_what_waits_already_is_left_out(world: World) -> None:
    storage, lease = world.storage(), await bound(world.coordinator(), "H/0")
    assert await storage.extend([Entry("H/0", [b"a", b"b", b"a"], unique=True)]) == 2
    assert await storage.extend([Entry("H/0", [b"b", b"c"], unique=True)]) == 1
    assert await storage.extend([Entry("H/1", [b"b"], unique=True)]) == 1
    assert said(await storage.peek("H/0", 10)) == [b"a", b"b", b"c"]
    ids = [message.id for message in await storage.peek("H/0", 10)]
    await storage.remove("H/0", ids[:2], lease)
    assert await storage.extend([Entry("H/0", [b"a", b"c"], unique=True)]) == 1
    assert said(await storage.peek("H/0", 10)) == [b"c", b"a"]


@asynchronous
async def test_so_is_what_was_registered_plainly_or_for_later(world: World) -> None:
    storage = world.storage()
    await storage.extend(
        [Entry("H/0", [b"plain"]), Entry("H/0", [b"later"], defer=5), Entry("H/0", [b"tick"], every=9)]
    )
    assert await storage.extend([Entry("H/0", [b"plain", b"later", b"tick", b"new"], unique=True)]) == 1
    assert await storage.extend([Entry("H/0", [b"later", b"another"], defer=7, unique=True)]) == 1
    assert said(await storage.peek("H/0", 10)) == [b"plain", b"new"]


@asynchronous
async def test_what_is_not_unique_is_added_whatever_there_is(world: World) -> None:
    storage = world.storage()
    await storage.extend([Entry("H/0", [b"a"], unique=True)])
    assert await storage.append("H/0", b"a", b"a") == 2
    assert await storage.extend([Entry("H/0", [b"a"], defer=1), Entry("H/0", [b"a"], defer=1)]) == 2


@asynchronous
async def test_of_many_that_add_the_same_at_once_one_is_in_time(world: World) -> None:
    storages = [world.storage() for _ in range(4)]
    added = await asyncio.gather(*[storage.extend([Entry("H/0", [b"a"], unique=True)]) for storage in storages * 2])
    assert sum(added) == 1
    ticks = await asyncio.gather(*[storage.extend([Entry("H/0", [b"t"], every=60)]) for storage in storages])
    assert sum(ticks) == 1


# Looking


@asynchronous
async def test_the_overview_counts_what_waits_and_for_how_long(world: World) -> None:
    storage = world.storage()
    await storage.extend([Entry("H/1", [b"a", b"b"], 1), Entry("H/1", [b"c"], 2), Entry("H/1", [b"d"], defer=9)])
    await storage.extend([Entry("H/0", [b"d"], defer=9)])
    found = await storage.overview()
    assert [(info.tube, info.ready, info.later) for info in found] == [("H/0", 0, 1), ("H/1", 3, 1)]
    assert found[0].waiting_since is None
    assert found[1].waiting_since is not None and found[1].waiting_since.tzinfo is not None
    assert len(await storage.overview(1)) == 1
