"""A data set as its files have it, before it becomes a stream: labels in memory, pixels read when asked for."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgecl.types import I64, U8, DataError, Preprocess, Samples

ROOT_RULE = "--data-root, else $EDGECL_DATA, else ~/.cache/edgecl"


@dataclass(frozen=True)
class Split:
    """Training or test samples in file order. Pixels come by position, so that a stream never holds a set twice."""

    y: I64  # [N] class ids
    ids: I64  # [N] stable sample ids
    read: Callable[[I64], U8]  # positions [n] to pixels [n, C, H, W]

    def take(self, index: I64, *, lazy: bool = False) -> Samples:
        """The samples at these positions, in that order; `lazy` leaves the pixels where they are until they are asked for."""
        pixels = OnDisk(self.read, index, self.read(index[:1]).shape[1:]) if lazy else self.read(index)
        return Samples(pixels, self.y[index], self.ids[index])


@dataclass(frozen=True, eq=False)
class OnDisk:
    """Pixels that are read by position whenever they are asked for: an array's `x[index]`, and nothing kept."""

    read: Callable[[I64], U8]
    positions: I64  # [N] in the split
    sample: tuple[int, ...]  # (C, H, W)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.positions), *self.sample)

    def __getitem__(self, index: Any) -> U8:
        """uint8 [n, C, H, W]. Raises DataError where the file has gone or shrunk."""
        return self.read(self.positions[index])


@dataclass(frozen=True)
class Source:
    """Labels lie in 0..len(classes) - 1; ids differ between all samples of both splits."""

    name: str
    where: Path  # for messages
    classes: tuple[str, ...]  # names by class id
    train: Split
    test: Split
    preprocess: Preprocess


def data_root(root: str = "") -> Path:
    """Folder that data sets lie under: `root`, else $EDGECL_DATA, else ~/.cache/edgecl."""
    return Path(root or os.environ.get("EDGECL_DATA", "") or "~/.cache/edgecl").expanduser()


def rank_in_class(y: I64) -> I64:
    """[N]: how many earlier samples have the same label."""
    order = np.argsort(y, kind="stable")
    _, starts, counts = np.unique(y[order], return_index=True, return_counts=True)
    rank = np.empty(len(y), dtype=np.int64)
    rank[order] = np.arange(len(y)) - np.repeat(starts, counts)
    return rank


def reason(error: Exception) -> str:
    """An error's text in one line, or its type where it has none."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


def check_labels(where: Path | str, key: str, y: I64, classes: int) -> None:
    """Raises DataError naming file, key and sample for a label out of 0..classes - 1."""
    wrong = np.flatnonzero((y < 0) | (y >= classes))
    if len(wrong):
        raise DataError(f"{where}: {key}: sample {wrong[0]} has label {y[wrong[0]]}, not 0..{classes - 1}")
