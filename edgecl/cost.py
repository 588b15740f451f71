"""What a pass through a net costs, layer by layer, in FLOPs (2 a multiply-add).

Convolutions and linear layers count, as in torch's own counter; batch norm, activations and biases do not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from edgecl.nets.graph import Net
from edgecl.nets.prefix import learning

Count = Mapping[str, int]  # layer → weights that take part


@dataclass(frozen=True)
class LayerCost:
    """One layer's counts for one sample."""

    name: str
    weights: int  # in the dense layer
    positions: int  # outputs that each weight helps to make
    input_gradient: bool  # False for a layer that reads the image or a frozen prefix: nothing before it learns
    frozen: bool = False  # in a frozen prefix: forward only
    spared: bool = False  # a frozen prefix spares the layer its input gradient, in the paper's count too

    def flops(self, weights: int) -> int:
        """One sample through `weights` of them: forward, input gradient and weight gradient cost the same each."""
        return 2 * weights * self.positions


def layer_costs(net: Net, frozen: Collection[str] = ()) -> tuple[LayerCost, ...]:
    """Layers that multiply weights, in order; `frozen` nodes are a prefix of the net that is frozen."""
    shapes, learns, usual = net.weights(), learning(net, frozen), learning(net)
    costs = []
    for node, inputs in net.walk():
        if node.name in net.layers():
            weights = 1
            for n in shapes[f"{node.name}.weight"]:
                weights *= n
            back, usually = (any(i in nodes for i in node.inputs) for nodes in (learns, usual))
            held = node.name in frozen
            positions = node.macs(*inputs) // weights
            costs.append(LayerCost(node.name, weights, positions, back, held, held or (usually and not back)))
    return tuple(costs)


def dense(costs: tuple[LayerCost, ...]) -> dict[str, int]:
    """All weights of every layer."""
    return {c.name: c.weights for c in costs}


def forward_flops(costs: tuple[LayerCost, ...], live: Count) -> int:
    """One sample's forward pass."""
    return sum(c.flops(live[c.name]) for c in costs)
