"""Times as a person types them, for options: what is wrong with one is a mistake in usage."""

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

import typer

import persistq
from persistq import spans

T = TypeVar("T")


def seconds(text: str) -> float:
    """Return a span in seconds."""
    return _asked(spans.seconds, text)


def moment(text: str) -> datetime:
    """Return a time: a span means so long ago, a date without a zone means UTC."""
    return _asked(spans.moment, text)


def ahead(text: str) -> datetime:
    """Return a time to come: now, a span from now, or a date; one without a zone means UTC."""
    return _asked(spans.ahead, text)


def _asked(read: Callable[[str], T], text: str) -> T:
    try:
        return read(text)
    except persistq.ConfigError as error:
        raise typer.BadParameter(str(error)) from None
