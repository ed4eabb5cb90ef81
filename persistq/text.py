"""safe_text(): the one filter between data and a terminal, a log or a spreadsheet."""

import unicodedata

# Cc, Cf, Cs, Co, Cn: controls, bidi and zero-width marks, lone surrogates, private use, unassigned.
# Zl and Zp end a line in some viewers and would let data forge a log record.
_UNSAFE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}

HIDDEN = "(hidden)"
"""What a window shows for an item that it was told not to."""


def safe_text(value: object) -> str:
    r"""Return ``value`` as one line in which nothing steers a terminal.

    Every control, bidirectional or invisible character is shown as an escape such as ``\x1b``,
    and a backslash as two, so that an escape in the data is told from one of ours.
    """
    text = str(value)
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    return "".join(_escape(char) if char == "\\" or unicodedata.category(char) in _UNSAFE else char for char in text)


def shorten(value: object, width: int) -> str:
    """Return ``safe_text(value)`` cut to ``width`` characters, the cut shown by an ellipsis."""
    text = safe_text(value)
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def spreadsheet_cell(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula and in which nothing steers a terminal."""
    # Full-width forms of the signs count as well: some spreadsheets fold them.
    return f"'{safe_text(text)}" if text[:1] in "=+-@\t\r＝＋－＠" and text else safe_text(text)  # noqa: RUF001


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
