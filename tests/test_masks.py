"""Masks: exact counts and unit shapes after any operation, the same results in numpy and torch, densities that add up."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecl import masks
from edgecl.nets.nodes import BatchNorm, Conv2d, Linear
from edgecl.nets.zoo import resnet18
from edgecl.types import ConfigError, NumericError

FEW = settings(max_examples=60, deadline=None)
sizes = st.integers(1, 11)
weight_shapes = st.one_of(
    st.tuples(sizes, sizes), st.tuples(sizes, sizes, st.just(3), st.just(3)), st.tuples(sizes, sizes, st.just(1), st.just(1))
)
units = st.sampled_from(masks.UNITS)
seeds = st.integers(0, 2**32 - 1)
sparsities = st.floats(0, 0.99)


def scores_with_ties(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Non-negative float32 of few values, so that ties are the rule."""
    return rng.integers(0, 4, shape).astype(np.float32)


def one_mask(rng: np.random.Generator, unit: str, weight: tuple[int, ...], sparsity: float) -> np.ndarray:
    shapes = {"a": masks.unit_shape(unit, weight)}
    return masks.start(rng, masks.live_counts(shapes, {"a": weight}, sparsity), shapes)["a"]


def units_by_hand(unit: str, weight: tuple[int, ...]) -> np.ndarray:
    """The flat unit number of every weight, written out as the definition says."""
    numbers, shape = np.empty(weight, dtype=np.int64), masks.unit_shape(unit, weight)
    of = {
        "weight": lambda p: p,
        "kernel": lambda p: p[:2],
        "block4x4": lambda p: (p[0] // 4, p[1] // 4),
        "channel": lambda p: p[:1],
    }
    for position in np.ndindex(*weight):
        numbers[position] = np.ravel_multi_index(of[unit](position), shape)
    return numbers


# ---- units ----


@FEW
@given(seeds, units, weight_shapes, sparsities)
def test_expand_is_constant_in_each_unit(seed, unit, weight, sparsity):
    live = one_mask(np.random.default_rng(seed), unit, weight, sparsity)
    full = masks.expand(live, unit, weight)
    assert full.dtype == np.bool_
    assert full.flags.c_contiguous
    assert full.flags.writeable
    np.testing.assert_array_equal(full, live.reshape(-1)[units_by_hand(unit, weight)])
    full[:] = False
    assert live.any()  # no view of live


@FEW
@given(seeds, units, weight_shapes)
def test_unit_scores_average_the_real_weights(seed, unit, weight):
    values = np.random.default_rng(seed).random(weight, dtype=np.float32)
    numbers, shape = units_by_hand(unit, weight).ravel(), masks.unit_shape(unit, weight)
    expected = np.bincount(numbers, values.ravel(), prod(shape)) / np.bincount(numbers, minlength=prod(shape))
    scores = masks.unit_scores(values, unit)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected.reshape(shape), rtol=1e-5)


@FEW
@given(seeds, units, weight_shapes, st.integers(0, 130), sparsities)
def test_numpy_equals_torch(seed, unit, weight, k, sparsity):
    rng = np.random.default_rng(seed)
    values, live = scores_with_ties(rng, weight), one_mask(rng, unit, weight, sparsity)
    scores = masks.unit_scores(values, unit)
    there = masks.unit_scores(torch.from_numpy(values), unit)
    np.testing.assert_allclose(there.numpy(), scores, rtol=1e-6)
    np.testing.assert_array_equal(masks.expand(torch.from_numpy(live), unit, weight).numpy(), masks.expand(live, unit, weight))
    assert masks.expand(torch.from_numpy(live), unit, weight).is_contiguous()
    chosen = masks.top(torch.from_numpy(scores), torch.from_numpy(live), k)
    np.testing.assert_array_equal(chosen.numpy(), masks.top(scores, live, k))
    both = masks.cwi(*(torch.from_numpy(values - n) for n in range(3)), 0.5, 0.25)
    np.testing.assert_array_equal(both.numpy(), masks.cwi(*(values - n for n in range(3)), 0.5, 0.25))


@pytest.mark.parametrize("unit", masks.UNITS)
@pytest.mark.parametrize("weight", [(8, 12, 3, 3), (7, 5, 1, 1), (7, 5)])
def test_device_functions_read_no_value(unit, weight):
    """Tensors on `meta` have no values: code that waits for one fails."""
    w = torch.empty(weight, device="meta")
    live = torch.empty(masks.unit_shape(unit, weight), dtype=torch.bool, device="meta")
    scores = masks.unit_scores(masks.cwi(w, w, None, 1, 1), unit)
    assert scores.shape == masks.top(scores, live, 2).shape == live.shape
    assert masks.expand(live, unit, weight).shape == weight


def test_cwi_by_hand():
    w, current, replay = (np.array(a, dtype=np.float32) for a in ([-1, 2], [4, -8], [-2, 0]))
    np.testing.assert_array_equal(masks.cwi(w, current, replay, 0.5, 0.25), [3.5, 6])
    np.testing.assert_array_equal(masks.cwi(w, current, None, 0.5, 0.25), [3, 6])


def test_nodes():
    conv3, conv1 = Conv2d("a", ("x",), 8, 3), Conv2d("b", ("x",), 8, 1)
    assert [masks.default_unit(n) for n in (conv3, conv1, Linear("c", ("x",), 8))] == ["kernel", "block4x4", "weight"]
    with pytest.raises(ConfigError, match="node bn: batch_norm"):
        masks.default_unit(BatchNorm("bn", ("x",)))
    names = [n.name for n in resnet18((3, 32, 32), 10).nodes if masks.maskable(n)]
    assert len(names) == 16  # not conv1, three shortcuts and the classifier
    assert all(".conv" in n for n in names)


def test_wrong_calls_are_named():
    with pytest.raises(ConfigError, match=r"mask\.unit is 'filter'; known: weight"):
        masks.unit_shape("filter", (4, 4))
    with pytest.raises(ValueError, match=r"live has shape \(4,\), not \(4, 4\)"):
        masks.expand(np.ones(4, bool), "kernel", (4, 4, 3, 3))
    with pytest.raises(ValueError, match="score has shape"):
        masks.prune(np.ones((2, 2), bool), np.ones(4), 1)
    with pytest.raises(ValueError, match="one of rng and score"):
        masks.grow(np.ones(2, bool), 1)


# ---- counts ----


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan")])
def test_sparsity_outside_its_range_is_named(sparsity):
    with pytest.raises(ConfigError, match=r"mask\.sparsity"):
        masks.live_counts({"a": (4,)}, {"a": (4, 4)}, sparsity)


def test_unknown_kind_is_named():
    with pytest.raises(ConfigError, match="known: uniform, erk"):
        masks.live_counts({"a": (4,)}, {"a": (4, 4)}, 0.5, "even")


@FEW
@given(st.lists(weight_shapes, min_size=1, max_size=6), units, sparsities, st.sampled_from(sorted(masks.SHARES)))
def test_live_weights_add_up(weights, unit, sparsity, kind):
    """Within half a unit a layer, or one where a layer's share is less than a unit."""
    weight_of = {str(i): w for i, w in enumerate(weights)}
    shapes = {n: masks.unit_shape(unit, w) for n, w in weight_of.items()}
    counts = masks.live_counts(shapes, weight_of, sparsity, kind)
    unit_size = {n: prod(w) / prod(shapes[n]) for n, w in weight_of.items()}  # on average: edge blocks are smaller
    assert all(1 <= counts[n] <= prod(shapes[n]) for n in counts)
    live = sum(counts[n] * unit_size[n] for n in counts)
    slack = sum(size * (0.5 if counts[n] > 1 else 1) for n, size in unit_size.items())
    assert abs(live - (1 - sparsity) * sum(map(prod, weights))) <= slack + 1e-6


@pytest.mark.parametrize("kind", sorted(masks.SHARES))
@pytest.mark.parametrize("sparsity", [0, 0.5, 0.75, 0.9, 0.95, 0.98])
def test_resnet18_density(kind, sparsity):
    net = resnet18((3, 32, 32), 10)
    weights = {n.name: net.weights()[f"{n.name}.weight"] for n in net.nodes if masks.maskable(n)}
    shapes = {n: masks.unit_shape("kernel", w) for n, w in weights.items()}
    counts = masks.live_counts(shapes, weights, sparsity, kind)
    assert sum(counts.values()) / sum(map(prod, shapes.values())) == pytest.approx(1 - sparsity, abs=1e-5)


def test_erk_by_hand():
    """Σ/Π: 4/4 = 1 and 16/64 = 1/4. At half density ε = 34/20 fills the first; the second gets the other 30 of 64."""
    weights = {"small": (2, 2), "large": (8, 8)}
    assert masks.live_counts(weights, weights, 0.5, "erk") == {"small": 4, "large": 30}
    assert masks.live_counts(weights, weights, 0.75, "erk") == {"small": 3, "large": 14}  # ε = 17/20: 3.4 and 13.6
    assert masks.live_counts(weights, weights, 0.0, "erk") == {"small": 4, "large": 64}


@FEW
@given(seeds, units, weight_shapes, sparsities)
def test_start_is_exact_and_repeats(seed, unit, weight, sparsity):
    shapes = {"a": masks.unit_shape(unit, weight), "b": (5,)}
    counts = masks.live_counts(shapes, {"a": weight, "b": (5,)}, sparsity)
    first, again = (masks.start(np.random.default_rng(seed), counts, shapes) for _ in range(2))
    for name in shapes:
        assert first[name].shape == shapes[name]
        assert first[name].sum() == counts[name]
        np.testing.assert_array_equal(first[name], again[name])


def test_start_is_uniform():
    rng, total, shapes = np.random.default_rng(0), np.zeros(20), {"a": (4, 5)}
    for _ in range(2000):
        total += masks.start(rng, {"a": 5}, shapes)["a"].ravel()
    chi2 = ((total - 500) ** 2).sum() / (500 * 0.75) * 19 / 20  # 5 of 20 without replacement
    assert chi2 < 43.8  # 19 degrees of freedom, p = 0.001


# ---- changes ----

operations = st.lists(st.tuples(st.sampled_from(["prune", "random", "score", "resize"]), st.integers(-3, 60)), max_size=8)


@FEW
@given(seeds, units, weight_shapes, sparsities, operations)
def test_counts_are_exact_after_any_operations(seed, unit, weight, sparsity, steps):
    rng = np.random.default_rng(seed)
    live = one_mask(rng, unit, weight, sparsity)
    for step, n in steps:
        score, before, count = scores_with_ties(rng, live.shape), live.copy(), int(live.sum())
        after, expected = (
            {
                "prune": lambda n=n, s=score, m=live: masks.prune(m, s, n),
                "random": lambda n=n, m=live: masks.grow(m, n, rng=rng),
                "score": lambda n=n, s=score, m=live: masks.grow(m, n, score=s),
                "resize": lambda n=n, s=score, m=live: masks.resize(m, n, s, rng),
            }[step](),
            {"prune": count - max(n, 0), "resize": n}.get(step, count + max(n, 0)),
        )
        np.testing.assert_array_equal(live, before)  # pure
        assert after.shape == masks.unit_shape(unit, weight)
        assert after.sum() == min(max(expected, 1), live.size)
        assert not (after & ~live).any() or not (live & ~after).any()  # one direction only
        live = after


@FEW
@given(seeds, units, weight_shapes, sparsities, st.integers(0, 40), st.booleans())
def test_prune_then_grow_restores_the_count(seed, unit, weight, sparsity, n, by_score):
    rng = np.random.default_rng(seed)
    live = one_mask(rng, unit, weight, sparsity)
    score = scores_with_ties(rng, live.shape)
    less = masks.prune(live, score, n)
    dropped = int(live.sum() - less.sum())
    assert dropped == min(n, live.sum() - 1)
    back = masks.grow(less, dropped, **({"score": score} if by_score else {"rng": rng}))
    assert back.sum() == live.sum()


@FEW
@given(seeds, st.integers(1, 60), st.integers(0, 60))
def test_prune_and_grow_follow_a_stable_sort(seed, size, n):
    rng = np.random.default_rng(seed)
    live, score = rng.random(size) < 0.5, scores_with_ties(rng, (size,))
    live[0] = True
    alive, dead = np.flatnonzero(live), np.flatnonzero(~live)
    dropped = alive[np.argsort(score[alive], kind="stable")][: min(n, len(alive) - 1)]
    np.testing.assert_array_equal(np.flatnonzero(live & ~masks.prune(live, score, n)), np.sort(dropped))
    grown = dead[np.argsort(-score[dead], kind="stable")][:n]
    np.testing.assert_array_equal(np.flatnonzero(masks.grow(live, n, score=score) & ~live), np.sort(grown))
    best = alive[np.argsort(-score[alive], kind="stable")][:n]
    np.testing.assert_array_equal(np.flatnonzero(masks.top(score, live, n)), np.sort(best))


@FEW
@given(seeds, units, weight_shapes, sparsities, st.integers(-1, 130))
def test_top_is_exact_and_live(seed, unit, weight, sparsity, k):
    rng = np.random.default_rng(seed)
    live = one_mask(rng, unit, weight, sparsity)
    chosen = masks.top(scores_with_ties(rng, live.shape), live, k)
    assert chosen.shape == live.shape
    assert chosen.sum() == min(max(k, 0), live.sum())
    assert not (chosen & ~live).any()


def test_infinite_scores_are_ordinary():
    live, score = np.array([True, False, True, True]), np.array([-np.inf, np.inf, np.inf, 0], dtype=np.float32)
    np.testing.assert_array_equal(masks.top(score, live, 3), live)
    np.testing.assert_array_equal(masks.prune(live, score, 1), [False, False, True, True])


@pytest.mark.parametrize(
    "call",
    [
        lambda live, score: masks.prune(live, score, 1),
        lambda live, score: masks.grow(live, 1, score=score),
        lambda live, score: masks.top(score, live, 1),
    ],
)
def test_nan_is_named(call):
    with pytest.raises(NumericError, match=r"^score: 1 of 4 values are NaN"):
        call(np.array([True, True, False, True]), np.array([1, np.nan, 2, 3]))
