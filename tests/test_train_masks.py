"""Masks within the loop: exact counts in every phase, dead weights that stay zero, gradient masks that hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from run_cases import SPARCL, begun, live_weights, ticks

from edgecl import masks, store
from edgecl.layout import MaskedLayer
from edgecl.state import Setup, State

LIVELY = (*SPARCL, "tdm.swap=0.2", "train.momentum=0.9", "train.weight_decay=0.001", "data.samples_per_class=12")


def live_units(state: State) -> dict[str, int]:
    return {k: int(v.sum()) for k, v in state.live.items()}


def dead_are_zero(setup: Setup, state: State, arrays: dict[str, np.ndarray]) -> None:
    for name, live in live_weights(setup, state).items():
        for array in (f"{name}.weight", f"momentum.{name}.weight"):
            assert not arrays[array][~live].any(), array


def saved(setup: Setup, state: State) -> store.Snapshot:
    return store.load(setup.run, state.snapshots)


@pytest.mark.parametrize("grow", ["random", "gradient"])
@pytest.mark.parametrize("unit", masks.UNITS)
def test_counts_units_and_zeros_at_every_step(tmp_path: Path, unit: str, grow: str) -> None:
    width = 6 if unit == "block4x4" else 8  # blocks cut off at an edge as well
    setup, state = begun(
        tmp_path / "run", *LIVELY, f"mask.unit={unit}", f"tdm.grow={grow}", f"net.width={width}", "train.epochs=3"
    )
    seen, snapshots = set(), 0
    for _ in ticks(setup, state):
        epoch = setup.epochs[state.at]
        for name, layer in setup.layers.items():
            assert state.live[name].shape == layer.shape
            assert live_units(state)[name] == layer.target(epoch.expanded)
            seen.add((name, state.live[name].tobytes()))
        dead_are_zero(setup, state, state.engine.arrays())
        if state.snapshots > snapshots:
            snapshots = state.snapshots
            if epoch.epoch:  # a new task has grown new units since
                dead_are_zero(setup, state, saved(setup, state).weights)
    assert snapshots == 5  # the last one is written after the last step
    assert len(seen) > len(setup.layers)  # they really move


def test_masks_rest_at_their_size_between_tasks(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run", *LIVELY)
    sizes = [(setup.epochs[state.at].expanded, live_units(state)) for _ in ticks(setup, state)]
    settled = {k: v.live for k, v in setup.layers.items()}
    extended = {k: v.live + v.extra for k, v in setup.layers.items()}
    assert all(settled[k] < extended[k] for k in settled)
    assert all(units == (extended if expanded else settled) for expanded, units in sizes)
    assert {expanded for expanded, _ in sizes} == {True}  # 4 epochs settle after the last: 0.9 · 4 rounds to 4
    assert live_units(state) == settled


def test_static_masks_never_change(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run", "mask.sparsity=0.7", "tdm.enabled=false", "train.momentum=0.9")
    before = {k: v.copy() for k, v in state.live.items()}
    for _ in ticks(setup, state):
        pass
    assert all((state.live[k] == before[k]).all() for k in before)
    assert {k: v.live for k, v in setup.layers.items()} == live_units(state)


def test_units_that_grow_back_at_once_begin_at_zero(tmp_path: Path) -> None:
    """A swap of everything prunes all units but one a layer; at low sparsity nearly all of them come back."""
    sets = ("mask.sparsity=0.1", "tdm={swap: 1.0, every: 0.25, expand: 0.0}", "train.momentum=0.9")
    setup, state = begun(tmp_path / "run", *sets)
    steps = ticks(setup, state)
    while state.snapshots == 0:
        next(steps)
    weights = saved(setup, state).weights
    for name, layer in setup.layers.items():
        for array in (f"{name}.weight", f"momentum.{name}.weight"):
            units = np.count_nonzero(masks.unit_scores(np.abs(weights[array]), layer.unit))
            assert units == 1, array
        assert live_units(state)[name] == layer.live


def test_swaps_keep_the_important(tmp_path: Path) -> None:
    """|w| alone as the score: after a swap the units of the largest weights still live."""
    setup, state = begun(tmp_path / "run", *LIVELY, "tdm.alpha=0", "tdm.beta=0")
    steps = ticks(setup, state)
    while (tick := next(steps)).step < tick.steps:
        weights = {k: state.engine.numpy(state.engine.weight(k)).copy() for k in setup.layers}
    before, last = {k: v.copy() for k, v in state.live.items()}, weights
    weights = {k: state.engine.numpy(state.engine.weight(k)).copy() for k in setup.layers}
    assert any((weights[k] != last[k]).any() for k in weights)
    next(steps)
    for name, layer in setup.layers.items():
        score = masks.unit_scores(np.abs(weights[name]), layer.unit)
        pruned = round(0.2 * layer.units)
        kept = np.sort(score[before[name]])[pruned:]
        assert state.live[name][before[name] & (score >= kept[0])].all()
        assert (state.live[name] != before[name]).any()


# ---- gradient masks ----


def changed_units(before: np.ndarray, now: np.ndarray, layer: MaskedLayer) -> np.ndarray:
    return np.asarray(masks.unit_scores(np.abs(now - before), layer.unit)) > 0


def test_only_chosen_units_are_updated(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run", "mask.sparsity=0.5", "tdm.enabled=false", "dgm={share: 0.3, every: 4}")
    before = {k: state.engine.numpy(state.engine.weight(k)).copy() for k in setup.layers}
    for tick in ticks(setup, state):
        for name, layer in setup.layers.items():
            now = state.engine.numpy(state.engine.weight(name)).copy()
            moved, live = changed_units(before[name], now, layer), state.live[name]
            before[name] = now
            if (tick.step - 1) % 4 == 0:  # a step that chooses takes all gradients
                assert moved.sum() > 0.9 * layer.live
                continue
            chosen = state.engine.numpy(state.chosen[name])
            assert chosen.sum() == layer.updated(layer.live, 0.3) == round(0.3 * layer.live)
            assert (chosen <= live).all()
            assert (moved <= chosen).all()
            assert moved.any()


def test_gradient_masks_do_not_outlive_a_change_of_masks(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run", *LIVELY)
    for tick in ticks(setup, state):
        for name in setup.layers:
            assert (state.engine.numpy(state.chosen[name]) <= state.live[name]).all()
        assert tick.step == 1 or state.chosen
    assert not state.chosen  # the last change was the settling
