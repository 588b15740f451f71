"""What a place holds decides what predicts; every backend says the same of the same sample."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_cases import held_out

from edgecl import session
from edgecl.card import Card
from edgecl.evaluate import predict
from edgecl.model import open_model
from edgecl.runtime import predictors
from edgecl.runtime.place import find
from edgecl.runtime.predictors import EnginePredictor, LitertPredictor, OnnxPredictor, make_predictor
from edgecl.types import ConfigError, DataError, StoreError


@pytest.mark.parametrize("engine", ["native", "numpy"])
def test_the_engines_say_what_the_run_says(learned: Path, engine: str) -> None:
    opened = session.open_snapshot(learned)
    test = opened.setup.stream.tests[0]
    mine = make_predictor(find(learned), engine)
    assert (mine.backend, mine.card.seen) == (engine, tuple(range(10)))
    np.testing.assert_allclose(mine.predict(np.asarray(test.x[:])), predict(opened.engine, opened.setup.stream, test), atol=1e-4)


def test_classes_not_learned_are_never_predicted(learned: Path) -> None:
    model = open_model(learned)
    some = model._replace(card=replace(model.card, seen=(2, 7)))
    logits = EnginePredictor(some).predict(held_out()[0])
    assert set(np.flatnonzero(np.isfinite(logits[0]))) == {2, 7}


def test_samples_of_another_form_are_refused(learned: Path) -> None:
    mine = make_predictor(find(learned))
    for wrong in (np.zeros((1, 1, 8, 9), np.uint8), np.zeros((1, 1, 8, 8), np.float32), np.zeros((1, 8, 8), np.uint8)):
        with pytest.raises(DataError, match="not uint8"):
            mine.predict(wrong)


def with_card(path: Path, card: Card) -> None:
    """An ONNX file with nothing in it but its card: ModelProto's field 14, of a key and a value."""
    entry = sized(1, b"edgecl") + sized(2, json.dumps(card.to_dict()).encode())
    path.write_bytes(sized(14, entry))


def sized(field: int, data: bytes) -> bytes:
    return bytes([field << 3 | 2, len(data) & 127 | 128, len(data) >> 7]) + data


def fake_onnx(columns: list[int]) -> Any:
    """Stands in for the package: says the sum of a sample's pixels + the class for every column."""

    class Session:
        def __init__(self, path: str, options: Any, providers: list[str]) -> None:
            assert Path(path).name == "model.onnx"

        def get_inputs(self) -> Any:
            return [types.SimpleNamespace(name="x")]

        def get_outputs(self) -> Any:
            return [types.SimpleNamespace(name="logits")]

        def run(self, names: list[str], feed: dict[str, Any]) -> Any:
            x = feed["x"]
            return [x.sum((1, 2, 3), dtype=np.float32)[:, None] + np.array(columns, np.float32)]

    return types.SimpleNamespace(InferenceSession=Session, SessionOptions=types.SimpleNamespace)


@pytest.mark.parametrize("columns", [[1, 4], list(range(10)), list(range(12))], ids=["seen", "all", "capacity"])
def test_onnx_columns_come_to_their_classes(
    tmp_path: Path, learned: Path, monkeypatch: pytest.MonkeyPatch, columns: list[int]
) -> None:
    card = replace(open_model(learned).card, seen=(1, 4))
    monkeypatch.setitem(sys.modules, "onnxruntime", fake_onnx(columns))
    with_card(tmp_path / "model.onnx", card)
    logits = make_predictor(find(tmp_path)).predict(np.ones((1, 1, 8, 8), np.uint8))[0]
    assert {int(k): logits[k] for k in np.flatnonzero(np.isfinite(logits))} == {1: 65.0, 4: 68.0}


def test_a_model_of_another_snapshot_than_the_card(tmp_path: Path, learned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = open_model(learned).card
    monkeypatch.setitem(sys.modules, "onnxruntime", fake_onnx([0]))
    with_card(tmp_path / "model.onnx", card)
    (tmp_path / "card.json").write_text(json.dumps(replace(card, snapshot="b" * 64).to_dict()))
    with pytest.raises(ConfigError, match=r"model\.onnx: was made from snapshot"):
        OnnxPredictor(tmp_path / "model.onnx", find(tmp_path).card)


def test_litert_gets_pictures_in_its_own_order(tmp_path: Path, learned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card, told = open_model(learned).card, list[Any]()

    class Interpreter:
        def __init__(self, **given: Any) -> None:
            assert given["model_path"].endswith("model.tflite")

        def allocate_tensors(self) -> None: ...

        def invoke(self) -> None: ...

        def get_input_details(self) -> Any:
            return [{"index": 0, "shape": np.array([1, 8, 8, 1]), "dtype": np.float32}]

        def get_output_details(self) -> Any:
            return [{"index": 1}]

        def set_tensor(self, index: int, value: Any) -> None:
            told.append(value)

        def get_tensor(self, index: int) -> Any:
            return np.arange(10, dtype=np.float32)[None] * told[-1].max()

    monkeypatch.setattr(predictors, "_interpreter", lambda: Interpreter)
    x = held_out()[0][:2]
    (tmp_path / "model.tflite").write_bytes(b"")
    logits = LitertPredictor(tmp_path / "model.tflite", card).predict(x)
    assert [a.shape for a in told] == [(1, 8, 8, 1)] * 2
    np.testing.assert_array_equal(told[1][0, :, :, 0], x[1, 0].astype(np.float32))
    np.testing.assert_array_equal(logits[:, 9], 9.0 * x.max((1, 2, 3)))


def test_a_missing_package_names_its_extra(tmp_path: Path, learned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnxruntime", "ai_edge_litert", "ai_edge_litert.interpreter", "tflite_runtime", "tflite_runtime.interpreter"):
        monkeypatch.setitem(sys.modules, name, None)
    for file, extra in (("model.onnx", "onnx"), ("model.tflite", "litert")):
        folder = tmp_path / extra
        folder.mkdir()
        (folder / file).write_bytes(b"")
        (folder / "card.json").write_text(json.dumps(open_model(learned).card.to_dict()))
        with pytest.raises(ConfigError, match=rf"edgecl\[{extra}\]"):
            make_predictor(find(folder), extra)


def test_real_onnx(tmp_path: Path, learned: Path) -> None:
    """A linear classifier made by hand, through the real package."""
    onnx, _ = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    card = open_model(learned).card
    w = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["f"], ["v"]),
        helper.make_node("MatMul", ["v", "w"], ["logits"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, ["N", 1, 8, 8])
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])
    graph = helper.make_graph(nodes, "g", [x], [y], [helper.make_tensor("w", TensorProto.FLOAT, w.shape, w.ravel())])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"edgecl": json.dumps(card.to_dict())})
    onnx.save(model, tmp_path / "model.onnx")
    pixels = held_out()[0]
    logits = make_predictor(find(tmp_path / "model.onnx")).predict(pixels)
    np.testing.assert_allclose(logits, pixels.reshape(-1, 64).astype(np.float32) @ w, rtol=1e-4, atol=1e-2)


def test_what_is_no_place(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such file"):
        find(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="no run folder"):
        find(tmp_path)
    (tmp_path / "card.json").write_text("{")
    with pytest.raises(ConfigError, match=r"card\.json: the card is not JSON"):
        find(tmp_path)
    (tmp_path / "card.json").write_text(" " * (1 << 20) + "{}")
    with pytest.raises(StoreError, match="more than"):
        find(tmp_path)


def test_a_slot_is_opened_by_its_learner(tmp_path: Path, learned: Path) -> None:
    (tmp_path / "learner").symlink_to(learned)
    assert make_predictor(find(tmp_path)).backend == "native"
    with pytest.raises(ConfigError, match="no model for --runtime onnx"):
        make_predictor(find(tmp_path), "onnx")


LIGHT = """
import sys
import edgecl.runtime, edgecl.runtime.place, edgecl.runtime.predictors, edgecl.runtime.sources
sys.exit(" ".join(m for m in ("torch", "onnxruntime", "cv2", "PIL", "ai_edge_litert", "click", "rich") if m in sys.modules))
"""


def test_nothing_heavy_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") or done.stderr.strip() == ""
