"""Each kind of node in numpy: a function that returns its output and `pull`, which takes the output's gradient back.

In the type of the arrays, float32 or float64; sums over a batch are kept in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from edgecl.engines.numpy_windows import columns, from_columns, gathered, padded, taps
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
)
from edgecl.types import F32, ConfigError

Arrays = dict[str, F32]


class Pulled(NamedTuple):
    """Gradients: of the node's inputs, in their order, and of its weights by their last name."""

    inputs: tuple[F32, ...]
    weights: Arrays = {}  # noqa: RUF012, never changed
    only: Callable[[], F32] | None = None  # finds the gradient of the only input, in place of `inputs`, where it costs much


Pull = Callable[[F32], Pulled]
Found = tuple[F32, Pull]


def _conv2d(node: Conv2d, own: Arrays, train: bool, x: F32) -> Found:
    """By columns and one matrix product a group; the columns are made again on the way back rather than kept."""
    _, *out = node.out_shape(x.shape[1:])
    size, w = (out[0], out[1]), own["weight"].reshape(node.groups, node.out // node.groups, -1)
    y = np.matmul(w, columns(node, x, size)).reshape(node.out, len(x), *size).swapaxes(0, 1)
    y = y + own["bias"].reshape(-1, 1, 1) if node.bias else np.ascontiguousarray(y)

    def pull(d: F32) -> Pulled:
        rows = d.swapaxes(0, 1).reshape(*w.shape[:2], -1)  # [G, O/G, N · H' · W']
        dw = np.matmul(rows, columns(node, x, size).swapaxes(1, 2)).reshape(own["weight"].shape)
        weights = {"weight": dw} | ({"bias": _sum(d, (0, 2, 3))} if node.bias else {})
        return Pulled((), weights, lambda: from_columns(node, np.matmul(w.swapaxes(1, 2), rows), x.shape, size))

    return y, pull


def _linear(node: Linear, own: Arrays, train: bool, x: F32) -> Found:
    w = own["weight"]

    def pull(d: F32) -> Pulled:
        return Pulled((), {"weight": d.T @ x} | ({"bias": _sum(d, (0,))} if node.bias else {}), lambda: d @ w)

    return x @ w.T + own["bias"] if node.bias else x @ w.T, pull


def _batch_norm(node: BatchNorm, own: Arrays, train: bool, x: F32) -> Found:
    """In training by the batch's biased variance, in two passes; the running one moves towards the unbiased one."""
    axes, shape = tuple(i for i in range(x.ndim) if i != 1), (1, -1, *(1,) * (x.ndim - 2))
    if not train:
        mean, rstd = own["running_mean"], _rstd(own["running_var"], node.eps, x.dtype)
        return (x - mean.reshape(shape)) * (rstd * own["weight"]).reshape(shape) + own["bias"].reshape(shape), _no_way_back
    count = x.size // x.shape[1]
    if count == 1:
        raise ConfigError(
            f"node {node.name}: a pass of one sample has one value a channel and no variance; take a larger train.batch"
        )
    hat, mean, var = _centred(x, axes, shape)
    _move(own["running_mean"], mean, node.momentum)
    _move(own["running_var"], var * (count / (count - 1)), node.momentum)
    rstd = _rstd(var, node.eps, x.dtype)
    hat *= rstd.reshape(shape)
    scale = (rstd * own["weight"]).reshape(shape)

    def pull(d: F32) -> Pulled:
        dgamma, dbeta = _sum(d * hat, axes), _sum(d, axes)
        dx = scale * (d - (dbeta / count).reshape(shape) - hat * (dgamma / count).reshape(shape))
        return Pulled((dx,), {"weight": dgamma, "bias": dbeta})

    return hat * own["weight"].reshape(shape) + own["bias"].reshape(shape), pull


def _centred(x: F32, axes: tuple[int, ...], shape: tuple[int, ...]) -> tuple[F32, Any, Any]:
    """(x − mean, mean, biased variance); what float32 loses of a large mean is taken off in a second round."""
    first = _sum(x, axes) / (x.size // x.shape[1])
    centred = x - first.reshape(shape)
    rest = np.mean(centred, axis=axes, dtype=np.float64)
    centred -= rest.astype(x.dtype).reshape(shape)
    return centred, first + rest, np.mean(centred * centred, axis=axes, dtype=np.float64)


def _move(running: F32, now: Any, momentum: float) -> None:
    running += (momentum * (now - running)).astype(running.dtype)


def _rstd(var: Any, eps: float, dtype: Any) -> F32:
    found: F32 = (1 / np.sqrt(np.asarray(var, np.float64) + eps)).astype(dtype)
    return found


def _no_way_back(d: F32) -> Pulled:
    raise AssertionError("a prediction has no gradient")


def _sum(a: F32, axes: tuple[int, ...]) -> F32:
    total: F32 = np.asarray(np.sum(a, axis=axes, dtype=np.float64)).astype(a.dtype)
    return total


def _elementwise(f: Callable[[F32], Any], slope: Callable[[F32], Any]) -> Callable[..., Found]:
    """An activation, from itself and its derivative."""

    def op(node: Node, own: Arrays, train: bool, x: F32) -> Found:
        return f(x), lambda d: Pulled((d * slope(x),))

    return op


def _relu6(x: F32) -> F32:
    y: F32 = np.minimum(np.maximum(x, 0), 6)
    return y


def _sigmoid(x: F32) -> F32:
    y: F32 = np.tanh(x * 0.5) * 0.5 + 0.5  # 1 / (1 + e⁻ˣ), without its overflow
    return y


def _silu_slope(x: F32) -> F32:
    s = _sigmoid(x)
    slope: F32 = s * (1 + x * (1 - s))
    return slope


def _add(node: Node, own: Arrays, train: bool, a: F32, b: F32) -> Found:
    return a + b, lambda d: Pulled((d, d))


def _mul(node: Node, own: Arrays, train: bool, a: F32, b: F32) -> Found:
    def pull(d: F32) -> Pulled:
        db = d * a
        return Pulled((d * b, db if a.shape == b.shape else _sum(db, (2, 3)).reshape(b.shape)))

    return a * b, pull


def _concat(node: Node, own: Arrays, train: bool, *x: F32) -> Found:
    ends = np.cumsum([a.shape[1] for a in x])[:-1]
    return np.concatenate(x, axis=1), lambda d: Pulled(tuple(np.split(d, ends, axis=1)))


def _pad(node: Pad, own: Arrays, train: bool, x: F32) -> Found:
    h, w = x.shape[2:]
    rows, columns_ = slice(node.top, node.top + h), slice(node.left, node.left + w)
    y = np.pad(x, ((0, 0), (0, 0), (node.top, node.bottom), (node.left, node.right)))
    return y, lambda d: Pulled((d[:, :, rows, columns_],))


def _pool(node: Pool, own: Arrays, train: bool, x: F32) -> Found:
    _, *out = node.out_shape(x.shape[1:])
    image = padded(node, x, -np.inf if node.kind == "max" else 0.0)
    seen = np.stack(list(taps(node, image, (out[0], out[1]))))  # [taps, N, C, H', W']
    if node.kind == "avg":
        return seen.mean(axis=0), lambda d: _back(node, np.broadcast_to(d / len(seen), seen.shape), x.shape)
    first = seen.argmax(axis=0)  # of equal ones; NaN counts as the largest
    places = np.arange(len(seen)).reshape(-1, 1, 1, 1, 1)
    return seen.max(axis=0), lambda d: _back(node, np.where(first == places, d, 0), x.shape)


def _back(node: Pool, found: F32, shape: tuple[int, ...]) -> Pulled:
    return Pulled((gathered(node, found.swapaxes(1, 2), shape),))


def _global_pool(node: GlobalPool, own: Arrays, train: bool, x: F32) -> Found:
    n, c, h, w = x.shape
    mean = _sum(x, (2, 3)) / (h * w)

    def pull(d: F32) -> Pulled:
        return Pulled((np.broadcast_to(d.reshape(n, c, 1, 1) / (h * w), x.shape),))

    return mean.reshape(n, c, 1, 1) if node.keep else mean, pull


def _flatten(node: Node, own: Arrays, train: bool, x: F32) -> Found:
    return x.reshape(len(x), -1), lambda d: Pulled((d.reshape(x.shape),))


OPS: dict[type[Node], Callable[..., Found]] = {
    Conv2d: _conv2d,
    Linear: _linear,
    BatchNorm: _batch_norm,
    Relu: _elementwise(lambda x: np.maximum(x, 0), lambda x: x > 0),
    Relu6: _elementwise(_relu6, lambda x: (x > 0) & (x < 6)),
    Hardsigmoid: _elementwise(lambda x: _relu6(x + 3) / 6, lambda x: (abs(x) < 3).astype(x.dtype) / 6),
    Hardswish: _elementwise(lambda x: x * _relu6(x + 3) / 6, lambda x: np.where(abs(x) < 3, x / 3 + 0.5, x > 0)),
    Sigmoid: _elementwise(_sigmoid, lambda x: _sigmoid(x) * (1 - _sigmoid(x))),
    Silu: _elementwise(lambda x: x * _sigmoid(x), _silu_slope),
    Add: _add,
    Mul: _mul,
    Concat: _concat,
    Pad: _pad,
    Pool: _pool,
    GlobalPool: _global_pool,
    Flatten: _flatten,
}
