"""What ends a run early: numbers that are not finite, a budget, the user; each leaves a snapshot to go on from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from run_cases import SPARCL, begun, digits, finished, planned, remains, ticks, to_end

from edgecl import session, store
from edgecl.state import Setup, State
from edgecl.train import Stopped, train
from edgecl.types import BudgetError, DataError, NumericError, StoreError

SETS = (*SPARCL, "train={momentum: 0.9, epochs: 3}", "tdm={steps: 2, every: 0.34}")


def refused(setup: Setup, state: State) -> str:
    with pytest.raises(NumericError) as error:
        to_end(setup, state)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- numbers ----


def test_a_rate_that_is_too_high(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run", "net={name: mlp, width: 32}", "train.rate=1000", "train.momentum=0.99")
    said = refused(setup, state)
    assert said.startswith(("loss is nan at task 1, epoch ", "loss is inf at task 1, epoch "))
    assert ": first in " in said  # the loss itself may be the first: the weights behind it are large, and finite
    assert said.endswith("; a lower train.rate than 1000 may help; no snapshot yet")


def poison(state: State, name: str, at: int) -> None:
    """Step `at`, counted from 1 in the whole run, leaves a NaN in the weight `name`."""
    step, done = state.engine.step, [0]

    def poisoned(rate: Any) -> None:
        step(rate)
        done[0] += 1
        if done[0] == at:
            arrays = state.engine.arrays()
            flat = arrays[name].reshape(-1)
            flat[np.flatnonzero(flat)[0]] = np.nan  # a live one: a dead one may be skipped
            state.engine.load(arrays)

    state.engine.step = poisoned  # type: ignore[method-assign]


def test_a_loss_that_is_nan_names_where(tmp_path: Path) -> None:
    run = tmp_path / "run"
    setup, state = begun(run, *SETS)
    steps = setup.epochs[0].steps
    poison(state, "conv2.weight", steps + 1)  # seen by the second step of the second epoch
    said = refused(setup, state)
    assert said.startswith(
        "loss is nan at task 1, epoch 2, step 2: first in bn2.running_mean; a lower train.rate than 0.05 may help; "
    )
    assert said.endswith(f"last good snapshot: {run}/snapshots/001")


def test_the_last_update_of_an_epoch_is_not_saved_if_it_is_nan(tmp_path: Path) -> None:
    run = tmp_path / "run"
    setup, state = begun(run, *SETS)
    poison(state, "classifier.weight", setup.epochs[0].steps + setup.epochs[1].steps)
    said = refused(setup, state)
    assert said.startswith("weights are not finite at task 1, epoch 2, step ")
    assert ": first in classifier.weight; " in said
    assert store.latest(run) == 1
    assert all(np.isfinite(a).all() for a in store.load(run, 1).weights.values())


def test_a_run_goes_on_from_before_the_nan(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run", *SETS)
    poison(state, "conv2.weight", 6)
    refused(setup, state)
    again = session.resume(tmp_path / "run")
    to_end(*again)
    assert remains(tmp_path / "run", *again) == remains(tmp_path / "b", *finished(tmp_path / "b", *SETS))


# ---- budgets ----


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run = tmp_path_factory.mktemp("unbroken") / "run"
    return remains(run, *finished(run, *SETS))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.37, 0.55, 0.81, 0.999])
def test_a_budget_is_never_passed(tmp_path: Path, unbroken: dict[str, Any], share: float) -> None:
    chosen, stream = planned(*SETS)
    limit = int(chosen.ledger.executed * share)
    setup, state = session.begin(tmp_path / "run", replace(chosen, limit=limit), stream)
    with pytest.raises(BudgetError, match=r"is used up after .* FLOPs; snapshot .* is whole"):
        to_end(setup, state)
    assert state.ledger.executed <= limit
    longest = max(e.steps for e in setup.epochs) / sum(e.steps for e in setup.epochs)
    assert state.ledger.executed > limit - 1.5 * longest * chosen.ledger.executed
    report = session.result(setup, state)
    assert report["executed"] == state.ledger.executed <= limit
    assert report["dense_executed"] > report["executed"] or report["executed"] == 0
    again = session.resume(tmp_path / "run")  # config.yaml has no budget: it goes on
    to_end(*again)
    assert remains(tmp_path / "run", *again) == unbroken


def test_a_plan_spends_its_budget_to_the_end(tmp_path: Path) -> None:
    setup, state = finished(tmp_path / "run", "budget=9x", "train.epochs=2")
    assert setup.plan.limit is not None
    assert state.ledger.executed == setup.plan.ledger.executed <= setup.plan.limit
    assert state.ledger.executed > 0.99 * setup.plan.limit


# ---- stopping ----


def once(after: int) -> Callable[[], bool]:
    """True at one call only, after so many others: as a button that springs back."""
    calls = [0]

    def asked() -> bool:
        calls[0] += 1
        return calls[0] == after + 1

    return asked


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4, 7, 11, 18])
def test_a_clean_stop_and_going_on(tmp_path: Path, unbroken: dict[str, Any], after: int) -> None:
    run = tmp_path / "run"
    setup, state = begun(run, *SETS)
    with pytest.raises(Stopped, match=rf"^stopped; edgecl train --resume {run} goes on from \d\d\d$"):
        to_end(setup, state, once(after))
    assert state.gathered == 0
    report = session.result(setup, state)
    assert (report["class_il_accuracy"] is None) == (len(state.accuracy) < 2)
    again = session.resume(run)
    assert (again[1].at, again[1].step) == (state.at, state.step)
    to_end(*again)
    assert remains(run, *again) == unbroken


def test_stopping_again_and_again(tmp_path: Path, unbroken: dict[str, Any]) -> None:
    setup, state = begun(tmp_path / "run", *SETS)
    stops = 0
    while True:
        try:
            to_end(setup, state, once(2))
            break
        except Stopped:
            stops += 1
            setup, state = session.resume(tmp_path / "run")
    assert stops > 5
    assert remains(tmp_path / "run", setup, state) == unbroken


def test_a_listener_that_goes_away(tmp_path: Path, unbroken: dict[str, Any]) -> None:
    for n in (1, 4, 11):
        run = tmp_path / str(n)
        loop = train(*begun(run, *SETS))
        for _ in range(n):
            next(loop)
        loop.close()
        again = session.resume(run)
        to_end(*again)
        assert remains(run, *again) == unbroken


# ---- snapshots that do not belong ----


def edited(run: Path, key: str, value: Any) -> None:
    """A hand in config.yaml."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    section, name = key.split(".")
    config["config"][section][name] = value
    (run / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    setup, state = begun(tmp_path / "run", *SETS)
    steps = ticks(setup, state)
    while not state.snapshots:
        next(steps)
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("mask.unit", "weight", "mask.unit is 'weight', but .*snapshots/001 was trained with 'auto'"),
        ("mask.sparsity", 0.0, "mask.sparsity is 0.0, but .*snapshots/001 was trained with 0.7"),
        ("net.width", 16, "net.width is 16, but .*snapshots/001 was trained with 8"),
        ("net.name", "mlp", "net.name is 'mlp', but .*snapshots/001 was trained with 'small_cnn'"),
    ],
)
def test_an_edited_configuration_names_the_key(stopped: Path, key: str, value: Any, said: str) -> None:
    edited(stopped, key, value)
    with pytest.raises(StoreError, match=said):
        session.resume(stopped)


def test_a_method_that_remembered_nothing(tmp_path: Path) -> None:
    finished(tmp_path / "run", "method=sgd", "train.epochs=1")
    edited(tmp_path / "run", "method.name", "er")
    with pytest.raises(StoreError, match=r"method.name is 'er', but .*snapshots/002 was trained with 'sgd'"):
        session.resume(tmp_path / "run")


def test_other_samples_than_it_began_with(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, more = digits(5, 20), digits(5, 21)
    x = stream.tests[0].x.copy()
    x[3, 0, 2, 2] ^= 1
    changed = replace(stream, tests=(replace(stream.tests[0], x=x), *stream.tests[1:]))
    monkeypatch.setattr(session, "read_stream", lambda config: changed)
    with pytest.raises(DataError, match=r"^digits: these are not the samples that .* began with \(crc32 \w{8} → \w{8}\)$"):
        session.resume(stopped)
    monkeypatch.setattr(session, "read_stream", lambda config: more)
    with pytest.raises(DataError, match=r"samples \[100, 100\] → \[105, 105\]"):
        session.resume(stopped)
