"""Items go in and come out unchanged, or are refused with a reason."""

import json
import math
import sqlite3
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.batches import drain, fill, names, only

import persistq
from persistq.batch import BatchReader, BatchWriter, blocks, writer

ODD = [
    0, "", {}, [], False, True, "null", "None", 1, 1.5, -0.0, 1e300, "😀", "a\0b", "\ud800", "line\nline", '","', '",',
    "\\", '\\"', "\x7f", "[", "]", b"", b"\xff\0", b"null", 1 << 70, -(1 << 64), {"a": None}, [None], [[]],
    {"n": 1 << 64}, {"": ""}, "é", "\u2028", [1, "1", 1.0], {"b": {"c": [False, 0, ""]}},
]  # fmt: skip


@pytest.fixture(params=[True, False], ids=["orjson", "stdlib"])
def with_orjson(request, monkeypatch):
    """Both ways to write JSON: what one has written, the other must be able to read."""
    if not request.param:
        monkeypatch.setattr(blocks, "orjson", None)
        for module in (blocks, writer):
            monkeypatch.setattr(module, "quick_dumps", blocks._refuse)
    return request.param


def same(one, other):
    return type(one) is type(other) and repr(one) == repr(other)


@pytest.mark.parametrize("item", ODD, ids=repr)
def test_an_odd_item_alone(tmp_path, item, with_orjson):
    fill(tmp_path, [item])
    (got,) = drain(tmp_path)
    assert same(got, item)


@pytest.mark.parametrize("block_items", [1, 3, 1000])
def test_odd_items_together_in_their_order(tmp_path, block_items, with_orjson):
    items = [*ODD, *(f"text {n}" for n in range(5)), *reversed(ODD)]
    fill(tmp_path, items, block_items=block_items, max_items=20)
    assert [repr(item) for item in drain(tmp_path)] == [repr(item) for item in items]


def test_what_orjson_wrote_the_standard_library_reads_and_the_other_way_round(tmp_path, monkeypatch):
    fill(tmp_path, ODD)
    with monkeypatch.context() as without:
        without.setattr(blocks, "orjson", None)
        for module in (blocks, writer):
            without.setattr(module, "quick_dumps", blocks._refuse)
        assert [repr(item) for item in drain(tmp_path)] == [repr(item) for item in ODD]
        fill(tmp_path, ODD)
    assert [repr(item) for item in drain(tmp_path)] == [repr(item) for item in ODD]


def test_compressed_items_come_back_and_take_less_room(tmp_path):
    items = [f"{n:09d}" + "x" * 91 for n in range(1000)]
    fill(tmp_path, items, "plain")
    fill(tmp_path, items, "small", compression="zstd")
    fill(tmp_path, ODD, "small", compression="zstd")
    plain, small = only(tmp_path, queue="plain"), tmp_path / "small" / names(tmp_path, queue="small")[0]
    assert small.stat().st_size < plain.stat().st_size / 3
    assert [repr(item) for item in drain(tmp_path, "small")] == [repr(item) for item in items + ODD]


@given(
    st.lists(
        st.recursive(
            st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters()),
            lambda inner: (
                st.lists(inner | st.none(), max_size=4)
                | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner | st.none(), max_size=4)
            ),
            max_leaves=8,
        )
        | st.binary(max_size=20),
        max_size=30,
    )
)
def test_any_items_in_a_block(items):
    form, data = blocks.encode([blocks.keep(item, 10_000) for item in items])
    assert repr(blocks.decode(form, data)) == repr(items)
    json.loads(data)  # a person's tools can read it


@pytest.mark.parametrize("item", [None, math.nan, math.inf, [math.nan], {"a": [None, -math.inf]}, {1, 2}, object(), 1j])
def test_what_is_no_item_is_refused_and_nothing_else_is_lost(tmp_path, item, with_orjson):
    with BatchWriter(tmp_path, "q") as writer:
        writer.add("before")
        with pytest.raises(persistq.PayloadError):
            writer.add(item)
        with pytest.raises(persistq.PayloadError) as error:
            writer.add_many(["one", {"two": 2}, item, "never"])
        assert error.value.added == 2
        writer.add("after")
    assert drain(tmp_path) == ["before", "one", {"two": 2}, "after"]


@pytest.mark.parametrize("make", [str, bytes, list], ids=["str", "bytes", "json"])
def test_an_item_as_large_as_allowed_is_taken_and_one_byte_more_refused(tmp_path, make):
    def sized(size):
        return {str: "é" * (size // 2) + "e" * (size % 2), bytes: b"e" * size, list: ["e" * (size - 4)]}[make]

    with BatchWriter(tmp_path, "q", max_item_bytes=10_001) as writer:
        writer.add(sized(10_001))
        with pytest.raises(persistq.PayloadError, match="10,002 bytes"):
            writer.add(sized(10_002))
    assert drain(tmp_path) == [sized(10_001)]


def test_nesting_is_bounded_as_for_jobs(tmp_path, with_orjson):
    def nested(depth):
        return json.loads("[" * depth + "]" * depth)

    with BatchWriter(tmp_path, "q") as writer:
        writer.add(nested(64))
        writer.add("[" * 1000)
        with pytest.raises(persistq.PayloadError, match="nested"):
            writer.add(nested(65))
        endless: list = []
        endless.append(endless)
        with pytest.raises(persistq.PayloadError):
            writer.add(endless)
    assert drain(tmp_path) == [nested(64), "[" * 1000]


def test_a_value_may_be_changed_once_it_was_added(tmp_path):
    with BatchWriter(tmp_path, "q") as writer:
        value = {"n": 1}
        for n in range(3):
            value["n"] = n
            writer.add(value)
        raw = bytearray(b"abc")
        writer.add(raw)
        raw[0] = 0
    assert drain(tmp_path) == [{"n": 0}, {"n": 1}, {"n": 2}, b"abc"]


def test_blocks_of_large_items_stay_small(tmp_path):
    item = "x" * 200_000
    fill(tmp_path, [item] * 100, max_items=100)
    with BatchReader(tmp_path, "q") as reader:
        sizes = [sum(map(len, block)) for block in reader.blocks()]
    assert sum(sizes) == 100 * len(item)
    assert max(sizes) < 5 << 20


def test_anyone_with_a_shell_sees_the_items(tmp_path):
    fill(tmp_path, ["one", {"two": 2}])
    connection = sqlite3.connect(only(tmp_path))
    found = connection.execute("SELECT value FROM block, json_each(block.items) ORDER BY block.id, key").fetchall()
    connection.close()
    assert found == [("one",), ('{"two":2}',)]


def test_a_missing_library_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(persistq.ConfigError, match=r"persistq\[zstd\]"):
        BatchWriter(tmp_path, "q", compression="zstd")
    with pytest.raises(persistq.ConfigError, match="zstd"):
        BatchWriter(tmp_path, "q", compression="lzma")
