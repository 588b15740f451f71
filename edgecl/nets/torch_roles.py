"""Which layers of an imported net stay dense: its stem, 1×1 shortcuts and classifier, found by their place in the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgecl.nets.nodes import Add, BatchNorm, Conv2d, Linear, Node, Pool, pair


def with_roles(nodes: tuple[Node, ...], logits: str) -> tuple[Node, ...]:
    """The same nodes with `role` set: `classifier` the last layer before the logits, `stem` the convolutions of the image."""
    by_name = {n.name: n for n in nodes}
    shortcuts = {k for n in nodes if isinstance(n, Add) for k in _shortcuts(by_name, n)}
    classifier = _last_layer(by_name, logits)
    marked: list[Node] = []
    for node in nodes:
        if isinstance(node, (Conv2d, Linear)):
            stem = isinstance(node, Conv2d) and "x" in node.inputs
            role = "stem" if stem else "shortcut" if node.name in shortcuts else ""
            node = replace(node, role="classifier" if node.name == classifier else role)
        marked.append(node)
    return tuple(marked)


def _last_layer(by_name: Mapping[str, Node], name: str) -> str:
    """Back along first inputs to what multiplies weights; "" if nothing does."""
    while name in by_name and not isinstance(by_name[name], (Conv2d, Linear)):
        name = by_name[name].inputs[0]
    return name if name in by_name else ""


def _shortcuts(by_name: Mapping[str, Node], add: Node) -> list[str]:
    """1×1 convolutions on one side of a sum, whose input the other side starts from too."""
    one, two = add.inputs
    return [conv for side, other in ((one, two), (two, one)) if (conv := _projection(by_name, side, other))]


def _projection(by_name: Mapping[str, Node], side: str, other: str) -> str:
    while isinstance(by_name.get(side), (BatchNorm, Pool)):
        side = by_name[side].inputs[0]
    conv = by_name.get(side)
    if not isinstance(conv, Conv2d) or pair(conv.kernel) != (1, 1):
        return ""
    start = conv.inputs[0]
    while isinstance(by_name.get(start), Pool):  # a mean before the convolution is part of the shortcut
        start = by_name[start].inputs[0]
    return conv.name if start in _before(by_name, other, conv.name) else ""


def _before(by_name: Mapping[str, Node], name: str, without: str) -> set[str]:
    """All that a value is made of by ways that lead not through `without`: else what a block adds to itself were a shortcut."""
    found: set[str] = set()
    ahead = [name]
    while ahead:
        for source in by_name[here].inputs if (here := ahead.pop()) in by_name else ():
            if source not in found and source != without:
                found.add(source)
                ahead.append(source)
    return found
