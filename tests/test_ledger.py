"""The ledger against counts by hand, on a net small enough to write them out."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from edgecl import forecast
from edgecl.config import Config, resolve
from edgecl.cost import layer_costs
from edgecl.forecast import Workload, simulate
from edgecl.ledger import KINDS, Ledger, gradient_mask_upkeep, scoring_upkeep, step_paper, step_table
from edgecl.nets import build_net
from edgecl.nets.graph import Net
from edgecl.nets.nodes import BatchNorm, Conv2d, GlobalPool, Linear, Relu

NET = Net(
    "hand",
    (1, 4, 4),
    3,
    (
        Conv2d("stem", ("x",), 2, 3, padding=1, role="stem"),
        BatchNorm("bn", ("stem",)),
        Relu("relu", ("bn",)),
        Conv2d("conv", ("relu",), 4, 3, padding=1),
        GlobalPool("pool", ("conv",)),
        Linear("classifier", ("pool",), 3, role="classifier"),
    ),
    "classifier",
    "pool",
)
COSTS = layer_costs(NET)

# One sample through all weights: 2 a multiply-add, at each of the 4·4 positions.
STEM = 2 * (2 * 1 * 3 * 3) * 16  # 576; it reads the image, so it has no input gradient
CONV = 2 * (4 * 2 * 3 * 3) * 16  # 2304
HEAD = 2 * (3 * 4)  # 24
DENSE = {"stem": 18, "conv": 72, "classifier": 12}
LIVE = {"stem": 18, "conv": 36, "classifier": 12}  # 4 of 8 kernels
UPDATED = {"stem": 18, "conv": 18, "classifier": 12}  # 2 of these 4


def by_kind(table: Any) -> dict[str, list[int]]:
    return dict(zip(KINDS, table.tolist(), strict=True))


NONE = [0, 0, 0]


def test_a_dense_step() -> None:
    assert by_kind(step_table(COSTS, DENSE, DENSE, None, 2, 3)) == {
        "forward": [2 * STEM, 2 * CONV, 2 * HEAD],
        "input_gradient": [0, 2 * CONV, 2 * HEAD],
        "weight_gradient": [2 * STEM, 2 * CONV, 2 * HEAD],
        "replay_forward": [3 * STEM, 3 * CONV, 3 * HEAD],
        "replay_input_gradient": [0, 3 * CONV, 3 * HEAD],
        "replay_weight_gradient": [3 * STEM, 3 * CONV, 3 * HEAD],
        "scoring": NONE,
        "upkeep": NONE,
    }


def test_a_step_without_replay() -> None:
    table = by_kind(step_table(COSTS, DENSE, DENSE, None, 5, 0))
    assert table["weight_gradient"] == [5 * 576, 5 * 2304, 5 * 24]
    assert all(table[kind] == NONE for kind in KINDS if kind.startswith("replay"))


def test_a_masked_step() -> None:
    table = by_kind(step_table(COSTS, LIVE, LIVE, None, 2, 3))
    assert table["forward"] == [1152, 2 * CONV // 2, 48]
    assert table["input_gradient"] == [0, 2 * CONV // 2, 48]
    assert table["weight_gradient"] == [1152, 2 * CONV // 2, 48]
    assert table["replay_weight_gradient"] == [3 * 576, 3 * CONV // 2, 72]


def test_a_gradient_masked_step() -> None:
    table = by_kind(step_table(COSTS, LIVE, UPDATED, None, 2, 3))
    assert table["forward"][1] == table["input_gradient"][1] == 2 * CONV // 2
    assert table["weight_gradient"][1] == 2 * CONV // 4
    assert table["replay_weight_gradient"][1] == 3 * CONV // 4
    assert table["scoring"] == NONE


def test_a_step_that_scores() -> None:
    """It takes the gradient of all live weights (or of all, to grow by gradient); what updates needs is counted there."""
    table = by_kind(step_table(COSTS, LIVE, UPDATED, LIVE, 2, 3))
    assert table["weight_gradient"][1] + table["replay_weight_gradient"][1] == 5 * CONV // 4
    assert table["scoring"] == [0, 5 * (CONV // 2 - CONV // 4), 0]
    table = by_kind(step_table(COSTS, LIVE, LIVE, DENSE, 2, 3))
    assert table["scoring"] == [0, 5 * (CONV - CONV // 2), 0]


def test_upkeep() -> None:
    assert scoring_upkeep(36, 8) == 7 * 36 + 8 * 3  # 8 units are sorted in 8 · log₂ 8
    assert gradient_mask_upkeep(36, 8) == 2 * 36 + 8 * 3
    assert scoring_upkeep(9, 1) == 7 * 9 + 1
    assert scoring_upkeep(90, 10) == 7 * 90 + 10 * 4  # log₂ 10 rounded up


@pytest.mark.parametrize("draws", [0, 1, 2])
def test_the_papers_convention(draws: int) -> None:
    """3 a current sample, the first layer's input gradient too, and a forward for each draw: k = 3, 4, 5."""
    assert step_paper(COSTS, DENSE, DENSE, 2, draws) == 2 * (3 + draws) * (STEM + CONV + HEAD)
    masked = STEM + CONV // 2 + HEAD
    assert step_paper(COSTS, LIVE, UPDATED, 2, draws) == 2 * ((2 + draws) * masked + STEM + CONV // 4 + HEAD)


# ---- whole runs ----


def configured(**values: Any) -> Config:
    """Two current samples and two a draw; keys with two underscores for the dot."""
    config = resolve("", [{"train": {"batch": 2, "epochs": 4}, "tdm": {"expand": 0.0, "steps": 2}}])
    for key, value in values.items():
        config = config.set(key.replace("__", "."), value)
    return config


def total(config: Config, *sizes: int) -> dict[str, int]:
    ledger = simulate(config, NET, Workload((1, 4, 4), 3, sizes))
    return {kind: int(n) for kind, n in zip(KINDS, ledger.table.sum(1), strict=True)} | {"paper": ledger.paper}


F, B = STEM + CONV + HEAD, CONV + HEAD  # a sample's dense forward, and its input gradients


def test_a_dense_run_of_derpp() -> None:
    steps = 4 * (3 + 2)  # epochs · (⌊6 / 2⌋ + ⌊5 / 2⌋)
    assert total(configured(), 6, 5) == {
        "forward": steps * 2 * F,
        "input_gradient": steps * 2 * B,
        "weight_gradient": steps * 2 * F,
        "replay_forward": steps * 2 * 2 * F,
        "replay_input_gradient": steps * 2 * 2 * B,
        "replay_weight_gradient": steps * 2 * 2 * F,
        "scoring": 0,
        "upkeep": 0,
        "paper": steps * 2 * 5 * F,
    }


def test_a_memory_batch_of_its_own() -> None:
    run = total(configured(memory__batch=7), 6)
    assert (run["forward"], run["replay_forward"]) == (12 * 2 * F, 12 * 2 * 7 * F)


def test_joint_learns_all_tasks_as_one() -> None:
    run = total(configured(method="joint"), 3, 3)
    assert run["forward"] == 4 * 3 * 2 * F  # ⌊6 / 2⌋ steps an epoch, not 1 + 1
    assert run["replay_forward"] == 0


def test_a_sparse_run() -> None:
    """4 epochs of 3 steps: swaps after the first three, settles after the fourth; 2 steps before each score."""
    config = configured(method="sgd", mask__sparsity=0.5, mask__unit="kernel")
    live, back = STEM + CONV // 2 + HEAD, CONV // 2 + HEAD
    run = total(config, 6)
    assert (run["forward"], run["input_gradient"], run["weight_gradient"]) == (24 * live, 24 * back, 24 * live)
    assert run["scoring"] == 0  # without gradient masks all live gradients are taken anyway
    assert run["upkeep"] == 4 * (7 * 36 + 24)


def test_gradient_masks_in_a_run() -> None:
    """Of 4 live kernels 2 are updated; chosen at steps 0 and 2 of 3; the last 2 steps of an epoch score."""
    config = configured(method="sgd", mask__sparsity=0.5, mask__unit="kernel", dgm__share=0.5, dgm__every=2)
    run = total(config, 6)
    assert run["weight_gradient"] == 24 * (STEM + CONV // 4 + HEAD)
    assert run["scoring"] == 4 * 3 * 2 * (CONV // 4)  # steps 0, 1 and 2 all gather, of 2 samples each
    assert run["upkeep"] == 4 * (7 * 36 + 24) + 4 * 2 * (2 * 36 + 24)


def test_expansion_costs_until_the_mask_settles() -> None:
    config = configured(method="sgd", mask__sparsity=0.5, mask__unit="kernel", tdm__expand=0.25, tdm__settle=0.5)
    more = CONV // 8  # a kernel of 8 is an eighth of the layer; 2 of them while expanded
    assert total(config, 6)["forward"] == 2 * 6 * (STEM + CONV // 2 + 2 * more + HEAD) + 2 * 6 * (STEM + CONV // 2 + HEAD)


def test_removed_samples_cost_nothing() -> None:
    config = configured(method="sgd", ddr__share=0.5, ddr__times=1, ddr__until=0.25)
    assert total(config, 8)["forward"] == (4 + 2 + 2 + 2) * 2 * F


def test_er_on_split_cifar_10_in_the_papers_convention() -> None:
    config = resolve("cifar10", [{"method": "er"}])
    work = Workload((3, 32, 32), 10, (10_000,) * 5)
    ledger = simulate(config, build_net("resnet18", work.input, 10), work)
    assert ledger.paper == pytest.approx(11.1e15, rel=0.01)
    assert ledger.executed == pytest.approx(ledger.paper * 6 / 4, rel=0.01)  # replay's backward runs as well


def test_counting_epochs_alike_is_counting_each() -> None:
    config = configured(mask__sparsity=0.5, dgm__share=0.5, dgm__every=3, ddr__share=0.4, tdm__expand=0.25)
    whole = simulate(config, NET, Workload((1, 4, 4), 3, (40, 33)))
    sums = [simulate(config, NET, Workload((1, 4, 4), 3, (40, 33)), until=n) for n in range(9)]
    assert sums[0].executed == 0
    assert (sums[8].table == whole.table).all()
    steps = np.diff([s.executed for s in sums])
    assert (steps > 0).all()
    assert sums[4].executed == simulate(config, NET, Workload((1, 4, 4), 3, (40,))).executed


# ---- the ledger itself ----


def filled() -> Ledger:
    ledger = Ledger(COSTS)
    ledger.add_step(step_table(COSTS, LIVE, UPDATED, None, 2, 2), 1000, 3)
    ledger.add_upkeep(1, 276)
    ledger.add_evaluation(10, LIVE)
    return ledger


def test_evaluation_stays_outside_the_ratio() -> None:
    ledger = filled()
    before = ledger.executed
    ledger.add_evaluation(5, DENSE)
    assert ledger.executed == before
    assert ledger.evaluation == 10 * (STEM + CONV // 2 + HEAD) + 5 * F


def test_the_report_adds_up() -> None:
    dense = Ledger(COSTS)
    dense.add_step(step_table(COSTS, DENSE, DENSE, None, 2, 2), 9000, 3)
    ledger = filled()
    report = json.loads(json.dumps(ledger.report(dense)))
    assert {"executed", "paper", "dense_executed", "dense_paper", "ratio"} <= set(report)
    assert (
        report["executed"]
        == sum(report["by_kind"].values())
        == sum(n for row in report["by_layer"].values() for n in row.values())
    )
    assert report["by_layer"]["conv"]["upkeep"] == report["by_kind"]["upkeep"] == 276
    assert report["ratio"] == dense.executed / ledger.executed
    assert (report["paper"], report["dense_paper"], report["ratio_paper"]) == (3000, 27000, 9)


def test_a_run_without_a_step_has_no_ratio() -> None:
    assert Ledger(COSTS).report(Ledger(COSTS))["ratio"] is None


def test_a_snapshot_keeps_every_count() -> None:
    ledger, back = filled(), Ledger(COSTS)
    back.restore(json.loads(json.dumps(ledger.state())))
    assert (back.state(), back.executed) == (ledger.state(), ledger.executed)
    assert back.table.dtype == np.int64


def test_the_meter_prices_what_the_method_draws() -> None:
    for method, replay in [("sgd", 0), ("er", 2), ("derpp", 4)]:
        config = configured(method=method)
        meter = forecast.Meter(config, COSTS, {}, forecast.method_of(config))
        assert by_kind(meter.step(DENSE, DENSE, gather=False)[0])["replay_forward"] == [replay * n for n in (STEM, CONV, HEAD)]
