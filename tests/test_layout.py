"""Which layers are masked, in which units, and how many weights live: the plan's counts against real masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecl import layout, masks
from edgecl.config import Config, resolve
from edgecl.cost import layer_costs
from edgecl.layout import MaskedLayer
from edgecl.nets import build_net
from edgecl.nets.graph import Net
from edgecl.nets.nodes import BatchNorm, Conv2d, GlobalPool, Linear


def configured(**mask: Any) -> Config:
    return resolve("cifar10", [{"mask": {"sparsity": 0.75, **mask}}])


def one_layer(unit: str, weight: tuple[int, ...], live: int = 1, extra: int = 0) -> MaskedLayer:
    return MaskedLayer("a", unit, weight, masks.unit_shape(unit, weight), live, extra)


def bottleneck() -> Net:
    nodes = (
        Conv2d("stem", ("x",), 8, 3, padding=1, role="stem"),
        Conv2d("squeeze", ("stem",), 6, 1),
        BatchNorm("bn", ("squeeze",)),
        Conv2d("conv", ("bn",), 8, 3, padding=1),
        GlobalPool("pool", ("conv",)),
        Linear("hidden", ("pool",), 10),
        Linear("classifier", ("hidden",), 3, role="classifier"),
    )
    return Net("bottleneck", (3, 8, 8), 3, nodes, "classifier", "hidden")


def test_resnet18_masks_its_3x3_layers_by_whole_kernels() -> None:
    layers = layout.masked_layers(build_net("resnet18", (3, 32, 32), 10), configured())
    assert len(layers) == 16  # not the stem, nor 3 shortcuts, nor the classifier
    assert {layer.unit for layer in layers.values()} == {"kernel"}
    first = layers["layer1.0.conv1"]
    assert (first.shape, first.units, first.live, first.extra) == ((64, 64), 4096, 1024, 41)
    assert (first.target(False), first.target(True)) == (1024, 1065)
    assert (first.weights(1024), first.weights(4096)) == (1024 * 9, 64 * 64 * 9)


def test_each_kind_of_layer_has_its_unit() -> None:
    layers = layout.masked_layers(bottleneck(), configured())
    assert {k: (v.unit, v.shape) for k, v in layers.items()} == {
        "squeeze": ("block4x4", (2, 2)),
        "conv": ("kernel", (8, 6)),
        "hidden": ("weight", (10, 8)),
    }


@pytest.mark.parametrize("unit", masks.UNITS)
def test_one_unit_for_all_layers(unit: str) -> None:
    layers = layout.masked_layers(bottleneck(), configured(unit=unit))
    assert {layer.unit for layer in layers.values()} == {unit}


def test_nothing_is_masked_at_sparsity_0() -> None:
    net = build_net("resnet18", (3, 32, 32), 10)
    assert layout.masked_layers(net, configured(sparsity=0.0)) == {}
    costs = layer_costs(net)
    assert layout.live_weights(costs, {}, True) == {c.name: c.weights for c in costs}


def test_no_extra_units_without_tdm() -> None:
    config = configured().set("tdm.enabled", False)
    assert all(layer.extra == 0 for layer in layout.masked_layers(bottleneck(), config).values())


def test_extra_units_end_where_the_layer_is_full() -> None:
    assert one_layer("kernel", (4, 4, 3, 3), live=15, extra=5).target(True) == 16


def test_at_least_one_unit_is_updated() -> None:
    layer = one_layer("kernel", (4, 4, 3, 3))
    assert [layer.updated(n, share) for n, share in [(10, 0.8), (10, 0.01), (1, 0.2), (3, 0.5)]] == [8, 1, 1, 2]


def test_a_cut_block_counts_whole_up_to_the_layers_size() -> None:
    layer = one_layer("block4x4", (6, 6, 1, 1))  # 4 blocks of 16, 8, 8 and 4 weights
    assert [layer.weights(n) for n in (0, 1, 2, 3, 4)] == [0, 16, 32, 36, 36]
    assert one_layer("block4x4", (8, 8, 3, 3)).weights(2) == 2 * 16 * 9


def test_counts_by_layer() -> None:
    net, config = bottleneck(), configured().set("tdm.expand", 0.25)
    costs, layers = layer_costs(net), layout.masked_layers(net, config)
    assert layout.live_weights(costs, layers, False) == {
        "stem": 8 * 3 * 9,
        "squeeze": 16,  # 1 of 4 blocks
        "conv": 12 * 9,  # of 48 kernels
        "hidden": 20,  # of 80
        "classifier": 30,
    }
    expanded = layout.live_weights(costs, layers, True)
    assert (expanded["squeeze"], expanded["conv"], expanded["hidden"]) == (32, 24 * 9, 40)
    updated = layout.updated_weights(costs, layers, True, 0.5)
    assert (updated["squeeze"], updated["conv"], updated["hidden"], updated["stem"]) == (16, 12 * 9, 20, 8 * 3 * 9)


sizes = st.integers(1, 13)
weight_shapes = st.one_of(st.tuples(sizes, sizes), st.tuples(sizes, sizes, st.just(3), st.just(3)))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(masks.UNITS), weight_shapes, st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_the_plan_never_counts_fewer_weights_than_a_mask_has(unit: str, shape: tuple[int, ...], seed: int, share: float) -> None:
    layer = one_layer(unit, shape)
    live = max(1, round(share * layer.units))
    mask = masks.start(np.random.default_rng(seed), {"a": live}, {"a": layer.shape})["a"]
    real = int(masks.expand(mask, unit, shape).sum())
    assert layer.weights(live) >= real
    if unit != "block4x4" or (shape[0] % 4 == 0 and shape[1] % 4 == 0):
        assert layer.weights(live) == real
