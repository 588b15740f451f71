"""Small bases with updates on them, of every unit and kind of change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edgecl import masks
from edgecl.config import resolve
from edgecl.layout import masked_layers
from edgecl.nets import build_net, with_room
from edgecl.nets.init import initial
from edgecl.tensors import Arrays
from edgecl.types import Bools
from edgecl.update import Base, Update

NAMES = ("ant", "bee", "cat")


def base_of(net_name: str, unit: str, sparsity: float, width: int, seed: int = 0) -> Base:
    rng, net = np.random.default_rng(seed), build_net(net_name, (3, 8, 8), len(NAMES), width)
    layers = masked_layers(net, resolve("", [{"mask": {"sparsity": sparsity, "unit": unit}}]))
    live = masks.start(rng, {k: v.live for k, v in layers.items()}, {k: v.shape for k, v in layers.items()})
    weights: Arrays = {k: np.asarray(a, np.float32) for k, a in initial(net, rng).items()}
    for name, layer in layers.items():
        weights[f"{name}.weight"] *= masks.expand(live[name], layer.unit, layer.weight_shape)
    return Base(f"{seed:02x}" * 32, net, NAMES, weights, live)


def update_on(base: Base, live: dict[str, Bools], names: tuple[str, ...] = NAMES, scale: float = 0.01, seed: int = 1) -> Update:
    """Every live weight a little otherwise; new rows of the classifier where there are more names."""
    rng, net = np.random.default_rng(seed), base.net
    if len(names) > net.classes:
        net = with_room(net, len(names))
    shapes = {**net.weights(), **net.buffers()}
    delta: Arrays = {k: scale * rng.standard_normal(s).astype(np.float32) for k, s in shapes.items()}
    for name, units in live.items():
        a = base.weights[f"{name}.weight"]
        delta[f"{name}.weight"] = np.where(masks.expand(units, unit_of(units, a.shape), a.shape), delta[f"{name}.weight"], 0 - a)
    for k in net.buffers():
        delta[k] = np.abs(delta[k])
    return Update(base.snapshot, base.net.name, names, tuple(range(len(names))), live, delta, 7, 10**15, 1.25)


def unit_of(units: Bools, shape: tuple[int, ...]) -> str:
    return next(u for u in masks.UNITS if masks.unit_shape(u, shape) == units.shape)


def swapped(live: Bools, n: int, seed: int = 2) -> Bools:
    rng, out = np.random.default_rng(seed), live.reshape(-1).copy()
    n = min(n, int(out.sum()) - 1, int((~out).sum()))
    out[rng.choice(np.flatnonzero(live), n, replace=False)] = False
    out[rng.choice(np.flatnonzero(~live), n, replace=False)] = True
    return out.reshape(live.shape)


def _swap(net: str, unit: str, sparsity: float, n: int, names: tuple[str, ...] = NAMES) -> tuple[Base, Update]:
    base = base_of(net, unit, sparsity, 8)
    return base, update_on(base, {k: swapped(v, n) for k, v in base.live.items()}, names)


def _frozen() -> tuple[Base, Update]:
    base, update = _swap("small_cnn", "auto", 0.5, 0)
    still = [k for k in update.delta if not k.startswith("classifier")][:-4]
    delta = {k: np.zeros_like(d) if k in still else d for k, d in update.delta.items()}
    return base, replace(update, delta=delta, live=dict(base.live))


def _nothing() -> tuple[Base, Update]:
    base, update = _swap("small_cnn", "auto", 0.5, 0)
    return base, replace(update, delta={k: np.zeros_like(d) for k, d in update.delta.items()})


def _far() -> tuple[Base, Update]:
    """Changes that float16 can't hold, in an array that is sent as float16 else; channels without a change; subnormal ones."""
    base, update = _swap("small_cnn", "auto", 0.5, 1)
    delta = {k: d.copy() for k, d in update.delta.items()}
    delta["bn1.weight"][0] = 1e9
    delta["bn1.bias"][:] = 1e-12
    delta["classifier.weight"][0] = 0
    delta["classifier.weight"][1] = 1e-40
    return base, replace(update, delta=delta)


CASES: dict[str, Callable[[], tuple[Base, Update]]] = {
    "kernels": lambda: _swap("small_cnn", "auto", 0.5, 2),
    "kernels, all otherwise": lambda: _swap("small_cnn", "auto", 0.5, 10**6),
    "single weights": lambda: _swap("small_cnn", "weight", 0.9, 5),
    "single weights, dense": lambda: _swap("small_cnn", "weight", 0.2, 400),
    "channels": lambda: _swap("small_cnn", "channel", 0.5, 1),
    "blocks": lambda: _swap("mobilenetv2_100", "auto", 0.5, 1),
    "blocks, cut off": lambda: _swap("small_cnn", "block4x4", 0.5, 1),
    "dense": lambda: _swap("small_cnn", "auto", 0.0, 0),
    "linear": lambda: _swap("mlp", "auto", 0.9, 3),
    "new classes": lambda: _swap("small_cnn", "auto", 0.5, 2, (*NAMES, "dragonfly", "élan")),
    "a frozen prefix": _frozen,
    "nothing": _nothing,
    "far": _far,
}


def case(name: str) -> tuple[Base, Update]:
    """A base, and an update on it."""
    return CASES[name]()
