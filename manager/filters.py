"""The filter line: ``state:failed queue:mail error:"timed out" since:24h report`` and back."""

import shlex
from collections.abc import Iterable
from typing import Any

import persistq
from persistq import spans
from persistq.model import CRASHED

FIELDS = ("status", "queue", "task", "consumer", "item", "error", "since", "until")
_ALIASES = {"state": "status"}
STATUSES = (*map(str, persistq.JobStatus), CRASHED)
CYCLE = (None, "pending", "processing", "failed", CRASHED, "done", "cancelled")
"""What the key ``f`` goes through."""


def parse(text: str) -> persistq.JobFilter:
    """Return the filter that a line means; a word without a field is a part of the item.

    Raises:
        ConfigError: there is no such field, or a time is none.
        UnknownStatus: no vocabulary has the word.
    """
    status: list[str] = []
    given: dict[str, str] = {}
    plain: list[str] = []
    for word in split(text):
        name, mark, value = word.partition(":")
        name = _ALIASES.get(name, name)
        if not mark or name not in FIELDS:
            plain.append(word)
        elif name == "status":
            status += [one for one in value.split(",") if one]
        elif value:
            given[name] = value
    if plain:
        given["item"] = " ".join(plain)
    return made(status, given)


def made(status: Iterable[str], given: dict[str, str]) -> persistq.JobFilter:
    """Return the filter of status words and of fields as a person types them."""
    fields: dict[str, Any] = {
        name: spans.moment(value) if name in ("since", "until") else value for name, value in given.items()
    }
    return persistq.JobFilter.of(list(status) or None, **fields)


def shown(which: persistq.JobFilter) -> str:
    """Return the line that means this filter."""
    words = [f"state:{CRASHED}"] if which.crashed else []
    if which.status:
        words.append(f"state:{','.join(which.status)}")
    for name in FIELDS[1:]:
        value = getattr(which, name)
        if value is not None:
            text = value.isoformat(timespec="seconds") if name in ("since", "until") else value
            words.append(f"{name}:{shlex.quote(text) if ' ' in text else text}")
    return " ".join(words)


def cycled(which: persistq.JobFilter) -> str | None:
    """Return the status word that comes after the filter's in the cycle."""
    now = CRASHED if which.crashed else str(which.status[0]) if len(which.status) == 1 else None
    return CYCLE[(CYCLE.index(now) + 1) % len(CYCLE)]


def split(text: str) -> list[str]:
    """Return the words of a line, as a shell has them; quotes that are not closed are letters."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()
