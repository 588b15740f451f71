"""The loop: it executes what was forecast, does what each option says, repeats itself, and learns without forgetting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_cases import SPARCL, begun, digits, events, finished, planned, remains, ticks, to_end

from edgecl import schedule, session
from edgecl.ledger import KINDS
from edgecl.train import draw_batch

FEW = ("data={samples_per_class: 12, classes_per_task: 5}", "train.epochs=3")

# ---- the ledger ----

EXACT = {
    "dense": (),
    "kernels": SPARCL,
    "weights": (*SPARCL, "mask.unit=weight"),
    "channels": (*SPARCL, "mask.unit=channel"),
    "blocks": (*SPARCL, "mask.unit=block4x4"),  # widths 8 and 16: no block is cut
    "erk": (*SPARCL, "mask.start=erk"),
    "grown by gradient": (*SPARCL, "tdm.grow=gradient"),
    "no removal": (*SPARCL, "ddr.share=0"),
    "no gradient masks": (*SPARCL, "dgm.share=1"),
    "no dynamic masks": (*SPARCL, "tdm.enabled=false"),
    "removal alone": ("ddr.share=0.4",),
    "sgd": (*SPARCL, "method=sgd"),
    "joint": (*SPARCL, "method=joint"),
    "er": (*SPARCL, "method=er"),
    "er_ace": (*SPARCL, "method=er_ace"),
    "joined passes": (*SPARCL, "method.forward=concat"),
    "tasks smaller than a batch": (*SPARCL, "train.batch=70"),
    "small replay, long scoring": (*SPARCL, "memory.batch=5", "tdm.steps=50"),
    "mlp": (*SPARCL, "net={name: mlp, width: 32}"),
    "one epoch": (*SPARCL, "train.epochs=1"),
    "one draw": (*SPARCL, "method.draws=1"),
    "averaged": (*SPARCL, "train.average=0.5"),
    "corrected": (*SPARCL, "train.bias_correction=true"),
    "a budget": ("budget=9x", "net.width=0"),
}


@pytest.mark.parametrize("sets", EXACT.values(), ids=EXACT.keys())
def test_executed_is_what_was_forecast(tmp_path: Path, sets: tuple[str, ...]) -> None:
    setup, state = finished(tmp_path / "run", *FEW, *sets)
    forecast = setup.plan.ledger
    assert (state.ledger.table == forecast.table).all()
    assert (state.ledger.executed, state.ledger.paper) == (forecast.executed, forecast.paper)


@pytest.mark.parametrize("unit", ["auto", "block4x4"])
def test_cut_blocks_cost_at_most_what_was_forecast(tmp_path: Path, unit: str) -> None:
    setup, state = finished(tmp_path / "run", *FEW, *SPARCL, "net.width=6", f"mask.unit={unit}", "mask.sparsity=0.4")
    assert (state.ledger.table <= setup.plan.ledger.table).all()
    assert (state.ledger.executed < setup.plan.ledger.executed) == (unit == "block4x4")


def kinds(*sets: str) -> dict[str, int]:
    """What a run costs, by kind; the tests above say that it is what the loop executes."""
    return dict(zip(KINDS, planned(*FEW, *sets)[0].ledger.table.sum(1).tolist(), strict=True))


def changed(a: dict[str, int], b: dict[str, int]) -> set[str]:
    return {kind for kind in KINDS if a[kind] != b[kind]}


STATIC = ("mask.sparsity=0.5", "tdm.enabled=false")
DYNAMIC = ("mask.sparsity=0.5", "tdm={expand: 0.0, every: 0.25}")


def test_each_part_of_sparcl_has_its_line() -> None:
    gradients = {"weight_gradient", "replay_weight_gradient"}
    assert changed(kinds(*STATIC), kinds(*DYNAMIC)) == {"upkeep"}
    assert changed(kinds(*STATIC), kinds(*STATIC, "dgm.share=0.5")) == gradients | {"scoring", "upkeep"}
    assert changed(kinds(*DYNAMIC), kinds(*DYNAMIC, "tdm.grow=gradient")) == {"scoring"}
    assert kinds(*DYNAMIC, "tdm.expand=0.1")["forward"] > kinds(*DYNAMIC)["forward"]
    assert kinds(*STATIC, "dgm.share=0.5")["weight_gradient"] < kinds(*STATIC)["weight_gradient"]


def test_removal_saves_steps_and_nothing_else() -> None:
    more, fewer = kinds(*STATIC), kinds(*STATIC, "ddr={share: 0.5, times: 1, until: 0.4}")
    assert changed(more, fewer) == {kind for kind in KINDS if more[kind]}
    # 3 steps an epoch of 60 samples of each task, 1 once half of them have gone
    assert all(fewer[kind] * (3 + 3 + 3) == more[kind] * (3 + 1 + 1) for kind in KINDS)


def test_masks_leave_stem_and_classifier_alone() -> None:
    dense, sparse = (planned(*FEW, *sets)[0].ledger for sets in ((), STATIC))
    names = [c.name for c in dense.costs]
    differ = {names[i] for i in np.flatnonzero((dense.table != sparse.table).any(0))}
    assert differ == set(names) - {names[0], "classifier"}


def test_evaluation_is_counted_by_itself(tmp_path: Path) -> None:
    setup, state = finished(tmp_path / "run", *FEW)
    sizes = [len(t) for t in setup.stream.tests]
    forward = sum(2 * c.weights * c.positions for c in state.ledger.costs)
    assert state.ledger.evaluation == forward * (
        3 * sum(sizes)
    )  # all before, all after the first task (the second for transfer), all
    assert setup.plan.ledger.evaluation == 0


# ---- the samples ----


def test_removal_drops_what_is_scheduled(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run", *SPARCL)
    for tick in ticks(setup, state):
        epoch = setup.epochs[state.at]
        kept = np.flatnonzero(state.learning.kept)
        assert len(kept) == epoch.samples
        assert set(state.order) <= set(kept)
        assert tick.steps == epoch.steps == len(state.order) // 16
    assert [e["samples"] for e in events(tmp_path / "run", "epoch")] == [e.samples for e in setup.epochs]
    assert {e.samples for e in setup.epochs} == {100, 78, 70}


def test_memory_holds_samples_as_they_are_stored(tmp_path: Path) -> None:
    setup, state = finished(tmp_path / "run", *SPARCL)
    memory = state.memory
    assert memory is not None
    assert memory.size == memory.capacity == 30
    assert memory.seen == sum(e.steps * 16 for e in setup.epochs)
    every = {int(i): (x, y) for t in setup.stream.tasks for i, x, y in zip(t.train.ids, t.train.x, t.train.y, strict=True)}
    for i, x, y in zip(memory.ids, memory.x, memory.y, strict=True):
        assert (every[int(i)][0] == x).all()
        assert every[int(i)][1] == y
    assert len({y // 5 for y in memory.y.tolist()}) == 2  # of both tasks
    assert (memory.logits != 0).any(1).all()


def test_a_sample_repeated_to_fill_a_batch_is_remembered_once(tmp_path: Path) -> None:
    _, state = finished(tmp_path / "run", *FEW, "train.batch=70", "memory.capacity=500")
    assert state.memory is not None
    assert state.memory.seen == 2 * 3 * 60  # 2 tasks, 3 epochs, 60 samples
    counts = np.unique(state.memory.ids[: state.memory.size], return_counts=True)[1]
    assert set(counts) == {3}


def test_an_empty_memory_weighs_nothing(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run", *FEW)
    before = state.rng.bit_generator.state
    parts = draw_batch(setup, state, setup.epochs[0], np.arange(16)).parts
    assert [p.weight.sum() for p in parts] == [16, 0, 0]
    assert {p.x.shape for p in parts} == {(16, 1, 8, 8)}  # the shapes of every later step
    for _ in ticks(setup, state):
        break
    state.rng.bit_generator.state = before
    parts = draw_batch(setup, state, setup.epochs[0], np.arange(16)).parts
    assert [p.weight.sum() for p in parts] == [16, 16, 16]


def test_losses_read_the_tasks_own_classes(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run", *FEW)
    second = draw_batch(setup, state, setup.epochs[-1], np.arange(16))
    assert second.task_mask.tolist() == [0] * 5 + [1] * 5
    assert second.seen_mask.tolist() == [1] * 10
    assert (second.parts[0].y >= 5).all()


# ---- repeatable ----


def test_one_seed_one_result_to_the_last_bit(tmp_path: Path) -> None:
    sets = (*SPARCL, "train.momentum=0.9")
    first, again = (remains(tmp_path / name, *finished(tmp_path / name, *sets)) for name in "ab")
    assert first == again
    other = remains(tmp_path / "c", *finished(tmp_path / "c", *sets, "seed=1"))
    assert {k for k in first if first[k] != other[k]} >= {"weights.safetensors", "masks.safetensors", "memory.safetensors"}
    assert first["ledger"] == other["ledger"]


# ---- it learns ----


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    def run(method: str, *sets: str) -> dict[str, Any]:
        train = ("data.samples_per_class=60", "net.width=12", "memory.capacity=100", "train.epochs=6", f"method={method}")
        setup, state = finished(tmp_path_factory.mktemp(method) / "run", *train, *sets)
        return session.result(setup, state)

    sparse = run("derpp", "mask.sparsity=0.5", "ddr.share=0.2", "dgm.share=0.8")
    return {"sparse": sparse} | {name: run(name) for name in ("sgd", "joint", "derpp")}


def test_sgd_forgets(learned: dict[str, dict[str, Any]]) -> None:
    assert learned["sgd"]["class_il_forgetting"] > 0.8
    assert learned["sgd"]["class_il_accuracy"] < 0.6


@pytest.mark.parametrize("name", ["joint", "derpp", "sparse"])
def test_others_do_not(learned: dict[str, dict[str, Any]], name: str) -> None:
    assert learned[name]["class_il_accuracy"] > 0.75
    assert learned[name]["task_il_accuracy"] > 0.8
    assert (learned[name]["class_il_forgetting"] or 0) < 0.3


def test_task_il_is_easier_than_class_il(learned: dict[str, dict[str, Any]]) -> None:
    for result in learned.values():
        for row in result["accuracy"]:
            pairs = [(a, b) for a, b in zip(row["class_il"], row["task_il"], strict=True) if a is not None]
            assert all(a <= b for a, b in pairs)


# ---- events ----


def test_events(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run", *SPARCL)
    said = to_end(setup, state)
    assert [e["event"] for e in said] == ["task", *["epoch"] * 4, "task", *["epoch"] * 4, "task", "end"]
    assert [(e["task"], e["epoch"]) for e in said if e["event"] == "epoch"] == [(t, i) for t in (0, 1) for i in range(4)]
    assert said[-1]["executed"] == state.ledger.executed
    assert [{k: e[k] for k in ("class_il", "task_il")} for e in said if e["event"] == "task"] == state.accuracy
    seconds = [e["seconds"] for e in said]
    assert seconds == sorted(seconds)
    assert all(0 <= e["right"] <= 1 and np.isfinite(e["loss"]) for e in events(tmp_path / "run", "epoch"))


def test_the_plan_walks_the_loops_epochs(tmp_path: Path) -> None:
    setup, _ = begun(tmp_path / "run", *SPARCL)
    assert setup.epochs == schedule.epochs(setup.config, [len(t.train) for t in digits(5, 20).tasks])
