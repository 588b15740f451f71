"""What the passes over a net's weights share: float64 arrays, and which input channel a weight reads."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecl.nets.graph import Net
from edgecl.nets.nodes import BatchNorm, Conv2d, Linear, Node, pair
from edgecl.types import Named

F64 = npt.NDArray[np.float64]
Weights = dict[str, F64]


def predictor(net: Net, arrays: Named) -> tuple[Net, Weights]:
    """What the logits hang on, alone, with its weights and buffers in float64; the features are the logits."""
    wanted = {net.logits}
    for node in reversed(net.nodes):
        wanted |= {*node.inputs} if node.name in wanted else set()
    nodes = tuple(n for n in net.nodes if n.name in wanted)
    small = replace(net, nodes=nodes, features=net.logits)
    return small, {k: np.asarray(arrays[k], np.float64) for k in {**small.weights(), **small.buffers()}}


def readers(nodes: Collection[Node], name: str) -> list[Node]:
    """Nodes that read the value `name`."""
    return [n for n in nodes if name in n.inputs]


def renamed(nodes: Sequence[Node], old: str, new: str) -> list[Node]:
    """The nodes, reading `new` where they read `old`."""
    return [replace(n, inputs=tuple(new if i == old else i for i in n.inputs)) if old in n.inputs else n for n in nodes]


def by_input(node: Conv2d | Linear, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[out, in / groups] from one value an input channel, [in]: the value that belongs to each weight."""
    groups = node.groups if isinstance(node, Conv2d) else 1
    return np.repeat(values.reshape(groups, -1), node.out // groups, axis=0)


def over_taps(w: F64) -> F64:
    """[out, in / groups]: the sum of a weight's taps."""
    total: F64 = w.reshape(*w.shape[:2], -1).sum(axis=2)
    return total


def has_padding(node: Conv2d | Linear) -> bool:
    return isinstance(node, Conv2d) and pair(node.padding) != (0, 0)


def bias_of(node: Conv2d | Linear, p: Weights) -> F64:
    """[out]; zeros where the node has none."""
    return p[f"{node.name}.bias"] if node.bias else np.zeros(node.out)


def affine(node: BatchNorm, p: Mapping[str, F64]) -> tuple[F64, F64]:
    """Batch norm in prediction as x · scale + shift, one of each a channel."""
    own = {k: p[f"{node.name}.{k}"] for k in ("weight", "bias", "running_mean", "running_var")}
    scale = own["weight"] / np.sqrt(own["running_var"] + node.eps)
    return scale, own["bias"] - own["running_mean"] * scale
