"""Nets of one op, to try it alone; without torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod

import numpy as np
import pytest
from engine_cases import NETS

from edgecl.nets import Net
from edgecl.nets.nodes import Conv2d, Flatten, GlobalPool, Node, Shape


def probe(node: Node, shapes: tuple[Shape, ...]) -> Net:
    """The op alone. Its inputs lie side by side in the picture's channels; a 1×1 convolution that copies picks each.

    So the weight gradients of those convolutions are products of the op's input gradient.
    """
    sources = [source(i, shape, shapes[0]) for i, shape in enumerate(shapes)]
    nodes = [n for source in sources for n in source]
    nodes.append(replace(node, inputs=tuple(source[-1].name for source in sources)))
    size, out = prod(node.out_shape(*shapes)), "out"
    nodes.append(Flatten(out, (node.name,)))
    return Net("probe", (sum(s[0] for s in shapes), *picture(shapes)), size, tuple(nodes), out, out)


def source(i: int, shape: Shape, first: Shape) -> list[Node]:
    """Nodes that take input i of a probe from its picture."""
    pick = Conv2d(f"in{i}", ("x",), shape[0], 1)
    if len(shape) == 1:
        return [pick, Flatten(f"flat{i}", (pick.name,))]
    return [pick] if shape[1:] == first[1:] else [pick, GlobalPool(f"mean{i}", (pick.name,), keep=True)]  # a scale a channel


def picture(shapes: tuple[Shape, ...]) -> tuple[int, int]:
    """Height and width that hold the inputs of one op."""
    return (shapes[0][1], shapes[0][2]) if len(shapes[0]) == 3 else (1, 1)


def copying(net: Net, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Makes the convolutions in0, in1, … pick their channels."""
    at = 0
    for name, (out, channels, _, _) in ((k, s) for k, s in net.weights().items() if k.startswith("in")):
        arrays[name] = np.eye(channels, dtype=np.float32)[at : at + out].reshape(out, channels, 1, 1)
        at += out
    return arrays


def laid_out(a: np.ndarray, first: Shape) -> np.ndarray:
    """An input of a probe, in its picture: a flat one is a pixel, a scale a channel fills the picture."""
    a = a.reshape(*a.shape[:2], 1, 1) if a.ndim == 2 else a
    return np.broadcast_to(a, (*a.shape[:2], *picture((first,))))


def distinct(net: Net) -> Iterator[tuple[Node, tuple[Shape, ...]]]:
    """Nodes that differ in more than their names."""
    seen = set()
    for node, shapes in net.walk():
        key = (replace(node, name="", inputs=("",) * len(node.inputs)), shapes)
        if key not in seen:
            seen.add(key)
            yield node, shapes


CASES = [pytest.param(net, node, shapes, id=f"{net.name}-{node.name}") for net in NETS for node, shapes in distinct(net)]
