"""Which node each ATen op becomes. An importer gets the graph so far and the op, and returns the name of the node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgecl.nets.nodes import (
    Add,
    BatchNorm,
    Concat,
    Conv2d,
    GlobalPool,
    Hardsigmoid,
    Hardswish,
    Linear,
    Mul,
    Node,
    Pad,
    Pair,
    Pool,
    Relu,
    Relu6,
    Sigmoid,
    Silu,
)
from edgecl.nets.torch_graph import Importer, fault, op_name, sample

Import = Callable[[Importer, Any], str]


def arg(op: Any, i: int, name: str, default: Any) -> Any:
    """Argument i of an op, by place or by name."""
    return op.args[i] if len(op.args) > i else op.kwargs.get(name, default)


def sides(op: Any, value: Any, lone: int) -> Pair:
    """torch's [k], [kh, kw] or k as a kernel, stride or padding; `lone` is the height's where the input is 1-D."""
    both = [value] if isinstance(value, int) else [int(v) for v in value]
    if op_name(op).split(".")[0].endswith("1d"):
        return (lone, both[0])
    h, w = both * 2 if len(both) == 1 else both
    return h if h == w else (h, w)


def _conv(g: Importer, op: Any) -> str:
    (weight_name, weight), (_, bias) = g.parameter(op, 1), g.parameter(op, 2, "bias")
    if any(d != 1 for d in arg(op, 5, "dilation", [1])):
        fault(op, f"{op_name(op)} with dilation {list(op.args[5])}")
    padding = arg(op, 4, "padding", [0])
    padding = _named_padding(op, padding, weight.shape[2:]) if isinstance(padding, str) else padding
    is_1d = weight.ndim == 3
    kernel = sides(op, list(weight.shape[2:]), 1)
    stride, around = sides(op, arg(op, 3, "stride", [1]), 1), sides(op, padding, 0)
    groups = int(arg(op, 6, "groups", 1))
    node = Conv2d(g.name(op, weight_name), (g.source(op),), weight.shape[0], kernel, stride, around, groups, bias is not None)
    weight = weight.unsqueeze(2) if is_1d else weight
    return g.add(node, weight=weight, **({} if bias is None else {"bias": bias}))


def _named_padding(op: Any, padding: str, kernel: Any) -> list[int]:
    if padding == "same" and any(k % 2 == 0 for k in kernel):
        fault(op, f"{op_name(op)} with padding 'same' and an even kernel {tuple(kernel)}")
    return [int(k) // 2 if padding == "same" else 0 for k in kernel]


def _linear(g: Importer, op: Any) -> str:
    (name, weight), (_, bias) = g.parameter(op, 1), g.parameter(op, 2, "bias")
    node = Linear(g.name(op, name), (g.source(op),), weight.shape[0], bias is not None)
    return g.add(node, weight=weight, **({} if bias is None else {"bias": bias}))


def _batch_norm(g: Importer, op: Any) -> str:
    """(x, weight, bias, running_mean, running_var, momentum, eps), as torch has it in eval mode."""
    names = ("weight", "bias", "running_mean", "running_var")
    found = dict(zip(names, (g.parameter(op, i) for i in range(1, 5)), strict=True))
    name, mean = found["running_mean"]
    if mean is None:
        fault(op, "a batch norm without running statistics")
    if found["weight"][1] is None:
        g.notes.append(f"{name.rpartition('.')[0]}: a batch norm without a scale and a shift gets both, 1 and 0")
    plain = {"weight": mean.new_ones(mean.shape), "bias": mean.new_zeros(mean.shape)}
    tensors = {k: plain[k] if t is None else t for k, (_, t) in found.items()}
    node = BatchNorm(g.name(op, name), (g.source(op),), float(op.args[6]), float(op.args[5]))
    return g.add(node, **tensors)


def _plain(kind: type[Node]) -> Import:
    """An op of one input and no options."""
    return lambda g, op: g.add(kind(g.name(op), (g.source(op),)))


def _clamped(g: Importer, op: Any) -> str:
    low, high = arg(op, 1, "min_val" if "tanh" in op_name(op) else "min", None), arg(op, 2, "max_val", op.kwargs.get("max"))
    kind = {(0, 6): Relu6, (0, None): Relu}.get((low, high))
    if kind is None:
        fault(op, f"{op_name(op)} from {low} to {high}; edgecl has relu and relu6")
    return g.add(kind(g.name(op), (g.source(op),)))


def _add(g: Importer, op: Any) -> str:
    if op.kwargs.get("alpha", 1) != 1:
        fault(op, f"{op_name(op)} with alpha {op.kwargs['alpha']}")
    return g.add(Add(g.name(op), (g.source(op), g.source(op, 1))))


def _mul(g: Importer, op: Any) -> str:
    """The picture first, a scale a channel second."""
    a, b = g.source(op), g.source(op, 1)
    if g.shapes[a][1:] == (1, 1):
        a, b = b, a
    return g.add(Mul(g.name(op), (a, b)))


def _cat(g: Importer, op: Any) -> str:
    dim, first = arg(op, 1, "dim", 0), op.args[0][0]
    if dim % first.meta["val"].ndim != 1:
        fault(op, f"cat along axis {dim}, not along the channels")
    names = [g.values.get(a.name, "") for a in op.args[0]]
    if not all(names):
        fault(op, "cat of a parameter, not of what the net computes")
    return g.add(Concat(g.name(op), tuple(names)))


def _pad(g: Importer, op: Any) -> str:
    mode, value = (
        (arg(op, 2, "mode", "constant"), arg(op, 3, "value", 0)) if op_name(op) == "pad" else ("constant", arg(op, 2, "value", 0))
    )
    if mode != "constant" or value not in (None, 0):
        fault(op, f"pad in mode {mode} with {value}; edgecl pads with zeros")
    left, right, top, bottom, *more = [*map(int, op.args[1]), 0, 0][: max(4, len(op.args[1]))]
    if any(more):
        fault(op, "pad of channels or samples")
    return g.add(Pad(g.name(op), (g.source(op),), left, right, top, bottom))


def _pool(g: Importer, op: Any) -> str:
    """Max and mean pooling; a rounding up (ceil_mode) that changes nothing is let pass."""
    is_max = op_name(op).startswith("max")
    kernel = sides(op, op.args[1], 1)
    stride, around = sides(op, arg(op, 2, "stride", []) or op.args[1], 1), sides(op, arg(op, 3, "padding", 0), 0)
    if is_max and any(d != 1 for d in _listed(arg(op, 4, "dilation", 1))):
        fault(op, f"{op_name(op)} with dilation")
    if not is_max and any(_listed(around)) and not arg(op, 5, "count_include_pad", True):
        fault(op, f"{op_name(op)} with padding that does not count (count_include_pad=False)")
    if not is_max and arg(op, 6, "divisor_override", None) is not None:
        fault(op, f"{op_name(op)} with divisor_override")
    name = g.add(Pool(g.name(op), (g.source(op),), "max" if is_max else "avg", kernel, stride, around))
    if g.shapes[name] != sample(op):
        fault(op, f"{op_name(op)} with ceil_mode, which makes {sample(op)} of {g.shapes[g.source(op)]} here")
    return name


def _listed(value: Any) -> list[int]:
    return [value] if isinstance(value, int) else list(value)


def _adaptive(g: Importer, op: Any) -> str:
    """To one pixel a global mean; to sizes that divide the picture's a plain mean pool."""
    source, out = g.source(op), sample(op)
    (_, h, w), (_, to_h, to_w) = g.shapes[source], out
    if (to_h, to_w) == (1, 1):
        return g.add(GlobalPool(g.name(op), (source,), keep=True))
    if h % to_h or w % to_w:
        fault(op, f"{op_name(op)} from {h}×{w} to {to_h}×{to_w}, whose windows differ")
    window = (h // to_h, w // to_w)
    return g.add(Pool(g.name(op), (source,), "avg", window, window))


def _mean(g: Importer, op: Any) -> str:
    value, source = op.args[0].meta["val"], g.source(op)
    axes = {a % value.ndim for a in _listed(arg(op, 1, "dim", []))}
    if value.ndim < 3 or axes != set(range(2, value.ndim)):
        fault(op, f"mean over axes {sorted(axes)}, not over height and width")
    return g.add(GlobalPool(g.name(op), (source,), keep=bool(arg(op, 2, "keepdim", False))))


def _reshape(g: Importer, op: Any) -> str:
    """view, reshape, flatten, squeeze, unsqueeze: the same shape, or flat."""
    source, shape = g.source(op), sample(op)
    if op.meta["val"].shape[0] != op.args[0].meta["val"].shape[0]:
        fault(op, f"{op_name(op)} that mixes samples")
    if len(shape) == 1:
        return g.flat(op)
    if len(g.shapes[source]) == 1 and shape == (*g.shapes[source], 1, 1):
        return g.image(op)
    if shape != g.shapes[source]:
        fault(op, f"{op_name(op)} from {g.shapes[source]} to {shape} a sample; edgecl only flattens")
    return source


def _same(g: Importer, op: Any) -> str:
    return g.source(op)


def _getitem(g: Importer, op: Any) -> str:
    if op.args[1] != 0:
        fault(op, f"output {op.args[1]} of {op_name(op.args[0])}")
    return g.source(op)


IMPORT: dict[str, Import] = {
    "conv2d": _conv,
    "conv2d.padding": _conv,
    "conv1d": _conv,
    "conv1d.padding": _conv,
    "linear": _linear,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "relu": _plain(Relu),
    "relu6": _plain(Relu6),
    "hardtanh": _clamped,
    "clamp": _clamped,
    "clamp_min": _clamped,
    "hardsigmoid": _plain(Hardsigmoid),
    "hardswish": _plain(Hardswish),
    "sigmoid": _plain(Sigmoid),
    "silu": _plain(Silu),
    "add.Tensor": _add,
    "mul.Tensor": _mul,
    "cat": _cat,
    "pad": _pad,
    "constant_pad_nd": _pad,
    "max_pool2d": _pool,
    "max_pool1d": _pool,
    "avg_pool2d": _pool,
    "avg_pool1d": _pool,
    "adaptive_avg_pool2d": _adaptive,
    "adaptive_avg_pool1d": _adaptive,
    "mean.dim": _mean,
    "view": _reshape,
    "reshape": _reshape,
    "_unsafe_view": _reshape,
    "flatten.using_ints": _reshape,
    "squeeze.dim": _reshape,
    "squeeze.dims": _reshape,
    "unsqueeze": _reshape,
    "getitem": _getitem,
    "clone": _same,
    "contiguous": _same,
    "alias": _same,
    "detach": _same,
}
"""ATen ops, as torch.export names them, that edgecl can say."""
