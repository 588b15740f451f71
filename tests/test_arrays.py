"""The namespace of an array: numpy's own where it is one, and nothing heavy for it."""

from __future__ import annotations

import subprocess
import sys

import array_api_compat.torch
import numpy as np
import pytest
import torch

from edgecl.arrays import array_namespace, numpy_namespace

NEEDED = ("arange", "astype", "broadcast_to", "concat", "cumulative_sum", "full", "ones_like", "reshape", "sort", "take", "where")
"""What losses, masks and augmentation call."""


def test_namespaces() -> None:
    assert array_namespace(np.zeros(2), np.ones(1)) is numpy_namespace()
    assert array_namespace(torch.zeros(2)) is array_api_compat.torch
    assert all(hasattr(numpy_namespace(), name) for name in NEEDED)
    with pytest.raises(TypeError):
        array_namespace(np.zeros(2), torch.zeros(2))


@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.1.0", reason="an older numpy needs the wrapper")
def test_numpy_stays_light() -> None:
    code = "import sys, edgecl.engines.native, edgecl.session, edgecl.train; print('numpy.f2py' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
