"""A prefix of a net: nodes with all that they read. Frozen, it runs as in a prediction and nothing in it learns."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from edgecl.nets.graph import Net
from edgecl.types import ConfigError


def prefix(net: Net, until: str, key: str) -> frozenset[str]:
    """Names of the nodes up to the node, or the group of nodes (`layer2` of `layer2.0.conv1`), called `until`.

    Nodes without weights that read nothing else belong to it. "" is no node at all. Raises ConfigError, which begins with
    `key`, where there is no such name and where the logits would lie in the prefix.
    """
    named = {n.name for n in net.nodes if n.name == until or n.name.startswith(f"{until}.")} if until else set()
    if until and not named:
        raise ConfigError(f"{key}: net {net.name} has no node or layer {until!r}{_nearest(net, until)}")
    for node in reversed(net.nodes):
        if node.name in named:
            named |= {*node.inputs} - {"x"}
    for node, inputs in net.walk():
        if named and not node.weights(*inputs) and {*node.inputs} <= {*named, "x"}:
            named.add(node.name)
    return checked(net, named, f"{key}: {until!r}")


def checked(net: Net, nodes: Collection[str], what: str) -> frozenset[str]:
    """The nodes, if they may be frozen. Raises ConfigError, which begins with `what`, where they are no prefix."""
    frozen = frozenset(nodes)
    if unknown := sorted(frozen - {n.name for n in net.nodes}):
        raise ConfigError(f"{what}: net {net.name} has no node {unknown[0]!r}")
    for node in net.nodes:
        missing = [i for i in node.inputs if i not in frozen and i != "x"]
        if node.name in frozen and missing:
            raise ConfigError(f"{what}: node {node.name} can't be frozen while {missing[0]}, which it reads, is not")
    heads = [n.name for n in net.nodes if n.name in frozen and (n.name == net.logits or getattr(n, "role", "") == "classifier")]
    if heads:
        raise ConfigError(f"{what}: the frozen prefix holds the classifier ({heads[0]}), so that nothing would learn")
    return frozen


def learning(net: Net, frozen: Collection[str] = ()) -> set[str]:
    """Nodes whose output changes when some weight that is not frozen does."""
    found: set[str] = set()
    for node, inputs in net.walk():
        if (node.weights(*inputs) and node.name not in frozen) or any(i in found for i in node.inputs):
            found.add(node.name)
    return found


def _nearest(net: Net, word: str) -> str:
    parts = [n.name.split(".") for n in net.nodes]
    known = list(dict.fromkeys(".".join(p[:i]) for p in parts for i in range(1, len(p) + 1)))
    close = difflib.get_close_matches(word, known, 1, 0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(dict.fromkeys(p[0] for p in parts))}"
