"""Lists of live or updated weights as the native engine's kernels read them: by row, in the units that a layer's mask has.

Each kind of list is built here and described at the head of the C++ file that walks it: whole kernels in src/conv3.h, single
weights of 3×3 kernels in src/conv3_fine.h, rows that share their columns in src/conv1_block.h.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgecl.kernels import Csr, array, pointer
from edgecl.types import Bools

Ints = np.ndarray[Any, np.dtype[np.int32]]
Floats = np.ndarray[Any, np.dtype[np.float32]]

Group = tuple[Any, Any]  # rows and columns
TAPS = (4, 3, 5, 1, 7, 0, 2, 6, 8)  # order of a row's single weights, as src/conv3_fine.h has it


class Listed:
    """A list by row, as C reads it. Buffers are kept while they are large enough."""

    def __init__(self) -> None:
        self.rowptr: Ints = array(1, np.int32)
        self.col: Ints = array(0, np.int32)
        self.index: Ints = array(0, np.int32)
        self.values: Floats = array(0)
        self.n = self.rows = 0

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
        step = -1 if stride == 1 else 1
        turned: tuple[Any, ...] = tuple(a.transpose(1, 0, 2)[:, :, ::step] for a in (chosen, forward.ranks(chosen.shape)))
        self._by_tap(*turned)

    def ranks(self, shape: tuple[int, ...]) -> Ints:
        """Where in this list of single weights each one is; of no meaning for those that are not."""
        rank = np.empty(shape, np.int32)
        rank.reshape(-1)[self.index[: self.n]] = np.arange(self.n, dtype=np.int32)
        return rank

    def _by_tap(self, chosen: Bools, places: Any) -> None:
        """From [rows, channels, 9], by row, then tap, then channel."""
        ordered = chosen.transpose(0, 2, 1)[:, TAPS, :]
        rows, taps, channels = np.nonzero(ordered)
        taps_read = np.asarray(TAPS)[taps]
        self._put(np.count_nonzero(ordered, axis=2).reshape(-1), channels * 16 + taps_read, places[rows, channels, taps_read])

    def fill_groups(self, groups: Sequence[Group], places: Ints) -> None:
        """Groups of rows, with each weight's place from `places` [rows, columns]."""
        heads = array((len(groups), 8), np.int32)  # begin, end, first weight, size, rows
        entries = np.cumsum([0, *(len(cols) for _, cols in groups)])
        weights = np.cumsum([0, *(len(rows) * len(cols) for rows, cols in groups)])
        heads[:, 0], heads[:, 1], heads[:, 2] = entries[:-1], entries[1:], weights[:-1]
        for head, (rows, _) in zip(heads, groups, strict=True):
            head[3], head[4 : 4 + len(rows)] = len(rows), rows
        index = [places[np.ix_(rows, cols)].T.reshape(-1) for rows, cols in groups]
        self._keep(np.concatenate([cols for _, cols in groups]), np.concatenate(index))
        self.rowptr, self.rows = heads.reshape(-1), len(groups)

    def _put(self, counts: Any, col: Any, index: Any) -> None:
        self.rowptr, self.rows = array(len(counts) + 1, np.int32), len(counts)
        np.cumsum(counts, out=self.rowptr[1:])
        self._keep(col, index)

    def _keep(self, col: Any, index: Any) -> None:
        self.n = len(index)
        self.col, self.index = fit(self.col, len(col)), fit(self.index, self.n)
        self.col[: len(col)], self.index[: self.n] = col, index

    def room(self, taps: int) -> Floats:
        """Values [n × taps], of no particular content."""
        self.values = fit(self.values, self.n * taps)
        return self.values[: self.n * taps]

    def struct(self, values: Floats) -> Csr:
        """For C, with `values` as the weights or gradients."""
        return Csr(self.n, self.rows, *(pointer(a) for a in (self.rowptr, self.col, self.index, values)))


def row_groups(chosen: Bools) -> list[Group]:
    """All rows of `chosen` [rows, columns] in groups of at most four that have the same columns: (rows, columns) of each.

    Ordered by first row; so blocks of 4×4 come as they lie, and whole channels with the dead ones apart.
    """
    _, first, inverse = np.unique(np.packbits(chosen, axis=1), axis=0, return_index=True, return_inverse=True)
    pattern = first[inverse.reshape(-1)]  # the first row that has the same columns
    order = np.argsort(pattern, kind="stable")
    runs = np.split(order, np.flatnonzero(np.diff(pattern[order])) + 1)
    return [(run[i : i + 4], np.flatnonzero(chosen[run[0]])) for run in runs for i in range(0, len(run), 4)]


def fit(kept: Any, n: int) -> Any:
    """`kept` if it holds n elements, else a new array of its kind."""
    return kept if len(kept) >= n else array(n, kept.dtype)
