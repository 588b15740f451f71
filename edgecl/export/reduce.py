"""A snapshot's network as a predictor needs it: batch norm folded, channels that nothing reads or that are constant left out,
logits of the classes seen only. Pure, and exact but for rounding.

Channels that an addition, an activation or a grouped convolution binds together stay or go together, so that a residual
group is cut only where no member of it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

import numpy as np

from edgecl.export.constants import constants, shares, taken
from edgecl.export.fold import fold_norms
from edgecl.export.weights import F64, Weights, bias_of, predictor
from edgecl.nets.graph import Net
from edgecl.nets.nodes import BatchNorm, Concat, Conv2d, Linear, Node
from edgecl.types import Bools, ConfigError, Named

Kept = dict[str, Bools]  # value → which of its channels stay


class Reduced(NamedTuple):
    """Takes what the whole net takes; its logits are those of `seen`, in that order."""

    net: Net
    weights: Weights  # float64, of the net's own shapes


def reduce(net: Net, arrays: Named, seen: Sequence[int]) -> Reduced:
    """`arrays` are the net's weights and buffers, 0 where a mask is; `seen` rising class ids, one or more.

    Raises ConfigError where no class is seen.
    """
    if not seen:
        raise ConfigError(f"net {net.name}: no class has been learned yet, so that there is nothing to predict")
    whole, p = fold_norms(*predictor(net, arrays))
    known = constants(whole, p)
    p = _said(whole, p, known)
    kept = _kept(whole, p, known, seen)
    return _ordered(_sliced(whole, p, kept), np.flatnonzero(kept[whole.logits]), seen)


def _said(net: Net, p: Weights, known: dict[str, F64]) -> Weights:
    """Layers with what is constant in their biases: constant inputs no longer read, constant outputs no longer computed."""
    p = dict(p)
    for node in net.layers().values():
        value, rows, w = known[node.inputs[0]], ~np.isnan(known[node.name]), p[f"{node.name}.weight"].copy()
        bias = bias_of(node, p)
        if _cuts(node):
            bias = bias + shares(node, p, value).sum(axis=1)
            w[:, taken(node, value)] = 0
        w[rows] = 0
        p[f"{node.name}.weight"], p[f"{node.name}.bias"] = w, np.where(rows, known[node.name], bias)
    return p


def _cuts(node: Node) -> bool:
    """Whether a node's outputs are free of its inputs' number: any may go, and any input may."""
    return isinstance(node, Linear) or (isinstance(node, Conv2d) and node.groups == 1)


# which channels stay


def _kept(net: Net, p: Weights, known: dict[str, F64], seen: Sequence[int]) -> Kept:
    """The fewest channels that hold: the picture's, the logits of `seen`, what they read, and one of each value."""
    kept: Kept = {k: np.zeros(v.size, np.bool_) for k, v in known.items()}
    kept["x"][:] = True
    kept[net.logits][list(seen)] = True
    while True:
        before = sum(int(k.sum()) for k in kept.values())
        for node in (*reversed(net.nodes), *net.nodes):
            _spread(node, p, known, kept)
        if sum(int(k.sum()) for k in kept.values()) > before:
            continue
        empty = [k for k, v in kept.items() if not v.any()]
        if not empty:
            return kept
        kept[empty[0]][0] = True


def _spread(node: Node, p: Weights, known: dict[str, F64], kept: Kept) -> None:
    """Marks inputs that a kept output reads, and what is bound to a kept channel."""
    if _cuts(node):
        w = p[f"{node.name}.weight"]
        read: Bools = np.asarray(w.reshape(*w.shape[:2], -1).any(axis=2))
        kept[node.inputs[0]] |= read[kept[node.name]].any(axis=0)
    elif isinstance(node, Concat):
        ends = np.cumsum([kept[i].size for i in node.inputs])[:-1]
        for name, part in zip(node.inputs, np.split(kept[node.name], ends), strict=True):
            _bind([kept[name], part], part.size)
    else:
        values = [kept[i] for i in node.inputs] + [kept[node.name]]
        _bind(values, _bundles(node, values[0].size))


def _bundles(node: Node, channels: int) -> int:
    """How many sets of channels a node keeps apart."""
    return node.groups if isinstance(node, Conv2d) else channels


def _bind(values: list[Bools], bundles: int) -> None:
    """Marks, in all of them, every bundle of which any has a channel marked; in place, views of `kept` too."""
    found = np.logical_or.reduce([v.reshape(bundles, -1).any(axis=1) for v in values])
    for v in values:
        v |= np.repeat(found, v.size // bundles)


# what is left


def _sliced(net: Net, p: Weights, kept: Kept) -> Reduced:
    weights: Weights = {}
    nodes = []
    for node in net.nodes:
        made, own = SLICE.get(type(node), _as_it_is)(node, p, kept[node.inputs[0]], kept[node.name])
        nodes.append(made)
        weights |= {f"{node.name}.{k}": np.ascontiguousarray(v) for k, v in own.items()}
    return Reduced(replace(net, nodes=tuple(nodes), classes=int(kept[net.logits].sum())), weights)


Slice = tuple[Node, dict[str, Any]]


def _layer(node: Conv2d | Linear, p: Weights, kept_in: Bools, kept_out: Bools) -> Slice:
    w = p[f"{node.name}.weight"][kept_out]
    changed: dict[str, Any] = {"out": int(kept_out.sum()), "bias": True}
    if _cuts(node):
        w = w[:, kept_in]
    else:
        changed["groups"] = int(kept_in.sum()) // w.shape[1]
    return replace(node, **changed), {"weight": w, "bias": p[f"{node.name}.bias"][kept_out]}


def _norm(node: BatchNorm, p: Weights, kept_in: Bools, kept_out: Bools) -> Slice:
    names = ("weight", "bias", "running_mean", "running_var")
    return node, {k: p[f"{node.name}.{k}"][kept_out] for k in names}


def _as_it_is(node: Node, p: Weights, kept_in: Bools, kept_out: Bools) -> Slice:
    return node, {}


SLICE: dict[type[Node], Callable[..., Slice]] = {Conv2d: _layer, Linear: _layer, BatchNorm: _norm}


def _ordered(found: Reduced, rows: Any, seen: Sequence[int]) -> Reduced:
    """With the logits of `seen` alone, picked by a layer of zeros and ones where binding kept others."""
    if list(rows) == list(seen):
        return found
    name = _free_name(found.net, "seen")
    pick = (rows[None, :] == np.asarray(seen)[:, None]).astype(np.float64)
    last = Linear(name, (found.net.logits,), len(seen), bias=False, role="classifier")
    net = replace(found.net, nodes=(*found.net.nodes, last), classes=len(seen), logits=name, features=name)
    return Reduced(net, {**found.weights, f"{name}.weight": pick})


def _free_name(net: Net, name: str) -> str:
    taken_names = {n.name for n in net.nodes}
    while name in taken_names:
        name += "_"
    return name


def count(net: Net) -> tuple[int, int]:
    """(parameters, multiply-adds a sample)."""
    return sum(map(prod, net.weights().values())), sum(n.macs(*s) for n, s in net.walk())
