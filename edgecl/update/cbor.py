"""A strict subset of CBOR (RFC 8949, §4.2.1): of every value there is one encoding, and only that one is read.

Unsigned integers below 2⁶⁴, byte and text strings, arrays, maps with text keys, null. No negative numbers, floats, tags,
booleans or indefinite lengths. No length is believed before as many bytes are seen to be there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgecl.update.errors import UpdateError

UINT, BYTES, TEXT, ARRAY, MAP = 0, 2, 3, 4, 5  # the RFC's major types
NULL = 0xF6
DEPTH, VALUES = 4, 50_000
"""Arrays and maps within each other, and values in all, at most."""

_WIDTHS = {24: 1, 25: 2, 26: 4, 27: 8}  # additional information → bytes of the argument that follow


def encode(value: Any) -> bytes:
    """The one encoding of a value. Raises UpdateError for what the subset lacks."""
    if value is None:
        return bytes([NULL])
    if type(value) is int:
        return _head(UINT, value)
    if isinstance(value, (bytes, memoryview)):
        return _head(BYTES, len(value)) + value
    if isinstance(value, str):
        data = _utf8(value)
        return _head(TEXT, len(data)) + data
    if isinstance(value, Mapping):
        return _head(MAP, len(value)) + b"".join(k + encode(v) for k, v in sorted((encode(str(k)), v) for k, v in value.items()))
    if isinstance(value, (list, tuple)):
        return _head(ARRAY, len(value)) + b"".join(map(encode, value))
    raise UpdateError(f"{type(value).__name__} can't be encoded")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise UpdateError(f"{text[:40]!r} can't be encoded") from None


def _head(kind: int, n: int) -> bytes:
    if not 0 <= n < 1 << 64:
        raise UpdateError(f"{n} can't be encoded: it is not from 0 up and below 2^64")
    if n < 24:
        return bytes([kind << 5 | n])
    info, width = next((i, w) for i, w in _WIDTHS.items() if n < 1 << 8 * w)
    return bytes([kind << 5 | info]) + n.to_bytes(width, "big")


def decode(where: str, data: bytes | memoryview) -> Any:
    """The value whose encoding is `data`, all of it; byte strings are views into it. Raises UpdateError that names `where`."""
    reader = _Reader(memoryview(data))
    try:
        value = reader.value(0)
    except UpdateError as e:
        raise UpdateError(f"{where}: {e}") from None
    if reader.at != len(data):
        raise UpdateError(f"{where}: has {len(data) - reader.at} bytes behind its end")
    return value


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self.data, self.at, self.values = data, 0, 0

    def value(self, depth: int) -> Any:
        self.values += 1
        if self.values > VALUES:
            raise UpdateError(f"has more than {VALUES} values")
        first = self._take(1)[0]
        if first == NULL:
            return None
        kind, info = first >> 5, first & 31
        if kind not in (UINT, BYTES, TEXT, ARRAY, MAP):
            raise UpdateError(f"byte {self.at - 1} begins a kind of value that is not used")
        n = self._argument(info)
        if kind == UINT:
            return n
        if kind in (BYTES, TEXT):
            data = self._take(n)
            return data if kind == BYTES else self._text(data)
        if depth >= DEPTH:
            raise UpdateError(f"values are nested deeper than {DEPTH}")
        if n * (1 + (kind == MAP)) > len(self.data) - self.at:  # each takes a byte at least
            raise UpdateError("is cut off")
        return self._map(n, depth) if kind == MAP else [self.value(depth + 1) for _ in range(n)]

    def _map(self, n: int, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        last = b""
        for _ in range(n):
            start = self.at
            key = self.value(DEPTH)
            encoded = bytes(self.data[start : self.at])
            if not isinstance(key, str) or encoded <= last:
                raise UpdateError("keys of a map are not text, rising and different")
            last = encoded
            found[key] = self.value(depth + 1)
        return found

    def _argument(self, info: int) -> int:
        if info < 24:
            return info
        if info not in _WIDTHS:
            raise UpdateError("a length is indefinite or reserved")
        width = _WIDTHS[info]
        n = int.from_bytes(self._take(width), "big")
        if n < 24 or (width > 1 and n < 1 << 4 * width):
            raise UpdateError("a number is not in its shortest form")
        return n

    def _text(self, data: memoryview) -> str:
        try:
            return str(data, "utf-8")
        except UnicodeDecodeError:
            raise UpdateError("a text is not UTF-8") from None

    def _take(self, n: int) -> memoryview:
        if n > len(self.data) - self.at:
            raise UpdateError("is cut off")
        self.at += n
        return self.data[self.at - n : self.at]
