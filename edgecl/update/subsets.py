"""A subset of 0 … n-1 in few bits: gaps between its members, each as a Golomb-Rice code (Rice & Plaunt 1971), in planes.

A gap g with the parameter k is g >> k in unary (so many 0 bits and a 1) and the k low bits of g. Here all unary parts lie one
after the other, and then bit 0 of all gaps, bit 1 of all, and so on: as many bits, and both ways without a loop over gaps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgecl.types import I64
from edgecl.update.errors import UpdateError


class Gaps(NamedTuple):
    """A subset, ready to be written."""

    gaps: I64  # [m] positions left out before each member
    k: int
    unary: int  # bits of all unary parts

    @property
    def size(self) -> int:
        """Bytes of its code."""
        return _bytes(self.unary) + self.k * _bytes(len(self.gaps))


def gaps_of(members: npt.NDArray[Any]) -> Gaps:
    """Of rising positions [m], with the k that takes fewest bits (of equal ones the smallest)."""
    gaps = np.diff(members, prepend=-1) - 1
    k = best(gaps)
    return Gaps(gaps, k, int((gaps >> k).sum()) + len(gaps))


def best(gaps: I64) -> int:
    """The k of the shortest code, of equal ones the smallest. The length is convex in k, so it is found by going down hill."""
    m = len(gaps)

    def bits(k: int) -> int:
        return int((gaps >> k).sum()) + m * k

    # for a geometric distribution the best k is near log2(mean gap · ln 2) (Kiely 2004)
    k = (int(gaps.sum()) * 7 // (10 * max(m, 1))).bit_length()
    while bits(k + 1) < bits(k):
        k += 1
    while k and bits(k - 1) <= bits(k):
        k -= 1
    return k


def write(code: Gaps) -> bytes:
    """Unary parts, then planes of low bits; each filled up with 0 bits to whole bytes."""
    gaps, k = code.gaps, code.k
    bits = np.zeros(code.unary, np.uint8)
    bits[np.cumsum((gaps >> k) + 1) - 1] = 1
    planes = [np.packbits((gaps >> b & 1).astype(np.uint8), bitorder="little") for b in range(k)]
    return b"".join(a.tobytes() for a in [np.packbits(bits, bitorder="little"), *planes])


def read(where: str, data: memoryview, m: int, k: int, n: int) -> I64:
    """The m rising members, all below n. Raises UpdateError that names `where`; that k is the best is for the caller to check."""
    if m > n or k > n.bit_length():  # so nothing below comes near 2^63
        raise UpdateError(f"{where}: {m} of {n} units, or a k of {k}")
    plane = _bytes(m)
    unary = len(data) - k * plane
    if unary < plane or unary > _bytes(m + (n >> k)):
        raise UpdateError(f"{where}: {len(data)} bytes are no code of {m} of {n} units with k {k}")
    gaps = _unary(where, data[:unary], m) << k
    for b in range(k):
        gaps |= _bits(where, data[unary + b * plane : unary + (b + 1) * plane], m).astype(np.int64) << b
    members = np.cumsum(gaps + 1) - 1
    if m and members[-1] >= n:
        raise UpdateError(f"{where}: a unit beyond its {n}")
    return members


def _unary(where: str, data: memoryview, m: int) -> I64:
    """The gaps' high parts."""
    ones = np.flatnonzero(np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little"))
    if len(ones) != m or _bytes(int(ones[-1]) + 1 if m else 0) != len(data):
        raise UpdateError(f"{where}: {len(ones)} unary codes, not {m}, or bytes behind them")
    return np.diff(ones, prepend=-1) - 1


def _bits(where: str, data: memoryview, m: int) -> npt.NDArray[np.uint8]:
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    if bits[m:].any():
        raise UpdateError(f"{where}: bits behind the last of a plane")
    return bits[:m]


def _bytes(bits: int) -> int:
    return -(-bits // 8)
