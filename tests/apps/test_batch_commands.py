"""persistq batches: what a person sees of batch files and may do with them."""

import json
from pathlib import Path

import pytest
from support.batches import drain, fill, names, only
from support.cli import invoke, ok

from persistq.batch import BatchReader, BatchWriter

SPOOL = Path("spool")


@pytest.fixture
def spool(tmp_path):
    """The spool of the settings: the folder ``spool`` of the current one."""
    return tmp_path / "spool"


def test_list_shows_each_batch_with_what_is_known_of_it(spool):
    assert json.loads(ok("batches", "list", "--json")) == []
    fill(spool, range(12), "default", block_items=4)
    fill(spool, ["x"], "mail")
    (spool / "mail" / "invalid_1700000000000000000_00000000.db").write_bytes(b"junk")
    with BatchWriter(spool, "mail") as writer, BatchReader(spool, "default", owner="me") as reader:
        writer.add("y")
        assert [reader.get() for _ in range(5)][-1] == 4
        rows = json.loads(ok("batches", "list", "--json"))
        seen = {(row["queue"], row["status"]): row for row in rows}
        assert set(seen) == {("default", "unload"), ("mail", "ready"), ("mail", "loading"), ("mail", "invalid")}
        held = seen["default", "unload"]
        assert (held["items"], held["consumed"], held["live"], held["owner"]) == (12, 4, True, "me")
        assert seen["mail", "loading"]["live"] is True
        assert seen["mail", "invalid"]["damage"]
        assert seen["mail", "ready"] | {"items": 1, "consumed": 0, "live": None} == seen["mail", "ready"]
    assert len(ok("batches", "list", "--status", "invalid").splitlines()) == 1
    assert len(json.loads(ok("batches", "list", "--queue", "mail", "--limit", "1", "--json"))) == 1
    assert invoke("batches", "list", "--status", "lost").exit_code == 2


def test_show_prints_the_items_wherever_they_stop_being_harmless(spool):
    items = ["plain", {"b": [1, None]}, 1.5, "", "\x1b[31mred", "é\u202e"]
    fill(spool, items, "default", block_items=2)
    name = only(spool, queue="default").name
    rows = json.loads(ok("batches", "show", name, "--json"))
    assert [json.loads(row["item"]) for row in rows] == items
    assert [row["number"] for row in rows] == list(range(6))
    part = ok("batches", "show", name.split("_")[2].removesuffix(".db"), "--from", "1", "--limit", "2").splitlines()
    assert [line.split("\t")[0] for line in part] == ["1", "2"]
    assert "\x1b" not in ok("batches", "show", name)
    assert "\u202e" not in ok("batches", "show", name)
    assert invoke("batches", "show", "nothing").exit_code == 3
    assert invoke("batches", "show", name, "--queue", "other").exit_code == 3


def test_recover_reports_what_it_did_and_leaves_the_living_alone(spool):
    writer = BatchWriter(spool, "default")
    writer.add("y")
    fill(spool, [1], "default")
    only(spool, "ready_", "default").rename(spool / "default" / "unload_1700000000000000000_00000000_9.db")
    assert invoke("--read-only", "batches", "recover").exit_code == 4
    (row,) = json.loads(ok("batches", "recover", "--json"))
    assert row == {"queue": "default", "ready": 1, "empty": 0, "alive": 1, "invalid": {}}
    writer.close()
    assert drain(spool, "default") == [1, "y"]


def test_a_batch_is_put_aside_and_replayed(spool):
    fill(spool, range(6), "default", block_items=2)
    with BatchReader(spool, "default") as reader:
        assert [reader.get() for _ in range(3)] == [0, 1, 2]
    name = only(spool, queue="default").name
    assert invoke("--read-only", "batches", "quarantine", name).exit_code == 4
    aside = ok("batches", "quarantine", name).strip()
    assert names(spool, "invalid_", "default") == [aside] == names(spool, queue="default")
    assert ok("batches", "quarantine", aside).strip() == aside
    assert drain(spool, "default") == []
    assert invoke("--read-only", "batches", "replay", aside).exit_code == 4
    assert ok("batches", "replay", aside).strip() == name
    assert ok("batches", "replay", name, "--from-start").strip() == name
    assert drain(spool, "default") == list(range(6))


def test_what_is_at_work_or_damaged_is_not_replayed(spool):
    fill(spool, ["x" * 100] * 50, "default")
    with BatchReader(spool, "default") as reader:
        reader.get()
        name = only(spool, queue="default").name
        for command in ("replay", "quarantine"):
            assert invoke("batches", command, name).exit_code == 4
    path = only(spool, queue="default")
    data = bytearray(path.read_bytes())
    data[-50] ^= 1
    path.write_bytes(data)
    drain(spool, "default")
    (aside,) = names(spool, "invalid_", "default")
    for command in ("replay", "show"):
        result = invoke("batches", command, aside)
        assert result.exit_code == 4
        assert "damaged" in result.stderr
