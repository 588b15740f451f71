"""From torch.export's graph to nodes, an op at a time. Nothing here imports torch: it reads the graph that it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from edgecl.nets.nodes import (
    Conv2d,
    Flatten,
    GlobalPool,
    Hardsigmoid,
    Hardswish,
    Linear,
    Node,
    Relu,
    Relu6,
    Shape,
    Sigmoid,
    Silu,
)
from edgecl.types import ConfigError

ACTIVATIONS = (Relu, Relu6, Hardsigmoid, Hardswish, Sigmoid, Silu)


def place(op: Any) -> str:
    """Where an op stands: the module's path and class, and the line of source."""
    stack = list((op.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "")
    lines = [s.strip().removeprefix('File "') for s in (op.meta.get("stack_trace") or "").splitlines() if 'File "' in s]
    line = [s for s in lines if "/torch/nn/" not in s.replace("\\", "/")][-1:]  # the user's own
    kind = kind if isinstance(kind, str) else kind.__name__
    where = f"in {path} ({kind.rpartition('.')[2]})" if path else "in the module itself"
    return where + (f", {line[0].replace(chr(34), '')}" if line else "")


def fault(op: Any, what: str) -> NoReturn:
    """Raises ConfigError with the op's place."""
    raise ConfigError(f"from_torch: {what}, {place(op)}")


class Importer:
    """Reads the whole graph; afterwards `nodes`, their `shapes`, and their `tensors` by parameter."""

    def __init__(self, exported: Any) -> None:
        from edgecl.nets.torch_ops_table import IMPORT

        signature = exported.graph_signature
        self.known: Mapping[str, str] = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self.constants = {**exported.state_dict, **exported.constants}
        self.nodes: list[Node] = []
        self.shapes: dict[str, Shape] = {}
        self.tensors: dict[str, Any] = {}
        self.notes: list[str] = []
        self.values: dict[str, str] = {}  # op of the graph → node
        self.import_op: Mapping[str, Callable[[Importer, Any], str]] = IMPORT
        for op in exported.graph.nodes:
            self._read(op, signature.user_inputs)

    def _read(self, op: Any, inputs: Sequence[str]) -> None:
        if op.op == "placeholder" and op.name in inputs:
            self._input(op)
        elif op.op == "output":
            self.result = [a for a in op.args[0] if a is not None]
        elif op.op == "call_function":
            name = op_name(op)
            if name not in self.import_op:
                fault(op, f"edgecl has no op for {name}")
            try:
                self.values[op.name] = self.import_op[name](self, op)
            except ConfigError as e:
                raise e if str(e).startswith("from_torch") else ConfigError(f"from_torch: {e}, {place(op)}") from None

    def _input(self, op: Any) -> None:
        if self.shapes:
            fault(op, "the module has more than one input")
        shape = as_image(tuple(op.meta["val"].shape[1:]))
        self.shapes["x"], self.values[op.name] = (shape if len(shape) == 3 else (shape[0], 1, 1)), "x"
        if len(shape) == 1:
            self.values[op.name] = self.add(Flatten("flatten", ("x",)))

    # what the importers of single ops call

    def source(self, op: Any, i: int = 0) -> str:
        """The node that the op's argument i is."""
        arg = op.args[i]
        if getattr(arg, "name", None) not in self.values:
            fault(op, f"{op_name(op)} of {arg if not hasattr(arg, 'name') else 'a parameter'}, not of what the net computes")
        return self.values[arg.name]

    def parameter(self, op: Any, i: int, keyword: str = "") -> tuple[str, Any]:
        """(name, tensor) of a weight that the op's argument i must be, or ("", None)."""
        arg = op.args[i] if len(op.args) > i else op.kwargs.get(keyword)
        if arg is None:
            return "", None
        name = self.known.get(getattr(arg, "name", ""), "")
        if not name:
            fault(op, f"a weight of {op_name(op)} is computed, not a parameter")
        return name, self.constants[name]

    def name(self, op: Any, parameter: str = "") -> str:
        """A new node's name: its weight's path, or the module's path and the op's name."""
        path = [p for p, _ in (op.meta.get("nn_module_stack") or {}).values() if p][-1:]
        base = parameter.rpartition(".")[0] or parameter if parameter else ".".join([*path, op_name(op).split(".")[0]])
        taken = {"x", *(n.name for n in self.nodes)}
        if parameter and base in taken:
            fault(op, f"the weights of {base} are used twice, which a net can't say")
        return next(n for n in (base, *(f"{base}_{i}" for i in range(2, len(taken) + 3))) if n not in taken)

    def add(self, node: Node, **tensors: Any) -> str:
        """Appends a node with its tensors by last name; returns its name."""
        shape = node.out_shape(*(self.shapes[i] for i in node.inputs))
        self.nodes.append(node)
        self.shapes[node.name] = shape
        self.tensors |= {f"{node.name}.{k}": t for k, t in tensors.items()}
        return node.name

    def flat(self, op: Any) -> str:
        """A flat form of what the op reads; a global mean that nobody else reads becomes flat itself."""
        name = self.source(op)
        if len(self.shapes[name]) == 1:
            return name
        last = self.nodes[-1] if self.nodes else None
        if isinstance(last, GlobalPool) and last.name == name and self._lone(op, name):
            self.nodes[-1] = replace(last, keep=False)
            self.shapes[name] = self.shapes[name][:1]
            return name
        return self.add(Flatten(self.name(op), (name,)))

    def image(self, op: Any) -> str:
        """What the op reads, (C,), as (C, 1, 1): gates of linear layers, as in squeeze-and-excitation, end so.

        The flat nodes since the global mean become images of one pixel, linear layers 1×1 convolutions.
        """
        flat = self._flat_chain(op)
        for node in reversed(flat):
            self.shapes[node.name] = (*self.shapes[node.name], 1, 1)
            i = self.nodes.index(node)
            if isinstance(node, Linear):
                self.nodes[i] = Conv2d(node.name, node.inputs, node.out, 1, bias=node.bias)
                self.tensors[f"{node.name}.weight"] = self.tensors[f"{node.name}.weight"][:, :, None, None]
            elif isinstance(node, GlobalPool):
                self.nodes[i] = replace(node, keep=True)
        return flat[0].name

    def _flat_chain(self, op: Any) -> list[Node]:
        """Nodes from what the op reads back to a global mean, each read by the next alone."""
        by_name, found = {n.name: n for n in self.nodes}, [self.source(op)]
        while isinstance(node := by_name.get(found[-1]), (Linear, *ACTIVATIONS)) and self._lone(op, node.name):
            found.append(node.inputs[0])
        if not isinstance(node, GlobalPool) or not self._lone(op, node.name):
            fault(op, f"{op_name(op)} makes an image of what is flat and no gate after a global mean")
        return [by_name[name] for name in found]

    def _lone(self, op: Any, name: str) -> bool:
        """Whether a node is read once, under any name that the graph has for it."""
        return all(len(a.users) == 1 for a in op.graph.nodes if self.values.get(a.name) == name)

    # outputs

    def outputs(self, features: str | None) -> tuple[str, str]:
        """(logits, features): the module's output, and what is named or what its last linear layer reads."""
        if len(self.result) != 1 or getattr(self.result[0], "name", None) not in self.values:
            raise ConfigError(f"from_torch: the module returns {len(self.result)} values, not just its logits")
        logits = self.values[self.result[0].name]
        if features is None:
            last = next((n for n in reversed(self.nodes) if n.name == logits), None)
            features = last.inputs[0] if isinstance(last, Linear) else logits
        elif features not in self.shapes:
            raise ConfigError(f"from_torch: features {features!r} is no node; known: {', '.join(n.name for n in self.nodes)}")
        return logits, features if len(self.shapes[features]) == 1 else self.add(Flatten(f"{features}.flat", (features,)))


def op_name(op: Any) -> str:
    """Such as `conv2d` or `mean.dim`."""
    text = str(getattr(op.target, "_overloadpacket", op.target)).removeprefix("aten.")
    overload = getattr(op.target, "_overloadname", "default")
    if text.startswith("<built-in function"):
        return text.split()[2].rstrip(">")
    return text if overload in ("default", "") else f"{text}.{overload}"


def as_image(shape: Shape) -> Shape:
    """A sample's shape as a Net has it: a signal (C, L) is an image of height 1."""
    return (shape[0], 1, shape[1]) if len(shape) == 2 else shape


def sample(value: Any) -> Shape:
    """Shape of one sample of an op of the graph, as a Net has it."""
    return as_image(tuple(int(n) for n in value.meta["val"].shape[1:]))
