"""The zoo: shapes by hand, names and files that don't fit, weights to start from."""

from __future__ import annotations

from math import prod, sqrt
from pathlib import Path

import numpy as np
import pytest

from edgecl.masks import maskable
from edgecl.nets import ZOO, build_net, full_width
from edgecl.nets.init import initial
from edgecl.nets.nodes import Add, BatchNorm, Conv2d
from edgecl.types import ConfigError

TINY = Path(__file__).parents[2] / "models" / "tiny_cnn.yaml"


def test_resnet18_by_hand() -> None:
    net = build_net("resnet18", (3, 32, 32), 10)
    shapes, weights = net.shapes(), net.weights()
    stages = [shapes[f"layer{i}.1"] for i in (1, 2, 3, 4)]
    assert stages == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
    assert weights["conv1.weight"] == (64, 3, 3, 3)
    assert weights["layer2.0.conv1.weight"] == (128, 64, 3, 3)
    assert weights["layer2.0.shortcut.0.weight"] == (128, 64, 1, 1)
    assert weights["classifier.weight"] == (10, 512)
    assert len(net.layers()) == 17 + 3 + 1
    assert [n for n, node in net.layers().items() if node.role == "shortcut"] == [f"layer{i}.0.shortcut.0" for i in (2, 3, 4)]
    assert shapes[net.features] == (512,)


def test_small_cnn_by_hand() -> None:
    net = build_net("small_cnn", (1, 9, 8), 10, 6)
    shapes = net.shapes()
    assert [shapes[f"relu{i}"] for i in (1, 2, 3, 4)] == [(6, 9, 8), (6, 9, 8), (12, 4, 4), (12, 4, 4)]
    assert shapes[net.features] == (12,)
    assert net.weights()["conv3.weight"] == (12, 6, 3, 3)


def test_mlp_by_hand() -> None:
    net = build_net("mlp", (1, 28, 28), 10, 100)
    shapes = [net.weights()[f"{n}.weight"] for n in ("fc1", "fc2", "classifier")]
    assert shapes == [(100, 784), (100, 100), (10, 100)]


def test_mobilenetv2_as_published() -> None:
    """Table 2 of the paper and the widely quoted counts of the reference model."""
    net = build_net("mobilenetv2", (3, 224, 224), 1000)
    shapes = net.shapes()
    assert net.name == "mobilenetv2_100"
    assert [shapes[k] for k in ("stem", "blocks.0.0.bn3", "blocks.1.1.add", "blocks.6.0.bn3", "head")] == [
        (32, 112, 112),
        (16, 112, 112),
        (24, 56, 56),
        (320, 7, 7),
        (1280, 7, 7),
    ]
    assert sum(prod(s) for s in net.weights().values()) == 3_504_872
    assert sum(node.macs(*inputs) for node, inputs in net.walk()) == 300_774_272
    assert sum(isinstance(n, Add) for n in net.nodes) == 10  # (2 + 3 + 4 + 3 + 3 blocks) - 5 first ones of a stage


def test_mobilenetv2_halves_small_pictures_three_times() -> None:
    net = build_net("mobilenetv2", (3, 32, 32), 10)
    assert net.shapes()["head"] == (1280, 4, 4)
    assert net.shapes()["blocks.1.1.add"] == (24, 32, 32)


def test_mobilenetv2_narrows_in_fours() -> None:
    outs = {n.out for n in build_net("mobilenetv2", (3, 32, 32), 10, 8).layers().values() if isinstance(n, Conv2d)}
    assert outs == {8, 4, 24, 48, 16, 96, 40, 144, 80, 240, 320}  # 24 / 4 = 6 goes up to 8


def test_ds_cnn_as_published() -> None:
    """2 · 2.7 M operations of the small model, 49×10 halved to 25×5."""
    net = build_net("ds_cnn", (1, 49, 10), 12)
    assert net.shapes()["stem"] == (64, 25, 5)
    assert net.weights()["stem.weight"] == (64, 1, 10, 4)
    assert sum(node.macs(*inputs) for node, inputs in net.walk()) == 125 * (64 * 40 + 4 * 64 * (9 + 64)) + 64 * 12
    assert build_net("ds_cnn", (1, 49, 40), 12).shapes()["stem"] == (64, 25, 20)


def test_har_cnn1d_by_hand() -> None:
    net = build_net("har_cnn1d", (6, 1, 128), 12)
    assert [net.shapes()[f"pool{i}"] for i in (1, 2, 3)] == [(64, 1, 43), (128, 1, 15), (128, 1, 5)]
    assert net.weights()["conv2.weight"] == (128, 64, 1, 9)


@pytest.mark.parametrize(("name", "dense"), [("mobilenetv2", 1 + 17 + 1), ("ds_cnn", 1 + 4 + 1), ("har_cnn1d", 1 + 1)])
def test_stem_depthwise_and_classifier_stay_dense(name: str, dense: int) -> None:
    net = build_net(name, (3, 32, 32), 10)
    kept = {k for k, node in net.layers().items() if not maskable(node)}
    assert len(kept) == dense
    assert all(k in ("stem", "conv1", "classifier") or net.weights()[f"{k}.weight"][1] == 1 for k in kept)


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("width", [1, 5, 0])
def test_width_and_classes(name: str, width: int) -> None:
    net = build_net(name, (3, 16, 16), 7, width)
    assert net.shapes()[net.logits] == (7,)
    assert net == ZOO[name].build((3, 16, 16), 7, width or full_width(name))
    assert [n.role for n in net.layers().values()].count("classifier") == 1


def test_wrong_names_and_widths() -> None:
    with pytest.raises(ConfigError, match=r"net\.name: unknown net 'resnet19'; known: resnet18, .*\.yaml"):
        build_net("resnet19", (3, 32, 32), 10)
    with pytest.raises(ConfigError, match=r"net\.width: -1 is negative"):
        build_net("mlp", (3, 32, 32), 10, -1)
    with pytest.raises(ConfigError, match=r"node pool1: input .* is smaller than its 2×2 window"):
        build_net("small_cnn", (1, 1, 1), 10)


# ---- files ----


def test_tiny_cnn_is_read() -> None:
    net = build_net(str(TINY), (1, 8, 8), 10)
    assert net.shapes()["pool1"] == (12, 4, 4)
    assert net.layers()["conv1"].role == "stem"
    assert full_width(str(TINY)) == 0


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"net\.width: .*tiny_cnn\.yaml has its widths in the file"):
        build_net(str(TINY), (1, 8, 8), 10, 4)
    with pytest.raises(
        ConfigError, match=r"tiny_cnn\.yaml: made for input \(1, 8, 8\) and 10 classes, the data has \(3, 32, 32\) and 10"
    ):
        build_net(str(TINY), (3, 32, 32), 10)
    with pytest.raises(ConfigError, match=r"gone\.yaml: No such file"):
        build_net(str(tmp_path / "gone.yaml"), (1, 8, 8), 10)
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"folder\.yaml: Is a directory"):
        build_net(str(tmp_path / "folder.yaml"), (1, 8, 8), 10)


@pytest.mark.parametrize("text", ["", "just words", "[1, 2]", "{a: [", "\x00", "nodes: 3", "null", "7"])
def test_a_file_that_describes_no_net(text: str, tmp_path: Path) -> None:
    path = tmp_path / "net.yml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"net\.yml: ") as caught:
        build_net(str(path), (1, 8, 8), 10)
    assert "\n" not in str(caught.value)


# ---- weights to start from ----


@pytest.mark.parametrize("name", ZOO)
def test_initial_weights(name: str) -> None:
    net = build_net(name, (3, 8, 8), 10, 6)
    arrays = initial(net, np.random.default_rng(3))
    assert {k: v.shape for k, v in arrays.items()} == {**net.weights(), **net.buffers()}
    assert all(v.dtype == np.float32 for v in arrays.values())
    for layer in net.layers():
        weight, bound = arrays[f"{layer}.weight"], 1 / sqrt(prod(net.weights()[f"{layer}.weight"][1:]))
        both = [weight, *(arrays[k] for k in [f"{layer}.bias"] if k in arrays)]
        assert all(np.abs(a).max() <= np.float32(bound) for a in both)
        assert np.abs(weight).max() > 0.7 * bound
        assert abs(weight.mean()) < bound / 2
    for node in (n for n in net.nodes if isinstance(n, BatchNorm)):
        assert all((arrays[f"{node.name}.{k}"] == 1).all() for k in ("weight", "running_var"))
        assert not any(arrays[f"{node.name}.{k}"].any() for k in ("bias", "running_mean"))


def test_initial_weights_come_from_the_seed_alone() -> None:
    net = build_net("small_cnn", (1, 8, 8), 10, 4)
    one, two, other = (initial(net, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert all(np.array_equal(one[k], two[k]) for k in one)
    assert not np.array_equal(one["conv1.weight"], other["conv1.weight"])
