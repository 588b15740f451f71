"""Rules for the values of weights: many changes of one layer to one. A weight that is dead on a device has no say there.

`mean`: weighted mean, FedAvg (McMahan et al. 2017, algorithm 1). `trimmed`: of each weight the highest and lowest changes are
left out (Yin et al. 2018, definition 2). `ties`: each device keeps its largest changes, the sign of the larger sum is
elected, and the mean is of those that agree (Yadav et al. 2023, algorithm 1; their λ is `Settings.rate`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgecl import masks
from edgecl.merge.clip import CHUNK, F64
from edgecl.merge.settings import Settings
from edgecl.types import F32, I64, Bools

ROOM = 1 << 20  # values of all contributions together that a rule which sorts has in work


class Layer(NamedTuple):
    """One array of the base and what n contributions would make of it. Axis 0 is its output channels, or its classes."""

    base: F32
    deltas: Sequence[F32]  # n, each of the base's shape
    scales: F64  # [n], by which they are multiplied
    voices: F64  # [n], from 0
    live: Sequence[Bools] = ()  # n, in unit shape; none where the layer has no mask
    unit: str = ""


def merged_change(layer: Layer, settings: Settings) -> F64:
    """The change that the rule of the settings makes of all, in the layer's shape; 0 where nobody has a say."""
    if not layer.live:
        return RULES[settings.values](layer, settings)
    index, squeezed = _anywhere(layer)
    each = squeezed.base.shape[1]
    change = np.zeros((layer.base.size // each, each))
    change[index] = RULES[settings.values](squeezed, settings)
    return change.reshape(layer.base.shape)


def _anywhere(layer: Layer) -> tuple[I64, Layer]:
    """Which units live on some device, and the layer with only those: values [units, weights each], masks [units]."""
    flags = [flags_of(m, layer.unit, layer.base.shape) for m in layer.live]
    index = np.flatnonzero(np.logical_or.reduce(flags))

    def some(a: F32) -> F32:
        return a.reshape(flags[0].size, -1)[index]

    return index, Layer(some(layer.base), [*map(some, layer.deltas)], layer.scales, layer.voices, [f[index] for f in flags])


def flags_of(live: Bools, unit: str, shape: tuple[int, ...]) -> Bools:
    """A mask, flat, one flag for each unit in the order of its weights; of blocks, whose weights lie apart, one a weight."""
    wide = masks.expand(live, unit, shape) if unit == "block4x4" else live
    return np.asarray(wide, np.bool_).reshape(-1)


def mean(layer: Layer, settings: Settings) -> F64:
    """Σ voice·scale·change / Σ voice, over the contributions on which the weight lives.

    A dead weight's change is minus the base's value (see Update), so the sums need no masks but for what that adds.
    """
    total = _weighted_sum(layer.deltas, layer.voices * layer.scales, layer.base.shape)
    if not layer.live:
        return _shares(total, np.float64(layer.voices.sum()))
    said, undone = _unit_sums(layer)
    total += undone[:, None] * layer.base
    return _shares(total, said[:, None])


def _weighted_sum(deltas: Sequence[F32], weights: F64, shape: tuple[int, ...]) -> F64:
    """Σ weight·delta in float64, in the order given. One after the other within a chunk: the sums stay in the cache."""
    flat = [np.ascontiguousarray(d).reshape(-1) for d in deltas]
    total, held = np.zeros(int(np.prod(shape))), np.empty(CHUNK)
    for start in range(0, total.size, CHUNK):
        part = total[start : start + CHUNK]
        product = held[: part.size]
        for delta, weight in zip(flat, weights.tolist(), strict=True):
            np.multiply(delta[start : start + CHUNK], weight, out=product, dtype=np.float64)
            part += product
    return total.reshape(shape)


def _unit_sums(layer: Layer) -> tuple[F64, F64]:
    """By unit: Σ voice over those on which it lives, and Σ voice·scale over those on which it is dead."""
    said, undone = np.zeros(len(layer.base)), np.zeros(len(layer.base))
    for live, voice, scale in zip(layer.live, layer.voices.tolist(), layer.scales.tolist(), strict=True):
        said += live * voice
        undone += ~live * (voice * scale)
    return said, undone


def _shares(total: F64, of: F64 | np.float64) -> F64:
    """total / of, and 0 where `of` is 0."""
    out: F64 = np.divide(total, of, out=np.zeros(total.shape), where=np.broadcast_to(of > 0, total.shape))
    return out


def trimmed(layer: Layer, settings: Settings) -> F64:
    """Of m changes of a weight on devices where it lives, ⌊trim·m⌋ are left out at either end; the weighted mean of the rest."""
    return _by_rows(layer, lambda part: _trimmed(*_table(part), settings.trim))


def _trimmed(changes: F64, voices: F64, share: float) -> F64:
    has = voices > 0
    order = np.argsort(np.where(has, changes, np.inf), axis=0, kind="stable")  # those without a say come last
    changes, voices = (np.take_along_axis(a, order, 0) for a in (changes, voices))
    count = has.sum(axis=0)
    cut = np.floor(share * count)
    rank = np.arange(len(changes)).reshape(-1, *(1,) * (changes.ndim - 1))
    voices = voices * ((rank >= cut) & (rank < count - cut))
    return _shares((changes * voices).sum(axis=0), voices.sum(axis=0))


def ties(layer: Layer, settings: Settings) -> F64:
    """Trim, elect sign, disjoint mean; the votes of the election are weighted by voice."""
    least = np.array([_threshold(d, settings.density) for d in layer.deltas]) * layer.scales
    return _by_rows(layer, lambda part: _ties(*_table(part), least))


def _threshold(delta: F32, density: float) -> float:
    """The size that `density` of a layer's changes have at least; infinite where there are none."""
    sizes = np.abs(delta).reshape(-1)
    at = sizes.size - max(1, round(density * sizes.size))
    return float(np.partition(sizes, at)[at]) if sizes.size else np.inf


def _ties(changes: F64, voices: F64, least: F64) -> F64:
    large = np.abs(changes) >= least.reshape(-1, *(1,) * (changes.ndim - 1))
    voices = voices * (large & (changes != 0))
    elected = np.sign((changes * voices).sum(axis=0))
    voices = voices * (np.sign(changes) == elected)
    return _shares((changes * voices).sum(axis=0), voices.sum(axis=0))


def _table(layer: Layer) -> tuple[F64, F64]:
    """Changes and voices [n, ...] of some rows; a voice is 0 where the weight is dead."""
    wide = (-1, *(1,) * layer.base.ndim)
    changes = np.stack([np.asarray(d, np.float64) for d in layer.deltas]) * layer.scales.reshape(wide)
    voices = np.broadcast_to(layer.voices.reshape(wide), changes.shape)
    return changes, voices * np.stack(layer.live)[..., None] if layer.live else voices


def _by_rows(layer: Layer, rule: Callable[[Layer], F64]) -> F64:
    """A rule on as many rows at a time as there is room for."""
    each = max(1, layer.base[:1].size * len(layer.deltas))
    step = max(1, ROOM // each)
    parts = [slice(i, i + step) for i in range(0, len(layer.base), step)]
    return np.concatenate([rule(_part(layer, rows)) for rows in parts]) if parts else np.zeros(layer.base.shape)


def _part(layer: Layer, rows: slice) -> Layer:
    live = [m[rows] for m in layer.live]
    return layer._replace(base=layer.base[rows], deltas=[d[rows] for d in layer.deltas], live=live)


Rule = Callable[[Layer, Settings], npt.NDArray[np.float64]]
RULES: dict[str, Rule] = {"mean": mean, "trimmed": trimmed, "ties": ties}
"""By the names of settings.VALUES."""
