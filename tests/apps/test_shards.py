"""persistq shards: list, show, release; in the queue's database and on a Redis server."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.cli import invoke, ok

import persistq
from persistq.sharded import Entry
from persistq.sharded.serve import Drivers, opened

HOSTILE = "\x1b[2Jé\n[red]"


def within(q: persistq.PersistentQSQLAlchemy, what: Callable[[Drivers], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with opened(q) as drivers:
            return await what(drivers)

    return asyncio.run(run())


async def fill(drivers: Drivers) -> Any:
    await drivers.storage.extend([
        Entry("Mail/7", [b'{"to":1}', b"\xff"]), Entry("Mail/8", [b"1"]), Entry("Mail/9", [b"1"], defer=60),
        Entry(f"Mail/{HOSTILE}", [b"1"]),
    ])  # fmt: skip
    coordinator = drivers.coordinator()
    held, rests = await coordinator.bind("Mail/7"), await coordinator.bind("Mail/8")
    assert held and rests
    await coordinator.unbind(rests, tries=2, pause=60)
    return held


def test_nothing_is_an_empty_list(q: persistq.PersistentQSQLAlchemy) -> None:
    assert json.loads(ok("shards", "list", "--json")) == []


def test_tubes_are_listed_with_what_waits_and_who_holds_them(q: persistq.PersistentQSQLAlchemy) -> None:
    lease = within(q, fill)
    rows = {row["tube"]: row for row in json.loads(ok("shards", "list", "--json"))}
    assert {name: (row["state"], row["ready"], row["later"], row["tries"]) for name, row in rows.items()} == {
        "Mail/7": ("held", 2, 0, 0), "Mail/8": ("resting", 1, 0, 2), "Mail/9": ("later", 0, 1, 0),
        f"Mail/{HOSTILE}": ("waiting", 1, 0, 0),
    }  # fmt: skip
    assert rows["Mail/7"]["owner"] == lease.token
    assert rows["Mail/8"]["owner"] is None
    assert rows["Mail/7"]["waiting_at"].endswith("+00:00")
    assert "\x1b" not in ok("shards", "list")


def test_a_tubes_requests_are_shown_in_their_order(q: persistq.PersistentQSQLAlchemy) -> None:
    within(q, fill)
    shown = json.loads(ok("shards", "show", "Mail/7", "--json"))
    assert [row["request"] for row in shown] == [{"to": 1}, {"base64": "/w=="}]
    assert json.loads(ok("shards", "show", "Mail/none", "--json")) == []
    assert len(json.loads(ok("shards", "show", "Mail/7", "--limit", "1", "--json"))) == 1


def test_a_tube_is_taken_from_its_holder_when_a_person_says_so(q: persistq.PersistentQSQLAlchemy) -> None:
    lease = within(q, fill)
    assert invoke("--no-input", "shards", "release", "Mail/7").exit_code == 2
    assert invoke("--read-only", "shards", "release", "Mail/7", "--yes").exit_code == 4
    assert ok("shards", "release", "Mail/7", "--yes") == "Mail/7\n"
    assert invoke("shards", "release", "Mail/7", "--yes").exit_code == 3
    with pytest.raises(persistq.LeaseLost):
        within(q, lambda drivers: drivers.storage.remove("Mail/7", [1], lease))
    ok("shards", "release", "Mail/8", "--yes")
    assert [row["state"] for row in json.loads(ok("shards", "list", "--json"))][:2] == ["waiting", "waiting"]


@pytest.mark.needs("redis")
def test_where_the_requests_are_is_a_setting(
    q: persistq.PersistentQSQLAlchemy, stores: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = stores("redis")
    client = server.connect()
    client.flushall()
    client.close()
    monkeypatch.setenv("QUEUE_SHARDS_URL", server.url("0"))
    other = persistq.connect(q.dbname)
    within(other, fill)
    other.close()
    assert len(json.loads(ok("shards", "list", "--json"))) == 4
    assert ok("shards", "release", "Mail/7", "--yes") == "Mail/7\n"
    shown = ok("config", "show", "--json")
    assert server._password not in shown


def test_a_server_that_is_away_is_exit_5(q: persistq.PersistentQSQLAlchemy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE_SHARDS_URL", "redis://:secret@127.0.0.1:1/0")
    done = invoke("shards", "list")
    assert done.exit_code == 5
    assert "secret" not in done.output
    monkeypatch.setenv("QUEUE_SHARDS_URL", "http://secret@x")
    done = invoke("shards", "list")
    assert done.exit_code == 2
    assert "secret" not in done.output
