"""The array API namespace of an array.

numpy has been one itself since 2.1. For an older one array-api-compat's wrapper stands in, which brings all of numpy's
submodules along: 16 MB and a tenth of a second that a device need not spend.
"""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np

from edgecl.types import Array

_STANDARD = tuple(map(int, np.__version__.split(".")[:2])) >= (2, 1)


def numpy_namespace() -> Any:
    """numpy, or its wrapper."""
    if _STANDARD:
        return np
    import array_api_compat.numpy

    return array_api_compat.numpy


def array_namespace(*arrays: Array) -> Any:
    """The namespace that all of them belong to; raises TypeError for arrays of two."""
    if _STANDARD and all(isinstance(a, np.ndarray) for a in arrays):
        return np
    return array_api_compat.array_namespace(*arrays)
