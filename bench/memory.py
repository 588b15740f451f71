#!/usr/bin/env python3
"""Peak memory of a process that trains ResNet-18 with DER++: a batch of 32 and twice 32 from memory, then predicts.

    python bench/memory.py [--quick]

Every row runs in a process of its own, with one thread: three steps, the last of which gathers gradients for masks as the loop
does, and a prediction. No data set, and none of the loop's own memory: `edgecl plan --budget` counts that. The peak is VmHWM
from the process's start, Python and numpy included. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edgecl import environment, masks
from edgecl.config import resolve
from edgecl.data.augment import draw_crops
from edgecl.engines import make_engine
from edgecl.layout import masked_layers
from edgecl.methods import make_method
from edgecl.nets import build_net
from edgecl.nets.init import initial
from edgecl.step import train_step
from edgecl.types import Batch, Part, Preprocess

SIZES = {"w20 75 %": (20, 0.75, 80), "w64 95 %": (64, 0.95, 180)}  # width, sparsity, megabytes to hold
WAYS: dict[str, tuple[str, bool, dict[str, str]]] = {  # engine, whether masked, options
    "native fp16": ("native", True, {"storage": "fp16"}),
    "native fp32": ("native", True, {}),
    "torch masked": ("torch", True, {}),
    "torch dense": ("torch", False, {}),
}
CLASSES, INPUT, BATCH = 10, (3, 32, 32), 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the native engine at the smaller size only")
    parser.add_argument("--row", nargs=2, metavar=("SIZE", "WAY"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        print(json.dumps(one(*args.row)))
        return
    rows = [(size, way) for size in SIZES for way in WAYS if not args.quick or (size == "w20 75 %" and "native" in way)]
    report({row: alone(*row) for row in rows})


def alone(size: str, way: str) -> dict[str, Any]:
    """What `one` finds in a process of its own."""
    command = [sys.executable, __file__, "--row", size, way]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def one(size: str, way: str) -> dict[str, Any]:
    """Bytes of this process: before the net is there, and at the peak."""
    width, sparsity, _ = SIZES[size]
    name, masked, options = WAYS[way]
    before, rng, net = environment.resident(), np.random.default_rng(0), build_net("resnet18", INPUT, CLASSES, width)
    engine = make_engine(name, net, threads=1, **options)
    engine.scores_dead = False
    engine.load(initial(net, rng))
    if masked:
        layers = masked_layers(net, resolve("", [{"mask": {"sparsity": sparsity}}]))
        live = masks.start(rng, {k: v.live for k, v in layers.items()}, {k: v.shape for k, v in layers.items()})
        engine.set_masks(live, {k: v.unit for k, v in layers.items()})
    pre, method = Preprocess((0.5,) * 3, (0.25,) * 3, pad=4, flip=True), make_method("derpp", {})
    for score in (False, False, masked):
        batch = draw(rng, pre)
        result = engine.compile(partial(train_step, engine, method, pre, score))(batch)
    engine.predict(engine.asarray(rng.standard_normal((BATCH, *INPUT), np.float32)))
    finite = bool(np.isfinite(result.loss))
    return {"peak": environment.peak_rss(), "before": before, "finite": finite, **engine.place()}


def draw(rng: np.random.Generator, pre: Preprocess) -> Batch:
    def part() -> Part:
        x, y = rng.integers(0, 256, (BATCH, *INPUT), dtype=np.uint8), rng.integers(0, CLASSES, BATCH)
        return Part(x, draw_crops(rng, BATCH, pre), y, np.ones(BATCH, np.float32), np.zeros((BATCH, CLASSES), np.float32))

    mask = np.ones(CLASSES, np.float32)
    return Batch((part(), part(), part()), mask, mask, np.array(0.03, np.float32))


def report(found: dict[tuple[str, str], dict[str, Any]]) -> None:
    print(f"{'a training process':24} {'peak MB':>8} {'before MB':>10} {'to hold':>8} {'× torch masked':>15}")
    for (size, way), row in found.items():
        peak, torch = row["peak"], found.get((size, "torch masked"))
        goal = f"{SIZES[size][2]:8}" if way == "native fp16" else f"{'':8}"
        share = f"{peak / torch['peak']:15.2f}" if torch else ""
        print(f"{f'{size}, {way}':24} {peak / 1e6:8.1f} {row['before'] / 1e6:10.1f} {goal} {share}")
    peaks = {f"{size}, {way}": round(row["peak"] / 1e6, 1) for (size, way), row in found.items()}
    place = next(iter(found.values()))
    print(json.dumps({"bench": "memory", "peak_mb": peaks, "isa": place["isa"], "threads": place["threads"]}))


if __name__ == "__main__":
    main()
