"""How many bytes the native engine's activations will take, without taking them: its planner's first walk allocates nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from edgecl.engines.native_arena import Sketch, places, size_of
from edgecl.engines.native_build import Parameters
from edgecl.engines.native_plan import Planner
from edgecl.nets.graph import Net


def pass_bytes(
    net: Net, samples: int, lanes: int, *, train: bool, again: bool = False, half: bool = False, frozen: Collection[str] = ()
) -> int:
    """Of one pass of `samples` through the net, its input and outputs as numpy has them included.

    `train` keeps what backward needs, `again` what it needs more than once; `half` stores activations in half precision;
    `frozen` nodes need nothing of the way back.
    """
    layer: Any = SimpleNamespace(pointer=None)
    small = {name: np.zeros(shape[:1], np.float32) for name, shape in {**net.weights(), **net.buffers()}.items()}
    own, sketch = Parameters(dict.fromkeys(net.layers(), layer), small, small, frozenset(frozen)), Sketch()
    walked = Planner(net, samples, lanes, own, sketch, train=train, again=again, half=half).make()
    lives = sketch.lives()
    arena = 4 * size_of(lives, places(lives))
    return arena + walked.bytes + sum(a.nbytes for a in (walked.d, walked.logits, walked.features))


def activation_bytes(
    net: Net,
    passes: Sequence[Sequence[int]],
    lanes: int,
    *,
    in_turn: bool,
    half: bool = False,
    frozen: Collection[str] = (),
) -> int:
    """Of training steps whose passes have parts of so many samples, and of predictions between them.

    Passes that take turns share their memory, else each keeps its own; predictions use the first one's.
    """
    how: dict[str, Any] = {"half": half, "frozen": frozen}
    taken = [pass_bytes(net, sum(parts), lanes, train=True, again=len(parts) > 1, **how) for parts in passes]
    first, rest = (max(taken), []) if in_turn else (taken[0], taken[1:])
    return max(first, pass_bytes(net, PREDICTED, lanes, train=False, half=half)) + sum(rest)


PREDICTED = 32
"""Samples that the engine predicts at a time."""
