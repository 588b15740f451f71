"""A single sample's convolution alone, on every instruction set here, against float64: odd shapes, windows, groups and masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import error, on_isas

from edgecl.engines import make_engine
from edgecl.masks import UNITS, unit_shape
from edgecl.nets import Net
from edgecl.nets.nodes import Conv2d, Flatten

A = np.ndarray[Any, Any]
BOUND = 1e-5


def exact(node: Conv2d, x: A, w: A, ho: int, wo: int) -> A:
    """[O, H', W'] in float64, tap by tap."""
    (kh, kw), (sh, sw), (ph, pw) = (v if isinstance(v, tuple) else (v, v) for v in (node.kernel, node.stride, node.padding))
    padded = np.pad(x.astype(np.float64), ((0, 0), (ph, ph), (pw, pw)))
    out, each = np.zeros((node.out, ho, wo)), node.out // node.groups
    for o in range(node.out):
        first = o // each * w.shape[1]
        for c, i, j in np.ndindex(w.shape[1], kh, kw):
            seen = padded[first + c, i : i + sh * (ho - 1) + 1 : sh, j : j + sw * (wo - 1) + 1 : sw]
            out[o] += seen * float(w[o, c, i, j])
    return out


@st.composite
def layers(draw: st.DrawFn) -> tuple[Conv2d, tuple[int, int, int]]:
    groups = draw(st.sampled_from([1, 1, 2, 5]))
    c, o = (groups * draw(st.integers(1, 9)) for _ in range(2))
    h, w = draw(st.integers(1, 19)), draw(st.integers(1, 37))
    kernel = draw(st.sampled_from([1, 3, 3, (3, 1), (2, 5), 4]))
    stride = draw(st.sampled_from([1, 1, 2, (2, 1), 3]))
    padding = draw(st.sampled_from([1, 2])) if kernel != 1 else draw(st.sampled_from([0, 1]))
    return Conv2d("n", ("x",), o, kernel, stride, padding if h > 2 and w > 3 else 2, groups), (c, h, w)


@on_isas
@settings(max_examples=60, deadline=None)
@given(layers(), st.sampled_from(["", *UNITS]), st.sampled_from([0.05, 0.5, 1.0]), st.sampled_from([1, 3]), st.integers(0, 99))
def test_convolutions(isa: str, case: Any, unit: str, share: float, threads: int, seed: int) -> None:
    (node, shape), rng = case, np.random.default_rng(seed)
    o, ho, wo = node.out_shape(shape)
    net = Net("one", shape, o * ho * wo, (node, Flatten("flat", ("n",))), "flat", "flat")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGECL_ISA", isa)
        engine = make_engine("native", net, threads=threads)
    w, x = (rng.normal(size=s).astype(np.float32) for s in (net.weights()["n.weight"], (2, *shape)))
    engine.load({**engine.arrays(), "n.weight": w})
    if unit:
        live = rng.random(unit_shape(unit, w.shape)) < share
        engine.set_masks({"n": live}, {"n": unit})
    found, w = engine.predict(x), engine.arrays()["n.weight"]
    for one, sample in zip(found, x, strict=True):
        wanted = exact(node, sample, w, ho, wo).reshape(-1)
        assert error(one, wanted, 4 * np.sqrt(w[0].size)) < BOUND
