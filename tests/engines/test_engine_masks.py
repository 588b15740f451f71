"""Masks in an engine: what is dead stays exactly 0, what is frozen stays as it was, and all else is plain SGD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import reference_net
from engine_cases import PASSES, TINY, branched, data, error, gradients, half_live, on_engines, run, start
from training import batches, direct, learner, same, stepper

from edgecl.engines import Engine
from edgecl.masks import UNITS, expand
from edgecl.nets import build_net

Setting = tuple[str, Mapping[str, Any]]
NET = build_net(TINY, (1, 8, 8), 10)
on_units = pytest.mark.parametrize("unit", UNITS)


def expanded(units: Mapping[str, np.ndarray], unit: str) -> dict[str, np.ndarray]:
    """Layer → mask in the weight's shape."""
    return {k: expand(v, unit, NET.weights()[f"{k}.weight"]) for k, v in units.items()}


def train(engine: Engine, steps: int = 3, seed: int = 4) -> None:
    for batch in batches(engine.net, steps, seed):
        direct(engine, batch)


def choose(engine: Engine, live: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Lets through about half of the live units of every masked layer; returns them."""
    rng = np.random.default_rng(8)
    chosen = {k: v & (rng.random(v.shape) < 0.5) for k, v in live.items()}
    engine.set_gradient_masks({k: engine.asarray(v) for k, v in chosen.items()})
    return chosen


# ---- steps ----


@on_engines
def test_a_step_is_sgd_with_momentum_and_weight_decay(engine: Setting) -> None:
    """v ← 0.8 v + (g + 0.01 w), w ← w − rate · v, for all trained arrays; g is the float64 reference's each time."""
    net, rate = branched(), 0.05
    x, d = data(net)
    made = start(engine, net, momentum=0.8, weight_decay=0.01)
    velocity = {k: np.zeros(s) for k, s in net.weights().items()}
    for _ in range(3):
        before = made.arrays()
        g = reference_net.Result(net, before, x, PASSES["separate"]).gradients(d)
        velocity = {k: 0.8 * v + g[k] + 0.01 * before[k] for k, v in velocity.items()}
        run(made, x, PASSES["separate"])
        made.backward([made.asarray(a) for a in d])
        made.step(made.asarray(np.float32(rate)))
        after = made.arrays()
        assert all(error(after[k], before[k] - rate * v, floor=0.1) < 1e-5 for k, v in velocity.items())
        velocity = {k: after[f"momentum.{k}"].astype(np.float64) for k in velocity}


@on_engines
def test_without_momentum_there_is_no_velocity(engine: Setting) -> None:
    made = learner(engine, NET, momentum=0.0)
    assert set(made.arrays()) == {*NET.weights(), *NET.buffers()}
    before = made.arrays()
    train(made, 1)
    assert not same(before, made.arrays())


# ---- weight masks ----


@on_engines
@on_units
def test_dead_weights_stay_0(engine: Setting, unit: str) -> None:
    """Through steps with momentum and weight decay, with and without gradient masks, even ones that name dead units."""
    made, live = learner(engine, NET, unit), half_live(NET, unit)
    everything = {k: made.asarray(np.ones_like(v)) for k, v in live.items()}
    for masks in ({}, everything, {k: made.asarray(v) for k, v in live.items()}):
        made.set_gradient_masks(masks)
        before = made.arrays()
        train(made)
        after = made.arrays()
        for layer, mask in expanded(live, unit).items():
            for name in (f"{layer}.weight", f"momentum.{layer}.weight"):
                assert not after[name][~mask].any()
                assert (after[name] != before[name])[mask].mean() > 0.9


@on_engines
@on_units
def test_new_masks_zero_weights_and_momentum(engine: Setting, unit: str) -> None:
    """What dies becomes 0 at once, and comes back as 0; what lives on keeps its bits; running statistics aren't touched."""
    made = learner(engine, NET)
    train(made)
    before, live = made.arrays(), half_live(NET, unit)
    made.set_masks(live, dict.fromkeys(live, unit))
    after, masks = made.arrays(), expanded(live, unit)
    for name, was in before.items():
        layer = name.removeprefix("momentum.").removesuffix(".weight")
        expected = np.where(masks[layer], was, 0) if layer in masks else was
        assert np.array_equal(after[name], expected), name
    made.set_masks({k: np.ones_like(v) for k, v in live.items()}, dict.fromkeys(live, unit))
    assert same(made.arrays(), after)
    train(made, 1)
    final = made.arrays()
    assert all(final[f"{k}.weight"][~m].any() for k, m in masks.items())  # alive again


@on_engines
@on_units
def test_gradients_see_dead_weights_only_as_scores(engine: Setting, unit: str) -> None:
    """A masked net's gradient is that of the net with zeros in it."""
    made, live = start(engine, NET, momentum=0.5), half_live(NET, unit)
    made.set_masks(live, dict.fromkeys(live, unit))
    x, d = data(NET)
    exact = reference_net.Result(NET, made.arrays(), x, PASSES["separate"])
    assert error(run(made, x, PASSES["separate"])[0], exact.outputs()[0]) < 2e-5
    found, wanted, masks = gradients(made, d), exact.gradients(d), expanded(live, unit)
    for name, g in wanted.items():
        mask = masks.get(name.removesuffix(".weight"), True)
        assert error(found[name], g * mask, floor=0.1) < 2e-5, name


# ---- gradient masks ----


@on_engines
@on_units
def test_gradient_masks_freeze_what_they_mask(engine: Setting, unit: str) -> None:
    """Frozen weights keep their bits and their momentum's: an engine that skips their gradient has nothing to add to it."""
    made, live = learner(engine, NET, unit), half_live(NET, unit)
    train(made)
    chosen, before = choose(made, live), made.arrays()
    train(made)
    after = made.arrays()
    for layer, mask in expanded(chosen, unit).items():
        for name in (f"{layer}.weight", f"momentum.{layer}.weight"):
            assert np.array_equal(after[name][~mask], before[name][~mask]), name
            assert mask.sum() == 0 or (after[name] != before[name])[mask].mean() > 0.9
    assert not np.array_equal(after["classifier.weight"], before["classifier.weight"])


@on_engines
@on_units
def test_what_is_let_through_moves_as_without_masks(engine: Setting, unit: str) -> None:
    live, results = half_live(NET, unit), []
    for masked in (False, True):
        made = learner(engine, NET, unit)
        train(made)
        chosen = choose(made, live) if masked else {}
        train(made, 1)
        results.append(made.arrays())
    for layer, mask in expanded(chosen, unit).items():
        assert error(*(r[f"{layer}.weight"][mask] for r in results)) < 1e-5


@on_engines
def test_gradient_masks_are_lifted(engine: Setting) -> None:
    """By an empty mapping, by one that doesn't name the layer, and by new weight masks."""
    live = half_live(NET, "kernel")
    mask = expanded(live, "kernel")["conv2"]
    for lift in ("empty", "other", "masks"):
        made = learner(engine, NET, "kernel")
        made.set_gradient_masks({k: made.asarray(np.zeros_like(v)) for k, v in live.items()})
        before = made.arrays()["conv2.weight"]
        train(made, 1)
        assert np.array_equal(made.arrays()["conv2.weight"], before)
        if lift == "masks":
            made.set_masks(live, dict.fromkeys(live, "kernel"))
        else:
            made.set_gradient_masks({} if lift == "empty" else {"conv1": made.asarray(live["conv1"])})
        train(made, 1)
        assert (made.arrays()["conv2.weight"] != before)[mask].mean() > 0.9


@on_engines
def test_compiled_steps_obey_masks_that_change(engine: Setting) -> None:
    """Masks set after the first compiled step, as the loop does at every task."""
    made = learner(engine, NET, "kernel")
    step = made.compile(stepper(made))
    step(batches(NET, 1)[0])
    live = half_live(NET, "kernel", seed=21)
    made.set_masks(live, dict.fromkeys(live, "kernel"))
    chosen, before = choose(made, live), made.arrays()
    step(batches(NET, 1)[0])
    after = made.arrays()
    for layer, mask in expanded(chosen, "kernel").items():
        name = f"{layer}.weight"
        assert np.array_equal(after[name][~mask], before[name][~mask])
        assert not after[name][~expanded(live, "kernel")[layer]].any()
        assert (after[name] != before[name])[mask].any()
