"""How much of a signal a rounded copy of it keeps."""

from __future__ import annotations

import numpy as np

from edgecl.types import F32


def decibel(signal: F32, heard: F32) -> float:
    """Signal to noise of arrays with a channel a row; 99 where nothing is lost."""
    a, e = (v.reshape(len(v), -1).astype(np.float64) for v in (signal, signal - heard))
    power = a.var(axis=1) if a.shape[1] > 1 else (a**2).mean(axis=1)
    alive = power > 1e-12
    if not alive.any():
        return 99.0
    share = np.minimum((e**2).mean(axis=1)[alive] / power[alive], 1.0).mean()
    return float(min(99.0, -10 * np.log10(max(share, 1e-10))))
