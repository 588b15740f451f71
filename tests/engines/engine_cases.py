"""Engines and nets of the contract suite, and what its tests share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecl.engines import Engine, make_engine
from edgecl.nets import ZOO, Net, build_net
from edgecl.nets.init import initial
from edgecl.nets.nodes import (
    Add,
    BatchNorm,
    Concat,
    Conv2d,
    Flatten,
    GlobalPool,
    Hardsigmoid,
    Hardswish,
    Linear,
    Mul,
    Pad,
    Pool,
    Relu,
    Relu6,
    Sigmoid,
    Silu,
)
from edgecl.types import Pass


def _gpu() -> bool:
    """Without torch, too, which emulated machines lack."""
    if find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


needs_cuda = pytest.mark.skipif(not _gpu(), reason="no GPU that torch finds")

ENGINES = [
    pytest.param(("torch", {"device": "cpu", "together": False}), id="torch"),
    pytest.param(("torch", {"device": "cpu", "together": True}), id="torch-together"),
    pytest.param(("native", {"threads": 1}), id="native"),
    pytest.param(("native", {"threads": 3}), id="native-threads"),
    pytest.param(("numpy", {}), id="numpy"),
    pytest.param(("torch", {"device": "cuda"}), id="torch-cuda", marks=needs_cuda),
    pytest.param(("torch", {"device": "cuda", "together": False}), id="torch-cuda-apart", marks=needs_cuda),
]
"""Every engine, in every way it runs passes; a new one joins here and has to keep the whole contract."""

on_engines = pytest.mark.parametrize("engine", ENGINES)

TINY = str(Path(__file__).parents[2] / "models" / "tiny_cnn.yaml")
SEPARATE, JOINED = (Pass((0,)), Pass((1,)), Pass((2,))), (Pass((0, 1, 2)),)
MIXED = (Pass((1,)), Pass((2, 0)))  # neither in the order of the parts nor one a part
PASSES = {"separate": SEPARATE, "concat": JOINED, "mixed": MIXED}


def branched() -> Net:
    """Every op and option, two pictures' worth of branches, and a head that the logits do not read."""
    nodes = (
        Conv2d("a", ("x",), 4, 3, 1, 1, bias=True),
        BatchNorm("a.bn", ("a",), eps=1e-3, momentum=0.3),
        Relu("a.relu", ("a.bn",)),
        Conv2d("b", ("a.relu",), 4, 3, 1, 1, groups=2),
        BatchNorm("b.bn", ("b",)),
        Add("sum", ("b.bn", "a.relu")),
        Pool("max", ("sum",), "max", 2, 2),
        Pool("avg", ("max",), "avg", 2, 1),
        Flatten("flat", ("avg",)),
        Linear("fc", ("flat",), 6, bias=False),
        BatchNorm("fc.bn", ("fc",)),
        Relu("fc.relu", ("fc.bn",)),
        Linear("head", ("fc.relu",), 3),
        Linear("logits", ("fc.relu",), 5),
    )
    return Net("branched", (2, 6, 6), 5, nodes, "logits", "head")


def gated() -> Net:
    """The ops and options that `branched` has not: sides that differ, gates, joins, frames, and all the activations."""
    nodes = (
        Conv2d("a", ("x",), 4, (3, 2), (2, 1), (1, 0)),  # 3×9×7 → 4×5×6
        BatchNorm("a.bn", ("a",)),
        Relu6("a.act", ("a.bn",)),
        Pool("a.pool", ("a.act",), "avg", (2, 3), 1),  # → 4×4×4
        Conv2d("row", ("a.act",), 6, (1, 3), (1, 2), (0, 1), groups=2),  # → 6×5×3
        GlobalPool("row.mean", ("row",)),
        Pad("pad", ("a.act",), left=1, right=2, top=0, bottom=1),  # → 4×6×9
        Conv2d("dw", ("pad",), 4, 3, (1, 2), groups=4),  # → 4×4×4
        BatchNorm("dw.bn", ("dw",)),
        Hardswish("dw.act", ("dw.bn",)),
        GlobalPool("se.mean", ("dw.act",), keep=True),
        Conv2d("se.down", ("se.mean",), 2, 1, bias=True),
        Silu("se.act", ("se.down",)),
        Conv2d("se.up", ("se.act",), 4, 1, bias=True),
        Hardsigmoid("se.gate", ("se.up",)),
        Mul("se", ("dw.act", "se.gate")),  # a scale a channel
        Sigmoid("sigmoid", ("se",)),
        Mul("mul", ("se", "sigmoid")),  # of one shape
        Concat("join", ("mul", "dw.act", "a.pool")),
        Pool("max", ("join",), "max", 3, 2, 1),
        Pool("avg", ("join",), "avg", (3, 2), (1, 2), (1, 0)),
        Flatten("max.flat", ("max",)),
        Flatten("avg.flat", ("avg",)),
        Concat("flat", ("max.flat", "row.mean", "avg.flat")),
        Linear("fc", ("flat",), 6),
        Silu("fc.act", ("fc",)),
        Sigmoid("fc.sigmoid", ("fc",)),
        Mul("fc.mul", ("fc.act", "fc.sigmoid")),
        Linear("logits", ("fc.mul",), 5),
    )
    return Net("gated", (3, 9, 7), 5, nodes, "logits", "fc.mul")


NEW_NETS = ["gated", "mobilenetv2_100", "ds_cnn", "har_cnn1d"]
"""Nets with ops that the native engine does not render yet; away with it, and with `skip_new`, when it does."""


def skip_new(engine: tuple[str, Mapping[str, Any]], net: Net) -> None:
    if engine[0] == "native" and net.name in NEW_NETS:
        pytest.skip("the native engine lacks some of this net's ops")


SIZES = {"mobilenetv2_100": (3, 24, 24)}
"""Its 52 batch norms amplify rounding where they see few values, so the last of them get a few pixels a sample."""

NETS = [build_net(name, SIZES.get(name, (3, 8, 8)), 5, 4) for name in ZOO] + [build_net(TINY, (1, 8, 8), 10), branched(), gated()]
on_nets = pytest.mark.parametrize("net", NETS, ids=lambda net: net.name)


def weights_for(net: Net, seed: int = 0) -> dict[str, np.ndarray]:
    """Initial weights, but scales, shifts and running statistics that are not 0 and 1."""
    rng = np.random.default_rng(seed)
    arrays = initial(net, rng)
    for name in arrays:
        if arrays[name].ndim == 1:
            arrays[name] += rng.uniform(-0.3, 0.3, arrays[name].shape).astype(np.float32)
    return arrays


def start(engine: tuple[str, Mapping[str, Any]], net: Net, seed: int = 0, **options: Any) -> Engine:
    """The engine with weights of that seed, and momentum 0."""
    skip_new(engine, net)
    made = make_engine(engine[0], net, **engine[1], **options)
    made.load({**made.arrays(), **weights_for(net, seed)})
    return made


def data(net: Net, sizes: Sequence[int] = (4, 3, 6), seed: int = 1) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(x, d_logits): a picture and a gradient for each sample of each part."""
    rng = np.random.default_rng(seed)
    x = [rng.normal(size=(n, *net.input)).astype(np.float32) for n in sizes]
    d = [rng.normal(size=(n, net.classes)).astype(np.float32) / n for n in sizes]
    return x, d


def run(engine: Engine, x: Sequence[np.ndarray], passes: Sequence[Pass], *, split: bool = False) -> list[np.ndarray]:
    """Logits of every part, then its features."""
    outputs = engine.forward([engine.asarray(a) for a in x], passes, split=split)
    return [engine.numpy(a) for both in outputs for a in both]


def gradients(engine: Engine, d: Sequence[np.ndarray], *, score: bool = False) -> dict[str, np.ndarray]:
    """What `backward` finds, read from the momentum of a step of rate 0: it was 0, so now it is the gradient, bit by bit."""
    engine.backward([engine.asarray(a) for a in d], score=score)
    engine.step(engine.asarray(np.float32(0)))
    arrays = engine.arrays()
    found = {k: arrays[f"momentum.{k}"] for k in engine.net.weights()}
    engine.load({k: v * 0 if k.startswith("momentum.") else v for k, v in arrays.items()})
    return found


def error(a: Any, b: Any, floor: float = 1e-30) -> float:
    """Largest difference, in parts of b's largest value, or of `floor` where all of b is smaller."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape
    return float(abs(a - b).max() / max(abs(b).max(), floor))


def half_live(net: Net, unit: str, seed: int = 2) -> dict[str, np.ndarray]:
    """A mask on every layer but the last, about half its units live."""
    from edgecl.masks import unit_shape

    rng = np.random.default_rng(seed)
    shapes = {k: unit_shape(unit, net.weights()[f"{k}.weight"]) for k in list(net.layers())[:-1]}
    return {k: rng.permutation(prod(s)).reshape(s) % 2 == 0 for k, s in shapes.items()}
