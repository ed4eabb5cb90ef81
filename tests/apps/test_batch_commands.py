"""persistq batches: what a person sees of batch files and may do with them."""

import json
import os

import pytest
from support.batches import drain, fill, names, only
from support.cli import invoke, ok

from persistq.batch import BatchName, BatchReader, BatchWriter
from persistq.batch.spool import Spool


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


@pytest.fixture
def three(spool):
    """Files of three batches: ready and whole, half consumed, put aside as damaged."""
    fill(spool, range(12), "default", max_items=4, block_items=2)
    with BatchReader(spool, "default") as reader:
        assert [reader.get() for _ in range(3)] == [0, 1, 2]
    half, whole, third = names(spool, queue="default")
    aside = third.replace("ready", "invalid")
    (spool / "default" / third).write_bytes(b"junk")
    (spool / "default" / third).rename(spool / "default" / aside)
    (spool / "default" / f"{aside}-journal").write_bytes(b"junk")
    return [whole, half, aside]


def test_what_is_deleted_is_shown_asked_about_and_written_down(spool, three):
    whole, half, aside = three
    shown = json.loads(ok("batches", "delete", *three, "--dry-run", "--json"))
    assert [(row["file"], row["items"], row["consumed"]) for row in shown] == [
        (whole, 4, 0), (half, 4, 3), (aside, None, None),
    ]  # fmt: skip
    held = invoke("batches", "delete", *three, stdin="n\n")
    assert (held.exit_code, held.stdout) == (1, "")
    assert f"{half}: 1 of 4 items not consumed" in held.stderr
    assert f"{aside}: damaged, 4 bytes" in held.stderr
    assert "Delete 3 batches of queue default" in held.stderr
    assert invoke("--no-input", "batches", "delete", half).exit_code == 2
    assert invoke("--read-only", "batches", "delete", half, "--yes").exit_code == 4
    assert len(names(spool, queue="default")) == 4
    assert json.loads(ok("audit", "list", "--json")) == []

    gone = json.loads(ok("batches", "delete", half, aside, "--reason", "a test's", "--yes", "--json"))
    assert [row["file"] for row in gone] == [half, aside]
    assert names(spool, queue="default") == [whole]
    last, first = json.loads(ok("audit", "list", "--json"))
    assert (first["action"], first["via"], first["reason"]) == ("batch_delete", "cli", "a test's")
    assert first["scope"] == {"queue": "default", "file": half, "items": 4, "consumed": 3}
    assert last["scope"]["file"] == aside
    assert drain(spool, "default") == [4, 5, 6, 7]


def test_what_is_at_work_is_not_deleted_and_does_not_keep_the_others(spool, three):
    whole = three[0]
    with BatchReader(spool, "default") as reader, BatchWriter(spool, "default") as writer:
        reader.get()
        writer.add("y")
        writer.flush()
        (held,), (loading,) = (names(spool, word, "default") for word in ("unload_", "loading_"))
        for busy in (held, loading):
            result = invoke("batches", "delete", busy, "--yes")
            assert (result.exit_code, result.stdout) == (4, "")
            assert "'recover'" in result.stderr
        assert invoke("batches", "delete", "nothing", "--yes").exit_code == 3
        result = invoke("batches", "delete", held, whole, "nothing", "--yes")
        assert result.exit_code == 6
        assert [line.split("\t")[0] for line in result.stdout.splitlines()] == [whole]
        assert len(result.stderr.splitlines()) == 2
        assert names(spool, "ready_", "default") == []
    name = BatchName.parse(only(spool, "ready_", "default").name)
    handle = Spool(spool, "default").own(name)  # as a reader does before it renames
    result = invoke("batches", "delete", name.text, "--yes")
    assert (result.exit_code, "a process is at work" in result.stderr) == (4, True)
    os.close(handle)
    assert drain(spool, "default") == ["y"]


def test_only_what_has_the_name_is_deleted_wherever_it_points(spool, tmp_path):
    victim, folder = tmp_path / "victim", spool / "default"
    victim.write_text("precious")
    folder.mkdir(parents=True, mode=0o700)
    hostile = [f"invalid_170000000000000000{n}_0000000{n}.db" for n in range(4)]
    (folder / hostile[0]).symlink_to(victim)
    (folder / hostile[1]).hardlink_to(victim)
    os.mkfifo(folder / hostile[2])
    (folder / hostile[3]).mkdir()
    damage = {row["file"]: row["damage"] for row in json.loads(ok("batches", "list", "--json"))}
    assert [damage[name] for name in hostile] == ["not a plain file", damage[hostile[1]], *["not a plain file"] * 2]
    for name in hostile[:3]:
        assert invoke("batches", "show", name).exit_code == 4
        ok("batches", "delete", name, "--yes")
    assert invoke("batches", "delete", hostile[3], "--yes").exit_code == 4
    assert invoke("batches", "delete", "../../victim", "--yes").exit_code == 3
    assert names(spool, queue="default") == [hostile[3]]
    assert victim.read_text() == "precious"
