"""Lists of live or updated weights as the native engine's kernels read them: by row, in the units that a layer's mask has.

Each kind of list is built here and described at the head of the C++ file that walks it: whole kernels in src/conv3.h, single
weights of 3×3 kernels in src/conv3_fine.h.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecl.kernels import Csr, array, pointer
from edgecl.types import Bools

Ints = np.ndarray[Any, np.dtype[np.int32]]
Floats = np.ndarray[Any, np.dtype[np.float32]]

TAPS = (4, 3, 5, 1, 7, 0, 2, 6, 8)  # order of a row's single weights, as src/conv3_fine.h has it


class Listed:
    """A list by row, as C reads it. Buffers are kept while they are large enough."""

    def __init__(self) -> None:
        self.rowptr: Ints = array(1, np.int32)
        self.col: Ints = array(0, np.int32)
        self.index: Ints = array(0, np.int32)
        self.values: Floats = array(0)
        self.n = 0

    def fill(self, chosen: Bools, inputs: int, *, turned: bool = False) -> None:
        """Kernels, from `chosen` [O, I]; `turned` lists them by input, with their places in the list that is not turned."""
        rows, cols = np.nonzero(chosen.T if turned else chosen)
        counts = np.count_nonzero(chosen, axis=0 if turned else 1)
        places = (np.cumsum(chosen).reshape(chosen.shape) - 1)[cols, rows] if turned else rows * inputs + cols
        self._put(counts, cols, places)

    def fill_weights(self, chosen: Bools) -> None:
        """Single weights of 3×3 kernels, from `chosen` [O, I, 9]."""
        self._by_tap(chosen, np.arange(chosen.size, dtype=np.int32).reshape(chosen.shape))

    def turn_weights(self, chosen: Bools, forward: Listed, stride: int) -> None:
        """The same by input, with their places in `forward`, the list by output.

        Of stride 1 a tap is where the gradient is read, so that kernels are turned by half a circle.
        """
        rank = np.empty(chosen.size, np.int32)
        rank[forward.index[: forward.n]] = np.arange(forward.n, dtype=np.int32)
        step = -1 if stride == 1 else 1
        turned: tuple[Any, ...] = tuple(a.transpose(1, 0, 2)[:, :, ::step] for a in (chosen, rank.reshape(chosen.shape)))
        self._by_tap(*turned)

    def _by_tap(self, chosen: Bools, places: Any) -> None:
        """From [rows, channels, 9], by row, then tap, then channel."""
        ordered = chosen.transpose(0, 2, 1)[:, TAPS, :]
        rows, taps, channels = np.nonzero(ordered)
        taps_read = np.asarray(TAPS)[taps]
        self._put(np.count_nonzero(ordered, axis=2).reshape(-1), channels * 16 + taps_read, places[rows, channels, taps_read])

    def _put(self, counts: Any, col: Any, index: Any) -> None:
        self.n = len(col)
        self.rowptr = array(len(counts) + 1, np.int32)
        np.cumsum(counts, out=self.rowptr[1:])
        self.col, self.index = fit(self.col, self.n), fit(self.index, self.n)
        self.col[: self.n], self.index[: self.n] = col, index

    def room(self, taps: int) -> Floats:
        """Values [n × taps], of no particular content."""
        self.values = fit(self.values, self.n * taps)
        return self.values[: self.n * taps]

    def struct(self, values: Floats) -> Csr:
        """For C, with `values` as the weights or gradients."""
        rows = len(self.rowptr) - 1
        return Csr(self.n, rows, *(pointer(a) for a in (self.rowptr, self.col, self.index, values)))


def fit(kept: Any, n: int) -> Any:
    """`kept` if it holds n elements and not far more, else a new array of its kind."""
    return kept if n <= len(kept) <= 2 * n + 1024 else array(n, kept.dtype)
