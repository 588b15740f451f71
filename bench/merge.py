#!/usr/bin/env python3
"""Time of a merge by device: ResNet-18 of width 64, 11.2 million weights, whole kernels masked.

    python bench/merge.py [--quick] [--devices 8] [--rounds 5]

Devices' updates are made up: a hundredth of the units moved, all live weights changed a little. What is timed is `merge` on
updates in memory, with checks, clipping and vote; `check` says what the check of updates takes of it. CPU time of one thread,
the median of rounds that go through all rules in turn. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edgecl import environment, masks
from edgecl.config import resolve
from edgecl.layout import masked_layers
from edgecl.merge import Contribution, Settings, merge
from edgecl.merge.contribution import check
from edgecl.nets import build_net
from edgecl.nets.init import initial
from edgecl.update import Base, Update

CLASSES = tuple(str(k) for k in range(10))
MOVED = 0.01  # of a layer's live units


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="width 16, two rounds")
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sparsity", type=float, default=0.95)
    given = parser.parse_args()
    width, rounds = (16, 2) if given.quick else (64, given.rounds)
    base = made_base(width, given.sparsity)
    came = [Contribution(update(base, d), f"{d:03d}", 1, 0, frozenset()) for d in range(given.devices)]
    work: dict[str, Callable[[], object]] = {
        "mean": lambda: merge(base, came, Settings(values="mean")),
        "trimmed": lambda: merge(base, came, Settings(values="trimmed")),
        "ties": lambda: merge(base, came, Settings(values="ties")),
        "check": lambda: [*map(partial(check, base), came)],
    }
    found: dict[str, list[float]] = {k: [] for k in work}
    for _ in range(rounds):
        for name, run in work.items():
            began = time.thread_time()
            run()
            found[name].append(1000 * (time.thread_time() - began) / given.devices)
    report(base, given, {k: statistics.median(v) for k, v in found.items()})


def made_base(width: int, sparsity: float) -> Base:
    rng, net = np.random.default_rng(0), build_net("resnet18", (3, 32, 32), len(CLASSES), width)
    layers = masked_layers(net, resolve("", [{"mask": {"sparsity": sparsity}}]))
    live = masks.start(rng, {k: v.live for k, v in layers.items()}, {k: v.shape for k, v in layers.items()})
    weights = {k: np.array(v, np.float32) for k, v in initial(net, rng).items() if not k.startswith("momentum.")}
    for k, m in live.items():
        weights[f"{k}.weight"] *= masks.expand(m, layers[k].unit, layers[k].weight_shape)
    return Base("0" * 64, net, CLASSES, weights, live)


def update(base: Base, device: int) -> Update:
    rng = np.random.default_rng([1, device])
    live, delta = {}, {}
    for k, m in base.live.items():
        n = round(MOVED * np.count_nonzero(m))
        live[k] = masks.grow(masks.prune(m, rng.random(m.shape), n), n, rng=rng)
    for name, a in base.weights.items():
        delta[name] = 0.01 * rng.standard_normal(a.shape, np.float32)
        if (k := name.removesuffix(".weight")) in live:
            wide = live[k].reshape(*live[k].shape, *(1,) * (a.ndim - live[k].ndim))
            delta[name] = np.where(wide, delta[name], -a)
        if name.endswith("running_var"):
            delta[name] = np.abs(delta[name])
    return Update(base.snapshot, base.net.name, CLASSES, (50,) * len(CLASSES), live, delta, 1, 1, 1.0)


def report(base: Base, given: argparse.Namespace, found: dict[str, float]) -> None:
    weights = sum(a.size for a in base.weights.values())
    print(f"{given.devices} devices, {weights / 1e6:.1f} million weights, {100 * given.sparsity:.0f} % masked")
    for name, ms in found.items():
        print(f"{name:10} {ms:8.1f} ms a device")
    how = {k: getattr(given, k) for k in ("devices", "sparsity", "rounds")}
    row: dict[str, object] = {"bench": "merge", "weights": weights, **how, "ms": {k: round(v, 1) for k, v in found.items()}}
    print(json.dumps({**row, "cpu": environment.cpu_name(), "commit": environment.commit()}))


if __name__ == "__main__":
    main()
