"""Batch norm that is part of the layer before it, or after it: in prediction it is a factor and an offset a channel."""

from __future__ import annotations

from dataclasses import replace

from edgecl.export.weights import Weights, affine, bias_of, by_input, has_padding, over_taps, readers, renamed
from edgecl.nets.graph import Net
from edgecl.nets.nodes import BatchNorm, Conv2d, Linear, Node

Layer = Conv2d | Linear


def fold_norms(net: Net, p: Weights) -> tuple[Net, Weights]:
    """The same function with fewer nodes. A batch norm stays where neither neighbour can take it without another result:
    where others read the layer before it, and what reads it is no layer, or pads with zeros that it would have to shift.
    """
    nodes, p, logits = list(net.nodes), dict(p), net.logits
    for norm in [n for n in net.nodes if isinstance(n, BatchNorm)]:
        source = norm.inputs[0]
        before = next((n for n in nodes if n.name == source), None)
        if isinstance(before, (Conv2d, Linear)) and len(readers(nodes, source)) == 1:
            layer = _into_layer_before(before, norm, p)
            nodes = [layer if n is before else n for n in nodes]
        elif after := _layers_after(nodes, norm, p, logits):
            found = {n.name: _into_layer_after(n, norm, p) for n in after}
            nodes = [found.get(n.name, n) for n in nodes]
        else:
            continue
        nodes = renamed([n for n in nodes if n.name != norm.name], norm.name, source)
        logits = source if norm.name == logits else logits
        for key in ("weight", "bias", "running_mean", "running_var"):
            del p[f"{norm.name}.{key}"]
    return replace(net, nodes=tuple(nodes), logits=logits, features=logits), p


def _into_layer_before(layer: Layer, norm: BatchNorm, p: Weights) -> Layer:
    """Writes the layer's new weights and bias to `p`."""
    scale, shift = affine(norm, p)
    w = p[f"{layer.name}.weight"]
    p[f"{layer.name}.bias"] = bias_of(layer, p) * scale + shift
    p[f"{layer.name}.weight"] = w * scale.reshape(-1, *(1,) * (w.ndim - 1))
    return replace(layer, bias=True)


def _layers_after(nodes: list[Node], norm: BatchNorm, p: Weights, logits: str) -> list[Layer]:
    """All that read the batch norm, if each of them can take it."""
    found = readers(nodes, norm.name)
    layers = [n for n in found if isinstance(n, (Conv2d, Linear))]
    exact = not affine(norm, p)[1].any() or not any(map(has_padding, layers))
    return layers if norm.name != logits and len(layers) == len(found) and exact else []


def _into_layer_after(layer: Layer, norm: BatchNorm, p: Weights) -> Layer:
    """Writes the layer's new weights and bias to `p`."""
    scale, shift = (by_input(layer, a) for a in affine(norm, p))
    w = p[f"{layer.name}.weight"]
    p[f"{layer.name}.bias"] = bias_of(layer, p) + (over_taps(w) * shift).sum(axis=1)
    p[f"{layer.name}.weight"] = w * scale.reshape(*scale.shape, *(1,) * (w.ndim - 2))
    return replace(layer, bias=True)
