"""Blocks: some hundred items as one JSON text, and back, without any of them changing on the way.

A block's form says how its text is read:

``json``
    A JSON array of the items. Whatever reads it gets the same values.
``exact``
    The same with each item in an array of its own, and bytes as a string in Base64. For what a fast
    JSON library refuses or rounds, such as integers of more than 64 bits; the standard library reads it.
``json+zstd``, ``exact+zstd``
    The same, compressed.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from .. import codec
from ..codec import MAX_DEPTH, dumps
from ..errors import ConfigError, PayloadError

orjson = codec.orjson()

T = TypeVar("T")

Kept = str | bytes | tuple[bytes, bool]
"""An item as a writer keeps it until its block ends: a str as it is; JSON of any other with a comma before it; and
for what needs the form ``exact``, its JSON and whether it stands for bytes."""

MAX_BLOCK_BYTES = 256 << 20
"""No block that we write comes near it: it bounds what a planted file can make of a reader's memory."""

SHORT = 2048
"""Characters of a str that no cap refuses and that a block may have ten thousand of."""

SHALLOW = 2 * MAX_DEPTH
"""Bytes of JSON, with a comma, that cannot be nested too deep."""

NOT_QUICK = (TypeError, ValueError, RecursionError)
"""What ``quick_dumps`` raises when it is not to be trusted with an item, or is not there."""

_ENCODER = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"))


class Undecodable(Exception):
    """The block's text is not what its form says."""


def keep(item: Any, max_bytes: int, data: bytes | None = None) -> Kept:
    """Return an item in the shape that ``encode`` takes, so that it may be changed after this without harm.

    ``data`` is its JSON from ``quick_dumps``, with a comma before it, where that is known: added to the comma it was
    copied to its size, and what orjson returns keeps the kilobyte that it began with.

    Raises:
        PayloadError: None, more than ``max_bytes``, or no JSON value.
    """
    if data is None:
        if isinstance(item, str):
            return _check_size(str(item), len(item.encode("utf-8", "surrogatepass")), max_bytes)
        if isinstance(item, (bytes, bytearray, memoryview)):
            raw = bytes(item)
            return b64encode(_check_size(raw, len(raw), max_bytes)), True
        if item is None:
            raise PayloadError("None means that a queue is empty, so it is no item; add the string 'null' or a dict")
        try:
            data = b"," + quick_dumps(item)
        except NOT_QUICK:
            return dumps(item, max_bytes=max_bytes).encode(), False
    if data.find(b"null") >= 0 and orjson.loads(data[1:]) != item:
        return dumps(item, max_bytes=max_bytes).encode(), False  # orjson writes NaN as null
    if len(data) > SHALLOW:
        if data.count(b"[") + data.count(b"{") > MAX_DEPTH:
            return dumps(item, max_bytes=max_bytes).encode(), False  # which counts more exactly
        _check_size(item, len(data) - 1, max_bytes)
    return data


def size_of(kept: Kept) -> int:
    """Return about how many bytes it will take."""
    return len(kept[0]) if type(kept) is tuple else len(kept)


def encode(items: Sequence[Kept]) -> tuple[str, bytes]:
    """Return the form and the text of a block. It never fails: ``keep`` and the writer let in what can be written."""
    if orjson is not None:
        try:
            return "json", orjson.dumps(items)
        except TypeError:
            pass  # not all of them are strings, or one of them has a lone surrogate
    try:
        return "json", b"[" + b"".join(items)[1:] + b"]"  # type: ignore[arg-type]
    except TypeError:
        pass
    if any(isinstance(item, tuple) for item in items):
        return "exact", b"[" + b",".join(map(_exact, items)) + b"]"
    return "json", b"[" + b",".join(map(_plain, items)) + b"]"


def decode(form: str, data: bytes | memoryview) -> list[Any]:
    """Return a block's items.

    Raises:
        Undecodable: it is no such text.
        ConfigError: it is compressed, and the library for that is missing.
    """
    base, _, packed = form.partition("+")
    if base not in ("json", "exact") or packed not in ("", "zstd"):
        raise Undecodable(f"a block of the unknown form {form!r:.40}")
    if packed:
        data = _decompress(data)
    try:
        items = _loads(data) if base == "json" else json.loads(bytes(data))
        if not isinstance(items, list):
            raise Undecodable("a block that is no JSON array")
        return items if base == "json" else [_unpack(item) for item in items]
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        raise Undecodable(f"a block that is not JSON ({error})") from None


def compressor(name: str | None) -> Callable[[str, bytes], tuple[str, bytes]] | None:
    """Return what makes a block's form and text into compressed ones; None is as they are.

    Raises:
        ConfigError: there is no such compression, or its library is missing.
    """
    if name in (None, "none"):
        return None
    if name != "zstd":
        raise ConfigError(f"compression is 'none' or 'zstd', not {name!r:.40}")
    compress = _zstd().ZstdCompressor(level=1).compress

    def pack(form: str, data: bytes) -> tuple[str, bytes]:
        return f"{form}+zstd", compress(data)

    return pack


def _check_size(item: T, size: int, max_bytes: int) -> T:
    if size > max_bytes:
        raise PayloadError(f"an item of {size:,} bytes, where {max_bytes:,} are allowed; add a name of the data")
    return item


def _exact(item: Kept) -> bytes:
    if isinstance(item, tuple):
        return b'"%b"' % item[0] if item[1] else b"[%b]" % item[0]
    return b"[%b]" % _plain(item)


def _plain(item: Any) -> bytes:
    return _ENCODER.encode(item).encode() if isinstance(item, str) else item[1:]


def _unpack(item: Any) -> Any:
    return b64decode(item, validate=True) if isinstance(item, str) else item[0]


def _loads(data: bytes | memoryview) -> Any:
    if orjson is not None:
        try:
            return orjson.loads(data)
        except ValueError:
            pass  # lone surrogates: the standard library takes them
    return json.loads(bytes(data))


def _decompress(data: bytes | memoryview) -> bytes:
    library = _zstd()
    try:
        size = library.frame_content_size(data)
        if not 0 <= size <= MAX_BLOCK_BYTES:
            raise Undecodable("a compressed block that does not say its size")
        return bytes(library.ZstdDecompressor().decompress(data, max_output_size=size))
    except library.ZstdError as error:
        raise Undecodable(f"a block that cannot be decompressed ({error})") from None


def _zstd() -> Any:
    try:
        import zstandard
    except ImportError:
        raise ConfigError("compressed batches need a library: pip install 'persistq[zstd]'") from None
    return zstandard


def _refuse(_item: Any) -> bytes:
    raise TypeError("orjson is not installed")


quick_dumps: Callable[[Any], bytes] = orjson.dumps if orjson is not None else _refuse
