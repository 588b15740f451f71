#!/usr/bin/env python3
"""The update format: bytes of masks beside their entropy, bytes and time of whole updates, and what rounding costs.

    python bench/update.py [--quick] [--base RUN --learned RUN --held-out FILE.npz]

Masks and changes are random: nothing is to be gained from their pattern. Seconds are CPU time of one thread, medians of nine
rounds in turn; `dense` is the same net's arrays as float32. With `--base` and `--learned` (a run folder and that of a lesson on
it) the last table is of a real difference: bytes, relative error, and accuracy on `x` and `y` (class ids) of FILE.npz of the
network that the hub would get. Prints tables, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from math import log2
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edgecl import environment, masks
from edgecl.bundle import keygen
from edgecl.config import resolve
from edgecl.engines import make_engine
from edgecl.layout import MaskedLayer, masked_layers
from edgecl.model import Model, open_model
from edgecl.nets import build_net
from edgecl.nets.init import initial
from edgecl.tensors import Arrays
from edgecl.types import Bools
from edgecl.update import Base, Update, apply, decode, difference, encode, seal
from edgecl.update import masks as entries
from edgecl.update.values import KINDS

INPUT, NAMES, CHANGED = (3, 32, 32), tuple(map(str, range(10))), 0.01
ROWS = (("weight", 0.95), ("weight", 0.9), ("weight", 0.75), ("auto", 0.95), ("auto", 0.75))  # unit, share masked
ROUNDS = 9


def random_base(unit: str, sparsity: float, width: int, rng: np.random.Generator) -> tuple[Base, dict[str, MaskedLayer]]:
    """ResNet-18 at its start, under random masks."""
    net = build_net("resnet18", INPUT, len(NAMES), width)
    layers = masked_layers(net, resolve("", [{"mask": {"sparsity": sparsity, "unit": unit}}]))
    live = masks.start(rng, {k: v.live for k, v in layers.items()}, {k: v.shape for k, v in layers.items()})
    weights: Arrays = {k: np.asarray(a, np.float32) for k, a in initial(net, rng).items()}
    for name, layer in layers.items():
        weights[f"{name}.weight"] *= masks.expand(live[name], layer.unit, layer.weight_shape)
    return Base("0" * 64, net, NAMES, weights, live), layers


def random_update(base: Base, layers: Mapping[str, MaskedLayer], changed: float, rng: np.random.Generator) -> Update:
    """A share of each layer's live units swapped for dead ones, and every weight a little otherwise."""
    live = {k: swapped(v, changed, rng) for k, v in base.live.items()}
    delta: Arrays = {k: 0.01 * rng.standard_normal(a.shape, np.float32) for k, a in base.weights.items()}
    for name, layer in layers.items():
        alive = masks.expand(live[name], layer.unit, layer.weight_shape)
        delta[f"{name}.weight"] = np.where(alive, delta[f"{name}.weight"], -base.weights[f"{name}.weight"])
    for name in base.net.buffers():
        delta[name] = np.abs(delta[name])
    return Update(base.snapshot, base.net.name, NAMES, (100,) * len(NAMES), live, delta, 1000, 10**15, 60.0)


def swapped(live: Bools, share: float, rng: np.random.Generator) -> Bools:
    out, n = live.reshape(-1).copy(), round(share * np.count_nonzero(live))
    out[rng.choice(np.flatnonzero(live), n, replace=False)] = False
    out[rng.choice(np.flatnonzero(~live), n, replace=False)] = True
    return out.reshape(live.shape)


def mask_bytes(base: Mapping[str, Bools], live: Mapping[str, Bools]) -> int:
    """Of all layers' entries: their codes, and 12 bytes for what says how long each is."""
    found = [entries.write(was, live[k]) for k, was in base.items()]
    return sum(12 + sum(len(x) for x in entry if isinstance(x, bytes)) for entry in found if entry)


def bound(live: Mapping[str, Bools]) -> float:
    """Bytes that random masks of such counts take at least: H(p) bits a unit."""
    return sum(v.size * entropy(float(v.mean())) for v in live.values()) / 8


def entropy(p: float) -> float:
    return 0.0 if p in (0, 1) else -p * log2(p) - (1 - p) * log2(1 - p)


def bench_masks(width: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Whole masks beside a base that has nothing to do with them, and changes of 1 %; single weights."""
    rows = []
    for density in (0.05, 0.1, 0.25):
        base, layers = random_base("weight", 1 - density, width, rng)
        other = masks.start(rng, {k: v.live for k, v in layers.items()}, {k: v.shape for k, v in layers.items()})
        whole, change = mask_bytes(base.live, other), {k: swapped(v, CHANGED, rng) for k, v in base.live.items()}
        units = sum(v.size for v in other.values())
        rows.append({"density": density, "units": units, "bytes": whole, "of_bound": round(whole / bound(other), 4),
                     "change_bytes": mask_bytes(base.live, change)})  # fmt: skip
    return rows


def bench_whole(unit: str, sparsity: float, width: int, rng: np.random.Generator) -> dict[str, Any]:
    """Bytes and seconds of whole updates."""
    base, layers = random_base(unit, sparsity, width, rng)
    update = random_update(base, layers, CHANGED, rng)
    took: dict[str, list[tuple[float, float]]] = {k: [] for k in KINDS}
    sizes = {}
    for _ in range(ROUNDS):
        for kind in KINDS:
            began = time.thread_time()
            payload = encode(update, base, kind)
            half = time.thread_time()
            decode(payload, base)
            took[kind].append((half - began, time.thread_time() - half))
            sizes[kind] = len(payload)
    seconds = {k: [round(statistics.median(t), 4) for t in zip(*v, strict=True)] for k, v in took.items()}
    return {"unit": unit, "masked": sparsity, "dense": dense_bytes(base), "bytes": sizes, "seconds": seconds}


def dense_bytes(base: Base) -> int:
    return sum(4 * a.size for a in base.weights.values())


def bench_real(base: Model, learned: Model, held_out: Path) -> list[dict[str, Any]]:
    """A real difference by way of every kind: bytes, error of the weights' change, accuracy."""
    beside, update = Base.of(base), difference(base, learned)
    with np.load(held_out) as file:
        x, y = file["x"], file["y"]
    own = [{"values": "as learned", "bytes": dense_bytes(beside), "error": 0.0, "accuracy": accuracy(learned, {}, {}, x, y)}]
    for kind in KINDS:
        payload = encode(update, beside, kind)
        sent = decode(payload, beside)
        row = {"values": kind, "bytes": len(payload), "error": round(lost(update, sent), 5)}
        own.append({**row, "accuracy": accuracy(learned, *apply(beside, sent), x, y)})
    return own


def lost(update: Update, sent: Update) -> float:
    """‖difference − what arrives of it‖ / ‖difference‖, over weights of two axes and more."""
    wide = [k for k, d in update.delta.items() if d.ndim > 1]
    square = sum(float(np.square(update.delta[k] - sent.delta[k], dtype=np.float64).sum()) for k in wide)
    return float((square / sum(float(np.square(update.delta[k], dtype=np.float64).sum()) for k in wide)) ** 0.5)


def accuracy(model: Model, weights: Arrays, live: Mapping[str, Bools], x: Any, y: Any) -> float:
    """Share right among all classes seen."""
    engine = make_engine("native", model.net, threads=1)
    layers = masked_layers(model.net, model.config)
    engine.load(weights or {k: model.weights[k] for k in (*model.net.weights(), *model.net.buffers())})
    engine.set_masks(dict(live or model.live), {k: v.unit for k, v in layers.items()})
    pre, seen, right = model.card.preprocess, np.array(model.card.seen), 0
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (pre.mean, pre.std))
    for at in range(0, len(y), 100):
        logits = np.asarray(engine.predict((x[at : at + 100].astype(np.float32) / 255 - mean) / std))
        right += int((seen[logits[:, seen].argmax(1)] == y[at : at + 100]).sum())
    return round(right / len(y), 4)


def envelope_bytes() -> int:
    """Of one with a large number and a payload of 16 MiB."""
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder, "key.pem")
        _, device = keygen(key)
        return len(seal(key, device, (1 << 63) - 1, bytes(16), bytes(1 << 24)))


def report(found: Mapping[str, Any]) -> None:
    print(f"{'masks of single weights':28} {'bytes':>10} {'of bound':>9} {'1 % changed':>12}")
    for r in found["masks"]:
        print(f"{r['units']:12} at {r['density']:.0%} live {r['bytes']:14} {r['of_bound']:9.4f} {r['change_bytes']:12}")
    print(f"{'whole updates':28} {'bytes':>10} {'dense / it':>11} {'encode s':>9} {'decode s':>9}")
    for r in found["whole"]:
        for kind, size in r["bytes"].items():
            row = f"{r['unit']} {r['masked']:.0%} masked, {kind}"
            print(f"{row:28} {size:10} {r['dense'] / size:11.1f} {r['seconds'][kind][0]:9.4f} {r['seconds'][kind][1]:9.4f}")
    for r in found.get("real", []):
        print(f"{r['values']:28} {r['bytes']:10} error {r['error']:.5f} accuracy {r['accuracy']:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="width 16 instead of 64, two rows")
    parser.add_argument("--base", type=Path)
    parser.add_argument("--learned", type=Path)
    parser.add_argument("--held-out", type=Path)
    args = parser.parse_args()
    width, rng = 16 if args.quick else 64, np.random.default_rng(0)
    found: dict[str, Any] = {"masks": bench_masks(width, rng)}
    found["whole"] = [bench_whole(*row, width, rng) for row in ROWS[:: 3 if args.quick else 1]]
    if args.base:
        found["real"] = bench_real(open_model(args.base), open_model(args.learned), args.held_out)
    report(found)
    where = environment.describe()
    made = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "commit": where["commit"], "cpu": where["cpu"]}
    print(json.dumps({"bench": "update", **made, "width": width, "envelope": envelope_bytes(), **found}))


if __name__ == "__main__":
    main()
