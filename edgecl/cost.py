"""What a pass through a net costs, layer by layer, in FLOPs (2 a multiply-add).

Convolutions and linear layers count, as in torch's own counter; batch norm, activations and biases do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgecl.nets.graph import Net

Count = Mapping[str, int]  # layer → weights that take part


@dataclass(frozen=True)
class LayerCost:
    """One layer's counts for one sample."""

    name: str
    weights: int  # in the dense layer
    positions: int  # outputs that each weight helps to make
    input_gradient: bool  # False for a layer that reads the image: nothing before it learns

    def flops(self, weights: int) -> int:
        """One sample through `weights` of them: forward, input gradient and weight gradient cost the same each."""
        return 2 * weights * self.positions


def layer_costs(net: Net) -> tuple[LayerCost, ...]:
    """Layers that multiply weights, in order."""
    shapes, learns = net.weights(), _depends_on_weights(net)
    costs = []
    for node, inputs in net.walk():
        if node.name in net.layers():
            weights = 1
            for n in shapes[f"{node.name}.weight"]:
                weights *= n
            costs.append(LayerCost(node.name, weights, node.macs(*inputs) // weights, any(i in learns for i in node.inputs)))
    return tuple(costs)


def _depends_on_weights(net: Net) -> set[str]:
    """Nodes whose output changes when some weight does."""
    learns: set[str] = set()
    for node, inputs in net.walk():
        if node.weights(*inputs) or any(i in learns for i in node.inputs):
            learns.add(node.name)
    return learns


def dense(costs: tuple[LayerCost, ...]) -> dict[str, int]:
    """All weights of every layer."""
    return {c.name: c.weights for c in costs}


def forward_flops(costs: tuple[LayerCost, ...], live: Count) -> int:
    """One sample's forward pass."""
    return sum(c.flops(live[c.name]) for c in costs)
