"""A .tflite file for LiteRT: the reduced net in float, and its int8, weights per channel, by ai-edge-quantizer."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import numpy as np

from edgecl.card import Card
from edgecl.export import tflite
from edgecl.export.decibel import decibel
from edgecl.export.predictors import interpreter
from edgecl.export.reduce import Reduced
from edgecl.types import F32, U8, ConfigError

CALIBRATED_WITH = 512  # samples at most
_WEIGHT = ".weight"


def write(found: Reduced, card: Card) -> bytes:
    """The float file. Raises ConfigError where ai-edge-litert is not installed."""
    return tflite.write(found.net, found.weights, card)


def quantise(data: bytes, card: Card, x: U8, chip: str = "", floats: Collection[str] = ()) -> bytes:
    """The int8 file of the float one, calibrated on samples x [N, C, H, W]; the same for every chip. Input and output stay float.

    `floats` are names as `noise` gives them: the operation that makes such a value, or has such weights, stays in float.
    Raises ConfigError where ai-edge-quantizer is not installed.
    """
    quantizer, recipe, operations = _library()
    q = quantizer.Quantizer(bytearray(data))
    q.load_quantization_recipe(recipe.static_wi8_ai8())
    for operation in (operations.INPUT, operations.OUTPUT):
        q.update_quantization_recipe(regex=".*", operation_name=operation, algorithm_key="no_quantize")
    for name in floats:
        named = f"(^|;){re.escape(name.removesuffix(_WEIGHT))}(;|$)"
        q.update_quantization_recipe(regex=named, operation_name=operations.ALL_SUPPORTED, algorithm_key="no_quantize")
    with _quiet():
        ranges = q.calibrate({"serving_default": [{"x": _input(sample)} for sample in x[:CALIBRATED_WITH]]})
        return bytes(q.quantize(ranges).quantized_model)


def _library() -> tuple[Any, Any, Any]:
    try:
        from ai_edge_quantizer import qtyping, quantizer, recipe
    except ModuleNotFoundError as e:
        raise ConfigError(f'export: {e.name} is not installed; pip install "edgecl[litert]"') from None
    return quantizer, recipe, qtyping.TFLOperationName


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer prints its progress."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def _input(sample: U8) -> F32:
    return sample.transpose(1, 2, 0)[None].astype(np.float32)


def noise(data: bytes, int8: bytes, x: U8) -> dict[str, float]:
    """Signal to noise in dB of all that `int8` rounds, each by itself, on samples x; see onnx_int8.noise."""
    rounded = {
        d["name"]: d for d in _tensors(_opened(int8)) if d["dtype"] is np.int8 and len(d["quantization_parameters"]["scales"])
    }
    model = _opened(data)
    found = dict[str, float]()
    for d in _tensors(model):
        name = d["name"]
        if name not in rounded or name.startswith("x."):  # what normalises the picture has nowhere to go back to
            continue
        if name.endswith(_WEIGHT):
            value = model.get_tensor(d["index"])
            found[name] = decibel(*_channels(value, _rounded(rounded[name], value), rounded[name]))
        elif len(d["shape"]) in (2, 4) and d["dtype"] is np.float32:
            value = np.concatenate([_value(model, d["index"], sample) for sample in x])
            found[name] = decibel(*(np.moveaxis(v, -1, 0) for v in (value, _rounded(rounded[name], value))))
    return found


def _opened(data: bytes) -> Any:
    model = interpreter()(model_content=data, num_threads=1, experimental_preserve_all_tensors=True)
    model.allocate_tensors()
    return model


def _tensors(model: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = model.get_tensor_details()
    return found


def _value(model: Any, index: int, sample: U8) -> F32:
    model.set_tensor(model.get_input_details()[0]["index"], _input(sample))
    model.invoke()
    found: F32 = model.get_tensor(index)
    return found


def _channels(value: F32, heard: F32, tensor: dict[str, Any]) -> tuple[F32, F32]:
    """Both with a channel a row."""
    axis = tensor["quantization_parameters"]["quantized_dimension"]
    return np.moveaxis(value, axis, 0), np.moveaxis(heard, axis, 0)


def _rounded(tensor: dict[str, Any], value: F32) -> F32:
    """As LiteRT defines its QUANTIZE and DEQUANTIZE."""
    p = tensor["quantization_parameters"]
    shape = [1] * value.ndim
    shape[p["quantized_dimension"]] = -1
    scale, zero = (p[k].reshape(shape if p[k].size > 1 else [1]) for k in ("scales", "zero_points"))
    found: F32 = (np.clip(np.round(value / scale) + zero, -128, 127) - zero).astype(np.float32) * scale
    return found
