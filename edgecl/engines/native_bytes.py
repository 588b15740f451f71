"""How many bytes the native engine's activations will take, without taking them: its planner walks the net."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from types import SimpleNamespace
from typing import Any

import numpy as np

from edgecl.engines.native_layers import Floats
from edgecl.engines.native_plan import Planner
from edgecl.nets.graph import Net
from edgecl.nets.nodes import Shape


class _Unallocated(Planner):
    """Hands out arrays that look as large as they would be, and have four bytes."""

    def take(self, shape: Shape) -> Floats:
        size = self.blocks * self.lanes * prod(shape)
        if self.free.get(size):
            return self.free[size].pop()
        self.bytes += 4 * size
        return np.broadcast_to(np.float32(0), size)


def pass_bytes(net: Net, samples: int, lanes: int, *, train: bool) -> int:
    """Of one pass of `samples` through the net, its input and outputs on the host included; `train` keeps what backward needs."""
    layer: Any = SimpleNamespace(pointer=None)
    small = {name: np.zeros(shape[:1], np.float32) for name, shape in {**net.weights(), **net.buffers()}.items()}
    walked = _Unallocated(net, samples, lanes, dict.fromkeys(net.layers(), layer), small, small, train).make()
    return walked.bytes + sum(a.nbytes for a in (walked.x, walked.d, walked.logits, walked.features))


def activation_bytes(net: Net, passes: Sequence[int], lanes: int, *, sequential: bool) -> int:
    """Of a training step whose passes have so many samples: of all at once, or of the largest where one follows the other."""
    each = [pass_bytes(net, n, lanes, train=True) for n in passes]
    return max(each) if sequential else sum(each)
