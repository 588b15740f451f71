"""Every kernel on every instruction set here against float64, with odd shapes, masks and lanes that hold no sample."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import ISAS, A, Layered, blocked, error, exact, on_isas, plain

from edgecl.engines.native_layers import Statistics, Weights
from edgecl.kernels import Grad, Kind, Op, Unit, View, array, load, pointer, program
from edgecl.masks import BLOCK, expand, unit_shape
from edgecl.nets.nodes import BatchNorm, Conv2d
from edgecl.types import ConfigError

BOUND = 1e-5


def draw_mask(draw: st.DataObject, rng: np.random.Generator, shape: tuple[int, ...]) -> A | None:
    unit = draw.draw(st.sampled_from(["", "kernel", "weight", "channel", f"block{BLOCK}x{BLOCK}"]))
    if not unit:
        return None
    share = draw.draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    return expand(rng.random(unit_shape(unit, shape)) < share, unit, shape)


def draw_case(draw: st.DataObject, kernel: int) -> tuple[Conv2d, A, A, np.random.Generator]:
    def whole(low: int, high: int) -> int:
        return draw.draw(st.integers(low, high))

    rng = np.random.default_rng(whole(0, 999))
    x = rng.normal(size=(whole(1, 40), whole(1, 20), whole(1, 17), whole(1, 17))).astype(np.float32)
    node = Conv2d("n", ("x",), whole(1, 20), kernel, whole(1, 2), kernel // 2)
    w = rng.normal(size=(node.out, x.shape[1], kernel, kernel)).astype(np.float32)
    return node, x, w, rng


@on_isas
@pytest.mark.parametrize("kernel", [1, 3, 5])
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_convolutions(isa: str, kernel: int, data: st.DataObject) -> None:
    """Output, input gradient (set and added), weight gradient: of updated kernels, and of all."""
    node, x, w, rng = draw_case(data, kernel)
    live = draw_mask(data, rng, w.shape)
    updated = None if live is None else live & (rng.random(w.shape) < 0.7)
    made = Layered(isa, node, x, w, live, updated, threads=data.draw(st.sampled_from([1, 3])))
    d = rng.normal(size=made.out_shape).astype(np.float32)
    out, dx, dw = exact(node, x, made.w, d)
    onto = rng.normal(size=x.shape).astype(np.float32)
    terms = [np.sqrt(n * kernel**2) for n in (x.shape[1], node.out)] + [np.sqrt(d[:, 0].size)]
    chosen = np.ones(w.shape, np.bool_) if updated is None else updated
    found = chosen if made.layer.listed_taps == 1 else chosen.any(axis=(2, 3), keepdims=True)
    assert error(made.forward(), out, 4 * terms[0]) < BOUND
    assert error(made.dx(d), dx, 4 * terms[1]) < BOUND
    assert error(made.dx(d, onto), dx + onto, 4 * terms[1]) < BOUND
    assert error(made.dw(d), dw * found, 4 * terms[2]) < BOUND
    if kernel < 5:
        both = made.both(d)
        assert error(both[0], dx, 4 * terms[1]) < BOUND
        assert error(both[1], dw * found, 4 * terms[2]) < BOUND
    assert error(made.dw(d, everything=True), dw, 4 * terms[2]) < BOUND


@on_isas
@pytest.mark.parametrize("kernel", [1, 3])
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_statistics_are_those_of_the_output(isa: str, kernel: int, data: st.DataObject) -> None:
    """Of any mask, threads and size, odd ones too; channels far from 0 lose no variance."""
    node, x, w, rng = draw_case(data, kernel)
    made = Layered(isa, node, x + 3, w, draw_mask(data, rng, w.shape), None, threads=data.draw(st.sampled_from([1, 3])))
    out = exact(node, x + 3, made.w, np.zeros(made.out_shape))[0]
    if out[:, 0].size == 1:
        return  # has no variance
    mean, var = made.statistics()
    scale = max(1.0, float(abs(out).max()))
    assert error(mean, out.mean((0, 2, 3)), scale) < BOUND
    assert error(var, out.var((0, 2, 3), ddof=1), scale**2) < BOUND


WANTED = [
    ("weight", 3, 0.1, Unit.BY_WEIGHT),
    ("weight", 3, 0.9, Unit.BY_KERNEL),  # whole kernels cost less
    ("kernel", 3, 0.1, Unit.BY_KERNEL),
    ("channel", 3, 0.5, Unit.BY_KERNEL),
    ("block4x4", 1, 0.3, Unit.BY_BLOCK),
    ("channel", 1, 0.5, Unit.BY_BLOCK),
    ("weight", 1, 0.1, Unit.BY_KERNEL),
]


@pytest.mark.parametrize(("unit", "kernel", "share", "wanted"), WANTED)
def test_a_mask_is_run_in_its_own_units(unit: str, kernel: int, share: float, wanted: Unit) -> None:
    """And no more than its live weights are listed, but for kernels with dead ones in them."""
    rng, shape = np.random.default_rng(0), (22, 19, kernel, kernel)
    live = expand(rng.random(unit_shape(unit, shape)) < share, unit, shape)
    layer = Weights(Conv2d("n", ("x",), 22, kernel, 1, kernel // 2), array(shape), None, None, None)
    layer.set_live(live)
    assert layer.unit is layer.updated_unit is wanted
    kernels = live.any(axis=(2, 3)).sum() if wanted is Unit.BY_KERNEL else live.sum()
    assert layer.forward.n == layer.backward.n == layer.updated.n == kernels
    layer.set_updated(live & (rng.random(shape) < 0.5))
    assert layer.updated_unit is (Unit.BY_KERNEL if kernel == 1 else wanted)  # no longer whole blocks
    layer.set_live(None)
    assert layer.unit is layer.updated_unit is Unit.BY_KERNEL


@on_isas
@pytest.mark.parametrize("size", [(32, 16, 32), (16, 32, 16), (40, 24, 8), (33, 32, 4)], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("unit", "kernel"), [("kernel", 3), ("weight", 3), ("block4x4", 1)])
def test_threads_change_no_bit(isa: str, size: tuple[int, int, int], stride: int, unit: str, kernel: int) -> None:
    n, c, h = size
    rng = np.random.default_rng(0)
    node, x = Conv2d("n", ("x",), c, kernel, stride, kernel // 2), rng.normal(size=(n, c, h, h)).astype(np.float32)
    w, shape = rng.normal(size=(c, c, kernel, kernel)).astype(np.float32), (c, c, kernel, kernel)
    live = expand(rng.random(unit_shape(unit, shape)) < (0.1 if unit == "weight" else 0.5), unit, shape)
    results = []
    for threads in (1, 2, 3):
        made = Layered(isa, node, x, w, live, None, threads)
        d = np.random.default_rng(1).normal(size=made.out_shape).astype(np.float32)
        results.append([made.forward(), made.dx(d), made.dw(d)])
    assert all(np.array_equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


@on_isas
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_batch_norm(isa: str, data: st.DataObject) -> None:
    """Means far from 0 too, where E[x²] − m² would lose the variance."""
    n, c, h, w = (data.draw(st.integers(low, high)) for low, high in ((2, 40), (1, 6), (1, 9), (1, 9)))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    far = data.draw(st.sampled_from([0.0, 3.0, 1000.0]))
    x = (rng.normal(size=(n, c, h, w)) + far).astype(np.float32)
    d = rng.normal(size=x.shape).astype(np.float32)
    node = BatchNorm("b", ("x",))
    p = {f"b.{k}": array(c) for k in ("weight", "bias", "running_mean", "running_var")}
    g = {f"b.{k}": array(c) for k in ("weight", "bias")}
    p["b.weight"][...], p["b.bias"][...] = rng.uniform(0.5, 1.5, c), rng.normal(size=c)
    state, kernels = Statistics(node, p, g), load(isa)
    a, grad = blocked(kernels, x), blocked(kernels, d)
    stats, out = array(-(-n // kernels.lanes) * c * 2 * kernels.lanes), array(a.size)
    common = {"n": n, "c": c, "h": h, "w": w, "norm": state.pointer, "a": View(pointer(a))}
    ops = [
        Op(kind=Kind.STATS, stats=pointer(stats), **common),
        Op(kind=Kind.NORM, stats=pointer(stats), band=h, eps=node.eps, momentum=node.momentum, **common),
        Op(kind=Kind.NORM_REDUCE, g=Grad(pointer(grad)), **common),
        Op(kind=Kind.STORE_GRAD, g=Grad(d=pointer(grad), s=pointer(a), k=pointer(state.k)), out=pointer(out), **common),
    ]
    kernels.run(program(ops))
    view = View(pointer(a), pointer(state.scale), pointer(state.shift))
    y, dx = plain(kernels, a, x.shape, view), plain(kernels, out, x.shape)
    wanted = exact_norm(x, d, p, node.eps)
    loose = 1 + far  # a float32 near `far` is that much coarser
    for name, found in (("y", y), ("dx", dx), ("var", p["b.running_var"] / node.momentum), ("dgamma", g["b.weight"])):
        terms = wanted["terms"] if name == "dx" else wanted[name]  # of two samples, dx is what is left of large terms
        scale = max(1.0, float(abs(terms).max()))
        assert error(found, wanted[name], scale * np.sqrt(n * h * w)) < BOUND * loose, name
    assert error(p["b.running_mean"] / node.momentum, wanted["mean"], 1 + far) < BOUND
    assert error(g["b.bias"], wanted["dbeta"], np.sqrt(n * h * w)) < BOUND
    assert error(state.rstd**-2.0 - node.eps, wanted["biased"], max(1.0, float(wanted["biased"].max()))) < BOUND * 10


def exact_norm(x: A, d: A, p: dict[str, A], eps: float) -> dict[str, A]:
    x, d, axes, count = x.astype(np.float64), d.astype(np.float64), (0, 2, 3), x.size // x.shape[1]
    gamma, beta = (p[f"b.{k}"].astype(np.float64)[:, None, None] for k in ("weight", "bias"))
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    hat = (x - mean) / np.sqrt(var + eps)
    dgamma, dbeta = (d * hat).sum(axes, keepdims=True), d.sum(axes, keepdims=True)
    dx = gamma / np.sqrt(var + eps) * (d - dbeta / count - hat * dgamma / count)
    flat = {"mean": mean, "biased": var, "var": var * count / (count - 1), "dgamma": dgamma, "dbeta": dbeta}
    terms = gamma / np.sqrt(var + eps) * abs(d).max(axes, keepdims=True)
    return {"y": hat * gamma + beta, "dx": dx, "terms": terms, **{k: v.reshape(-1) for k, v in flat.items()}}


@on_isas
def test_not_a_number_reaches_the_output(isa: str) -> None:
    """Through ReLU and both pools: the loss must show it."""
    kernels, x = load(isa), np.ones((3, 2, 4, 4), np.float32)
    x[1, 1, 2, 2] = np.nan
    a, out = blocked(kernels, x), array(kernels.lanes * 2 * 2 * 2)
    for kind in (Kind.MAXPOOL, Kind.AVGPOOL):
        common = {"n": 3, "c": 2, "h": 4, "w": 4, "o": 2, "ho": 2, "wo": 2, "kh": 2, "kw": 2, "sh": 2, "sw": 2}
        kernels.run(program([Op(kind=kind, a=View(pointer(a), None, None, 1), out=pointer(out), **common)]))
        found = plain(kernels, out, (3, 2, 2, 2))
        assert np.isnan(found[1, 1, 1, 1])
        assert np.isfinite(found).sum() == found.size - 1


def test_the_instruction_set_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for isa in ISAS:
        monkeypatch.setenv("EDGECL_ISA", isa)
        assert load().isa == isa
    monkeypatch.setenv("EDGECL_ISA", "mmx")
    with pytest.raises(ConfigError, match=r"EDGECL_ISA: 'mmx' is not one of " + ISAS[0]):
        load()
