"""What the native engine runs beside its passes: the update, and the copies of live weights that the kernels read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from edgecl.engines.native_layers import Floats, Weights
from edgecl.kernels import Kind, Op, pointer, program
from edgecl.nets.nodes import pair


def updates(
    layers: Mapping[str, Weights],
    small: Mapping[str, Floats],
    views: Mapping[str, Floats],
    frozen: Collection[str],
    *,
    momentum: float,
    decay: float,
) -> Any:
    """SGD of these layers and of the one-dimensional weights of nodes that are not `frozen`.

    `small` holds these weights (w), their momentum (v) and gradients (g), one after the other as `views` names and sizes them.
    """
    common = {"momentum": momentum, "decay": decay}
    ops = [Op(kind=int(Kind.SGD), layer=layer.pointer, **common) for layer in layers.values()]
    for where in _runs(views, frozen):
        w, v, g = (small[k][where] for k in ("w", "v", "g"))
        flat = {"count": len(w), "out": pointer(w), "stats": pointer(v) if momentum else None, "host": pointer(g)}
        ops.append(Op(kind=int(Kind.SGD_FLAT), **flat, **common))
    return program(ops)


def _runs(views: Mapping[str, Floats], frozen: Collection[str]) -> Iterator[slice]:
    """Where arrays that learn lie side by side."""
    learns = np.repeat([k.rpartition(".")[0] not in frozen for k in views], [len(a) for a in views.values()])
    edges = np.flatnonzero(np.diff(np.concatenate([[False], learns, [False]]).astype(np.int8)))
    return (slice(int(a), int(b)) for a, b in edges.reshape(-1, 2))


def gathers(layers: Mapping[str, Weights]) -> Any:
    """Copies of live weights for the forward pass."""
    return program([Op(kind=int(Kind.GATHER), layer=k.pointer) for k in layers.values() if k.copied])


def turns(layers: Mapping[str, Weights], learning: Collection[str]) -> Any:
    """Copies for the input gradient, where `learning` nodes want one; of stride 1 the kernels are turned by half a circle."""
    turned = [k for k in layers.values() if k.transposes and set(k.node.inputs) <= set(learning)]
    strides = [max(pair(getattr(k.node, "stride", 1))) for k in turned]
    return program(
        [Op(kind=int(Kind.GATHER), layer=k.pointer, flag=1 if s > 1 else 2) for k, s in zip(turned, strides, strict=True)]
    )
