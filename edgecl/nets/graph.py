"""A network is data: a short list of typed nodes, which every engine, exporter and the cost model reads.

Nodes name their inputs; the input image is named "x". Kinds of node are in `nodes.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from edgecl.nets.nodes import OPS, Conv2d, Linear, Node, Shape
from edgecl.types import ConfigError


@dataclass(frozen=True)
class Net:
    """Nodes in the order they run. `logits` and `features` name the two outputs."""

    name: str
    input: tuple[int, int, int]  # C, H, W
    classes: int  # capacity of the classifier
    nodes: tuple[Node, ...]
    logits: str
    features: str

    def __post_init__(self) -> None:
        if len(self.input) != 3 or not all(isinstance(n, int) and n > 0 for n in (*self.input, self.classes)):
            raise ConfigError(f"net {self.name}: input {self.input} and classes {self.classes} are not C, H, W and K from 1 up")
        known = {"x"}
        for node in self.nodes:
            missing = [i for i in node.inputs if i not in known]
            if missing or node.name in known:
                raise ConfigError(
                    f"node {node.name}: " + (f"input {missing[0]!r} is no earlier node" if missing else "its name is taken")
                )
            known.add(node.name)
        for output in (self.logits, self.features):
            if output not in known:
                raise ConfigError(f"net {self.name}: output {output!r} is no node")
        logits, features = (self.shapes()[output] for output in (self.logits, self.features))
        if logits != (self.classes,):
            raise ConfigError(f"net {self.name}: logits have shape {logits}, not ({self.classes},)")
        if len(features) != 1:
            raise ConfigError(f"net {self.name}: features are not flat, but {features}")

    def shapes(self) -> dict[str, Shape]:
        """Output shape of every node, and of "x", without the batch."""
        shapes: dict[str, Shape] = {"x": self.input}
        for node in self.nodes:
            shapes[node.name] = node.out_shape(*(shapes[i] for i in node.inputs))
        return shapes

    def walk(self) -> Iterator[tuple[Node, tuple[Shape, ...]]]:
        """Every node with the shapes of its inputs."""
        shapes = self.shapes()
        for node in self.nodes:
            yield node, tuple(shapes[i] for i in node.inputs)

    def weights(self) -> dict[str, Shape]:
        """Trained parameters, `<node>.<name>` to shape, in the order of the nodes."""
        return {f"{n.name}.{k}": s for n, shapes in self.walk() for k, s in n.weights(*shapes).items()}

    @property
    def bias(self) -> str | None:
        """The trained parameter that is added to the logits as they are, if there is one."""
        name = f"{self.logits}.bias"
        return name if self.weights().get(name) == (self.classes,) else None

    def buffers(self) -> dict[str, Shape]:
        """Untrained state: running means and variances."""
        return {f"{n.name}.{k}": s for n, shapes in self.walk() for k, s in n.buffers(*shapes).items()}

    def layers(self) -> dict[str, Conv2d | Linear]:
        """Nodes that multiply weights, by name, in order."""
        return {n.name: n for n in self.nodes if isinstance(n, (Conv2d, Linear))}

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and dicts, for YAML or JSON; `from_dict` reads them back."""
        nodes = [{"op": n.op, **asdict(n), "inputs": list(n.inputs)} for n in self.nodes]
        return {
            "name": self.name,
            "input": list(self.input),
            "classes": self.classes,
            "logits": self.logits,
            "features": self.features,
            "nodes": nodes,
        }

    @staticmethod
    def from_dict(d: Mapping[str, Any]) -> Net:
        """Raises ConfigError that names the node for an unknown op, a missing or unknown key, or a value that doesn't fit."""
        keys = [f.name for f in fields(Net)]
        missing, unknown = ([k for k in a if k not in b] for a, b in ((keys, d), (d, keys)))
        if missing or unknown:
            raise ConfigError(f"net description: {'no' if missing else 'unknown'} key {str((missing or unknown)[0])!r}")
        for key in ("input", "nodes"):
            if not isinstance(d[key], (list, tuple)):
                raise ConfigError(f"net description: {key} is {d[key]!r}, not a list")
        nodes = tuple(_node(i, n) for i, n in enumerate(d["nodes"]))
        return Net(str(d["name"]), tuple(d["input"]), d["classes"], nodes, str(d["logits"]), str(d["features"]))


def _node(index: int, d: Mapping[str, Any]) -> Node:
    if not isinstance(d, Mapping):
        raise ConfigError(f"node {index}: {d!r} is not a mapping of keys to values")
    where = f"node {d.get('name', index)}"
    kind = OPS.get(str(d.get("op")))
    if kind is None:
        raise ConfigError(f"{where}: unknown op {d.get('op')!r}; known: {', '.join(OPS)}")
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in d.items() if k != "op"}
    unknown = set(values) - {f.name for f in fields(kind)}
    if unknown:
        raise ConfigError(f"{where}: {kind.op} has no key {sorted(map(str, unknown))[0]!r}")
    try:
        return kind(**values)
    except TypeError as e:
        raise ConfigError(f"{where}: {str(e).split('()')[-1].strip()}") from None
