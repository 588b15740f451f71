"""Bases, updates and contributions made by hand, without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgecl import masks
from edgecl.merge import Contribution
from edgecl.nets import Net, build_net
from edgecl.nets.init import initial
from edgecl.types import Bools
from edgecl.update import Base, Update

KNOWN = ("cup", "jug", "pan")
NET = build_net("small_cnn", (1, 8, 8), len(KNOWN), 8)
MASKED = tuple(k for k, n in NET.layers().items() if masks.maskable(n))
UNITS = {k: masks.default_unit(NET.layers()[k]) for k in MASKED}


def drawn(rng: np.random.Generator, share: float = 0.5) -> dict[str, Bools]:
    """Masks of the net's layers, with this share of live units."""
    shapes = {k: masks.unit_shape(UNITS[k], NET.weights()[f"{k}.weight"]) for k in MASKED}
    return masks.start(rng, {k: max(1, round(share * np.prod(s))) for k, s in shapes.items()}, shapes)


def a_base(seed: int = 0, net: Net = NET, classes: Sequence[str] = KNOWN, **changes: Any) -> Base:
    rng = np.random.default_rng(seed)
    weights, live = dict(initial(net, rng)), drawn(rng)
    weights = {k: np.array(weights[k], np.float32) for k in (*net.weights(), *net.buffers())}
    for k, m in live.items():
        weights[f"{k}.weight"] *= masks.expand(m, UNITS[k], weights[f"{k}.weight"].shape)
    return Base("ab" * 32, net, tuple(classes), weights, live)._replace(**changes)


def learned(base: Base, seed: int, samples: Mapping[str, int] | None = None, *, swapped: int = 2, size: float = 0.01) -> Update:
    """What a device might send: a few units changed places, all live weights moved, classes that are new have rows."""
    rng, counts = np.random.default_rng([seed, 7]), samples or dict.fromkeys(base.classes, 20)
    classes = (*base.classes, *(k for k in counts if k not in base.classes))
    live, delta = {}, {}
    for k, m in base.live.items():
        fewer = masks.prune(m, rng.random(m.shape), swapped)
        live[k] = masks.grow(fewer, int(m.sum() - fewer.sum()), rng=rng)
    rows = max(base.net.classes, len(classes))
    for name, a in base.weights.items():
        shape = (rows, *a.shape[1:]) if name.startswith(f"{base.net.logits}.") else a.shape
        d = (size * rng.standard_normal(shape)).astype(np.float32)
        if name.removesuffix(".weight") in live:
            k = name.removesuffix(".weight")
            d = np.where(masks.expand(live[k], UNITS[k], shape), d, -a).astype(np.float32)
        delta[name] = np.maximum(d, -a) if name.endswith("running_var") else d
    return Update(base.snapshot, base.net.name, classes, tuple(counts.get(k, 0) for k in classes), live, delta, 9, 900, 1.0)


def sent(update: Update, device: str = "d0", sequence: int = 1, age: int = 0, personal: Sequence[str] = ()) -> Contribution:
    return Contribution(update, device, sequence, age, frozenset(personal))


def fleet(base: Base, devices: int = 5, **options: Any) -> list[Contribution]:
    return [sent(learned(base, d, **options), f"d{d}") for d in range(devices)]


def with_delta(c: Contribution, **arrays: Any) -> Contribution:
    """The contribution with some arrays replaced; `__` in a name stands for the dot."""
    changed = {k.replace("__", "."): v for k, v in arrays.items()}
    return replace(c, update=replace(c.update, delta={**c.update.delta, **changed}))
