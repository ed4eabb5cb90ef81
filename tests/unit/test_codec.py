"""JSON with bounds: what goes in comes out, and what could not come out does not go in."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistq import ConfigError, PayloadError, codec, dumps, loads
from persistq.codec import check_int, check_name, check_text, check_texts, dumps_texts, storable

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


@given(JSON)
def test_a_json_value_survives(value: Any) -> None:
    assert loads(dumps(value)) == value


@pytest.mark.parametrize("installed", [True, False], ids=["orjson", "stdlib"])
@given(texts=st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_texts_survive_together(installed: bool, texts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        if not installed:
            patched.setattr(codec, "orjson", lambda: None)
        assert json.loads(dumps_texts(check_texts("an item", texts, 100_000))) == texts


@pytest.mark.parametrize(("text", "size"), [("x" * 9, 9), ("é" * 9, 18), ("😀", 4)], ids=["ascii", "two bytes", "four"])
def test_a_text_among_others_is_measured_in_bytes(text: str, size: int) -> None:
    texts = ["short", text]
    assert check_texts("an item", texts, max(5, size)) == texts
    with pytest.raises(PayloadError, match=f"{size} bytes"):
        check_texts("an item", ["x", text], size - 1)


@given(st.dictionaries(st.sampled_from(["1", 1, "true", True, "null", None, "x"]), st.integers()))
def test_whatever_is_written_can_be_read(value: dict[Any, int]) -> None:
    try:
        text = dumps(value)
    except PayloadError:
        return
    assert len(loads(text)) == len(value)


@pytest.mark.parametrize(
    "value", [{1: "a", "1": "b"}, {None: 1, "null": 2}, {True: 1, "true": 2}, [{1.0: 1, "1.0": 2}]]
)
def test_keys_that_become_the_same_are_refused(value: Any) -> None:
    with pytest.raises(PayloadError):
        dumps(value)


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), -float("inf"), object(), {1, 2}, b"x", 10**5000, {(1, 2): 3}],
    ids=["nan", "inf", "-inf", "object", "set", "bytes", "5,001 digits", "tuple key"],
)
def test_what_is_no_json_value_is_refused(value: Any) -> None:
    with pytest.raises(PayloadError):
        dumps({"deep": [value]})


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(PayloadError):
        dumps(value)


@pytest.mark.parametrize("depth", [63, 64])
def test_nesting_is_kept_up_to_64(depth: int) -> None:
    assert loads(dumps(nested(depth))) == nested(depth)


@pytest.mark.parametrize("depth", [65, 500])
def test_nesting_past_64_is_refused(depth: int) -> None:
    with pytest.raises(PayloadError, match="64"):
        dumps(nested(depth))
    with pytest.raises(PayloadError, match="64"):
        loads("[" * depth + "]" * depth)


def test_brackets_in_a_string_are_no_nesting() -> None:
    value = '["' * 200 + "{" * 200 + "\\"
    assert loads(dumps([value])) == [value]


@pytest.mark.parametrize(
    "text",
    [
        "", "nope", "{", '{"a":1,}', "[1 2]", "'a'", "NaN", "[Infinity]", "-Infinity", '{"a":1,"a":1}',
        '[{"a":{"b":1,"b":2}}]', "[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a":' * 100_000, "1" * 5000,
        "\ud800", '"a\nb"', "\0", "1 1",
    ],
    ids=lambda text: ascii(text[:16]),
)  # fmt: skip
def test_what_is_no_strict_json_is_refused(text: str) -> None:
    with pytest.raises(PayloadError):
        loads(text)


@pytest.mark.timeout(5)
@pytest.mark.parametrize(
    "text",
    ['"' + '\\"' * 131_000, "\\" * 262_000, '"' * 262_001, '"\\' * 131_000],
    ids=["escaped quotes", "backslashes", "quotes", "quotes and backslashes"],
)
def test_no_text_of_the_allowed_size_takes_long_to_refuse(text: str) -> None:
    with pytest.raises(PayloadError):
        loads(text)


def test_the_bound_counts_bytes_as_they_are_kept() -> None:
    assert dumps("é" * 10, max_bytes=62) == json.dumps("é" * 10)
    with pytest.raises(PayloadError, match="62"):
        dumps("é" * 10, max_bytes=61)


@pytest.mark.parametrize("item", ["", " ", "x" * 100, "ü" * 50, "a\nb", "\x7f", "\u202e", "🎉"])
def test_an_item_is_any_text(item: str) -> None:
    assert check_text("an item", item, 100) == item


@pytest.mark.parametrize("item", [None, 5, b"x", ["x"], "x" * 101, "ü" * 51, "a\0b", "\ud800", "\udcff"])
def test_an_item_that_some_database_could_not_keep_is_refused(item: Any) -> None:
    with pytest.raises(PayloadError):
        check_text("an item", item, 100)


@pytest.mark.parametrize("name", ["a", "A-z_0.9", "x" * 64])
def test_a_name_is_letters_digits_dots_dashes_and_underscores(name: str) -> None:
    assert check_name("queue", name) == name


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", "a/b", "é", "a\n", "\0", None, 3, "a'b", "%"])
def test_any_other_name_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match="queue"):
        check_name("queue", name)


@pytest.mark.parametrize("number", [0, -1, 2**31 - 1, -(2**31) + 1])
def test_a_number_fits_the_column(number: int) -> None:
    assert check_int("priority", number) == number


@pytest.mark.parametrize("number", [2**31, -(2**31), 1.5, "1", None, True])
def test_any_other_number_is_refused(number: Any) -> None:
    with pytest.raises(ConfigError, match="priority"):
        check_int("priority", number)


@pytest.mark.parametrize("limit", [255, 256, 16_384])
@pytest.mark.parametrize(
    "text", ["x" * 50_000, "\0" * 50_000, "\ud800" * 300, "é\n" * 40_000], ids=["x", "NUL", "surrogate", "é"]
)
def test_text_from_outside_is_cut_to_what_can_be_kept(text: str, limit: int) -> None:
    kept = storable(text, limit)
    assert check_text("an item", kept, 10 * limit) == kept
    assert len(kept) <= limit


def test_a_cut_keeps_both_ends() -> None:
    kept = storable("begin" + "x" * 50_000 + "end")
    assert kept.startswith("begin")
    assert kept.endswith("end")
