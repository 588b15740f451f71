"""The card inside a .tflite file, read with nothing but the standard library: devices have no flatbuffers package."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

from edgecl.card import Card
from edgecl.types import ConfigError, DataError

METADATA = "edgecl"
"""Name of the metadata buffer that holds the card, as JSON."""

IDENTIFIER = b"TFL3"  # at byte 4
BUFFERS, ENTRIES = 4, 6  # fields of the format's Model table
NAME, BUFFER = 0, 1  # of its Metadata
DATA = 0  # of its Buffer


def card_of(data: bytes, where: Path | str) -> Card:
    """Raises DataError that names the file if it is no .tflite, is cut short, or has no card."""
    try:
        if data[4:8] != IDENTIFIER:
            raise DataError(f"{where}: is no .tflite file")
        text = _find(data)
    except (struct.error, IndexError):
        raise DataError(f"{where}: is damaged: a table leads outside of the file") from None
    if text is None:
        raise DataError(f"{where}: holds no card; edgecl export writes one")
    try:
        return Card.from_dict(json.loads(text))
    except (ValueError, RecursionError):
        raise DataError(f"{where}: its card is not JSON") from None
    except ConfigError as e:
        raise DataError(f"{where}: {e}") from None


def _find(data: bytes) -> bytes | None:
    """The metadata buffer of our name."""
    root = _u32(data, 0)
    buffers = list(_tables(data, root, BUFFERS))
    for entry in _tables(data, root, ENTRIES):
        if _vector(data, entry, NAME) == METADATA.encode():
            at = _field(data, entry, BUFFER)
            return _vector(data, buffers[_u32(data, at) if at else 0], DATA)
    return None


def _u32(data: bytes, at: int) -> int:
    if at < 0:
        raise IndexError
    return int(struct.unpack_from("<I", data, at)[0])


def _field(data: bytes, table: int, number: int) -> int:
    """Where a table's field lies; 0 if it is absent."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    if vtable < 0 or 4 + 2 * number >= struct.unpack_from("<H", data, vtable)[0]:
        return 0
    offset = int(struct.unpack_from("<H", data, vtable + 4 + 2 * number)[0])
    return table + offset if offset else 0


def _tables(data: bytes, table: int, number: int) -> Iterator[int]:
    """Where the tables of a vector of tables lie."""
    at = _field(data, table, number)
    start = at and at + _u32(data, at)
    count = _u32(data, start) if start else 0
    if 4 * count > len(data):
        raise IndexError
    for i in range(count):
        item = start + 4 + 4 * i
        yield item + _u32(data, item)


def _vector(data: bytes, table: int, number: int) -> bytes:
    """A vector of bytes, or a text."""
    at = _field(data, table, number)
    if not at:
        return b""
    start = at + _u32(data, at)
    size = _u32(data, start)
    if start + 4 + size > len(data):
        raise IndexError
    return data[start + 4 : start + 4 + size]
