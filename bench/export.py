"""int8 beside float: an exported ResNet-18 in ONNX Runtime, and the native engine's single-sample plan on the same net.

    python bench/export.py [--quick] [--run RUN --data-root DIR]      (needs: pip install 'edgecl[onnx]')

Batch 1 on one thread, uint8 pixels in and logits out (for the native engine, pictures already normalised). All rows run in
one process, interleaved round by round; a time is a median of CPU time of the thread, a ratio the median over rounds of the
float export's time over the row's. To reach: int8 3 times as fast as float, and 0.27 of its size. The weights are random, but
those of RUN, whose accuracy is of all test samples of the classes seen. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine import Row, random_masks
from single import CLASSES, INPUT, Call, measure

from edgecl import __version__, environment, masks
from edgecl.card import Card
from edgecl.engines import make_engine
from edgecl.export import FORMATS, checks, reduce, samples
from edgecl.export.int8 import quantised
from edgecl.export.predictors import of_engine
from edgecl.layout import masked_layers
from edgecl.model import Model, open_model
from edgecl.nets import Net, build_net
from edgecl.nets.init import initial
from edgecl.types import U8, Bools, Preprocess

ROWS: dict[str, tuple[int, float]] = {  # width, sparsity
    "w64 dense": (64, 0.0),
    "w64 96.3 %, 23x": (64, 0.963),
    "w40 87 %, 23x": (40, 0.87),
}
FASTER, SMALLER = 3.0, 0.27
ONNX = FORMATS["onnx"]
Arrays = dict[str, np.ndarray[Any, Any]]


class Case(NamedTuple):
    """One net in every form."""

    calls: dict[str, Call]
    sizes: dict[str, int]
    accuracy: dict[str, float]  # nothing where the weights are random


def native(net: Net, arrays: Arrays, live: Mapping[str, Bools], units: Mapping[str, str], x: Any) -> Call:
    engine = make_engine("native", net, threads=1)
    engine.load({k: arrays[k] for k in engine.held()})
    if live:
        engine.set_masks(live, units)
    return lambda: engine.predict(x)


def random_case(width: int, sparsity: float, pictures: U8) -> Case:
    net = build_net("resnet18", INPUT, CLASSES, width)
    arrays: Arrays = dict(initial(net, np.random.default_rng(0)))
    live, units = random_masks(net, Row("resnet18", sparsity, unit="kernel"), np.random.default_rng(1)) if sparsity else ({}, {})
    for name, one in live.items():
        arrays[f"{name}.weight"] *= masks.expand(one, units[name], arrays[f"{name}.weight"].shape)
    names = tuple(map(str, range(CLASSES)))
    card = Card(net.name, INPUT, names, tuple(range(CLASSES)), Preprocess((0.5,) * 3, (0.25,) * 3), "0" * 64, __version__)
    data = ONNX.write(reduce(net, arrays, card.seen), card)
    assert ONNX.quantise is not None
    files = {"float": data, "int8": ONNX.quantise(data, card, pictures, "x86", ())}
    x = (pictures[:1] / np.float32(255) - np.float32(0.5)) / np.float32(0.25)
    return _case(files, pictures, native(net, arrays, live, units, x), {})


def run_case(model: Model, root: str) -> Case:
    """A trained net, by the check that `edgecl export` makes, on all test samples."""
    config = model.config.set("data.root", root) if root else model.config
    judge = samples.of_tests(config, model.card, 1 << 30)
    if judge is None or model.memory is None:
        raise SystemExit("bench: no test samples here, or no replay memory in the run")
    data = ONNX.write(reduce(model.net, model.weights, model.card.seen), model.card)
    by_float = ONNX.predictor(data)(judge.x)
    made = quantised(ONNX, data, model.card, model.memory.x[: model.memory.size], judge, by_float, "x86")
    logits = {"float": by_float, "int8": made.logits, "native": of_engine(model)[1](judge.x)}
    units = {k: v.unit for k, v in masked_layers(model.net, model.config).items()}
    x = np.random.default_rng(2).normal(size=(1, *model.net.input)).astype(np.float32)
    found = checks.scores(model.card, judge, logits, "float")
    shares = {k: v.accuracy or 0.0 for k, v in found.items()} | {"agreement": found["int8"].agreement}
    call = native(model.net, model.weights, model.live, units, x)
    return _case({"float": data, "int8": made.data}, judge.x, call, shares)


def _case(files: dict[str, bytes], pictures: U8, sparse: Call, accuracy: dict[str, float]) -> Case:
    one = pictures[:1]
    predict = {k: ONNX.predictor(v) for k, v in files.items()}
    calls: dict[str, Call] = {k: lambda p=p: p(one) for k, p in predict.items()}  # type: ignore[misc]
    return Case(calls | {"native": sparse}, {k: len(v) for k, v in files.items()}, accuracy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="nine rounds instead of sixty")
    parser.add_argument("--run", default="", help="a run folder: its newest snapshot is a row too")
    parser.add_argument("--data-root", default="", help="where its data set lies")
    args = parser.parse_args()
    where = environment.describe()  # now: the tree may change while this runs
    pictures = np.random.default_rng(2).integers(0, 256, (64, *INPUT), dtype=np.uint8)
    cases = {name: random_case(*row, pictures) for name, row in ROWS.items()}
    if args.run:
        model = open_model(Path(args.run))
        cases[f"{args.run}, trained"] = run_case(model, args.data_root)
    calls = {f"{name}/{k}": call for name, case in cases.items() for k, call in case.calls.items()}
    report(cases, measure(calls, 9 if args.quick else 60), where)


def report(cases: Mapping[str, Case], times: Mapping[str, list[float]], where: Mapping[str, Any]) -> None:
    import onnxruntime as ort

    rows: dict[str, dict[str, Any]] = {}
    heads = f"{'float ms':>9} {'int8 ms':>8} {'native':>7} {'int8 ×':>7} {'(quartiles)':>13} {'native ×':>9} {'size':>6}"
    print(f"{'one sample':22} {heads}")
    for name, case in cases.items():
        spent = {k: times[f"{name}/{k}"] for k in case.calls}
        ratio = {k: [a / b for a, b in zip(spent["float"], v, strict=True)] for k, v in spent.items()}
        low, middle, high = np.percentile(ratio["int8"], (25, 50, 75))
        ms = {k: round(1e3 * float(np.median(v)), 4) for k, v in spent.items()}
        size = case.sizes["int8"] / case.sizes["float"]
        faster = float(np.median(ratio["native"]))
        print(
            f"{name[-22:]:22} {ms['float']:9.3f} {ms['int8']:8.3f} {ms['native']:7.3f} {middle:7.2f} "
            f"{f'({low:.2f}–{high:.2f})':>13} {faster:9.2f} {size:6.3f}"
        )
        rows[name] = {"ms": ms, "int8": round(middle, 3), "native": round(faster, 3), "size": round(size, 4)}
        if case.accuracy:
            rows[name]["accuracy"] = {k: round(v, 4) for k, v in case.accuracy.items()}
    print(f"to reach: int8 {FASTER}× and size {SMALLER}")
    facts = {"commit": where["commit"], "cpu": where["cpu"], "onnxruntime": ort.__version__}
    print(json.dumps({"bench": "export", "rows": rows, "rounds": len(next(iter(times.values()))), **facts}))


if __name__ == "__main__":
    main()
