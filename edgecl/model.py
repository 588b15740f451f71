"""F3: a snapshot opened without its data set: the network with its weights, masks and memory, for export, bundles, devices."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edgecl import __version__, runfolder, schedule, store
from edgecl import config as configs
from edgecl.card import Card, preprocess_from_dict, preprocess_to_dict
from edgecl.config import Config
from edgecl.data import load_stream
from edgecl.forecast import method_of
from edgecl.memory import Reservoir
from edgecl.nets import ZOO, Net, build_net
from edgecl.tensors import Arrays
from edgecl.types import Bools, ConfigError, StoreError, Stream

NET = "net"
"""Key of config.yaml under which a run keeps a net that no name builds again."""


class Model(NamedTuple):
    """One snapshot of a run."""

    folder: Path  # of the snapshot
    config: Config
    net: Net
    card: Card
    stream: dict[str, Any]  # what `describe` gave
    weights: Arrays  # parameters, buffers, momentum; weights under a dead unit are 0
    live: dict[str, Bools]  # weight masks by layer, in unit shape
    memory: Reservoir | None  # the replay memory, if the method has one
    state: dict[str, Any]  # counters of the run; see docs/formats/run.md


def describe(stream: Stream) -> dict[str, Any]:
    """What config.yaml keeps of a stream, so that a snapshot can be used where the data set is not."""
    return {
        "name": stream.name,
        "classes": list(stream.class_names),
        "groups": [list(g) for g in stream.groups],
        "shape": list(stream.shape),
        "preprocess": preprocess_to_dict(stream.preprocess),
    }


def net_entry(config: Config, net: Net) -> dict[str, Any]:
    """For config.yaml: the net itself where its name is that of a file, which may change or be elsewhere."""
    return {} if config.net.name in ZOO else {NET: net.to_dict()}


def open_model(run: Path, number: int | None = None) -> Model:
    """The newest snapshot of the run folder `run`, or the one with this number. Reads no data set, but where the run is of a
    version that kept no description of it.

    Raises StoreError where there is no such snapshot or a file is damaged, ConfigError that names the key of config.yaml.
    """
    recorded = runfolder.read_config(run)
    config = recorded_config(run, recorded)
    number = store.latest(run) if number is None else number
    if number is None:
        raise StoreError(f"{run}: has no snapshot yet")
    snapshot = store.load(run, number)
    stream = recorded.get("stream") or describe(_read(config))
    try:
        net = _net(config, recorded, stream)
        seen = _seen(config, recorded, stream, snapshot.state)
        folder = store.place(run, number)
        card = _card(net, stream, seen, folder)
    except (KeyError, TypeError) as e:
        raise ConfigError(f"{run / runfolder.CONFIG}: stream or data is not as a run writes it ({e})") from None
    except ConfigError as e:
        raise ConfigError(f"{run / runfolder.CONFIG}: {e}") from None
    return Model(folder, config, net, card, stream, snapshot.weights, *_parts(config, snapshot), snapshot.state)


def recorded_config(run: Path, recorded: Mapping[str, Any] | None = None) -> Config:
    """The configuration that a run began with. Raises ConfigError or StoreError that names its file."""
    recorded = runfolder.read_config(run) if recorded is None else recorded
    if "config" not in recorded:
        raise StoreError(f"{run / runfolder.CONFIG}: holds no 'config'")
    try:
        return configs.resolve("", [recorded["config"]])
    except ConfigError as e:
        raise ConfigError(f"{run / runfolder.CONFIG}: {e}") from None


def _read(config: Config) -> Stream:
    d = config.data
    return load_stream(d.name, d.root, classes_per_task=d.classes_per_task, samples_per_class=d.samples_per_class, lazy=True)


def _net(config: Config, recorded: Mapping[str, Any], stream: Mapping[str, Any]) -> Net:
    if recorded.get(NET):
        return Net.from_dict(recorded[NET])
    c, h, w = stream["shape"]
    return build_net(config.net.name, (c, h, w), len(stream["classes"]), config.net.width)


def _card(net: Net, stream: Mapping[str, Any], seen: Sequence[int], folder: Path) -> Card:
    digest = hashlib.sha256((folder / store.STATE).read_bytes()).hexdigest()
    pre = preprocess_from_dict(stream["preprocess"])
    return Card(net.name, net.input, tuple(stream["classes"]), tuple(sorted(seen)), pre, digest, __version__)


def _seen(config: Config, recorded: Mapping[str, Any], stream: Mapping[str, Any], state: Mapping[str, Any]) -> list[int]:
    """Classes of the tasks that training has begun with."""
    sizes = [sum(recorded["data"]["samples"])] if method_of(config).joint else recorded["data"]["samples"]
    groups = begun_tasks(schedule.epochs(config, sizes), state["at"], state["step"])
    if method_of(config).joint and groups:
        groups = len(stream["groups"])
    return [k for group in stream["groups"][:groups] for k in group]


def begun_tasks(epochs: Sequence[schedule.Epoch], at: int, step: int) -> int:
    """Tasks whose training has begun, `step` steps into epoch `at` of the schedule."""
    begun = epochs[at - 1].task + 1 if at else 0
    return begun + 1 if step and epochs[at].epoch == 0 else begun


def _parts(config: Config, snapshot: store.Snapshot) -> tuple[dict[str, Bools], Reservoir | None]:
    live = {k.removeprefix("live."): v for k, v in snapshot.masks.items() if k.startswith("live.")}
    if not method_of(config).draws:
        return live, None
    memory = {k.removeprefix("memory."): v for k, v in snapshot.memory.items() if k.startswith("memory.")}
    return live, Reservoir.from_arrays(memory)
