"""Lines of styled text, cut to cells of a terminal. Whatever is drawn comes through ``fit`` or ``wrap``.

A line is a list of (style, text) pairs, prompt_toolkit's own form: nothing in the text is ever read as markup.
"""

from collections.abc import Sequence
from typing import Any

from prompt_toolkit.utils import get_cwidth

from persistq.text import safe_text

Line = list[tuple[str, str]]

GAP = 1

_TICKS = " ▁▂▃▄▅▆▇█"
_SPARE = 8


def fit(value: Any, width: int, *, right: bool = False) -> str:
    """Return one line of exactly ``width`` cells in which nothing steers a terminal; a cut is shown by an ellipsis."""
    text = "" if value is None else str(value)
    text = safe_text(text[: 4 * width + _SPARE])  # a payload may have a million characters, a line has few
    if not (text.isascii() and len(text) <= width) and get_cwidth(text) > width:
        text = _cut(text, width - 1) + "…" if width else ""
    space = " " * (width - get_cwidth(text))
    return space + text if right else text + space


def tail(value: Any, width: int) -> str:
    """Return at most ``width`` cells of a text's end, which of a path says most."""
    text = safe_text(value)
    if get_cwidth(text) <= width:
        return text
    return "…" + _cut(text[::-1], max(0, width - 1))[::-1]


def wrap(value: Any, width: int, *, most: int = 4_000) -> list[str]:
    """Return lines of at most ``width`` cells; of a longer text than ``most`` characters only the beginning."""
    text = str(value)
    lines: list[str] = []
    for raw in text[:most].splitlines() or [""]:
        left = safe_text(raw)
        while get_cwidth(left) > width > 1:
            part = _cut(left, width)
            space = part.rfind(" ")
            if space > width // 2 and not left[len(part)].isspace():
                part = part[: space + 1]
            lines.append(part)
            left = left[len(part) :]
        lines.append(left)
    if len(text) > most:
        lines.append(f"… {len(text) - most:,} more characters")
    return lines


def join(parts: Sequence[tuple[str, str]], width: int) -> Line:
    """Return the parts, which are fit to be drawn, as one line of exactly ``width`` cells."""
    line: Line = []
    left = width
    for style, text in parts:
        size = get_cwidth(text)
        if size > left:
            cut = _cut(text, left)
            line.append((style, cut))
            left -= get_cwidth(cut)
            break
        line.append((style, text))
        left -= size
    line.append(("", " " * left))
    return line


def ends(left: Sequence[tuple[str, str]], right: Sequence[tuple[str, str]], width: int) -> Line:
    """Return a line with a left and a right end; the right one stays whole."""
    room = width - sum(get_cwidth(text) for _, text in right)
    return [*join(left, max(0, room)), *right] if room > 0 else join(right, width)


def sparkline(numbers: Sequence[int], width: int) -> str:
    """Return the last ``width`` numbers as bars of eight heights; what is not nought is never drawn as nought."""
    shown = numbers[-width:] if width > 0 else []
    top = max(shown, default=0)
    return "".join(_TICKS[0 if not n else max(1, round(n / top * (len(_TICKS) - 1)))] for n in shown)


def bar(number: int, total: int, width: int) -> str:
    """Return a bar that is as long as the number's share."""
    return "█" * (max(1, round(number / total * width)) if number and total else 0)


def compact(number: int) -> str:
    """Return a count in few characters: 1,234 as it is, 12,345,678 as 12.3M."""
    if number < 100_000:
        return f"{number:,}"
    return f"{number / 1e3:.0f}k" if number < 1_000_000 else f"{number / 1e6:.1f}M"


def _cut(text: str, width: int) -> str:
    """Return as much of the text as fits into ``width`` cells."""
    used = 0
    for place, char in enumerate(text):
        used += get_cwidth(char)
        if used > width:
            return text[:place]
    return text
