"""A snapshot opened without its data set is the network that the run had."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from run_cases import SPARCL, begun, to_end

from edgecl import store
from edgecl.model import open_model
from edgecl.types import ConfigError, StoreError


def edit(run: Path, **changes: object) -> None:
    path = run / "config.yaml"
    said = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({k: v for k, v in {**said, **changes}.items() if v is not None}, sort_keys=False))


def test_all_of_a_finished_run(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run", *SPARCL)
    to_end(setup, state)
    model = open_model(tmp_path / "run")
    assert (model.net, model.config) == (setup.plan.net, setup.config)
    assert model.card.classes == setup.stream.class_names
    assert model.card.seen == tuple(range(10))
    assert model.card.preprocess == setup.stream.preprocess
    assert model.memory is not None
    assert state.memory is not None
    np.testing.assert_array_equal(model.memory.x, state.memory.x)
    for name, a in state.engine.held().items():
        np.testing.assert_array_equal(model.weights[name], a)
    for name, live in state.live.items():
        np.testing.assert_array_equal(model.live[name], live)


def test_seen_are_the_tasks_begun(tmp_path: Path) -> None:
    setup, state = begun(tmp_path / "run", "train.epochs=1")
    to_end(setup, state)
    assert store.latest(tmp_path / "run") == 2
    assert open_model(tmp_path / "run", 1).card.seen == (0, 1, 2, 3, 4)


def test_an_older_run_is_read_from_its_data_set(tmp_path: Path) -> None:
    to_end(*begun(tmp_path / "run", "train.epochs=1"))
    now = open_model(tmp_path / "run")
    edit(tmp_path / "run", stream=None)
    assert open_model(tmp_path / "run").card == now.card


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    begun(tmp_path / "run")
    with pytest.raises(StoreError, match="no snapshot yet"):
        open_model(tmp_path / "run")
    to_end(*begun(tmp_path / "other", "train.epochs=1"))
    with pytest.raises(StoreError, match="no snapshot 007"):
        open_model(tmp_path / "other", 7)
    edit(tmp_path / "other", stream={"classes": []})
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        open_model(tmp_path / "other")
