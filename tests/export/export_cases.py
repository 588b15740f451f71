"""Nets that lost channels in every way, and the engine in float64 that judges what is left of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgecl import masks
from edgecl.card import Card
from edgecl.engines.numpy_engine import NumpyEngine
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
from edgecl.types import Preprocess

ROOT = Path(__file__).resolve().parents[2]
TINY = str(ROOT / "models" / "tiny_cnn.yaml")
Arrays = dict[str, np.ndarray]


class Float64(NumpyEngine):
    dtype: Any = np.float64


def logits(net: Net, arrays: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """[N, K] by the numpy engine in float64."""
    engine = Float64(net)
    engine.load({k: np.asarray(arrays[k], np.float64) for k in engine.held()})
    return engine.predict(np.asarray(x, np.float64))


def bound() -> Net:
    """What binds channels: a shared input, groups, a gate, joins of flat and of images, norms that no layer can take."""
    nodes = (
        BatchNorm("in.bn", ("x",)),
        Conv2d("a", ("in.bn",), 8, 3, 1, 1, bias=True),
        BatchNorm("a.bn", ("a",)),
        Add("twice", ("a", "a.bn")),  # two read a: its norm stays
        Relu("a.relu", ("twice",)),
        Conv2d("grouped", ("a.relu",), 12, 3, 1, 1, groups=4),
        BatchNorm("grouped.bn", ("grouped",)),
        Relu("grouped.relu", ("grouped.bn",)),
        Conv2d("dw", ("a.relu",), 16, 3, 1, 1, groups=8),  # two outputs a channel
        Relu("dw.relu", ("dw",)),
        GlobalPool("gate.mean", ("dw.relu",), keep=True),
        Conv2d("gate.conv", ("gate.mean",), 16, 1),
        Sigmoid("gate", ("gate.conv",)),
        Mul("gated", ("dw.relu", "gate")),
        Concat("join", ("gated", "grouped.relu")),
        BatchNorm("join.bn", ("join",)),
        Conv2d("last", ("join.bn",), 6, 1),
        Relu("last.relu", ("last",)),
        Pad("frame", ("last.relu",), 1, 0, 0, 1),
        Pool("avg", ("frame",), "avg", 3, 2, 1),
        Flatten("flat", ("avg",)),
        BatchNorm("flat.bn", ("flat",)),
        Linear("fc", ("flat.bn",), 7, bias=False),
        Relu("fc.relu", ("fc",)),
        GlobalPool("mean", ("grouped.relu",)),
        Concat("both", ("fc.relu", "mean")),
        Linear("head", ("both",), 3),
        Linear("logits", ("both",), 5),
    )
    return Net("bound", (3, 7, 6), 5, nodes, "logits", "head")


def flat_logits() -> Net:
    """Logits that no linear layer computes."""
    nodes = (
        Conv2d("a", ("x",), 6, 3),
        Relu("a.relu", ("a",)),
        Conv2d("b", ("a.relu",), 2, 3),
        Flatten("logits", ("b",)),
    )
    return Net("flat_logits", (1, 6, 6), 8, nodes, "logits", "logits")


def gated() -> Net:
    """All the activations, sides that differ, pads that count in a mean."""
    nodes = (
        Conv2d("a", ("x",), 4, (3, 2), (2, 1), (1, 0)),
        BatchNorm("a.bn", ("a",)),
        Relu6("a.act", ("a.bn",)),
        Conv2d("row", ("a.act",), 6, (1, 3), (1, 2), (0, 1), groups=2),
        Hardswish("row.act", ("row",)),
        GlobalPool("row.mean", ("row.act",)),
        GlobalPool("se.mean", ("a.act",), keep=True),
        Conv2d("se.down", ("se.mean",), 3, 1, bias=True),
        Silu("se.act", ("se.down",)),
        Conv2d("se.up", ("se.act",), 4, 1, bias=True),
        Hardsigmoid("se.gate", ("se.up",)),
        Mul("se", ("a.act", "se.gate")),
        Pool("max", ("se",), "max", 3, 2, 1),
        Pool("avg", ("se",), "avg", (3, 2), (1, 2), (1, 0)),
        Flatten("max.flat", ("max",)),
        Flatten("avg.flat", ("avg",)),
        Concat("flat", ("max.flat", "row.mean", "avg.flat")),
        Linear("fc", ("flat",), 6, bias=False),
        Linear("logits", ("fc",), 5),
    )
    return Net("gated", (3, 9, 7), 5, nodes, "logits", "fc")


def card_of(net: Net, seen: tuple[int, ...]) -> Card:
    n = net.input[0]
    names = tuple(f"class {k}" for k in range(net.classes))
    return Card(net.name, net.input, names, seen, Preprocess((0.4, 0.5, 0.3)[:n], (0.3, 0.2, 0.25)[:n]), "0" * 64, "0.1.0")


SIZES = {"mobilenetv2_100": (3, 24, 24)}
NETS = [build_net(name, SIZES.get(name, (3, 8, 8)), 5, 4) for name in ZOO]
NETS += [build_net(TINY, (1, 8, 8), 10), bound(), flat_logits()]


def damaged(net: Net, seed: int, sparsity: float = 0.6) -> Arrays:
    """Weights after some training: norms that are not 0 and 1, units masked, and channels dead or stuck in every layer."""
    rng = np.random.default_rng(seed)
    arrays = {k: np.asarray(v, np.float64) for k, v in initial(net, rng).items()}
    for name, a in arrays.items():
        if a.ndim == 1:
            a += rng.uniform(-0.5, 0.5, a.shape)
        if name.endswith("running_var"):
            a[...] = abs(a) + 0.1
    for node in net.layers().values():
        w = arrays[f"{node.name}.weight"]
        unit = rng.choice(["weight", "kernel", "channel"])
        w *= masks.expand(rng.random(masks.unit_shape(unit, w.shape)) > sparsity, unit, w.shape)
        w[rng.random(len(w)) < sparsity / 2] = 0
    return arrays
