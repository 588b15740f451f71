"""State: what a run begins with, and that a snapshot gives all of it back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from run_cases import SPARCL, begun, configured, events, live_weights, ticks

from edgecl import session, store
from edgecl import state as states
from edgecl.config import Config
from edgecl.state import Setup, State
from edgecl.types import StoreError

SETS = (*SPARCL, "train.momentum=0.9")


def plain(state: State) -> dict[str, Any]:
    """All that training changes, by name, as plain values and bytes."""
    arrays = {**state.engine.arrays(), **{f"live.{k}": v for k, v in state.live.items()}, **state.learning._asdict()}
    arrays |= {f"chosen.{k}": state.engine.numpy(v) for k, v in state.chosen.items()} | {"order": state.order}
    arrays |= state.memory.arrays() if state.memory else {}
    counted = ("at", "step", "loss", "right", "gathered", "seconds", "cpu_seconds", "snapshots", "accuracy")
    counters = {k: getattr(state, k) for k in counted}
    described = {k: (str(a.dtype), a.shape, a.tobytes()) for k, a in arrays.items()}
    return {
        **described,
        **counters,
        "rng": state.rng.bit_generator.state,
        "ledger": state.ledger.state(),
        "end": state.metrics.offset,
    }


def stopped_at(run: Path, step: int, *sets: str) -> tuple[Setup, State]:
    setup, state = begun(run, *sets)
    for n, _ in enumerate(ticks(setup, state), 1):
        if n == step:
            break
    return setup, state


# ---- a fresh state ----


def test_a_fresh_state(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run", *SETS)
    assert (state.at, state.step, state.snapshots, len(state.order), state.ledger.executed) == (0, 0, 0, 0, 0)
    assert {k: int(v.sum()) for k, v in state.live.items()} == {k: v.live for k, v in setup.layers.items()}
    assert state.memory is not None
    assert (state.memory.capacity, state.memory.seen, state.memory.x.shape[1:]) == (30, 0, (1, 8, 8))
    arrays = state.engine.arrays()
    assert all(not a.any() for k, a in arrays.items() if k.startswith("momentum."))
    for name, live in live_weights(setup, state).items():
        assert (arrays[f"{name}.weight"][live] != 0).all()
        assert not arrays[f"{name}.weight"][~live].any()


def test_a_method_that_replays_nothing_has_no_memory(tmp_path: Path) -> None:
    assert begun(tmp_path / "run", "method=sgd")[1].memory is None


def test_the_seed_decides_the_beginning(tmp_path: Path) -> None:
    first, again, other = (plain(begun(tmp_path / n, *SETS, f"seed={seed}")[1]) for n, seed in [("a", 3), ("b", 3), ("c", 4)])
    assert first == again
    assert first["conv2.weight"] != other["conv2.weight"]
    assert first["live.conv2"] != other["live.conv2"]


def test_masks_of_classes(tmp_path: Path) -> None:
    setup, _ = begun(tmp_path / "run", "data={classes_per_task: 4, samples_per_class: 5}")
    assert setup.task_mask(1).tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 0, 0]
    assert setup.seen_mask(1).tolist() == [1, 1, 1, 1, 1, 1, 1, 1, 0, 0]
    assert setup.task_mask(2).tolist() == [0] * 8 + [1] * 2
    assert setup.task_mask(0).dtype == np.float32


# ---- counts ----


def test_live_weights_are_counted_in_the_masks(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run", "mask={sparsity: 0.3, unit: block4x4}", "net.width=6")
    counts = state.live_weights(setup)
    assert {k: counts[k] for k in setup.layers} == {k: int(v.sum()) for k, v in live_weights(setup, state).items()}
    assert counts["conv1"] == 6 * 1 * 9
    whole = {k: layer.weights(layer.live) for k, layer in setup.layers.items()}
    assert all(counts[k] <= whole[k] for k in whole)


def test_a_price_follows_the_masks(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run", *SETS)
    before = state.price(setup, gather=False)[0].sum()
    assert state.price(setup, gather=True)[0].sum() > before
    state.live["conv2"][:] = True
    assert state.price(setup, gather=False)[0].sum() == before
    state.apply_masks(setup)
    assert state.price(setup, gather=False)[0].sum() > before


def test_a_note_is_a_line_at_once(tmp_path: Path) -> None:
    _, state = begun(tmp_path / "run")
    state.seconds, state.cpu_seconds = 1.23456, 2
    assert state.note({"event": "x", "n": 1}) == {"event": "x", "n": 1, "seconds": 1.235, "cpu_seconds": 2}
    assert events(tmp_path / "run", "x") == [{"event": "x", "n": 1, "seconds": 1.235, "cpu_seconds": 2}]


# ---- there and back ----


@pytest.mark.parametrize("step", [1, 3, 6, 13, 21, 33])
@pytest.mark.parametrize("method", ["derpp", "sgd"])
def test_a_snapshot_gives_all_of_it_back(tmp_path: Path, step: int, method: str) -> None:
    setup, state = stopped_at(tmp_path / "run", step, *SETS, f"method={method}", "tdm={steps: 2, every: 0.5}")
    assert state.step > 0
    while state.gathered:  # no snapshot is made in the middle of scoring
        next(ticks(setup, state))
    states.save(setup, state)
    back = states.restore(setup, session.engine_of(setup.plan))
    assert plain(back) == plain(state)
    assert back.rng.random() == state.rng.random()


def test_gradient_masks_come_back_into_force(tmp_path: Path) -> None:
    setup, state = stopped_at(tmp_path / "run", 2, *SETS, "engine.name=torch")  # whose masks can be read
    assert state.chosen
    states.save(setup, state)
    back = states.restore(setup, session.engine_of(setup.plan))
    for name in setup.layers:
        assert (state.engine.updated[name] == back.engine.updated[name]).all()
        assert (back.engine.updated[name] < back.engine.live[name]).any()


def test_without_a_snapshot_it_begins_anew(tmp_path: Path) -> None:
    setup, state = stopped_at(tmp_path / "run", 2, *SETS)
    state.note({"event": "lost"})
    anew = states.restore(setup, session.engine_of(setup.plan))
    assert plain(anew) == plain(begun(tmp_path / "other", *SETS)[1])
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == ""


def test_numbers_rise_and_events_after_a_snapshot_are_forgotten(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run", *SETS)
    state.note({"event": "kept"})
    assert [states.save(setup, state).name for _ in range(3)] == ["001", "002", "003"]
    state.note({"event": "lost"})
    back = states.restore(setup, session.engine_of(setup.plan))
    assert back.snapshots == 3
    assert [json.loads(line)["event"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()] == ["kept"]


def test_where_to_go_on_from(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run", *SETS)
    assert state.last_good(setup.run) == "no snapshot yet"
    states.save(setup, state)
    assert state.last_good(setup.run) == f"last good snapshot: {tmp_path}/run/snapshots/001"


# ---- what does not fit ----


@pytest.mark.parametrize("lost", ["live.conv3", "memory.logits", "learning.forgets", "order", "rng", "ledger", "step"])
def test_a_part_that_is_missing_is_named(tmp_path: Path, lost: str) -> None:
    setup, state = begun(tmp_path / "run", *SETS)
    states.save(setup, state)
    whole = store.load(setup.run, 1)
    parts = [{k: v for k, v in part.items() if k != lost} for part in whole]
    store.save(setup.run, 2, store.Snapshot(*parts))
    with pytest.raises(StoreError, match=rf"snapshots/002: .*{lost.removeprefix('live.')}"):
        states.restore(setup, session.engine_of(setup.plan))


def test_a_mask_of_an_unknown_layer_is_named(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run", *SETS)
    state.live["conv9"] = np.ones((2, 2), np.bool_)
    states.save(setup, state)
    with pytest.raises(
        StoreError, match=r"snapshots/001: mask of layer conv9 is \(2, 2\), but the configuration has it not masked"
    ):
        states.restore(setup, session.engine_of(setup.plan))


def test_weights_of_another_net_are_named(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run")
    states.save(setup, state)
    whole = store.load(setup.run, 1)
    store.save(setup.run, 2, whole._replace(weights={**whole.weights, "conv1.weight": np.zeros((12, 1, 3, 3), np.float32)}))
    said = r"/run/snapshots/002: weights: conv1.weight has shape \(12, 1, 3, 3\), net small_cnn needs \(8, 1, 3, 3\)"
    with pytest.raises(StoreError, match=said):
        states.restore(setup, session.engine_of(setup.plan))
    with pytest.raises(StoreError, match=said):
        session.open_snapshot(setup.run)


@pytest.mark.parametrize(("key", "was", "now"), [("net.width", 8, 12), ("method.alpha", 0.1, 0.2), ("budget", "", "2x")])
def test_an_edited_configuration_is_named(tmp_path: Path, key: str, was: object, now: object) -> None:
    setup, state = begun(tmp_path / "run")
    states.save(setup, state)
    edit(setup.run, setup.config.set(key, now))
    said = f"{setup.run}/config.yaml: {key} is {now!r}, but {setup.run}/snapshots/001 was trained with {was!r}"
    for look in (session.resume, session.open_snapshot, session.check):
        with pytest.raises(StoreError) as error:
            look(setup.run)
        assert str(error.value) == said


def test_a_profile_may_change(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run")
    states.save(setup, state)
    edit(setup.run, setup.config.set("device", "rpi"))
    assert session.resume(setup.run)[0].config.device == "rpi"


def edit(run: Path, config: Config) -> None:
    path = run / "config.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "config": config.to_dict()}))


def test_setups_do_not_change(tmp_path: Path) -> None:
    setup, _ = begun(tmp_path / "run")
    with pytest.raises(AttributeError):
        setup.run = tmp_path  # type: ignore[misc]
    assert replace(setup, run=tmp_path).config == configured("engine.name=native")
