"""A net in two files, `NAME.yaml` and beside it `NAME.safetensors` with its weights, and what a run starts from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from edgecl.files import write_atomic
from edgecl.nets.graph import Net
from edgecl.nets.init import initial
from edgecl.nets.nodes import Conv2d, Linear
from edgecl.tensors import decode, encode
from edgecl.types import F32, ConfigError, Named, StoreError


def save_net(path: Path | str, net: Net, arrays: Named) -> None:
    """Writes `path`, which ends in .yaml or .yml, and the weights beside it: `--net path` then starts from them.

    Raises ConfigError for another ending or arrays that are not the net's, StoreError where the files can't be written.
    """
    path = Path(path)
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{path}: a net's file ends in .yaml or .yml")
    _check(f"{net.name}", net, arrays)
    names = {**net.weights(), **net.buffers()}
    data = b"".join(bytes(chunk) for chunk in encode({k: np.asarray(arrays[k], np.float32) for k in names}))
    write_atomic(path.with_suffix(".safetensors"), data)
    write_atomic(path, yaml.safe_dump(net.to_dict(), sort_keys=False, width=130).encode())


def load_weights(path: Path, net: Net) -> dict[str, F32]:
    """The net's weights and buffers from a safetensors file, as float32. Raises ConfigError that names file and array."""
    try:
        arrays, _ = decode(path.read_bytes())
    except OSError as e:
        raise StoreError(f"{path}: {str(e.strerror).lower()}") from None
    except ValueError as e:
        raise ConfigError(f"{path}: {e}") from None
    _check(str(path), net, arrays)
    return {k: arrays[k].astype(np.float32) for k in {**net.weights(), **net.buffers()}}


def beside(name: str, net: Net) -> dict[str, F32] | None:
    """The weights beside the net's file `name`; None for a zoo name or a file that has none. Raises as `load_weights`."""
    path = weights_file(name)
    return load_weights(path, net) if path else None


def weights_file(name: str) -> Path | None:
    """The file of weights beside the net's file `name`, if there is one."""
    path = Path(name).with_suffix(".safetensors")
    return path if name.endswith((".yaml", ".yml")) and path.exists() else None


def starting(name: str, net: Net, rng: np.random.Generator) -> dict[str, F32]:
    """What training starts from: the weights beside the net's file `name` if it has any, else weights drawn from `rng`.

    The draw is made in both cases, so that all that `rng` gives later is the same.
    """
    arrays = initial(net, rng)
    return beside(name, net) or arrays


def with_classes(net: Net, arrays: Named, classes: int, seed: int = 0) -> tuple[Net, dict[str, F32]]:
    """The same net with a new classifier for `classes` classes, drawn at random; all else keeps its weights.

    Raises ConfigError where the logits are not what the node of role `classifier` computes.
    """
    last = next((n for n in net.nodes if n.name == net.logits), None)
    if not isinstance(last, Linear) or net.features == net.logits:
        raise ConfigError(f"net {net.name}: its logits are not a linear layer's, so no other classes can be put there")
    nodes = tuple(replace(n, out=classes) if n is last else n for n in net.nodes)
    changed = replace(net, nodes=nodes, classes=classes)
    drawn = initial(changed, np.random.default_rng(seed))
    kept = {k: np.asarray(arrays[k], np.float32) for k in drawn if k.rpartition(".")[0] != last.name}
    return changed, {k: kept.get(k, a) for k, a in drawn.items()}


def _check(where: str, net: Net, arrays: Named) -> None:
    """Raises ConfigError that names the first array that is missing, of another shape, or nobody's."""
    wanted = {**net.weights(), **net.buffers()}
    layers = {k for k, node in net.layers().items() if isinstance(node, (Conv2d, Linear)) and node.role == "classifier"}
    for name, shape in wanted.items():
        if name not in arrays:
            raise ConfigError(f"{where}: no array {name!r} for net {net.name}")
        if arrays[name].shape != shape:
            is_classifier = name.rpartition(".")[0] in layers and arrays[name].shape[1:] == shape[1:]
            why = f": made for {arrays[name].shape[0]} classes, not {shape[0]}" if is_classifier else ""
            raise ConfigError(f"{where}: {name} has shape {arrays[name].shape}, net {net.name} needs {shape}{why}")
    for name in arrays:
        if name not in wanted:
            raise ConfigError(f"{where}: array {name!r} belongs to no node of net {net.name}")
