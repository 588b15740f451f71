"""A run of a net from a file starts from the weights beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_cases import begun, finished

from edgecl.nets import build_net, save_net
from edgecl.nets.init import initial
from edgecl.types import ConfigError

CNN = build_net("small_cnn", (1, 8, 8), 10, 4)


def drawn() -> dict[str, Any]:
    """Weights of another seed than the run's, and statistics that are not 0 and 1."""
    rng = np.random.default_rng(7)
    return {k: a + rng.uniform(0, 0.1, a.shape).astype(np.float32) for k, a in initial(CNN, rng).items()}


@pytest.mark.parametrize("masked", [(), ("mask.sparsity=0.5",)])
def test_a_run_starts_from_the_weights_beside_its_net(masked: tuple[str, ...], tmp_path: Path) -> None:
    path, arrays = tmp_path / "mine.yaml", drawn()
    save_net(path, CNN, arrays)
    setup, state = begun(tmp_path / "run", f"net={{name: {path}, width: 0}}", *masked)
    found = state.engine.arrays()
    kept = {k: arrays[k] for k in arrays if k.rpartition(".")[0] not in setup.layers}
    assert len(kept) < len(arrays) if masked else len(kept) == len(arrays)
    assert all(np.array_equal(found[k], a) for k, a in kept.items())
    assert all(((found[k] == arrays[k]) | (found[k] == 0)).all() for k in arrays)


def test_masks_keep_the_largest_units(tmp_path: Path) -> None:
    path, arrays = tmp_path / "mine.yaml", drawn()
    save_net(path, CNN, arrays)
    setup, state = begun(tmp_path / "run", f"net={{name: {path}, width: 0}}", "mask={sparsity: 0.5, unit: kernel}")
    for name, layer in setup.layers.items():
        size = abs(arrays[f"{name}.weight"]).mean((2, 3))
        assert state.live[name].sum() == layer.live
        assert size[state.live[name]].min() >= size[~state.live[name]].max()


def test_a_run_from_weights_trains(tmp_path: Path) -> None:
    save_net(tmp_path / "mine.yaml", CNN, drawn())
    sets = f"net={{name: {tmp_path / 'mine.yaml'}, width: 0}}", "train.epochs=1"
    _, state = finished(tmp_path / "run", *sets)
    assert state.accuracy
    assert any(not np.array_equal(a, drawn()[k]) for k, a in state.engine.arrays().items())


def test_weights_that_do_not_fit_leave_no_folder(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    save_net(path, CNN, drawn())
    save_net(tmp_path / "wide.yaml", wide := build_net("small_cnn", (1, 8, 8), 10, 8), initial(wide, np.random.default_rng(0)))
    (tmp_path / "wide.safetensors").replace(tmp_path / "mine.safetensors")
    with pytest.raises(ConfigError, match=r"mine\.safetensors: conv1\.weight has shape \(8, 1, 3, 3\), .* needs \(4, 1, 3, 3\)"):
        begun(tmp_path / "run", f"net={{name: {path}, width: 0}}")
    assert not (tmp_path / "run").exists()
