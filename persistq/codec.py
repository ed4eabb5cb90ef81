"""JSON in, JSON out, with bounds."""

import json
import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from .errors import ConfigError, JobNotFound, PayloadError

MAX_ERROR_CHARS = 16_384
MAX_DEPTH = 64
LARGEST_ID = (1 << 63) - 1
# Possessive: a string that is never closed is passed over once, not once for each quote in it.
_MARKS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_WHITESPACE = " \t\n\r"


def dumps(value: Any, *, max_bytes: int | None = None) -> str:
    """Return ``value`` as compact JSON text.

    Raises:
        PayloadError: it is not a JSON value, is nested deeper than 64, or is longer than ``max_bytes``.
    """
    try:
        text = _ENCODER.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadError(f"not a JSON value ({error})") from None
    if _too_deep(text):
        raise PayloadError(f"nested deeper than {MAX_DEPTH}")
    if "{" in text:
        loads(text)  # two keys such as 1 and "1" become one, and the text could never be read again
    if max_bytes is not None and len(text) > max_bytes:
        raise PayloadError(f"{len(text):,} bytes of JSON, where {max_bytes:,} are allowed")
    return text


def loads(text: str) -> Any:
    """Return the value of strict JSON text.

    Raises:
        PayloadError: it is not JSON, holds NaN, the same key twice, or is nested deeper than 64.
    """
    try:
        if _too_deep(text):
            raise PayloadError(f"nested deeper than {MAX_DEPTH}")
        return _decode(text)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"not JSON ({error})") from None


def check_text(kind: str, text: object, max_bytes: int) -> str:
    """Return ``text`` when every database can keep it as it is.

    Raises:
        PayloadError: not a str, too long, not encodable as UTF-8, or with a NUL (PostgreSQL keeps none).
    """
    if not isinstance(text, str):
        raise PayloadError(f"{kind} is a str, not {type(text).__name__}; use json.dumps() or a @task")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise PayloadError(f"{kind} holds a lone surrogate, which UTF-8 cannot carry") from None
    if size > max_bytes:
        raise PayloadError(f"{kind} has {size:,} bytes, where {max_bytes:,} are allowed; enqueue a name of the data")
    if "\0" in text:
        raise PayloadError(f"{kind} holds a NUL character")
    return text


def check_texts(kind: str, texts: Sequence[object], max_bytes: int) -> list[str]:
    """Return the texts as a list when every database can keep each as it is.

    Raises:
        PayloadError: as ``check_text`` does.
    """
    try:
        together = "".join(texts)  # type: ignore[arg-type]
        encoded: Iterable[Any] = texts if together.isascii() else map(str.encode, texts)  # type: ignore[arg-type]
        if "\0" not in together and max(map(len, encoded), default=0) <= max_bytes:
            return list(texts)  # type: ignore[arg-type]
    except (TypeError, UnicodeEncodeError):
        pass  # one by one, to say which
    return [check_text(kind, text, max_bytes) for text in texts]


def dumps_texts(texts: list[str]) -> str:
    """Return texts that ``check_texts`` has let through as one JSON array."""
    quick = orjson()
    return quick.dumps(texts).decode() if quick else json.dumps(texts, ensure_ascii=False)


@cache
def orjson() -> Any:
    """Return the module orjson, or None where it is not installed. To import it takes longer than most commands do."""
    try:
        import orjson as found
    except ImportError:
        return None
    return found


def check_name(kind: str, name: object) -> str:
    """Return ``name`` when it can name a queue or a task.

    Raises:
        ConfigError: it is not 1 to 64 letters, digits, dots, dashes and underscores.
    """
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    raise ConfigError(f"a {kind} is named by 1 to 64 letters, digits, '.', '-', '_', not {name!r:.80}")


def check_int(kind: str, value: object) -> int:
    """Return ``value`` when it is a whole number that a database's integer column holds.

    Raises:
        ConfigError: it is not.
    """
    number = check_whole(kind, value)
    if abs(number) < 1 << 31:
        return number
    raise ConfigError(f"{kind} is a whole number of at most 31 bits, not {value!r:.40}")


def check_whole(kind: str, value: object) -> int:
    """Return ``value`` when it is a whole number.

    Raises:
        ConfigError: it is not.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ConfigError(f"{kind} is a whole number, not {value!r:.40}")


def check_page(limit: object, after: object, before: object | None, *, least: int = 0) -> tuple[int, int, int | None]:
    """Return the bounds of a page of jobs as a database can compare them.

    Raises:
        ConfigError: one is no whole number, or ``limit`` is less than ``least``.
    """
    size = check_int("limit", limit)
    if size < least:
        raise ConfigError(f"limit is at least {least}, not {limit}")
    end = None if before is None else min(check_whole("before", before), LARGEST_ID)
    return size, min(check_whole("after", after), LARGEST_ID), end


def check_id(value: object) -> int:
    """Return ``value`` when it can be a job's id.

    Raises:
        ConfigError: it is no whole number.
        JobNotFound: it is larger than any id.
    """
    number = check_whole("a job's id", value)
    if abs(number) > LARGEST_ID:
        raise JobNotFound(f"id {number}")
    return number


def storable(text: str, limit: int = MAX_ERROR_CHARS) -> str:
    """Return text from outside the queue, such as a traceback, made fit to be kept: its ends, if it is long."""
    # Cut before escaping as well, so that a huge text costs no more than a long one.
    kept = text if len(text) <= 2 * limit else text[:limit] + text[-limit:]
    clean = kept.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    if len(clean) <= limit:
        return clean
    half = (limit - 1) // 2
    return f"{clean[:half]}…{clean[-half:]}"


def _too_deep(text: str) -> bool:
    """Return whether brackets nest too deep, without recursion, and never count one inside a string."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False  # so with most texts, wherever their brackets stand
    depth = 0
    for mark in _MARKS.finditer(text):
        char = mark.group()[0]
        if char in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif char in "]}":
            depth -= 1
    return False


def _decode(text: str) -> Any:
    """Return what the decoder's ``decode`` does, which takes as long to look for whitespace as for all the rest."""
    clean = text.strip(_WHITESPACE)
    value, end = _DECODER.raw_decode(clean)
    if end < len(clean):
        raise ValueError(f"something follows its character {end}")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return value


# Made once: json.dumps and json.loads make a new one for each call with options, which takes longer than the work.
_ENCODER = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"))
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
