"""The mean of a task's last weights: which enter it, what becomes of it, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from run_cases import SPARCL, begun, configured, live_weights, to_end

from edgecl import average, footprint, schedule
from edgecl.nets import build_net
from edgecl.train import Progress, train

SETS = (*SPARCL, "train={momentum: 0.9, epochs: 4, average: 0.5}")


def test_which_steps_enter() -> None:
    config = configured("train={average: 0.3, epochs: 10}")
    epochs = schedule.epochs(config, [16 * 50])
    entered = [(e.epoch, done) for e in epochs for done in range(1, e.steps + 1) if schedule.averages(config, e, done)]
    assert entered == [(e, done) for e in (7, 8, 9) for done in (20, 40, 50)]


@pytest.mark.parametrize("engine", ["native", "numpy", "torch"])
def test_the_net_becomes_the_mean_but_for_dead_units(tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    setup, state = begun(tmp_path / "run", *SETS, f"engine.name={engine}")
    seen, take = [], average.take

    def checked(*args: object) -> None:
        take(setup, state)
        live, arrays = live_weights(setup, state), state.engine.arrays()
        for name in (*setup.plan.net.weights(), *setup.plan.net.buffers()):
            wanted = np.mean([a[name] for a in seen], 0) * live.get(name.removesuffix(".weight"), 1)
            np.testing.assert_allclose(arrays[name], wanted, atol=1e-6, err_msg=name)
        seen.clear()
        tasks.append(state.at)

    monkeypatch.setattr(average, "take", checked)
    tasks: list[int] = []
    ends = (e for e in train(setup, state) if isinstance(e, Progress) and e.epoch >= 2 and e.step == e.steps)
    for _ in ends:
        seen.append(state.engine.arrays())  # noqa: PERF401 - `checked` empties it on the way
    assert tasks == [4, 8]  # two tasks of four epochs
    assert (state.averaged, state.mean) == (0, {})


def test_memory_budgets_count_the_mean() -> None:
    net = build_net("small_cnn", (1, 8, 8), 10, 8)
    none, some = (footprint.run_bytes(configured(f"train.average={share}"), net, 8) for share in (0, 0.2))
    weights = 4 * sum(int(np.prod(s)) for s in net.weights().values())
    assert some["mean of weights"] - none["mean of weights"] == weights


def test_without_it_nothing_is_gathered(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run", *SPARCL, "train.epochs=1")
    to_end(setup, state)
    assert (state.averaged, state.mean) == (0, {})
