"""A network is data: a short list of typed nodes, which every engine, exporter and the cost model reads.

Nodes name their inputs; the input image is named "x". Parameters are named like torch's:
`<node>.weight`, `<node>.bias`, and for batch norm the buffers `<node>.running_mean`, `<node>.running_var`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from edgecl.nets.checks import wrong
from edgecl.types import ConfigError

Shape = tuple[int, ...]  # without the batch: (C, H, W), or (C,) once flat


@dataclass(frozen=True)
class Node:
    """A node's name is also its parameters' prefix. `inputs` are names of earlier nodes, or "x"."""

    name: str
    inputs: tuple[str, ...]
    op: ClassVar[str] = ""
    arity: ClassVar[int] = 1  # number of inputs

    def __post_init__(self) -> None:
        for f in fields(self):
            if fault := wrong(f.name, str(f.type), getattr(self, f.name)):
                raise ConfigError(f"node {self.name}: {fault}")
        if len(self.inputs) != self.arity:
            raise ConfigError(f"node {self.name}: {self.op} has {len(self.inputs)} inputs, not {self.arity}")

    def out_shape(self, *shapes: Shape) -> Shape:
        """Output shape of one sample from those of its inputs."""
        return shapes[0]

    def weights(self, *shapes: Shape) -> dict[str, Shape]:
        """Trained parameters by their last name, with shapes."""
        return {}

    def buffers(self, *shapes: Shape) -> dict[str, Shape]:
        """Arrays kept but not trained by gradient."""
        return {}

    def macs(self, *shapes: Shape) -> int:
        """Multiply-adds of one sample's forward pass through dense weights."""
        return 0


@dataclass(frozen=True)
class Conv2d(Node):
    """Weight [out, C / groups, kernel, kernel]. `role` says why SparCL leaves some layers dense."""

    out: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    bias: bool = False
    role: str = ""  # "stem", "shortcut" or ""
    op: ClassVar[str] = "conv2d"

    def out_shape(self, *shapes: Shape) -> Shape:
        c, h, w = _image(self, shapes[0])
        if c % self.groups or self.out % self.groups:
            raise ConfigError(f"node {self.name}: {c} to {self.out} channels do not split into {self.groups} groups")
        h, w = ((n + 2 * self.padding - self.kernel) // self.stride + 1 for n in (h, w))
        if h < 1 or w < 1:
            raise ConfigError(f"node {self.name}: input {shapes[0]} is smaller than its {self.kernel}×{self.kernel} kernel")
        return self.out, h, w

    def weights(self, *shapes: Shape) -> dict[str, Shape]:
        weight = {"weight": (self.out, shapes[0][0] // self.groups, self.kernel, self.kernel)}
        return weight | ({"bias": (self.out,)} if self.bias else {})

    def macs(self, *shapes: Shape) -> int:
        o, h, w = self.out_shape(*shapes)
        return int(o * h * w * shapes[0][0] // self.groups * self.kernel**2)


@dataclass(frozen=True)
class Linear(Node):
    """Weight [out, in]."""

    out: int
    bias: bool = True
    role: str = ""  # "classifier" or ""
    op: ClassVar[str] = "linear"

    def out_shape(self, *shapes: Shape) -> Shape:
        if len(shapes[0]) != 1:
            raise ConfigError(f"node {self.name}: a linear layer needs a flat input, got {shapes[0]}")
        return (self.out,)

    def weights(self, *shapes: Shape) -> dict[str, Shape]:
        return {"weight": (self.out, shapes[0][0])} | ({"bias": (self.out,)} if self.bias else {})

    def macs(self, *shapes: Shape) -> int:
        return self.out * shapes[0][0]


@dataclass(frozen=True)
class BatchNorm(Node):
    """Over all axes but the channel; eps and momentum as torch names them."""

    eps: float = 1e-5
    momentum: float = 0.1
    op: ClassVar[str] = "batch_norm"

    def weights(self, *shapes: Shape) -> dict[str, Shape]:
        return {"weight": shapes[0][:1], "bias": shapes[0][:1]}

    def buffers(self, *shapes: Shape) -> dict[str, Shape]:
        return {"running_mean": shapes[0][:1], "running_var": shapes[0][:1]}


@dataclass(frozen=True)
class Relu(Node):
    op: ClassVar[str] = "relu"


@dataclass(frozen=True)
class Add(Node):
    op: ClassVar[str] = "add"
    arity: ClassVar[int] = 2

    def out_shape(self, *shapes: Shape) -> Shape:
        if shapes[0] != shapes[1]:
            raise ConfigError(f"node {self.name}: can't add {' and '.join(map(str, shapes))}")
        return shapes[0]


@dataclass(frozen=True)
class Pool(Node):
    """`kind` "max" or "avg", square windows, no padding."""

    kind: str
    kernel: int
    stride: int
    op: ClassVar[str] = "pool"

    def out_shape(self, *shapes: Shape) -> Shape:
        if self.kind not in ("max", "avg"):
            raise ConfigError(f"node {self.name}: kind is {self.kind!r}, not max or avg")
        c, h, w = _image(self, shapes[0])
        h, w = ((n - self.kernel) // self.stride + 1 for n in (h, w))
        if h < 1 or w < 1:
            raise ConfigError(f"node {self.name}: input {shapes[0]} is smaller than its {self.kernel}×{self.kernel} window")
        return c, h, w


@dataclass(frozen=True)
class GlobalPool(Node):
    """Mean over height and width, flat."""

    op: ClassVar[str] = "global_pool"

    def out_shape(self, *shapes: Shape) -> Shape:
        return _image(self, shapes[0])[:1]


@dataclass(frozen=True)
class Flatten(Node):
    op: ClassVar[str] = "flatten"

    def out_shape(self, *shapes: Shape) -> Shape:
        size = 1
        for n in shapes[0]:
            size *= n
        return (size,)


OPS: dict[str, type[Node]] = {
    "conv2d": Conv2d,
    "linear": Linear,
    "batch_norm": BatchNorm,
    "relu": Relu,
    "add": Add,
    "pool": Pool,
    "global_pool": GlobalPool,
    "flatten": Flatten,
}


def _image(node: Node, shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ConfigError(f"node {node.name}: {node.op} needs an image (C, H, W), got {shape}")
    return shape[0], shape[1], shape[2]


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
