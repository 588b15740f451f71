"""int8: what is rounded and what is not, where it hurts, and what is done about it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
from export_cases import NETS, ROOT, card_of, damaged, gated

from edgecl.card import Card
from edgecl.export import FORMATS, Format, reduce
from edgecl.export.int8 import Quantised, holds, quantised
from edgecl.export.onnx import INPUT_NODES, write
from edgecl.export.onnx_int8 import noise, quantise
from edgecl.export.predictors import of_onnx
from edgecl.export.samples import Checked
from edgecl.nets import Net
from edgecl.nets.nodes import Conv2d, GlobalPool, Linear, Relu
from edgecl.types import U8

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

ALL = (0, 1, 2, 3, 4)


def pictures(net: Net, n: int = 64) -> U8:
    return np.random.default_rng(0).integers(0, 256, (n, *net.input), dtype=np.uint8)


def both(net: Net, chip: str = "x86", floats: Collection[str] = ()) -> tuple[bytes, bytes]:
    card = card_of(net, ALL)
    data = write(reduce(net, damaged(net, 1, 0.2), card.seen), card)
    return data, quantise(data, card, pictures(net), chip, floats)


def stored(data: bytes) -> dict[str, np.ndarray]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load_from_string(data).graph.initializer}


@pytest.mark.parametrize("chip", ["x86", "arm"])
@pytest.mark.parametrize("net", [*NETS[:-1], gated()], ids=lambda net: net.name)
def test_every_net_in_int8_says_nearly_what_it_said(net: Net, chip: str) -> None:
    data, int8 = both(net, chip)
    onnx.checker.check_model(onnx.load_from_string(int8), full_check=True)
    a, b = (of_onnx(d)(pictures(net)) for d in (data, int8))
    centred = a - a.mean(axis=0)
    assert np.sqrt(((b - a) ** 2).mean()) < 0.25 * max(np.sqrt((centred**2).mean()), 0.02 * abs(a).max())


@pytest.mark.parametrize(("chip", "kind"), [("x86", np.uint8), ("wasm", np.uint8), ("arm", np.int8)])
def test_weights_are_signed_a_channel_and_activations_are_the_chips(chip: str, kind: type) -> None:
    _, int8 = both(NETS[0], chip)
    arrays = stored(int8)
    layers = [k.removesuffix("_quantized") for k in arrays if k.endswith(".weight_quantized")]
    assert len(layers) == 21
    for k in layers:
        assert arrays[f"{k}_quantized"].dtype == np.int8
        assert arrays[f"{k}_scale"].shape == arrays[f"{k}_quantized"].shape[:1]
    values = [k for k in arrays if k.endswith(".out_zero_point")]
    assert values
    assert {arrays[k].dtype for k in values} == {np.dtype(kind)}


def test_the_picture_is_normalised_in_float_and_logits_are_not_rounded() -> None:
    graph = onnx.load_from_string(both(NETS[0])[1]).graph
    made = {n.output[0]: n for n in graph.node}
    assert made["logits"].op_type == "Gemm"
    for node in graph.node:
        if node.name in INPUT_NODES:
            assert not any(made[i].op_type == "DequantizeLinear" for i in node.input if i in made)
    assert {o.domain for o in onnx.load_from_string(both(NETS[0])[1]).opset_import} == {""}


def test_one_file_for_arm_says_on_this_chip_what_the_other_says() -> None:
    net = NETS[0]
    a, b = (of_onnx(both(net, chip)[1])(pictures(net)) for chip in ("x86", "arm"))
    np.testing.assert_allclose(a, b, atol=0.02 * np.ptp(a))


SAME = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from test_int8 import *
print(hashlib.sha256(both(gated())[1] + both(gated(), "x86", ["a.weight", "se"])[1]).hexdigest())
"""


def test_same_bytes_in_every_process() -> None:
    def made(seed: str) -> bytes:
        command = [sys.executable, "-c", SAME, str(Path(__file__).parent)]
        env = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "PATH": ""}
        return subprocess.run(command, env=env, check=True, capture_output=True).stdout

    assert made("1") == made("2") != b""


# what rounds the worst


def uneven() -> tuple[Net, bytes, Card]:
    """One channel a thousand times the others, which alone tell the classes apart: one scale for all wipes them out."""
    nodes = (
        Conv2d("a", ("x",), 4, 1, bias=True),
        Relu("a.relu", ("a",)),
        Conv2d("b", ("a.relu",), 4, 1, bias=True),
        Relu("b.relu", ("b",)),
        GlobalPool("pool", ("b.relu",)),
        Linear("logits", ("pool",), 2),
    )
    net = Net("uneven", (3, 6, 6), 2, nodes, "logits", "pool")
    p = damaged(net, 3, 0.0)
    p["a.weight"][:] = np.eye(4, 3).reshape(4, 3, 1, 1)
    p["a.weight"][3] = 1000.0
    p["a.bias"][:] = 1.0
    p["b.weight"][:] = np.eye(4).reshape(4, 4, 1, 1)
    p["b.weight"][3] *= 1e-3
    p["b.bias"][:] = 0.0
    p["logits.weight"][:] = [[1.0, -1.0, 0.0, 1e-3], [-1.0, 1.0, 0.0, 1e-3]]
    p["logits.bias"][:] = 0.0
    card = card_of(net, (0, 1))
    return net, write(reduce(net, p, card.seen), card), card


def judged_by_itself(net: Net, data: bytes) -> Checked:
    x = pictures(net, 256)
    return Checked("itself", x, of_onnx(data)(x).argmax(axis=1).astype(np.int64))


def test_noise_names_the_uneven_value() -> None:
    net, data, card = uneven()
    found = noise(data, quantise(data, card, pictures(net), "x86"), pictures(net))
    assert min(found, key=lambda k: found[k]) in ("a.relu", "a")
    assert found["b.relu"] > found[min(found, key=lambda k: found[k])] + 10
    assert {"a.weight", "b.weight", "logits.weight"} <= found.keys()


def test_what_rounds_the_worst_goes_back_to_float() -> None:
    net, data, card = uneven()
    judge = judged_by_itself(net, data)
    plain = quantise(data, card, pictures(net), "x86")
    assert (of_onnx(plain)(judge.x).argmax(axis=1) == judge.y).mean() < 0.9
    found = quantised(FORMATS["onnx"], data, card, pictures(net), judge, of_onnx(data)(judge.x), "x86")
    assert holds(found)
    assert found.floats
    assert found.worst[0][0] in found.floats
    assert "b.weight_quantized" not in stored(found.data) or "a.weight_quantized" not in stored(found.data)


def fake(lost: dict[int, int], tried: list[int]) -> Format:
    """Of 200 samples `lost[n]` are wrong once n of 12 things are in float; a file says its own number of wrong ones."""

    def make(data: bytes, card: Card, x: U8, chip: str, floats: Collection[str]) -> bytes:
        tried.append(len(floats))
        return b"%d" % lost.get(len(floats), 99)

    def predictor(data: bytes) -> object:
        wrong = int(data)
        logits = np.tile(np.float32([1, 0]), (200, 1))
        logits[:wrong] = [0, 1]
        return lambda x: logits

    return Format(".fake", lambda found, card: b"0", predictor, make, lambda *a: {f"n{i:02}": float(i) for i in range(12)})


def tries(lost: dict[int, int]) -> tuple[list[int], Quantised]:
    tried: list[int] = []
    net = gated()
    judge = Checked("all of class 0", np.zeros((200, *net.input), np.uint8), np.zeros(200, np.int64))
    format_ = fake(lost, tried)
    by_float = format_.predictor(b"0")(judge.x)
    return tried, quantised(format_, b"0", card_of(net, (0, 1)), judge.x, judge, by_float, "x86")


def test_tries_end_where_the_accuracy_holds() -> None:
    tried, found = tries({0: 1})
    assert (tried, found.floats, found.worst) == ([0], (), ())
    assert found.lost == pytest.approx(0.5)
    tried, found = tries({0: 9, 1: 4, 2: 1})
    assert (tried, found.data, found.floats) == ([0, 1, 2], b"1", ("n00", "n01"))


def test_tries_end_at_half_of_all_and_the_best_is_kept() -> None:
    tried, found = tries({0: 50, 1: 4, 2: 30, 4: 30})
    assert (tried, found.data, found.floats) == ([0, 1, 2, 4], b"4", ("n00",))
    assert not holds(found)
    assert found.worst == (("n00", 0.0), ("n01", 1.0), ("n02", 2.0))
