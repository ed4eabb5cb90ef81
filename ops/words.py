"""Data as people read it: times with their zone, spans, states, text in which nothing hides."""

import json
import unicodedata
from collections.abc import Sequence
from datetime import datetime, tzinfo
from typing import Any

import persistq
from persistq import spans
from persistq.text import safe_text, shorten

CONSUMER_STATES = ("alive", "quiet", "stop", "lost")
LONGEST_CELL = 120
LONGEST_TEXT = 20_000
"""Characters of one text that a page shows; the rest is told about."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def cell(value: object) -> str:
    """Return a value as one short line for a table."""
    return "" if value is None else shorten(value, LONGEST_CELL)


def block(text: str) -> str:
    """Return text of several lines in which nothing is invisible or turns the direction of reading."""
    lines = "\n".join(safe_text(line) for line in text[:LONGEST_TEXT].split("\n"))
    return lines if len(text) <= LONGEST_TEXT else f"{lines}\n... and {len(text) - LONGEST_TEXT:,} characters more"


def pretty(text: str) -> tuple[str, str | None]:
    """Return an item fit to be read, and ``json`` if that is what it is."""
    if len(text) > LONGEST_TEXT:
        return block(text), None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return block(text), None
    if not isinstance(found, dict | list):
        return block(text), None
    shown = json.dumps(found, indent=2, ensure_ascii=False)
    return "".join(_visible(char) for char in shown), "json"


def moment_text(time: datetime | None, zone: tzinfo) -> str:
    """Return a time in the chosen zone, to the second, the zone named."""
    return "" if time is None else f"{time.astimezone(zone):%Y-%m-%d %H:%M:%S %Z}"


def ago(time: datetime | None, now: datetime) -> str:
    """Return how long ago, or in how long."""
    if time is None:
        return ""
    shown = spans.ago(time, now)
    return shown if shown.startswith("in ") else f"{shown} ago"


def span(seconds: float | None) -> str:
    """Return a span in the unit that suits it."""
    if seconds is None:
        return ""
    left = max(0.0, seconds)
    if left < 1:
        return f"{left * 1000:.3g} ms"
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if left >= 2 * length:
            return f"{left / length:.0f} {unit}"
    return f"{left:.3g} s"


def count(number: int, cap: int | None = None) -> str:
    """Return a number with separators; one that reached its cap says so."""
    return f"{number:,}+" if cap is not None and number >= cap else f"{number:,}"


def size(number: float) -> str:
    """Return bytes in the unit that suits them."""
    for unit in ("B", "KiB", "MiB"):
        if abs(number) < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


def consumer_state(info: persistq.ConsumerInfo, now: datetime) -> str:
    """Return one of the words of ``CONSUMER_STATES``."""
    return "lost" if not info.is_alive(now) else info.wish or "alive"


def csv_cell(value: Any) -> str:
    """Return a value for a CSV file; what a spreadsheet would take for a formula is made text."""
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"'{text}" if text.startswith(_FORMULA) else text


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return the first names, and how many there are besides."""
    shown = ", ".join(shorten(name, 60) for name in names[:most])
    return shown + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _visible(char: str) -> str:
    if char == "\n" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
        return char
    return json.dumps(char)[1:-1]
