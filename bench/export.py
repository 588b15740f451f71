"""int8 beside float: an exported ResNet-18 in ONNX Runtime and LiteRT, and the native engine's single-sample plan of the net.

    python bench/export.py [--quick] [--run RUN --data-root DIR]      (needs: pip install 'edgecl[onnx,litert]')

Without LiteRT its columns are left out. Batch 1 on one thread, uint8 pixels in and logits out (for the native engine, pictures
already normalised). All rows run in one process, interleaved round by round; a time is a median of CPU time of the thread, a
ratio the median over rounds of the float ONNX export's time over the column's, under `litert` of LiteRT's float time over its
int8 time. To reach: int8 3 times as fast as float, and 0.27 of its size. The weights are random, but those of RUN, whose accuracy
is of all test samples of the classes seen. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
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
from edgecl.export.reduce import Reduced
from edgecl.layout import masked_layers
from edgecl.model import Model, open_model
from edgecl.nets import Net, build_net
from edgecl.nets.init import initial
from edgecl.types import U8, Bools, ConfigError, Preprocess

ROWS: dict[str, tuple[int, float]] = {  # width, sparsity
    "w64 dense": (64, 0.0),
    "w64 96.3 %, 23x": (64, 0.963),
    "w40 87 %, 23x": (40, 0.87),
}
FASTER, SMALLER = 3.0, 0.27
ONNX, LITERT = FORMATS["onnx"], FORMATS["litert"]
LITE = "litert "
"""Before the names of LiteRT's float and int8."""
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
    small = reduce(net, arrays, card.seen)
    data = ONNX.write(small, card)
    assert ONNX.quantise is not None
    files = {"float": data, "int8": ONNX.quantise(data, card, pictures, "x86", ())} | of_litert(small, card, pictures)
    x = (pictures[:1] / np.float32(255) - np.float32(0.5)) / np.float32(0.25)
    return _case(files, pictures, native(net, arrays, live, units, x), {})


def run_case(model: Model, root: str) -> Case:
    """A trained net, by the check that `edgecl export` makes, on all test samples."""
    config = model.config.set("data.root", root) if root else model.config
    judge = samples.of_tests(config, model.card, 1 << 30)
    if judge is None or model.memory is None:
        raise SystemExit("bench: no test samples here, or no replay memory in the run")
    small = reduce(model.net, model.weights, model.card.seen)
    data, shown = ONNX.write(small, model.card), model.memory.x[: model.memory.size]
    by_float = ONNX.predictor(data)(judge.x)
    made = quantised(ONNX, data, model.card, shown, judge, by_float, "x86")
    lite = of_litert(small, model.card, shown)
    logits = {"float": by_float, "int8": made.logits, "native": of_engine(model)[1](judge.x)}
    logits |= {k: LITERT.predictor(v)(judge.x) for k, v in lite.items()}
    units = {k: v.unit for k, v in masked_layers(model.net, model.config).items()}
    x = np.random.default_rng(2).normal(size=(1, *model.net.input)).astype(np.float32)
    found = checks.scores(model.card, judge, logits, "float")
    shares = {k: v.accuracy or 0.0 for k, v in found.items()} | {"agreement": found["int8"].agreement}
    call = native(model.net, model.weights, model.live, units, x)
    return _case({"float": data, "int8": made.data} | lite, judge.x, call, shares)


def of_litert(small: Reduced, card: Card, shown: U8) -> dict[str, bytes]:
    """LiteRT's files, float and int8; none where LiteRT is not installed."""
    try:
        data = LITERT.write(small, card)
    except ConfigError:
        return {}
    assert LITERT.quantise is not None
    return {f"{LITE}float": data, f"{LITE}int8": LITERT.quantise(data, card, shown, "", ())}


def _case(files: dict[str, bytes], pictures: U8, sparse: Call, accuracy: dict[str, float]) -> Case:
    one = pictures[:1]
    predict = {k: (LITERT if k.startswith(LITE) else ONNX).predictor(v) for k, v in files.items()}
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


HEADS = ("float", "int8", "native", f"{LITE}float", f"{LITE}int8")


def report(cases: Mapping[str, Case], times: Mapping[str, list[float]], where: Mapping[str, Any]) -> None:
    rows = {name: row(case, {k: times[f"{name}/{k}"] for k in case.calls}) for name, case in cases.items()}
    heads = [h for h in HEADS if h in next(iter(rows.values()))["ms"]]
    print(f"{'one sample, ms':22} " + " ".join(f"{h:>12}" for h in heads) + f" {'int8 ×':>7} {'native ×':>9} {'size':>6}")
    for name, r in rows.items():
        spent = " ".join(f"{r['ms'][h]:12.3f}" for h in heads)
        print(f"{name[-22:]:22} {spent} {r['int8']:7.2f} {r['native']:9.2f} {r['size']:6.3f}")
        if LITE.strip() in r:
            print(f"{'':22} LiteRT: int8 {r['litert']['int8']:.2f} times as fast as its float, size {r['litert']['size']:.3f}")
    print(f"to reach: int8 {FASTER}× and size {SMALLER}")
    facts = {"commit": where["commit"], "cpu": where["cpu"], **versions()}
    print(json.dumps({"bench": "export", "rows": rows, "rounds": len(next(iter(times.values()))), **facts}))


def row(case: Case, spent: Mapping[str, list[float]]) -> dict[str, Any]:
    """A net's figures: milliseconds, how many times faster than float, and int8's size as a share of float's."""
    found: dict[str, Any] = {"ms": {k: round(1e3 * float(np.median(v)), 4) for k, v in spent.items()}}
    found |= {k: faster(spent["float"], spent[k]) for k in ("int8", "native")}
    found["quartiles"] = [round(float(q), 3) for q in np.percentile(np.divide(spent["float"], spent["int8"]), (25, 75))]
    found["size"] = round(case.sizes["int8"] / case.sizes["float"], 4)
    if f"{LITE}int8" in spent:
        lite = faster(spent[f"{LITE}float"], spent[f"{LITE}int8"])
        found["litert"] = {"int8": lite, "size": round(case.sizes[f"{LITE}int8"] / case.sizes[f"{LITE}float"], 4)}
    if case.accuracy:
        found["accuracy"] = {k: round(v, 4) for k, v in case.accuracy.items()}
    return found


def faster(slow: list[float], fast: list[float]) -> float:
    """The median over rounds of a ratio of times."""
    return round(float(np.median(np.divide(slow, fast))), 3)


def versions() -> dict[str, str]:
    """Of the runtimes that are installed."""
    known = {"onnxruntime": "onnxruntime", "litert": "ai-edge-litert"}
    return {k: version(v) for k, v in known.items() if find_spec(v.replace("-", "_"))}


if __name__ == "__main__":
    main()
