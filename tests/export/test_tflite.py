"""A .tflite of every net and node computes what the net does; int8 stays near; its card can be read, and damage is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from engine_cases import on_nets
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecl.card import Card
from edgecl.engines import make_engine
from edgecl.export.litert import quantise
from edgecl.export.tflite import write
from edgecl.export.tflite_card import card_of
from edgecl.nets import Net, build_net
from edgecl.nets.init import initial
from edgecl.nets.nodes import BatchNorm, Concat, Conv2d, Flatten, GlobalPool, Linear, Pad, Pool, Relu
from edgecl.types import F32, ConfigError, DataError, Preprocess


def card(net: Net) -> Card:
    c = net.input[0]
    pre = Preprocess(tuple(np.linspace(0.3, 0.5, c).tolist()), tuple(np.linspace(0.2, 0.3, c).tolist()))
    return Card(net.name, net.input, tuple(f"class {k}" for k in range(net.classes)), (0, 1), pre, "ab" * 32, "0")


def weights(net: Net) -> dict[str, F32]:
    """Initial ones, with batch statistics that do something."""
    rng = np.random.default_rng(5)
    found = initial(net, rng)
    for name, a in found.items():
        if name.endswith(("running_mean", "bias")):
            found[name] = rng.normal(0, 0.2, a.shape).astype(np.float32)
        if name.endswith("running_var"):
            found[name] = rng.uniform(0.5, 2, a.shape).astype(np.float32)
    return found


def samples(net: Net, n: int) -> Any:
    return np.random.default_rng(7).integers(0, 256, (n, *net.input), dtype=np.uint8)


def expected(net: Net, x: Any) -> F32:
    pre = card(net).preprocess
    mean, std = (np.array(v)[:, None, None] for v in (pre.mean, pre.std))
    engine = make_engine("numpy", net)
    engine.load(weights(net))
    logits: F32 = engine.numpy(engine.predict(((x / 255 - mean) / std).astype(np.float32)))
    return logits


def run(data: bytes, x: Any) -> F32:
    from ai_edge_litert.interpreter import Interpreter

    it = Interpreter(model_content=data, num_threads=1)
    at = it.get_input_details()[0]["index"]
    n, c, h, w = x.shape
    it.resize_tensor_input(at, (n, h, w, c))
    it.allocate_tensors()
    it.set_tensor(at, x.transpose(0, 2, 3, 1).astype(np.float32))
    it.invoke()
    logits: F32 = it.get_tensor(it.get_output_details()[0]["index"])
    return logits


@on_nets
def test_logits(net: Net) -> None:
    x = samples(net, 3)
    np.testing.assert_allclose(run(write(net, weights(net), card(net)), x), expected(net, x), rtol=1e-4, atol=1e-5)


def ends(*nodes: Any, channels: int, name: str) -> Net:
    """The nodes on a picture of 4 channels and 9×7 pixels, with a classifier behind them."""
    last = (GlobalPool("pool", (nodes[-1].name,)), Linear("fc", ("pool",), 3, role="classifier"))
    return Net(name, (4, 9, 7), 3, (*nodes, *last), "fc", "pool")


WINDOWS = [
    ends(Conv2d("a", ("x",), 6, 3, 2, 1), channels=6, name="stride"),
    ends(Conv2d("a", ("x",), 6, (1, 5), (1, 2), (0, 2), bias=True), channels=6, name="two-sided"),
    ends(Conv2d("a", ("x",), 6, 4, 1, 1), channels=6, name="even"),
    ends(Conv2d("a", ("x",), 8, 3, 1, 1, groups=2), channels=8, name="groups"),
    ends(Conv2d("a", ("x",), 8, 3, 2, 1, groups=4), channels=8, name="depthwise-times-two"),
    ends(Conv2d("a", ("x",), 6, 3), Relu("r", ("a",)), Pool("p", ("r",), "max", 3, 2, 1), channels=6, name="max"),
    ends(Pool("p", ("x",), "max", 2, 2), channels=4, name="max-plain"),
    ends(Pool("p", ("x",), "max", 3, 2, 1), channels=4, name="max-below-0"),
    ends(Pool("p", ("x",), "max", (2, 5), 1, (1, 2)), channels=4, name="max-wide"),
    ends(Pool("p", ("x",), "avg", 3, 2, 1), channels=4, name="avg"),
    ends(Pad("p", ("x",), 1, 0, 2, 0), Conv2d("a", ("p",), 5, 3), BatchNorm("b", ("a",)), channels=5, name="pad"),
    ends(Conv2d("a", ("x",), 5, 3, 1, 1), Relu("r", ("a",)), Concat("c", ("r", "a")), channels=9, name="read-twice"),
    Net("flat", (4, 9, 7), 3, (Flatten("f", ("x",)), Linear("fc", ("f",), 3)), "fc", "f"),
]


@pytest.mark.parametrize("net", WINDOWS, ids=lambda net: net.name)
def test_windows_and_layouts(net: Net) -> None:
    x = samples(net, 2)
    np.testing.assert_allclose(run(write(net, weights(net), card(net)), x), expected(net, x), rtol=1e-4, atol=1e-5)


NET = build_net("small_cnn", (1, 8, 8), 5, 32)


def test_int8_is_near_and_small() -> None:
    x, data = samples(NET, 64), write(NET, weights(NET), card(NET))
    small = quantise(data, x)
    assert len(small) < 0.4 * len(data)
    found, wanted = run(small, x), expected(NET, x)
    assert np.abs(found - wanted).max() < 0.1 * np.ptp(wanted)
    assert (found != wanted).any()


def test_layers_that_stay_float() -> None:
    x, data = samples(NET, 16), write(NET, weights(NET), card(NET))
    layers = list(NET.layers())
    sizes = [len(quantise(data, x, layers[:n])) for n in (0, 1, len(layers))]
    assert sizes == sorted(sizes)
    np.testing.assert_allclose(run(quantise(data, x, layers), x[:1]), expected(NET, x[:1]), atol=0.05)


def test_equal_inputs_give_equal_bytes() -> None:
    x, data = samples(NET, 16), write(NET, weights(NET), card(NET))
    assert write(NET, weights(NET), card(NET)) == data
    assert quantise(data, x) == quantise(data, x)


def test_no_samples() -> None:
    with pytest.raises(ConfigError, match="no"):
        quantise(write(NET, weights(NET), card(NET)), samples(NET, 0))


def test_the_card_is_inside() -> None:
    data = write(NET, weights(NET), card(NET))
    assert card_of(data, "a.tflite") == card(NET) == card_of(quantise(data, samples(NET, 4)), "a.tflite")


DATA = write(NET, weights(NET), card(NET))


def refused_or_read(data: bytes) -> bool:
    """Whether a card was read; anything but the one error that names the file goes through."""
    try:
        card_of(data, "a.tflite")
    except DataError as e:
        return "a.tflite" not in str(e)
    return True


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_a_flipped_byte_never_crashes_the_reader(at: int, change: int) -> None:
    damaged = bytearray(DATA)
    damaged[at] ^= change
    refused_or_read(bytes(damaged))


@given(st.integers(0, len(DATA) - 1))
@settings(max_examples=100, deadline=None)
def test_nor_does_a_missing_end(size: int) -> None:
    assert not refused_or_read(DATA[: min(size, 200)])
    refused_or_read(DATA[:size])
