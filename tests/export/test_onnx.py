"""An ONNX model by ONNX Runtime is the net by the float64 engine."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from export_cases import NETS, ROOT, card_of, damaged, gated, logits

from edgecl.export import read_card, reduce
from edgecl.export.onnx import write
from edgecl.export.predictors import of_onnx
from edgecl.nets import Net
from edgecl.types import ConfigError, StoreError

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

on_nets = pytest.mark.parametrize("net", [*NETS, gated()], ids=lambda net: net.name)


@on_nets
def test_every_node_of_every_net(net: Net) -> None:
    arrays, card = damaged(net, 1, 0.3), card_of(net, (0, 2, 3))
    x = np.random.default_rng(0).integers(0, 256, (3, *net.input), dtype=np.uint8)
    mean, std = (np.array(v).reshape(-1, 1, 1) for v in (card.preprocess.mean, card.preprocess.std))
    wanted = logits(net, arrays, (x / 255 - mean) / std)[:, [0, 2, 3]]
    found = of_onnx(write(reduce(net, arrays, card.seen), card))(x)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * max(1, abs(wanted).max()))


def test_a_model_takes_any_number_of_pictures_and_passes_onnx_own_checks() -> None:
    import onnx

    net = gated()
    data = write(reduce(net, damaged(net, 1), (0, 1)), card_of(net, (0, 1)))
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    x = np.zeros((5, *net.input), np.uint8)
    assert [of_onnx(data)(x[:n]).shape for n in (1, 5)] == [(1, 2), (5, 2)]


SAME = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from export_cases import *
from edgecl.export.onnx import write
from edgecl.export import reduce
net = gated()
print(hashlib.sha256(write(reduce(net, damaged(net, 1), (0, 1)), card_of(net, (0, 1)))).hexdigest())
"""


def test_same_bytes_in_every_process() -> None:
    def made(seed: str) -> bytes:
        command = [sys.executable, "-c", SAME, str(Path(__file__).parent)]
        env = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "PATH": ""}
        return subprocess.run(command, env=env, check=True, capture_output=True).stdout

    assert made("1") == made("2") != b""


# the card


def model_file(tmp_path: Path) -> Path:
    net = gated()
    path = tmp_path / "m.onnx"
    path.write_bytes(write(reduce(net, damaged(net, 1), (0, 3)), card_of(net, (0, 3))))
    return path


def test_the_card_comes_back_without_onnx(tmp_path: Path) -> None:
    path = model_file(tmp_path)
    assert read_card(path) == card_of(gated(), (0, 3))
    code = f"import sys, pathlib, edgecl.export as e; e.read_card(pathlib.Path({str(path)!r}))"
    code += "; sys.exit(any(m in sys.modules for m in ('onnx', 'onnxruntime', 'torch', 'google')))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


def test_onnxruntime_finds_it_too(tmp_path: Path) -> None:
    import json

    import onnxruntime

    found = onnxruntime.InferenceSession(str(model_file(tmp_path))).get_modelmeta().custom_metadata_map
    assert json.loads(found["edgecl"])["seen"] == [0, 3]
    assert json.loads(found["edgecl.outputs"]) == ["class 0", "class 3"]


def test_a_damaged_file_is_one_error_and_never_another(tmp_path: Path) -> None:
    path = model_file(tmp_path)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole[: rng.integers(len(whole))] if rng.random() < 0.5 else whole)
        for at in rng.integers(0, len(data), 3) if data else ():
            data[at] = rng.integers(256)
        path.write_bytes(bytes(data))
        with suppress(StoreError, ConfigError):  # the only two that a damaged file may raise
            read_card(path)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "holds no card"),
        (b"\xff" * 40, "is damaged"),
        (b"\x72\xff\xff\xff\x7f", "cut off"),
        (b"not a model at all", "damaged"),
    ],
)
def test_what_is_no_model(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(StoreError, match=said):
        read_card(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such file"):
        read_card(tmp_path / "m.onnx")
    with pytest.raises(StoreError, match=r"not a model that edgecl exports \(\.onnx"):
        read_card(tmp_path / "m.zip")
