"""A user's torch module as a Net with its weights, by way of torch.export. torch is imported when `from_torch` is called.

Values are (C, H, W) or (C,), as in every Net; torch's [N, C, L] is an image of height 1, and a flat [N, F] at the input one
of F channels. Batch norm stays a node of its own, since it goes on learning.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

from edgecl.nets.graph import Net
from edgecl.nets.torch_graph import Importer, op_name, place
from edgecl.nets.torch_roles import with_roles
from edgecl.types import F32, ConfigError

if TYPE_CHECKING:
    import torch


class Imported(NamedTuple):
    """What `from_torch` found."""

    net: Net
    arrays: dict[str, F32]  # weights and buffers by the net's names
    notes: tuple[str, ...]  # what of the module was left out, a line each


def from_torch(module: torch.nn.Module, example_input: torch.Tensor, features: str | None = None, name: str = "") -> Imported:
    """The module in eval mode as a net, whose logits are the module's output to within rounding.

    `example_input` [N, C, H, W], [N, C, L] or [N, F], float, sets the input's shape; its values do not matter. `features`
    names the node whose value is the features, flat or an image (see `Net.nodes`); None takes what the last linear layer
    reads. `name` is the net's, the module's class by default. The module is copied, not changed.

    Raises ConfigError that names the op and its place in the module where edgecl has no such op.
    """
    import torch

    if not isinstance(example_input, torch.Tensor) or example_input.ndim not in (2, 3, 4):
        raise ConfigError("from_torch: example_input is no tensor [N, C, H, W], [N, C, L] or [N, F]")
    own = copy.deepcopy(module).cpu().float().eval()
    exported = _exported(own, example_input.detach().cpu().float())
    graph = Importer(exported.run_decompositions({}))  # nothing in place any more
    logits, features = graph.outputs(features)
    nodes = with_roles(tuple(graph.nodes), logits)
    shape, classes = graph.shapes["x"], graph.shapes[logits]
    if len(classes) != 1:
        raise ConfigError(f"from_torch: the module's output has shape {classes} a sample, which are no logits (K,)")
    net = Net(name or type(module).__name__, (shape[0], shape[1], shape[2]), classes[0], nodes, logits, features)
    return Imported(net, _arrays(net, graph.tensors), tuple(_left_out(own, exported) + graph.notes))


def _exported(module: Any, example: Any) -> Any:
    """The module's graph of ATen ops. What torch can't trace is an error of one line."""
    import torch

    try:
        with torch.no_grad():
            return torch.export.export(module, (example,))
    except (RuntimeError, ValueError, TypeError, NotImplementedError, AttributeError, AssertionError) as e:
        reason = " ".join(str(e).split())[:300]
        raise ConfigError(f"from_torch: torch.export can't trace {type(module).__name__}: {reason}") from e


def _arrays(net: Net, tensors: dict[str, Any]) -> dict[str, F32]:
    """As the net has them: a 1-D kernel has height 1."""
    arrays: dict[str, F32] = {}
    for key, shape in {**net.weights(), **net.buffers()}.items():
        tensor = tensors[key].detach().float()
        if tensor.numel() == 1 and not tensor.ndim:  # a constant that stands for all channels
            tensor = tensor.expand(shape)
        arrays[key] = tensor.reshape(shape).contiguous().numpy().copy()
    return arrays


def _left_out(module: Any, exported: Any) -> list[str]:
    """What does nothing in eval mode, and so has no node."""
    import torch

    idle = [f"{path}: {type(m).__name__} left out" for path, m in module.named_modules() if isinstance(m, torch.nn.Identity)]
    drops = [op for op in exported.graph.nodes if op.op == "call_function" and "dropout" in op_name(op)]
    return idle + [f"{op_name(op)} left out, {place(op)}" for op in drops]


__all__ = ["Imported", "from_torch"]
