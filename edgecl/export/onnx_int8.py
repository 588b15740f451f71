"""An ONNX model in int8: static quantisation by ONNX Runtime, QDQ, weights per channel; and where it rounds the most.

Activations are U8 for x86 and wasm, whose instructions multiply unsigned by signed bytes, and S8 for Arm. What normalises
the picture stays in float, and so do the logits. A model that is read back gives all that is asked about it by names: a node
of the net for its output, `<node>.weight` for its weights.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecl.card import Card
from edgecl.export.decibel import decibel
from edgecl.export.onnx import INPUT, INPUT_NODES, OPSET, OUTPUT, sealed
from edgecl.export.predictors import BATCH, onnx_session, onnxruntime
from edgecl.types import F32, U8, ConfigError

CHIPS = ("x86", "arm", "wasm")
CALIBRATED_WITH = 512  # samples at most
LAYERS = ("Conv", "Gemm")
_VALUE, _WEIGHT = ".out", ".weight"
_QUANTISED, _RESTORED = "_QuantizeLinear_Output", "_DequantizeLinear_Output"  # endings that ONNX Runtime gives


def quantise(data: bytes, card: Card, x: U8, chip: str, floats: Collection[str] = ()) -> bytes:
    """The int8 model of the float one, calibrated on samples x [N, C, H, W]; `floats` as `noise` names them stay in float.

    The same bytes for the same input and versions. Raises ConfigError where onnx or ONNX Runtime is not installed.
    """
    onnx, q = _modules()
    source = onnx.load_from_string(data)
    with tempfile.TemporaryDirectory() as folder:
        ready, made = (str(Path(folder, k)) for k in ("ready.onnx", "int8.onnx"))
        q.shape_inference.quant_pre_process(source, ready, skip_optimization=True, skip_symbolic_shape=True)
        q.quantize_static(
            ready,
            made,
            _reader(q, x[:CALIBRATED_WITH]),
            quant_format=q.QuantFormat.QDQ,
            per_channel=True,
            activation_type=q.QuantType.QInt8 if chip == "arm" else q.QuantType.QUInt8,
            weight_type=q.QuantType.QInt8,
            nodes_to_exclude=[*INPUT_NODES, *_nodes(source.graph, floats)],
        )
        return sealed(_tidied(onnx.load(made), source), card)


def _modules() -> tuple[Any, Any]:
    """(onnx, onnxruntime.quantization with its shape_inference)."""
    onnxruntime()
    names = ("onnx", "onnxruntime.quantization.shape_inference", "onnxruntime.quantization")
    try:
        onnx, _, quantization = map(importlib.import_module, names)
    except ModuleNotFoundError as e:
        raise ConfigError(f'export: {e.name} is not installed; pip install "edgecl[onnx]"') from None
    return onnx, quantization


def _reader(q: Any, x: U8) -> Any:
    batches = iter([x[i : i + BATCH] for i in range(0, len(x), BATCH)])

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]  # a class of a module that is imported here only
        def get_next(self) -> dict[str, U8] | None:
            batch = next(batches, None)
            return None if batch is None else {INPUT: batch}

    return Reader()


def _tidied(model: Any, source: Any) -> Any:
    """With the float model's header, no notes of the tools, and logits that are not rounded at the end."""
    graph = model.graph
    last = {n.output[0]: n for n in graph.node}
    restore = last[OUTPUT]
    if restore.op_type == "DequantizeLinear":
        round_ = last[restore.input[0]]
        last[round_.input[0]].output[0] = OUTPUT
        for node in (restore, round_):
            graph.node.remove(node)
        _drop_unread(graph)
    for key in ("opset_import", "producer_name", "producer_version"):
        model.ClearField(key)
    model.opset_import.extend(o for o in source.opset_import if o.version == OPSET)
    model.producer_name, model.producer_version = source.producer_name, source.producer_version
    graph.ClearField("value_info")
    return model


def _drop_unread(graph: Any) -> None:
    read = {i for n in graph.node for i in n.input}
    for tensor in [t for t in graph.initializer if t.name not in read]:
        graph.initializer.remove(tensor)


# what stays in float


def _nodes(graph: Any, floats: Collection[str]) -> Iterator[str]:
    """Nodes not to touch, so that these are not rounded: a layer for its weights; for an output all that make and read it."""
    for name in floats:
        if name.endswith(_WEIGHT):
            yield name.removesuffix(_WEIGHT)
            continue
        yield from (n.name for n in graph.node if f"{name}{_VALUE}" in n.input)
        yield from _makers(graph, f"{name}{_VALUE}")


def _makers(graph: Any, value: str) -> Iterator[str]:
    """The node that makes a value; before what reads nothing else, as an activation does, the one that makes that too."""
    made = {n.output[0]: n for n in graph.node}
    while value in made and made[value].name not in INPUT_NODES:
        node = made[value]
        yield node.name
        if node.op_type in LAYERS or len([i for i in node.input if i in made and made[i].op_type != "Constant"]) != 1:
            return
        value = node.input[0]


# where it rounds


def noise(data: bytes, int8: bytes, x: U8) -> dict[str, float]:
    """Signal to noise in dB of all that `int8` rounds, each by itself, on samples x: the mean over channels of what is lost
    of each, so that a small channel beside a large one counts. A channel that never changes has nothing to lose.
    """
    onnx, _ = _modules()
    float_, rounded = (onnx.load_from_string(d) for d in (data, int8))
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in rounded.graph.initializer}
    wholes = {t.name: onnx.numpy_helper.to_array(t) for t in float_.graph.initializer}
    weights = {k: v for k, v in wholes.items() if f"{k}_quantized" in stored and k.endswith(_WEIGHT)}
    found = {k: decibel(w, _restored(stored, k, w)) for k, w in weights.items()}
    values = [t for t in _rounded_values(rounded.graph) if t.endswith(_VALUE) and f"{t}_scale" in stored]
    for name, value in zip(values, _run(float_, values, x), strict=True):
        found[name.removesuffix(_VALUE)] = decibel(value.swapaxes(0, 1), _rounded(stored, name, value).swapaxes(0, 1))
    return found


def _rounded_values(graph: Any) -> list[str]:
    return [n.input[0] for n in graph.node if n.op_type == "QuantizeLinear"]


def _run(model: Any, values: list[str], x: U8) -> list[F32]:
    """These values of the float model."""
    known = {o.name for o in model.graph.output}
    model.graph.output.extend(_modules()[0].ValueInfoProto(name=v) for v in values if v not in known)
    found: list[F32] = onnx_session(model.SerializeToString()).run(values, {INPUT: x})
    return found


def _restored(stored: dict[str, npt.NDArray[Any]], name: str, w: F32) -> F32:
    """Weights as int8 has them; one scale an output channel."""
    shape = (-1, *(1,) * (w.ndim - 1))
    scale, zero = (stored[f"{name}_{k}"].reshape(shape) for k in ("scale", "zero_point"))
    found: F32 = (stored[f"{name}_quantized"].astype(np.float32) - zero) * scale
    return found


def _rounded(stored: dict[str, npt.NDArray[Any]], name: str, value: F32) -> F32:
    """As ONNX defines QuantizeLinear and DequantizeLinear."""
    scale, zero = stored[f"{name}_scale"], stored[f"{name}_zero_point"]
    limits = np.iinfo(zero.dtype)
    steps = np.clip(np.round(value / scale) + zero.astype(np.float32), limits.min, limits.max)
    found: F32 = (steps - zero.astype(np.float32)) * scale
    return found
