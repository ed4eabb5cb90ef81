"""Times as a person types them: ``90``, ``30s``, ``24h``, ``7d``, or a date in ISO 8601."""

import re
from datetime import UTC, datetime, timedelta

from .clock import LONGEST_SPAN, SystemClock
from .errors import ConfigError

_UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def seconds(text: str) -> float:
    """Return a span in seconds.

    Raises:
        ConfigError: it is none, or more than a century.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if not match or match[2] not in _UNITS:
        raise ConfigError(f"{text!r:.40} is no span of time; write 90, 30s, 15m, 24h or 7d")
    span = float(match[1]) * _UNITS[match[2]]
    if span > LONGEST_SPAN:
        raise ConfigError(f"{text!r:.40} is more than a century")
    return span


def moment(text: str) -> datetime:
    """Return a time: a span means so long ago, a date without a zone means UTC.

    Raises:
        ConfigError: it is neither.
    """
    return _date(text) or SystemClock().now() - timedelta(seconds=seconds(text))


def ahead(text: str) -> datetime:
    """Return a time to come: now, a span from now, or a date; one without a zone means UTC.

    Raises:
        ConfigError: it is none of these.
    """
    if text.strip().lower() == "now":
        return SystemClock().now()
    return _date(text) or SystemClock().now() + timedelta(seconds=seconds(text))


def ago(when: datetime, now: datetime) -> str:
    """Return how long ago a time was, in its largest unit; of one to come ``in 5 min``."""
    past = (now - when).total_seconds()
    sign, past = ("in ", -past) if past < 0 else ("", past)
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if past >= length:
            return f"{sign}{past / length:.0f} {unit}"
    return f"{sign}{past:.0f} s"


def _date(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
