"""A merged model as a run folder, which `open_model`, bundles and lessons take: the base's memory, state and configuration."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from edgecl import files, runfolder, store
from edgecl.merge.contribution import Merged, rows_of
from edgecl.model import NET
from edgecl.nets import ZOO
from edgecl.tensors import Arrays
from edgecl.types import ConfigError, StoreError


def write_run(folder: Path, base_run: Path, merged: Merged) -> Path:
    """Makes the run folder `folder`, whole or not at all, with one snapshot; returns its path.

    It goes on from the newest snapshot of `base_run`: its replay memory, random numbers and counters stay, momentum is 0, classes
    that are new count as known before. The same input gives the same bytes. Raises StoreError where the folder exists or the disk
    fails, ConfigError where the base lies within a task or is not what was merged on.
    """
    if folder.exists():
        raise StoreError(f"{folder}: exists already; a merged model needs a folder of its own")
    number = store.latest(base_run)
    if number is None:
        raise StoreError(f"{base_run}: has no snapshot yet")
    recorded, snapshot = runfolder.read_config(base_run), store.load(base_run, number)
    if snapshot.state["step"] or not snapshot.state["at"]:
        raise ConfigError(f"{base_run}: snapshot {number} lies within a task: nothing is merged on it")
    config, state = _with_classes(base_run, recorded, merged), dict(snapshot.state)
    state |= {"metrics_offset": 0, "config": config["config"], "averaged": 0}
    masks = {f"live.{k}": v for k, v in merged.live.items()}
    made = store.Snapshot(_weights(base_run, snapshot.weights, merged), masks, _memory(snapshot.memory, merged), state)
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)  # of a process that was killed
    runfolder.create_run(new, config)
    store.save(new, 1, made)
    with files.naming(folder):
        (new / runfolder.LOCK).unlink(missing_ok=True)  # it names the process
    files.replace_dir(new, folder)
    return folder


def _with_classes(base_run: Path, recorded: dict[str, Any], merged: Merged) -> dict[str, Any]:
    """The base's config.yaml with the new classes, as a group that was known before the others."""
    if "stream" not in recorded:
        raise ConfigError(f"{base_run / runfolder.CONFIG}: has no 'stream': an older edgecl made this run")
    stream, config = dict(recorded["stream"]), dict(recorded["config"])
    known = list(stream["classes"])
    if tuple(known) != merged.classes[: len(known)]:
        raise ConfigError(f"{base_run}: its classes are not those that were merged on")
    new = list(range(len(known), len(merged.classes)))
    if new:
        stream |= {"classes": list(merged.classes), "groups": [new, *stream["groups"]], "before": stream.get("before", 0) + 1}
    if config["net"]["name"] in ZOO and config["net"]["capacity"]:
        config["net"] = {**config["net"], "capacity": merged.net.classes}
    described = {NET: merged.net.to_dict()} if recorded.get(NET) else {}
    return {**recorded, "config": config, "stream": stream, **described}


def _weights(base_run: Path, of_base: Arrays, merged: Merged) -> Arrays:
    """In the base's order, with momentum of 0. Raises ConfigError where an array does not fit the base's."""
    rows, made = rows_of(merged.net), dict[str, np.ndarray[Any, Any]]()
    for name, a in of_base.items():
        plain = name.removeprefix("momentum.")
        if plain not in merged.weights or (plain not in rows and merged.weights[plain].shape != a.shape):
            raise ConfigError(f"{base_run}: array {name!r} is not what was merged on")
        made[name] = merged.weights[plain] if plain == name else np.zeros_like(merged.weights[plain])
    return made


def _memory(of_base: Arrays, merged: Merged) -> Arrays:
    """The base's; what it remembers of logits is 0 for classes that were not there."""
    memory, key = dict(of_base), "memory.logits"
    if key in memory and memory[key].shape[1] < merged.net.classes:
        memory[key] = np.pad(memory[key], ((0, 0), (0, merged.net.classes - memory[key].shape[1])))
    return memory
