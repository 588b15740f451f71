"""Numbers to bytes: levels with a scale for each output channel, halves, singles, and what deflates them."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecl.types import F32, I64
from edgecl.update.errors import UpdateError

LEVELS = {"int8": 127, "int6": 31, "int5": 15, "int4": 7}
"""Largest level of each kind; the smallest is minus that."""

KINDS = (*LEVELS, "fp16", "fp32")
SMALLEST, LARGEST = 2.0**-100, 2.0**100
HALF_LARGEST = 65504.0  # of float16
"""A channel whose changes are all smaller did not change; no change is larger, so that none makes a weight infinite."""

I8 = npt.NDArray[np.int8]
U16 = npt.NDArray[np.uint16]


def scales(values: F32, counts: I64, top: int) -> U16:
    """Of each channel, largest |value| / top as the upper half of a float32, rounded to nearest; 0 for one that has none.

    `values` [sum of counts] go by channel.
    """
    found = np.zeros(len(counts), np.float32)
    some = np.flatnonzero(counts)
    if len(some):
        starts = (np.cumsum(counts) - counts)[some]
        found[some] = np.maximum.reduceat(np.abs(values), starts)
    bits = (found / np.float32(top)).view(np.uint32)
    upper = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return np.where(widen(upper) * np.float32(top) < SMALLEST, np.uint16(0), upper)


def widen(upper: U16) -> F32:
    """The float32 whose upper half it is."""
    return (upper.astype(np.uint32) << 16).view(np.float32)


def levels(values: F32, counts: I64, upper: U16, top: int) -> I8:
    """Values in units of their channel's scale, to nearest; none of channels whose scale is 0."""
    sent = upper > 0
    if not sent.all():
        values = values[np.repeat(sent, counts)]
    q: F32 = np.rint(values / np.repeat(widen(upper[sent]), counts[sent]))
    return np.clip(q, -top, top).astype(np.int8)


def unlevel(q: I8, counts: I64, upper: U16) -> F32:
    """What `levels` stands for [sum of counts]: zeros for channels whose scale is 0."""
    sent = upper > 0
    found = q.astype(np.float32) * np.repeat(widen(upper[sent]), counts[sent])
    if sent.all():
        return found
    out = np.zeros(int(counts.sum()), np.float32)
    out[np.repeat(sent, counts)] = found
    return out


def check_scales(where: str, counts: I64, upper: U16, top: int) -> None:
    """Raises UpdateError unless each scale is 0 or one that `scales` gives."""
    sent = upper > 0
    finite = (upper < 0x7F80).all()  # infinite, NaN and negative ones are not below
    reach = widen(upper[sent]).astype(np.float64) * top if finite else np.zeros(1)
    if not ((reach >= SMALLEST) & (reach <= LARGEST)).all() or not counts[sent].all():
        raise UpdateError(f"{where}: a scale is not finite, too small or too large, or of a channel that has no weights")


def check_levels(where: str, q: I8, counts: I64, upper: U16, top: int) -> None:
    """Raises UpdateError unless in each channel that has a scale the largest level is `top`."""
    sent = counts[upper > 0]
    if len(q) and (q.min() < -top or (np.maximum.reduceat(np.abs(q), np.cumsum(sent) - sent) != top).any()):
        raise UpdateError(f"{where}: a channel's largest level is not {top}")


def pack(a: npt.NDArray[Any]) -> bytes:
    """Bytes of an array: first the upper byte of all numbers, then the next; as a zlib stream where that is shorter."""
    little = np.ascontiguousarray(a, a.dtype.newbyteorder("<"))
    raw = little.view(np.uint8).reshape(-1, a.itemsize)[:, ::-1].T.tobytes()
    # Huffman codes alone: matches are rare in noise, and cost most of the time
    deflate = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_HUFFMAN_ONLY)
    data = deflate.compress(raw) + deflate.flush()
    return data if len(data) < len(raw) else raw


def unpack(where: str, data: memoryview, count: int, dtype: str) -> npt.NDArray[Any]:
    """The array of `count` numbers. Raises UpdateError that names `where`."""
    size = np.dtype(dtype).itemsize
    raw = bytes(data) if len(data) == size * count else _inflate(where, data, size * count)
    return np.ascontiguousarray(np.frombuffer(raw, np.uint8).reshape(size, count)[::-1].T).view(dtype).reshape(-1)


def _inflate(where: str, data: memoryview, size: int) -> bytes:
    if len(data) > size:
        raise UpdateError(f"{where}: {len(data)} bytes for {size}")
    inflate = zlib.decompressobj()
    try:
        raw = inflate.decompress(data, size + 1)
    except zlib.error as e:
        raise UpdateError(f"{where}: is no zlib stream ({e})") from None
    if len(raw) != size or not inflate.eof or inflate.unused_data:
        raise UpdateError(f"{where}: {len(raw)} bytes where {size} belong, or bytes behind them")
    return raw
