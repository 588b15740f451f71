"""Prediction of one sample by the native engine (one thread, fp32), against ONNX Runtime's dense ResNet-18 of width 64.

    python bench/single.py [--quick] [--isa NAME]      (needs: pip install onnx onnxruntime)

The ONNX model is made of the same net and weights, unmasked; ONNX Runtime folds its batch norms itself. All rows run in one
process, interleaved round by round; a time is a median of CPU time of the thread, a ratio the median over rounds of ONNX
Runtime's time over the row's. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine import Row, random_masks

from edgecl.engines import make_engine
from edgecl.nets import Net, build_net
from edgecl.nets.init import initial
from edgecl.nets.nodes import Add, BatchNorm, Conv2d, GlobalPool, Linear, Relu

CLASSES, INPUT = 10, (3, 32, 32)
ROWS: dict[str, tuple[int, float, float]] = {  # width, sparsity, ratio to reach (0: none set)
    "w64 dense": (64, 0.0, 1 / 1.5),
    "w64 75 %": (64, 0.75, 0),
    "w64 90 %": (64, 0.9, 0),
    "w64 95 %": (64, 0.95, 5.0),
    "w32 75 %": (32, 0.75, 0),
    "w20 75 %": (20, 0.75, 0),
}
CALLS = 5  # a measurement times so many calls
Call = Callable[[], Any]


def weights(net: Net) -> dict[str, np.ndarray[Any, Any]]:
    return dict(initial(net, np.random.default_rng(0)))


def native(width: int, sparsity: float, x: np.ndarray[Any, Any]) -> tuple[Any, Call]:
    net = build_net("resnet18", INPUT, CLASSES, width)
    engine = make_engine("native", net, threads=1)
    engine.load({**engine.arrays(), **weights(net)})
    if sparsity:
        engine.set_masks(*random_masks(net, Row("resnet18", sparsity, unit="kernel"), np.random.default_rng(1)))
    return engine, lambda: engine.predict(x)


def onnx_dense(x: np.ndarray[Any, Any]) -> Call:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    net = build_net("resnet18", INPUT, CLASSES, 64)
    session = ort.InferenceSession(onnx_bytes(net), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})[0]


def onnx_bytes(net: Net) -> bytes:
    """The net as an ONNX model of batch 1."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [helper.make_node(op, inputs, outputs, **a) for op, inputs, outputs, a in map(onnx_node, net.nodes)]
    nodes[-2:-1] = [nodes[-2], helper.make_node("Flatten", [f"{net.features}.image"], [net.features])]
    ends = [helper.make_tensor_value_info(k, TensorProto.FLOAT, s) for k, s in (("x", [1, *INPUT]), (net.logits, [1, CLASSES]))]
    stored = [numpy_helper.from_array(v, k) for k, v in weights(net).items()]
    graph = helper.make_graph(nodes, net.name, ends[:1], ends[1:], stored)
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString())


def onnx_node(node: Any) -> tuple[str, list[str], list[str], dict[str, Any]]:
    """(op, inputs, outputs, attributes) of the kinds of node that ResNet-18 has."""
    inputs = list(node.inputs)
    if isinstance(node, Conv2d):
        window = {"strides": [node.stride] * 2, "pads": [node.padding] * 4}
        return "Conv", [*inputs, f"{node.name}.weight"], [node.name], window
    if isinstance(node, Linear):
        return "Gemm", [*inputs, f"{node.name}.weight", f"{node.name}.bias"], [node.name], {"transB": 1}
    if isinstance(node, BatchNorm):
        own = [f"{node.name}.{k}" for k in ("weight", "bias", "running_mean", "running_var")]
        return "BatchNormalization", [*inputs, *own], [node.name], {"epsilon": node.eps}
    op = {Relu: "Relu", Add: "Add", GlobalPool: "GlobalAveragePool"}[type(node)]
    return op, inputs, [f"{node.name}.image" if op == "GlobalAveragePool" else node.name], {}


def measure(calls: Mapping[str, Call], rounds: int) -> dict[str, list[float]]:
    """Seconds a call, after a few to warm up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(CALLS):
            call()
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.thread_time()
            for _ in range(CALLS):
                call()
            times[name].append((time.thread_time() - began) / CALLS)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="nine rounds instead of forty")
    parser.add_argument("--isa", default="", help="instruction set of the native kernels (default: the best here)")
    args = parser.parse_args()
    if args.isa:
        os.environ["EDGECL_ISA"] = args.isa
    x = np.random.default_rng(2).normal(size=(1, *INPUT)).astype(np.float32)
    engines = {name: native(width, sparsity, x) for name, (width, sparsity, _) in ROWS.items()}
    calls = {"onnxruntime": onnx_dense(x)} | {k: call for k, (_, call) in engines.items()}
    apart = float(abs(calls["onnxruntime"]() - calls["w64 dense"]()).max() / abs(calls["w64 dense"]()).max())
    report(measure(calls, 9 if args.quick else 40), apart, next(iter(engines.values()))[0])


def report(times: Mapping[str, list[float]], apart: float, engine: Any) -> None:
    import onnxruntime as ort

    ratios = {k: [a / b for a, b in zip(times["onnxruntime"], v, strict=True)] for k, v in times.items()}
    print(f"{'one sample':14} {'ms':>7} {'× ONNX Runtime':>15} {'(quartiles)':>16} {'to reach':>9}")
    for name, values in ratios.items():
        low, middle, high = np.percentile(values, (25, 50, 75))
        goal = f"{ROWS[name][2]:9.2f}" if name in ROWS and ROWS[name][2] else ""
        print(f"{name:14} {1e3 * np.median(times[name]):7.3f} {middle:15.2f} {f'({low:.2f}–{high:.2f})':>16} {goal}")
    print(f"logits of the dense net are {apart:.1e} apart, in parts of the largest")
    found = {k: round(float(np.median(v)), 3) for k, v in ratios.items()}
    milliseconds = {k: round(1e3 * float(np.median(v)), 4) for k, v in times.items()}
    facts = {"onnxruntime": ort.__version__, "apart": apart, "rounds": len(times["onnxruntime"])}
    print(json.dumps({"bench": "single", "ratios": found, "ms": milliseconds, **facts, **engine.place()}))


if __name__ == "__main__":
    main()
