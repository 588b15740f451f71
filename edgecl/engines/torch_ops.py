"""Torch's rendering of the node list: one function a node, differentiable."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
import torch.nn.functional as F

from edgecl.nets.graph import Net
from edgecl.nets.nodes import (
    Add,
    BatchNorm,
    Concat,
    Conv2d,
    Flatten,
    GlobalPool,
    Hardsigmoid,
    Hardswish,
    Linear,
    Mul,
    Node,
    Pad,
    Pool,
    Relu,
    Relu6,
    Sigmoid,
    Silu,
    pair,
)
from edgecl.types import ConfigError

Tensors = Mapping[str, torch.Tensor]
Sizes = Sequence[int] | None  # rows of each group with batch statistics of its own; None: running statistics


def _conv2d(n: Node, p: Tensors, sizes: Sizes, x: torch.Tensor) -> torch.Tensor:
    assert isinstance(n, Conv2d)
    return F.conv2d(x, p[f"{n.name}.weight"], p.get(f"{n.name}.bias"), n.stride, n.padding, groups=n.groups)


def _linear(n: Node, p: Tensors, sizes: Sizes, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, p[f"{n.name}.weight"], p.get(f"{n.name}.bias"))


def _batch_norm(n: Node, p: Tensors, sizes: Sizes, x: torch.Tensor) -> torch.Tensor:
    assert isinstance(n, BatchNorm)
    names = ("running_mean", "running_var", "weight", "bias")
    mean, var, weight, bias = (p[f"{n.name}.{k}"] for k in names)
    if sizes is None:
        return F.batch_norm(x, mean, var, weight, bias, False, n.momentum, n.eps)
    if min(sizes) * x[0].numel() == x.shape[1]:
        raise ConfigError(
            f"node {n.name}: a pass of one sample has one value a channel and no variance; take a larger train.batch"
        )
    groups = [F.batch_norm(g, mean, var, weight, bias, True, n.momentum, n.eps) for g in torch.split(x, list(sizes))]
    return groups[0] if len(groups) == 1 else torch.cat(groups)


def _pool(n: Node, p: Tensors, sizes: Sizes, x: torch.Tensor) -> torch.Tensor:
    assert isinstance(n, Pool)
    if n.kind == "max":
        return F.max_pool2d(x, n.kernel, n.stride, n.padding)
    rows, columns = pair(n.padding)
    x = F.pad(x, (columns, columns, rows, rows))  # avg_pool2d's own: wrong gradients on CUDA in channels-last (torch 2.11)
    return F.avg_pool2d(x, n.kernel, n.stride)


def _global_pool(n: Node, p: Tensors, sizes: Sizes, x: torch.Tensor) -> torch.Tensor:
    assert isinstance(n, GlobalPool)
    return x.mean((2, 3), keepdim=n.keep)


def _pad(n: Node, p: Tensors, sizes: Sizes, x: torch.Tensor) -> torch.Tensor:
    assert isinstance(n, Pad)
    return F.pad(x, (n.left, n.right, n.top, n.bottom))


RENDER: dict[type[Node], Callable[..., torch.Tensor]] = {
    Conv2d: _conv2d,
    Linear: _linear,
    BatchNorm: _batch_norm,
    Relu: lambda n, p, sizes, x: F.relu(x),
    Relu6: lambda n, p, sizes, x: F.relu6(x),
    Hardsigmoid: lambda n, p, sizes, x: F.hardsigmoid(x),
    Hardswish: lambda n, p, sizes, x: F.hardswish(x),
    Sigmoid: lambda n, p, sizes, x: torch.sigmoid(x),
    Silu: lambda n, p, sizes, x: F.silu(x),
    Add: lambda n, p, sizes, a, b: a + b,
    Mul: lambda n, p, sizes, a, b: a * b,
    Concat: lambda n, p, sizes, *xs: torch.cat(xs, 1),
    Pad: _pad,
    Pool: _pool,
    GlobalPool: _global_pool,
    Flatten: lambda n, p, sizes, x: x.flatten(1),
}


def render(net: Net, p: Tensors, x: torch.Tensor, sizes: Sizes, frozen: Collection[str] = ()) -> dict[str, torch.Tensor]:
    """The net's outputs for a batch x [N, C, H, W], by node: logits and features.

    Running statistics in `p` are updated in place when `sizes` is given; those of `frozen` nodes are only read. A value goes
    once nothing more reads it.
    """
    last = {i: node.name for node in net.nodes for i in node.inputs}
    values = {"x": x}
    for node in net.nodes:
        groups = None if node.name in frozen else sizes
        values[node.name] = RENDER[type(node)](node, p, groups, *(values[i] for i in node.inputs))
        for name in {*node.inputs, node.name} - {net.logits, net.features}:
            if last.get(name, node.name) == node.name:
                del values[name]
    return values
