"""The metadata inside a .tflite file, read with nothing but the standard library: devices have no flatbuffers package."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

IDENTIFIER = b"TFL3"  # at byte 4
BUFFERS, ENTRIES = 4, 6  # fields of the format's Model table
NAME, BUFFER = 0, 1  # of its Metadata
DATA = 0  # of its Buffer
LIMIT = 1 << 30  # bytes of a file that is read


def tflite_text(file: BinaryIO, name: str) -> bytes | None:
    """The metadata buffer of this name, or None. Raises ValueError for what is no .tflite file, or a damaged one."""
    data = file.read(LIMIT)
    if data[4:8] != IDENTIFIER:
        raise ValueError("it does not begin as one")
    try:
        return _find(data, name.encode())
    except (struct.error, IndexError):
        raise ValueError("a table leads outside of the file") from None


def _find(data: bytes, name: bytes) -> bytes | None:
    root = _u32(data, 0)
    buffers = list(_tables(data, root, BUFFERS))
    for entry in _tables(data, root, ENTRIES):
        if _vector(data, entry, NAME) == name:
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
