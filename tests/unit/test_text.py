"""safe_text(): nothing in data steers a terminal or forges a line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistq.text import safe_text, shorten

UNSAFE = {
    "escape": "\x1b[2J",
    "operating system command": "\x1b]0;title\x07",
    "8-bit CSI": "\x9b2J",
    "next line": "\x85",
    "carriage return": "fine\rforged",
    "newline": "a\nb",
    "tab": "a\tb",
    "backspace": "a\b",
    "delete": "\x7f",
    "NUL": "\0",
    "right-to-left override": "\u202egpj.exe",
    "isolate": "\u2066x\u2069",
    "zero-width space": "a\u200bb",
    "zero-width joiner": "a\u200db",
    "byte order mark": "\ufeff",
    "soft hyphen": "\xad",
    "line separator": "\u2028",
    "paragraph separator": "\u2029",
    "lone surrogate": "\ud800",
    "undecodable byte": "\udcff",
    "tag": "\U000e0041",
    "private use": "\ue000",
}


@pytest.mark.parametrize("text", UNSAFE.values(), ids=UNSAFE.keys())
def test_what_could_steer_is_shown_as_an_escape(text: str) -> None:
    shown = safe_text(text)
    assert shown.isprintable()
    assert "\\" in shown
    assert shown.encode()


@given(st.text())
def test_any_text_becomes_one_printable_line(text: str) -> None:
    shown = safe_text(text)
    assert len(shown.splitlines()) <= 1
    assert not set(shown) & set("\x1b\x9b\r\n\b\0\u202e\u200b")


@pytest.mark.parametrize("text", ["plain", "Grüße", "日本語", "emoji 🎉", "[/red] [link=x]", "<b>&lt;", "", "a  b"])
def test_the_rest_stays_as_it_is(text: str) -> None:
    assert safe_text(text) == text


def test_text_that_only_looks_like_an_escape_is_told_from_one() -> None:
    assert safe_text("\x1b") == "\\x1b"
    assert safe_text("\\x1b") != safe_text("\x1b")
    assert safe_text("é\\x1b") != safe_text("é\x1b")


def test_anything_can_be_shown() -> None:
    assert (safe_text(None), safe_text(3), safe_text(ValueError("\x07"))) == ("None", "3", "\\x07")


@pytest.mark.parametrize(
    ("text", "width", "short"), [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("\x1b" * 3, 5, "\\x1b…"), ("abc", 0, "…")]
)
def test_a_short_form_shows_that_it_was_cut(text: str, width: int, short: str) -> None:
    assert shorten(text, width) == short
