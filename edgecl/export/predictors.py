"""Predictors that an export is checked with: logits [N, S] of stored samples x, uint8 [N, C, H, W], on one thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgecl.engines import AUTO, make_engine, pick
from edgecl.evaluate import logits_of
from edgecl.model import Model
from edgecl.types import F32, U8, ConfigError

BATCH = 32  # samples at a time

Predict = Callable[[U8], F32]


def of_engine(model: Model) -> tuple[str, Predict]:
    """The engine that runs here, by its name, with the snapshot's own weights: what every export is held to."""
    name = pick(AUTO).name
    engine = make_engine(name, model.net, threads=1)
    engine.load({k: model.weights[k] for k in engine.held()})
    seen = list(model.card.seen)
    return name, lambda x: logits_of(engine, x, model.card.preprocess)[:, seen]


def of_onnx(data: bytes) -> Predict:
    """ONNX Runtime on one thread of the CPU. Raises ConfigError where it is not installed."""
    session = onnx_session(data)

    def predict(x: U8) -> F32:
        found: F32 = session.run(["logits"], {"x": x})[0]
        return found

    return lambda x: _by_parts(predict, x)


def of_litert(data: bytes) -> Predict:
    """LiteRT on one thread of the CPU, a sample at a time. Raises ConfigError where it is not installed."""
    model = interpreter()(model_content=data, num_threads=1)
    model.allocate_tensors()
    into, out = model.get_input_details()[0]["index"], model.get_output_details()[0]["index"]

    def one(sample: U8) -> F32:
        model.set_tensor(into, sample.transpose(1, 2, 0)[None].astype(np.float32))
        model.invoke()
        found: F32 = model.get_tensor(out)[0]
        return found

    return lambda x: np.stack([one(sample) for sample in x])


def interpreter() -> Any:
    """LiteRT's class. Raises ConfigError that says how to have it."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ModuleNotFoundError as e:
        raise ConfigError(f'export: {e.name} is not installed; pip install "edgecl[litert]"') from None
    return Interpreter


def onnx_session(data: bytes) -> Any:
    """An inference session of the model."""
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def onnxruntime() -> Any:
    """The module. Raises ConfigError that says how to have it."""
    try:
        import onnxruntime
    except ModuleNotFoundError as e:
        raise ConfigError(f'export: {e.name} is not installed; pip install "edgecl[onnx]"') from None
    return onnxruntime


def _by_parts(predict: Predict, x: U8) -> F32:
    return np.concatenate([predict(x[i : i + BATCH]) for i in range(0, len(x), BATCH)])
