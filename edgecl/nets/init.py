"""Initial weights, drawn on the host so that every engine starts from the same numbers."""

from __future__ import annotations

import math

import numpy as np

from edgecl.nets.graph import Net
from edgecl.types import F32


def initial(net: Net, rng: np.random.Generator) -> dict[str, F32]:
    """Weights and buffers by name: torch's defaults, uniform within 1/√fan_in for convolutions and linear layers."""
    layers = net.layers()
    fan_in = {k: math.prod(net.weights()[f"{k}.weight"][1:]) for k in layers}
    arrays: dict[str, F32] = {}
    for name, shape in {**net.weights(), **net.buffers()}.items():
        node, last = name.rsplit(".", 1)
        if node in layers:
            bound = 1 / math.sqrt(fan_in[node])
            arrays[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
        else:
            one = last in ("weight", "running_var")
            arrays[name] = np.full(shape, 1.0 if one else 0.0, np.float32)
    return arrays
