"""int8 for LiteRT: static quantisation of a float .tflite, calibrated on samples; input and output stay float32."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from edgecl.types import U8, ConfigError

CALIBRATION = 256  # samples at most


def quantise(data: bytes, samples: U8, keep: Collection[str] = ()) -> bytes:
    """The same network with int8 weights, one scale an output channel, and int8 values, whose ranges are those of `samples`
    [n, C, H, W] (at most 256, the first). Layers named in `keep` stay float32.

    Raises ConfigError that names the extra that is missing, or says that there is no sample.
    """
    if not len(samples):
        raise ConfigError("int8 needs samples to find the ranges of values by, and there are none")
    quantizer, recipe, operations = _library()
    q = quantizer.Quantizer(bytearray(data))
    q.load_quantization_recipe(recipe.static_wi8_ai8())
    for operation in (operations.INPUT, operations.OUTPUT):
        q.update_quantization_recipe(regex=".*", operation_name=operation, algorithm_key="no_quantize")
    for name in keep:
        named = f"(^|;){re.escape(name)}(;|$)"
        q.update_quantization_recipe(regex=named, operation_name=operations.ALL_SUPPORTED, algorithm_key="no_quantize")
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):  # it prints its progress
        return _quantised(q, samples)


def _quantised(q: Any, samples: U8) -> bytes:
    images = samples[:CALIBRATION].transpose(0, 2, 3, 1).astype("float32")
    ranges = q.calibrate({"serving_default": [{"x": image[None]} for image in images]})
    return bytes(q.quantize(ranges).quantized_model)


def _library() -> tuple[Any, Any, Any]:
    try:
        from ai_edge_quantizer import qtyping, quantizer, recipe
    except ImportError:
        raise ConfigError("--to litert-int8 needs ai-edge-quantizer: pip install 'edgecl[litert]'") from None
    return quantizer, recipe, qtyping.TFLOperationName
