"""Requests as bytes: JSON objects by the names of the fields, so that a changed class is noticed."""

import base64
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import repeat
from typing import Any, NamedTuple, get_type_hints

from .. import codec
from ..errors import ConfigError, PayloadError

ENVELOPE_BYTES = 2_048
"""What a request may lack of QUEUE_MAX_ITEM_BYTES, for as a job its handler and thread are named beside it."""


class RequestCodec(NamedTuple):
    """How the requests of one class become bytes and requests again."""

    #: The class that they are of; object if any will do.
    cls: type
    encode: Callable[[Sequence[Any]], Iterable[bytes]]
    #: Yields a request for each of the bytes, and raises at the first that is none.
    decode: Callable[[Iterable[bytes]], Iterator[Any]]
    #: Returns the request as plain values, to look into it.
    plain: Callable[[Any], Any]
    title: str


@lru_cache(maxsize=1024)
def codec_of(cls: Any) -> RequestCodec:
    """Return the codec of a request class: NamedTuple, dataclass, pydantic model, msgspec Struct, or any JSON value.

    Raises:
        ConfigError: it is none of these.
    """
    if cls is Any:
        return RequestCodec(object, partial(map, _dumps), partial(map, _loads), lambda _: None, "any JSON value")
    if not isinstance(cls, type):
        raise ConfigError(f"requests are of one class, not {cls!r:.80}")
    if hasattr(cls, "__struct_fields__"):
        return _struct(cls)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return _named_tuple(cls)
    if dataclasses.is_dataclass(cls) or hasattr(cls, "model_fields") or cls in _PLAIN:
        return _modelled(cls)
    raise ConfigError(
        f"requests of class {cls.__name__} cannot be kept; make it a NamedTuple, a dataclass, a pydantic model or a "
        "msgspec Struct"
    )


_PLAIN = (str, int, float, bool, list, dict)


def encode(which: RequestCodec, requests: Sequence[Any], max_bytes: int) -> list[bytes]:
    """Return each request as bytes.

    Raises:
        PayloadError: one is of another class, is no JSON value, or too long.
    """
    longest = max_bytes - ENVELOPE_BYTES if max_bytes > 2 * ENVELOPE_BYTES else max_bytes
    cls = which.cls
    for request in requests:
        if type(request) is not cls and not isinstance(request, cls):
            raise PayloadError(f"a request is a {which.title} here, not a {type(request).__name__}")
    try:
        made = list(which.encode(requests))
        if b"null" in b"".join(made):  # it may stand for a number that JSON does not have
            for request in requests:
                _refuse_odd(which.plain(request))
    except PayloadError:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadError(f"not a JSON value ({error})") from None
    if made and (size := max(map(len, made))) > longest:
        raise PayloadError(f"{size:,} bytes of JSON, where {longest:,} are allowed")
    return made


def decode(which: RequestCodec, payloads: Iterable[bytes]) -> tuple[list[Any], PayloadError | None]:
    """Return the requests that the bytes say, up to the first that says none, and why that one does not.

    Most likely it does not fit its class for the class has changed since.
    """
    found: list[Any] = []
    try:
        for request in which.decode(payloads):
            found.append(request)  # noqa: PERF402 - what was read before an error is kept
    except PayloadError as error:
        return found, error
    except (TypeError, ValueError, RecursionError) as error:
        return found, PayloadError(f"it does not fit {which.title} any more: {_brief(error)}")
    return found, None


def readable(payload: bytes) -> Any:
    """Return what the bytes say as a JSON value, for people to see; ``{"base64": ...}`` if they are no JSON."""
    try:
        return _loads(payload)
    except PayloadError:
        return as_base64(payload)


def as_base64(payload: bytes) -> dict[str, str]:
    """Return any bytes as a JSON value."""
    return {"base64": base64.b64encode(payload).decode()}


def unreadable(value: Any) -> bytes:
    """Return the bytes of what ``readable`` gave."""
    if isinstance(value, dict) and set(value) == {"base64"}:
        try:
            return base64.b64decode(value["base64"], validate=True)
        except (TypeError, ValueError) as error:
            raise PayloadError(f"not base64 ({error})") from None
    return codec.dumps(value).encode()


def _dumps(value: Any) -> bytes:
    return codec.dumps(value).encode()


def _loads(payload: bytes) -> Any:
    try:
        return codec.loads(payload.decode())
    except UnicodeDecodeError:
        raise PayloadError("not UTF-8") from None


def _modelled(cls: Any) -> RequestCodec:
    """A class that pydantic knows: its own compiled reader and writer, without the wrappers around them."""
    adapter = _adapter(cls)
    write, read = adapter.serializer.to_json, adapter.validator.validate_json
    return RequestCodec(
        cls,
        partial(map, partial(write, by_alias=True) if hasattr(cls, "model_fields") else write),
        partial(map, partial(read, extra="forbid")),
        adapter.serializer.to_python,
        cls.__name__,
    )


def _named_tuple(cls: Any) -> RequestCodec:
    """By the names of its fields, like the others: by their places, a field more or less would be another's value."""
    from typing import NotRequired

    from pydantic import with_config
    from typing_extensions import TypedDict

    found = get_type_hints(cls, include_extras=True)
    fields, defaults = cls._fields, cls._field_defaults
    hints = {name: found.get(name, Any) for name in fields}
    shape = TypedDict(  # type: ignore[misc]
        cls.__name__, {name: NotRequired[hint] if name in defaults else hint for name, hint in hints.items()}
    )
    adapter = _adapter(with_config(extra="forbid")(shape))
    write, read, as_dicts = adapter.serializer.to_json, adapter.validator.validate_json, _as_dicts(fields)
    return RequestCodec(
        cls,
        lambda values: map(write, as_dicts(values)),
        _tuples(cls, read),
        lambda value: value._asdict(),
        cls.__name__,
    )


def _as_dicts(fields: tuple[str, ...]) -> Callable[[Sequence[Any]], Iterable[dict[str, Any]]]:
    """Return what makes dicts of tuples: spelt out for a few fields, which takes half the time."""
    match fields:
        case (a,):
            return lambda values: [{a: x} for (x,) in values]
        case (a, b):
            return lambda values: [{a: x, b: y} for x, y in values]
        case (a, b, c):
            return lambda values: [{a: x, b: y, c: z} for x, y, z in values]
    return lambda values: map(dict, map(zip, repeat(fields), values))


def _tuples(cls: Any, read: Callable[[bytes], dict[str, Any]]) -> Callable[[Iterable[bytes]], Iterator[Any]]:
    if cls._field_defaults or "_fields" not in vars(cls):  # a subclass may have a way of its own to make one
        return lambda payloads: (cls(**read(payload)) for payload in payloads)
    make = partial(tuple.__new__, cls)  # what is read has the fields in their order
    return lambda payloads: (make(read(payload).values()) for payload in payloads)


def _struct(cls: Any) -> RequestCodec:
    import msgspec

    if cls.__struct_config__.array_like:
        raise ConfigError(
            f"{cls.__name__} is array_like, so a field more or less would be another's value; leave it out"
        )
    known = set(cls.__struct_encode_fields__) | ({cls.__struct_config__.tag_field} - {None})

    def decode_one(payload: bytes) -> Any:
        value = msgspec.json.decode(payload)
        if isinstance(value, dict) and not known.issuperset(value):
            raise PayloadError(f"{cls.__name__} has no field {', '.join(sorted(set(value) - known))!r:.200}")
        return msgspec.convert(value, cls)

    return RequestCodec(
        cls, partial(map, msgspec.json.encode), partial(map, decode_one), msgspec.to_builtins, cls.__name__
    )


def _adapter(cls: Any) -> Any:
    from pydantic import PydanticUserError, TypeAdapter

    try:
        return TypeAdapter(cls)
    except (PydanticUserError, TypeError, NameError) as error:
        raise ConfigError(f"requests of class {cls.__name__} cannot be checked: {error}") from error


def _refuse_odd(value: Any) -> None:
    """Return unless a null stands for a number that JSON does not have: it would come back as something else."""
    if isinstance(value, float) and not math.isfinite(value):
        raise PayloadError(f"{value} is not JSON")
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple, set, frozenset)):
        return
    for part in value:
        _refuse_odd(part)


def _brief(error: Exception) -> str:
    """Return the reasons without what was in the request, which may be private."""
    listed = getattr(error, "errors", None)
    if listed is None:
        return " ".join(str(error).split())[:500]
    reasons = listed(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in reasons[:5])[:500]
