"""A net in two files: what was saved is what a run starts from, and what does not fit is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecl import tensors
from edgecl.nets import Net, build_net, load_weights, save_net, starting, with_classes
from edgecl.nets.init import initial
from edgecl.types import ConfigError, StoreError

CNN = build_net("small_cnn", (1, 8, 8), 10, 4)


def drawn(net: Net = CNN, seed: int = 7) -> dict[str, Any]:
    """Weights of another seed than a run's, and statistics that are not 0 and 1."""
    rng = np.random.default_rng(seed)
    return {k: a + rng.uniform(0, 0.1, a.shape).astype(np.float32) for k, a in initial(net, rng).items()}


def same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return one.keys() == two.keys() and all(np.array_equal(one[k], two[k]) for k in one)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path, arrays = tmp_path / "mine.yaml", drawn()
    save_net(path, CNN, arrays)
    assert build_net(str(path), (1, 8, 8), 10) == CNN
    assert same(load_weights(path.with_suffix(".safetensors"), CNN), arrays)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.safetensors", "mine.yaml"]


def test_without_weights_beside_it_a_net_starts_at_random(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    save_net(path, CNN, drawn())
    path.with_suffix(".safetensors").unlink()
    one, two = np.random.default_rng(0), np.random.default_rng(0)
    assert same(starting(str(path), CNN, one), initial(CNN, two))
    assert same(starting("small_cnn", CNN, one), initial(CNN, two))


def test_the_draw_is_made_all_the_same(tmp_path: Path) -> None:
    """So the order of samples does not hang on whether there are weights."""
    save_net(tmp_path / "mine.yaml", CNN, drawn())
    one, two = np.random.default_rng(0), np.random.default_rng(0)
    starting(str(tmp_path / "mine.yaml"), CNN, one)
    initial(CNN, two)
    assert one.bit_generator.state == two.bit_generator.state


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"bn1.bias": None}, r"no array 'bn1\.bias' for net small_cnn"),
    "nobody's": ({"conv9.weight": np.zeros(3, np.float32)}, r"array 'conv9\.weight' belongs to no node of net small_cnn"),
    "shape": (
        {"conv2.weight": np.zeros((4, 4, 5, 5), np.float32)},
        r"conv2\.weight has shape \(4, 4, 5, 5\), .* needs \(4, 4, 3, 3\)$",
    ),
    "classes": ({"classifier.weight": np.zeros((7, 8), np.float32)}, r"needs \(10, 8\): made for 7 classes, not 10"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_weights_that_do_not_fit(case: str, tmp_path: Path) -> None:
    change, message = FAULTS[case]
    path, arrays = tmp_path / "mine.yaml", drawn()
    save_net(path, CNN, arrays)
    spoiled = {k: a for k, a in {**arrays, **change}.items() if a is not None}
    path.with_suffix(".safetensors").write_bytes(b"".join(map(bytes, tensors.encode(spoiled))))
    with pytest.raises(ConfigError, match=r"mine\.safetensors: .*" + message) as caught:
        starting(str(path), CNN, np.random.default_rng(0))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="small_cnn: .*" + message):
        save_net(path, CNN, spoiled)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"net\.txt: a net's file ends in \.yaml or \.yml"):
        save_net(tmp_path / "net.txt", CNN, drawn())
    with pytest.raises(StoreError, match=r"gone/net\.safetensors: no such file"):
        save_net(tmp_path / "gone" / "net.yaml", CNN, drawn())
    save_net(tmp_path / "net.yaml", CNN, drawn())
    (tmp_path / "net.safetensors").write_bytes(b"PK")
    with pytest.raises(ConfigError, match=r"net\.safetensors: not a safetensors file"):
        starting(str(tmp_path / "net.yaml"), CNN, np.random.default_rng(0))
    (tmp_path / "net.safetensors").unlink()
    (tmp_path / "net.safetensors").mkdir()
    with pytest.raises(StoreError, match=r"net\.safetensors: is a directory"):
        starting(str(tmp_path / "net.yaml"), CNN, np.random.default_rng(0))


def test_a_new_classifier_and_all_else_as_it_was() -> None:
    arrays = drawn()
    net, changed = with_classes(CNN, arrays, 3)
    assert (net.classes, net.weights()["classifier.weight"]) == (3, (3, 8))
    assert {k: a.shape for k, a in changed.items()} == {**net.weights(), **net.buffers()}
    assert all(np.array_equal(changed[k], arrays[k]) for k in arrays if not k.startswith("classifier"))
    assert changed["classifier.weight"].std() > 0
    assert same(changed, with_classes(CNN, arrays, 3)[1])
    assert not same(changed, with_classes(CNN, arrays, 3, seed=1)[1])


def test_other_classes_than_the_data(tmp_path: Path) -> None:
    save_net(tmp_path / "net.yaml", CNN, drawn())
    with pytest.raises(ConfigError, match=r"10 classes, the data has .* and 4; edgecl\.nets\.with_classes gives"):
        build_net(str(tmp_path / "net.yaml"), (1, 8, 8), 4)
