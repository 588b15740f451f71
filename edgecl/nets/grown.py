"""A classifier that gets room for more classes: its rows stay as they are, new ones are drawn at random."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from edgecl.nets.graph import Net
from edgecl.nets.nodes import Linear
from edgecl.types import F32, ConfigError, Named


def with_room(net: Net, classes: int) -> Net:
    """The same net with a classifier for `classes`. Raises ConfigError where the logits are not a linear layer's."""
    last = next((n for n in net.nodes if n.name == net.logits), None)
    if not isinstance(last, Linear) or net.features == net.logits:
        raise ConfigError(f"net {net.name}: its logits are not a linear layer's, so no class can be added")
    nodes = tuple(replace(n, out=classes) if n is last else n for n in net.nodes)
    return replace(net, nodes=nodes, classes=classes)


def grown(net: Net, arrays: Named, rng: np.random.Generator) -> dict[str, F32]:
    """The arrays for `net`, whose classifier has more rows than theirs: new ones uniform within 1/√fan_in, as at a fresh start;
    their momentum is 0."""
    found = {k: np.asarray(a, np.float32) for k, a in arrays.items()}
    weight, bias = f"{net.logits}.weight", f"{net.logits}.bias"
    bound = 1 / math.sqrt(net.weights()[weight][1])
    for name in (weight, bias):
        if name in net.weights():
            more = net.weights()[name][0] - len(found[name])
            shape = (more, *found[name].shape[1:])
            found[name] = np.concatenate([found[name], rng.uniform(-bound, bound, shape).astype(np.float32)])
            moved = f"momentum.{name}"
            if moved in found:
                found[moved] = np.concatenate([found[moved], np.zeros(shape, np.float32)])
    return found
