"""Nets in float64 by sums over taps and plain formulas: slow, and written apart from any engine. Autograd differentiates it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from edgecl.nets import Net
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
from edgecl.types import Pass

T = torch.Tensor
P = dict[str, T]


def _taps(x: T, node: Conv2d | Pool, outside: float = 0.0) -> T:
    """[kh · kw, N, C, H', W']: what each tap of a window sees; `outside` stands around the image."""
    (kh, kw), (sh, sw), (ph, pw) = (pair(v) for v in (node.kernel, node.stride, node.padding))
    x = _framed(x, (pw, pw, ph, ph), outside)
    h, w = (x.shape[2] - kh) // sh + 1, (x.shape[3] - kw) // sw + 1
    return torch.stack([x[:, :, i : i + sh * h : sh, j : j + sw * w : sw][:, :, :h, :w] for i in range(kh) for j in range(kw)])


def _framed(x: T, sides: tuple[int, int, int, int], value: float) -> T:
    """The image in the middle of a larger one; sides are left, right, top, bottom."""
    left, right, top, bottom = sides
    n, c, h, w = x.shape
    out = torch.full((n, c, top + h + bottom, left + w + right), value, dtype=x.dtype)
    out[:, :, top : top + h, left : left + w] = x
    return out


def _conv2d(n: Conv2d, p: P, train: bool, x: T) -> T:
    taps = _taps(x, n)
    k, batch, c, h, w = taps.shape
    taps = taps.reshape(k, batch, n.groups, c // n.groups, h, w)
    weight = p[f"{n.name}.weight"].reshape(n.groups, n.out // n.groups, c // n.groups, k)
    out = torch.einsum("kngchw,gock->ngohw", taps, weight).reshape(batch, n.out, h, w)
    return out + p[f"{n.name}.bias"].reshape(-1, 1, 1) if n.bias else out


def _linear(n: Linear, p: P, train: bool, x: T) -> T:
    out = torch.einsum("ni,oi->no", x, p[f"{n.name}.weight"])
    return out + p[f"{n.name}.bias"] if n.bias else out


def _batch_norm(n: BatchNorm, p: P, train: bool, x: T) -> T:
    """Normalises by the biased variance; the running one moves towards the unbiased one, as in torch."""
    axes = [i for i in range(x.ndim) if i != 1]
    shape = [1, -1] + [1] * (x.ndim - 2)
    mean, var = p[f"{n.name}.running_mean"], p[f"{n.name}.running_var"]
    if train:
        count = x.numel() // x.shape[1]
        batch_mean = x.mean(axes)
        batch_var = ((x - batch_mean.reshape(shape)) ** 2).mean(axes)
        p[f"{n.name}.running_mean"] = (mean + n.momentum * (batch_mean - mean)).detach()
        p[f"{n.name}.running_var"] = (var + n.momentum * (batch_var * count / (count - 1) - var)).detach()
        mean, var = batch_mean, batch_var
    scale = p[f"{n.name}.weight"] / torch.sqrt(var + n.eps)
    return (x - mean.reshape(shape)) * scale.reshape(shape) + p[f"{n.name}.bias"].reshape(shape)


def _pool(n: Pool, p: P, train: bool, x: T) -> T:
    return _taps(x, n, -torch.inf).max(0).values if n.kind == "max" else _taps(x, n).mean(0)


def _global_pool(n: GlobalPool, p: P, train: bool, x: T) -> T:
    mean = x.sum((2, 3)) / (x.shape[2] * x.shape[3])
    return mean.reshape(*mean.shape, 1, 1) if n.keep else mean


def _logistic(x: T) -> T:
    return 1 / (1 + torch.exp(-x))


def _within(x: T, high: float) -> T:
    """From 0 to `high`, and flat beyond."""
    return torch.where(x > high, high, torch.where(x > 0, x, 0))


OPS: dict[type[Node], Callable[..., T]] = {
    Conv2d: _conv2d,
    Linear: _linear,
    BatchNorm: _batch_norm,
    Relu: lambda n, p, train, x: torch.where(x > 0, x, 0),
    Relu6: lambda n, p, train, x: _within(x, 6),
    Hardsigmoid: lambda n, p, train, x: _within(x + 3, 6) / 6,
    Hardswish: lambda n, p, train, x: x * _within(x + 3, 6) / 6,
    Sigmoid: lambda n, p, train, x: _logistic(x),
    Silu: lambda n, p, train, x: x * _logistic(x),
    Add: lambda n, p, train, a, b: a + b,
    Mul: lambda n, p, train, a, b: a * b,
    Concat: lambda n, p, train, *xs: torch.cat(xs, 1),
    Pad: lambda n, p, train, x: _framed(x, (n.left, n.right, n.top, n.bottom), 0.0),
    Pool: _pool,
    GlobalPool: _global_pool,
    Flatten: lambda n, p, train, x: x.reshape(len(x), -1),
}


def values(net: Net, p: P, x: T, train: bool, frozen: Collection[str] = ()) -> dict[str, T]:
    """Every node's output; in training the batch is one group, and running statistics in `p` of nodes that learn are replaced."""
    out = {"x": x}
    for node in net.nodes:
        out[node.name] = OPS[type(node)](node, p, train and node.name not in frozen, *(out[i] for i in node.inputs))
    return out


class Result:
    """What a step from `arrays` gives, in float64 numpy."""

    def __init__(
        self,
        net: Net,
        arrays: Mapping[str, np.ndarray],
        x: Sequence[np.ndarray],
        passes: Sequence[Pass],
        frozen: Collection[str] = (),
    ) -> None:
        self.frozen = frozen
        self.net, self.logits, self.features = net, [None] * len(x), [None] * len(x)
        self._p = {k: torch.from_numpy(np.asarray(v, np.float64)) for k, v in arrays.items()}
        self._leaves = {k: self._p[k].clone().requires_grad_() for k in net.weights()}
        self._p |= self._leaves
        for one in passes:
            self._run([torch.from_numpy(np.asarray(x[i], np.float64)) for i in one.parts], one.parts)

    def _run(self, x: list[T], parts: Sequence[int]) -> None:
        out, rows = values(self.net, self._p, torch.cat(x), True, self.frozen), [len(a) for a in x]
        split = zip(out[self.net.logits].split(rows), out[self.net.features].split(rows), strict=True)
        for i, (logits, features) in zip(parts, split, strict=True):
            self.logits[i], self.features[i] = logits, features

    def gradients(self, d_logits: Sequence[Any], parts: Sequence[int] | None = None) -> dict[str, np.ndarray]:
        """Of every weight, for d_logits; `parts` takes those parts alone."""
        parts = range(len(d_logits)) if parts is None else parts
        d = [torch.from_numpy(np.asarray(d_logits[i], np.float64)) for i in parts]
        leaves = list(self._leaves.values())
        found = torch.autograd.grad([self.logits[i] for i in parts], leaves, d, retain_graph=True, materialize_grads=True)
        return {k: g.numpy() for k, g in zip(self._leaves, found, strict=True)}

    def buffers(self) -> dict[str, np.ndarray]:
        """Running statistics after the step."""
        return {k: self._p[k].numpy() for k in self.net.buffers()}

    def outputs(self) -> list[np.ndarray]:
        """Logits of every part, then its features."""
        return [a.detach().numpy() for both in zip(self.logits, self.features, strict=True) for a in both]


def predict(net: Net, arrays: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Logits with running statistics."""
    p = {k: torch.from_numpy(np.asarray(v, np.float64)) for k, v in arrays.items()}
    return values(net, p, torch.from_numpy(np.asarray(x, np.float64)), train=False)[net.logits].numpy()


@torch.no_grad()
def loss(net: Net, arrays: Mapping[str, np.ndarray], x: Sequence[np.ndarray], passes: Sequence[Pass], d: Sequence[Any]) -> float:
    """Σ logits · d: the function whose gradient `backward(d)` is."""
    result = Result(net, arrays, x, passes)
    return sum(float((logits.detach().numpy() * one).sum()) for logits, one in zip(result.logits, d, strict=True))
