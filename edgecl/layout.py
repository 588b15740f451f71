"""Which layers are masked, in which units, and how many units live in each phase of a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from edgecl import masks
from edgecl.config import Config
from edgecl.cost import LayerCost
from edgecl.nets.graph import Net
from edgecl.nets.nodes import Shape
from edgecl.nets.prefix import prefix


@dataclass(frozen=True)
class MaskedLayer:
    """A layer whose weights live and die by units."""

    name: str
    unit: str
    weight_shape: Shape
    shape: Shape  # of its units
    live: int  # units that live between tasks
    extra: int  # units more from a task's start until it settles

    @property
    def units(self) -> int:
        return prod(self.shape)

    def weights(self, units: int) -> int:
        """Weights in so many units; blocks cut off at an edge count whole, up to the layer's size."""
        each = prod(self.weight_shape) / prod(self.weight_shape[: len(self.shape)]) if self.unit != "block4x4" else 16
        if self.unit == "block4x4":
            each *= prod(self.weight_shape[2:])
        return min(int(units * each), prod(self.weight_shape))

    def target(self, expanded: bool) -> int:
        """Live units in a phase."""
        return min(self.live + self.extra, self.units) if expanded else self.live

    def updated(self, live: int, share: float) -> int:
        """How many of `live` units the gradient mask lets through."""
        return max(1, round(live * share))


def masked_layers(net: Net, config: Config) -> dict[str, MaskedLayer]:
    """The layers that config masks, by name; none where `mask.sparsity` is 0."""
    if config.mask.sparsity == 0:
        return {}
    nodes = {name: node for name, node in net.layers().items() if masks.maskable(node)}
    weights = {name: net.weights()[f"{name}.weight"] for name in nodes}
    auto = config.mask.unit == "auto"
    units = {name: masks.default_unit(node) if auto else config.mask.unit for name, node in nodes.items()}
    shapes = {name: masks.unit_shape(units[name], weights[name]) for name in nodes}
    live = masks.live_counts(shapes, weights, config.mask.sparsity, config.mask.start)
    extra = config.tdm.expand if config.tdm.enabled else 0.0
    return {k: MaskedLayer(k, units[k], weights[k], shapes[k], live[k], round(extra * prod(shapes[k]))) for k in nodes}


def live_weights(costs: tuple[LayerCost, ...], layers: Mapping[str, MaskedLayer], expanded: bool) -> dict[str, int]:
    """Layer → weights that take part in a forward pass, as the plan counts them. A frozen layer's mask does not expand."""

    def count(c: LayerCost) -> int:
        layer = layers.get(c.name)
        return layer.weights(layer.target(expanded and not c.frozen)) if layer else c.weights

    return {c.name: count(c) for c in costs}


def updated_weights(
    costs: tuple[LayerCost, ...], layers: Mapping[str, MaskedLayer], expanded: bool, share: float
) -> dict[str, int]:
    """Layer → weights whose gradient is taken: none of a frozen layer's."""

    def count(c: LayerCost) -> int:
        layer = layers.get(c.name)
        learns = layer.weights(layer.updated(layer.target(expanded), share)) if layer else c.weights
        return 0 if c.frozen else learns

    return {c.name: count(c) for c in costs}


def frozen_nodes(net: Net, config: Config) -> frozenset[str]:
    """Nodes that `freeze.until` freezes, in the epochs that are frozen. Raises ConfigError that names the key."""
    return prefix(net, config.freeze.until, "freeze.until")
