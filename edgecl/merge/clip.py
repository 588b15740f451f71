"""How far one contribution may go, and how much it counts: both measured by the median of all, which a few can't move.

Norms clipped to a bound as in Sun et al. 2019 (*Can you really backdoor federated learning?*, §5), the bound taken from the
batch itself. Staleness 1/√(1 + age) is the polynomial of Xie et al. 2019 (*Asynchronous federated optimization*, §5.2), a = ½.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
import numpy.typing as npt

from edgecl.merge.contribution import Contribution, rows_of
from edgecl.types import F32
from edgecl.update import Base

F64 = npt.NDArray[np.float64]
CHUNK = 1 << 15  # values at a time: what is in work stays in the cache


def norm(base: Base, contribution: Contribution) -> float:
    """Euclidean norm of the change of all parameters; rows of classes that the base lacks are left out.

    Of a masked layer it is read where base or device live: elsewhere nothing can change.
    """
    rows, known, update, total = rows_of(base.net), len(base.classes), contribution.update, 0.0
    for name in base.net.weights():
        delta, key = update.delta[name], name.removesuffix(".weight")
        if key in base.live and name != key and (live := base.live[key] | update.live[key]).shape == delta.shape[: live.ndim]:
            delta = delta.reshape(live.size, -1)[np.flatnonzero(live)]
        total += squares(delta[:known] if name in rows else delta)
    return sqrt(total)


def squares(a: F32) -> float:
    """Sum of squares in float64, the same at any number of threads."""
    flat, total, wide = np.ascontiguousarray(a).reshape(-1), 0.0, np.empty(CHUNK)
    for start in range(0, flat.size, CHUNK):
        part = flat[start : start + CHUNK]
        held = wide[: part.size]
        np.multiply(part, part, out=held, dtype=np.float64)
        total += float(held.sum())
    return total


def scales(norms: Sequence[float], factor: float) -> F64:
    """[n] by which each change is multiplied so that none is longer than `factor` times the median; 1 where factor is 0."""
    lengths = np.asarray(norms, np.float64)
    if not factor or not len(lengths):
        return np.ones(len(lengths))
    bound = factor * float(np.median(lengths))
    return np.where(lengths > bound, bound / np.maximum(lengths, 1e-300), 1.0)


def voices(counts: Sequence[int], ages: Sequence[int], cap: float) -> F64:
    """[n] how much each counts: its samples, at most `cap` times the median of those that have any, × 1/√(1 + age)."""
    samples = np.asarray(counts, np.float64)
    if not (samples > 0).any():
        return np.zeros(len(samples))
    most = cap * float(np.median(samples[samples > 0]))
    stale: F64 = np.minimum(samples, most) / np.sqrt(1 + np.asarray(ages, np.float64))
    return stale
