"""Convolutions of any sides, strides and groups, depthwise ones among them; sums for batch norm; curved activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import A, Layered, blocked, error, exact, on_isas, plain

from edgecl.engines.native_layers import Statistics
from edgecl.engines.native_nodes import CURVES
from edgecl.engines.native_values import family
from edgecl.kernels import Grad, Kind, Op, View, array, load, pointer, program
from edgecl.nets.nodes import BatchNorm, Conv2d, pair

BOUND = 1e-5


def draw_case(draw: st.DataObject, depthwise: bool) -> tuple[Conv2d, A, A, A | None, np.random.Generator]:
    """(node, x, w, live kernels or None for all, generator); kernels up to 4×11, also larger than what they slide over."""

    def whole(low: int, high: int) -> int:
        return draw.draw(st.integers(low, high))

    rng, groups = np.random.default_rng(whole(0, 999)), whole(1, 9) if depthwise else whole(1, 3)
    kernel, stride, padding = (whole(1, 4), whole(1, 11)), (whole(1, 3), whole(1, 3)), (whole(0, 2), whole(0, 5))
    inputs, outputs = (1, 1) if depthwise else (whole(1, 5), whole(1, 5))
    h, w = (whole(max(1, k - 2 * p), 19) for k, p in zip(kernel, padding, strict=True))
    x = rng.normal(size=(whole(1, 40), groups * inputs, h, w)).astype(np.float32)
    node = Conv2d("n", ("x",), groups * outputs, kernel, stride, padding, groups)
    weights = rng.normal(size=(node.out, inputs, *kernel)).astype(np.float32)
    live = None if whole(0, 2) == 0 else np.broadcast_to(rng.random((node.out, inputs, 1, 1)) < 0.5, weights.shape).copy()
    return node, x, weights, live, rng


@on_isas
@pytest.mark.parametrize("depthwise", [False, True])
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_convolution(isa: str, depthwise: bool, data: st.DataObject) -> None:
    """Output, input gradient (set and added), weight gradient of live kernels and of all."""
    node, x, w, live, rng = draw_case(data, depthwise)
    made = Layered(isa, node, x, w, live, None, threads=data.draw(st.sampled_from([1, 3])))
    assert family(node, x.shape[1]) is Kind.DEPTHWISE or not depthwise or node.groups == 1
    d = rng.normal(size=made.out_shape).astype(np.float32)
    out, dx, dw = exact(node, x, made.w, d)
    onto = rng.normal(size=x.shape).astype(np.float32)
    terms, found = 4 * np.sqrt(w[0].size * 5), np.float64(1) if live is None else live
    assert error(made.forward(), out, terms) < BOUND
    assert error(made.dx(d), dx, terms) < BOUND
    assert error(made.dx(d, onto), dx + onto, terms) < BOUND
    assert error(made.dw(d), dw * found, 4 * np.sqrt(d[:, 0].size)) < BOUND
    if family(node, x.shape[1]) is Kind.DEPTHWISE:
        both = made.both(d)
        assert error(both[0], dx, terms) < BOUND
        assert error(both[1], dw * found, 4 * np.sqrt(d[:, 0].size)) < BOUND
    assert error(made.dw(d, everything=True), dw, 4 * np.sqrt(d[:, 0].size)) < BOUND


def all_close(isa: str, node: Conv2d, x: A, live: float = 1.0) -> None:
    """Output and both gradients, of kernels live by that chance."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(node.out, x.shape[1] // node.groups, *pair(node.kernel))).astype(np.float32)
    mask = np.broadcast_to(rng.random((*w.shape[:2], 1, 1)) < live, w.shape).copy()
    made = Layered(isa, node, x, w, mask, None)
    d = rng.normal(size=made.out_shape).astype(np.float32)
    out, dx, dw = exact(node, x, made.w, d)
    assert error(made.forward(), out, 4 * np.sqrt(w[0].size * 5)) < BOUND
    assert error(made.dx(d), dx, 4 * np.sqrt(w[0].size * 5)) < BOUND
    assert error(made.dw(d), dw * mask, 4 * np.sqrt(d[:, 0].size)) < BOUND


@on_isas
@pytest.mark.parametrize("width", range(1, 52))
def test_signals_of_every_length(isa: str, width: int) -> None:
    """Tiles of all sizes, and what is left of nine taps."""
    x = np.random.default_rng(1).normal(size=(3, 2, 1, width)).astype(np.float32)
    for taps in (9, 14):
        all_close(isa, Conv2d("n", ("x",), 3, (1, taps), 1, (0, taps // 2)), x)


@on_isas
def test_more_images_than_are_summed_together(isa: str) -> None:
    """40 samples are three blocks of 16, of which a strip holds two, five of 8 or ten of 4."""
    x = np.random.default_rng(1).normal(size=(40, 20, 1, 128)).astype(np.float32)
    all_close(isa, Conv2d("n", ("x",), 5, (1, 9), 1, (0, 4)), x, 0.5)


@on_isas
def test_a_depthwise_gradient_too_large_for_a_cache(isa: str) -> None:
    """It is written past the caches: from 12 MB on."""
    x = np.random.default_rng(1).normal(size=(17, 6, 180, 180)).astype(np.float32)
    all_close(isa, Conv2d("n", ("x",), 6, 3, 1, 1, groups=6), x)


@on_isas
@pytest.mark.parametrize("sides", [(3, 1, 1), (3, 2, 1), ((3, 1), 1, (1, 0)), (5, 2, 2)], ids=str)
def test_depthwise_statistics(isa: str, sides: tuple[Any, Any, Any]) -> None:
    rng = np.random.default_rng(0)
    node, x = Conv2d("n", ("x",), 5, *sides, groups=5), (rng.normal(size=(33, 5, 9, 7)) + 50).astype(np.float32)
    made = Layered(isa, node, x, rng.normal(size=(5, 1, *pair(node.kernel))).astype(np.float32), None, None)
    mean, var = made.statistics(band=made.out_shape[2])
    out = exact(node, x, made.w, np.zeros(made.out_shape))[0]
    assert error(mean, out.mean((0, 2, 3)), 100) < BOUND
    assert error(var, out.var((0, 2, 3), ddof=1), out.var()) < 10 * BOUND


SUMMED = {
    "depthwise": Conv2d("n", ("x",), 6, 3, 1, 1, groups=6),
    "depthwise, stride 2": Conv2d("n", ("x",), 6, 3, 2, 1, groups=6),
    "1x1": Conv2d("n", ("x",), 7, 1),
    "1x1, stride 2": Conv2d("n", ("x",), 7, 1, 2),
}


@on_isas
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("bound", [0.0, 1.5])
@pytest.mark.parametrize("node", SUMMED.values(), ids=SUMMED)
def test_sums_for_the_batch_norm_before(isa: str, node: Conv2d, bound: float, threads: int) -> None:
    """Both gradients through relu(norm(x)), and the norm's own as the pass of its own finds it."""
    rng, c = np.random.default_rng(1), 6
    x = rng.normal(size=(21, c, 9, 7)).astype(np.float32)
    w = rng.normal(size=(node.out, c // node.groups, *pair(node.kernel))).astype(np.float32)
    made = Layered(isa, node, x, w, None, None, threads)
    g = {f"b.{k}": array(c) for k in ("weight", "bias")}
    p = {f"b.{k}": array(c) for k in ("weight", "bias", "running_mean", "running_var")}
    state = Statistics(BatchNorm("b", ("x",)), p, g)
    for a in (state.scale, state.mean, state.rstd, p["b.weight"]):
        a[...] = rng.uniform(0.5, 1.5, c)
    view = View(pointer(made.input), pointer(state.scale), pointer(state.shift), 1, bound)
    d = rng.normal(size=made.out_shape).astype(np.float32)
    dx, dw = made.both(d, view, norm=state.pointer)
    read = np.clip(x * state.scale[:, None, None], 0, bound or np.inf)
    _, wanted_dx, wanted_dw = exact(node, read, made.w, d)
    assert error(dx, wanted_dx, 12) < BOUND
    assert error(dw, wanted_dw, 4 * np.sqrt(d[:, 0].size)) < BOUND
    dz = np.where((read > 0) & (read < (bound or np.inf)), wanted_dx, 0)
    hat = (x - state.mean[:, None, None]) * state.rstd[:, None, None]
    assert error(g["b.bias"], dz.sum((0, 2, 3)), np.sqrt(x.size)) < BOUND
    assert error(g["b.weight"], (dz * hat).sum((0, 2, 3)), np.sqrt(x.size)) < BOUND
    again, found = array((c, 4)), state.k.copy()
    state.struct.k = pointer(again)
    grad = Grad(pointer(blocked_dx := blocked(made.kernels, dx)), view.x, view.scale, view.shift, None, None, bound)
    made.run(Op(kind=Kind.NORM_REDUCE, n=21, c=c, h=9, w=7, a=View(view.x), g=grad, norm=state.pointer))
    assert len(blocked_dx)
    assert error(found, again, 1) < BOUND


@on_isas
@pytest.mark.parametrize("kind", CURVES, ids=lambda kind: kind.op)
def test_curves_over_their_whole_range(isa: str, kind: type) -> None:
    """Values and slopes; far ends give 0, 1 or x, and what is not a number stays so."""
    x = np.concatenate([np.linspace(-120, 120, 2001), np.linspace(-4, 4, 999)]).astype(np.float32).reshape(3, 10, 10, 10)
    kernels, n = load(isa), x.astype(np.float64)
    s, ramp = 1 / (1 + np.exp(-n)), np.clip(n + 3, 0, 6) / 6
    slopes = {
        "sigmoid": (s, s * (1 - s)),
        "silu": (n * s, s + n * s * (1 - s)),
        "hardsigmoid": (ramp, (abs(n) < 3) / 6),
        "hardswish": (n * ramp, np.where(abs(n) < 3, n / 3 + 0.5, n > 0)),
    }
    value, slope = slopes[kind.op]  # type: ignore[attr-defined]
    a, ones, out, dx = blocked(kernels, x), blocked(kernels, np.ones_like(x)), *(array(kernels.lanes * 1000) for _ in range(2))
    common = {"n": 3, "c": 10, "h": 10, "w": 10, "flag": CURVES.index(kind), "a": View(pointer(a))}
    forward = Op(kind=Kind.ACTIVATE, out=pointer(out), **common)
    kernels.run(program([forward, Op(kind=Kind.ACTIVATE_DX, g=Grad(pointer(ones)), out=pointer(dx), **common)]))
    assert error(plain(kernels, out, x.shape) / np.maximum(1, abs(x)), value / np.maximum(1, abs(n)), 1) < 1e-6
    assert error(plain(kernels, dx, x.shape), slope, 1) < 1e-5
    a[: kernels.lanes] = np.nan
    kernels.run(program([forward]))
    assert np.isnan(plain(kernels, out, x.shape)[0, 0, 0, 0])


@on_isas
@pytest.mark.parametrize(
    "node", [SUMMED["depthwise, stride 2"], Conv2d("n", ("x",), 8, (4, 5), (1, 2), (0, 2), 2)], ids=["dw", "any"]
)
def test_threads_change_no_bit(isa: str, node: Conv2d) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 6, 24, 31)).astype(np.float32)
    w = rng.normal(size=(node.out, 6 // node.groups, *pair(node.kernel))).astype(np.float32)
    d = rng.normal(size=(40, *node.out_shape(x.shape[1:]))).astype(np.float32)
    results = []
    for threads in (1, 3):
        made = Layered(isa, node, x, w, None, None, threads)
        results.append([made.forward(), made.dx(d), made.dw(d)])
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))
