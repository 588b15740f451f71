"""The one subgraph of a .tflite file as it grows, written through the schema that `ai_edge_litert` brings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecl.card import Card
from edgecl.export.tflite_card import METADATA
from edgecl.nets import Net
from edgecl.nets.nodes import Add, BatchNorm, Conv2d, Linear, Mul, Node, Relu, Relu6, Shape
from edgecl.types import ConfigError, Named


def _schema() -> Any:
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError:
        raise ConfigError("--to litert needs ai-edge-litert: pip install 'edgecl[litert]'") from None
    return schema_py_generated


class Graph:
    """The file's one subgraph as it grows. A value is the index of its tensor, images in N, H, W, C."""

    def __init__(self, net: Net, weights: Named) -> None:
        self.s, self.net, self.weights = _schema(), net, weights
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.buffers: list[Any] = [self._buffer(b"")]  # the first is empty by the format's rule
        self.codes: list[str] = []
        self.at: dict[str, int] = {}  # node → tensor
        self.positive: set[str] = set()  # nodes whose values are never below 0
        self.cut = cuts(net)

    def begin(self, card: Card) -> None:
        """The input, and its normalisation: (x / 255 - mean) / std."""
        mean, std = np.array(card.preprocess.mean), np.array(card.preprocess.std)
        x = self._tensor("x", self.layout(self.net.input))
        scaled = self.emit("MUL", "MulOptionsT", [x, self.constant("x.scale", 1 / (255 * std))], "x.scaled", self.net.input)
        self.emit(
            "ADD", "AddOptionsT", [scaled, self.constant("x.shift", -mean / std)], "x", self.net.input, title="x.normalised"
        )

    def finish(self, card: Card) -> bytes:
        s, logits = self.s, self.at[self.net.logits]
        self.tensors[logits].name = "logits"
        sub = s.SubGraphT()
        sub.name, sub.tensors, sub.operators = "main", self.tensors, self.operators
        sub.inputs, sub.outputs = [0], [logits]
        model = s.ModelT()
        model.version, model.description = 3, f"edgecl {card.edgecl}"
        model.operatorCodes = [self._code(name) for name in self.codes]
        model.subgraphs, model.signatureDefs = [sub], [self._signature(logits)]
        entry = s.MetadataT()
        entry.name, entry.buffer = METADATA, len(self.buffers)
        model.metadata = [entry]
        model.buffers = [*self.buffers, self._buffer(json.dumps(card.to_dict(), sort_keys=True, ensure_ascii=False).encode())]
        return _packed(model)

    def emit(
        self, code: str, options: str, inputs: Sequence[int], name: str, shape: Shape, title: str = "", **values: Any
    ) -> int:
        """Appends an operation; its result, of `shape` without the batch, is the node `name`'s value from then on."""
        op = self.s.OperatorT()
        op.opcodeIndex = self.codes.index(code) if code in self.codes else len(self.codes)
        self.codes += [code] * (code not in self.codes)
        op.inputs, out = list(inputs), self._tensor(title or name, self.layout(shape))
        op.outputs = [out]
        if options:
            op.builtinOptionsType = getattr(self.s.BuiltinOptions, options.removesuffix("T"))
            op.builtinOptions = getattr(self.s, options)()
            if name in self.cut and not title:
                op.builtinOptions.fusedActivationFunction = getattr(self.s.ActivationFunctionType, self.cut[name])
            for key, value in values.items():
                assert hasattr(op.builtinOptions, key), key
                setattr(op.builtinOptions, key, value)
        self.operators.append(op)
        self.at[name] = out
        return out

    def constant(self, name: str, value: npt.ArrayLike, kind: type = np.float32) -> int:
        """A tensor with these numbers, float32 or int32."""
        a: npt.NDArray[Any] = np.ascontiguousarray(value, kind)
        self.buffers.append(self._buffer(a.tobytes()))
        return self._tensor(name, a.shape, "INT32" if kind is np.int32 else "FLOAT32", len(self.buffers) - 1, batched=False)

    def weight(self, node: Node, name: str) -> npt.NDArray[Any]:
        return np.asarray(self.weights[f"{node.name}.{name}"], np.float32)

    def layout(self, shape: Shape) -> tuple[int, ...]:
        """A sample's shape (C, H, W) or (C,) with the batch, channels last."""
        return (1, *shape[1:], shape[0])

    def padded(self, source: str, top: int, bottom: int, left: int, right: int, name: str, mirror: bool = False) -> int:
        """The source with zeros around it, or with its own edge again: in every window of a pooling that holds such a value
        lies the pixel that it repeats, since padding is at most half a window, so the maximum stays what it is."""
        edges = self.constant(f"{name}.edges", [[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
        _, h, w, c = self.tensors[self.at[source]].shape
        inputs, out = [self.at[source], edges], (c, h + top + bottom, w + left + right)
        if mirror:
            return self.emit("MIRROR_PAD", "MirrorPadOptionsT", inputs, name, out, mode=self.s.MirrorPadMode.SYMMETRIC)
        return self.emit("PAD", "PadOptionsT", inputs, name, out)

    def _tensor(self, name: str, shape: tuple[int, ...], kind: str = "FLOAT32", buffer: int = 0, batched: bool = True) -> int:
        t = self.s.TensorT()
        t.name, t.shape, t.buffer, t.hasRank = name, list(shape), buffer, True
        t.type = getattr(self.s.TensorType, kind)
        t.shapeSignature = [-1, *shape[1:]] if batched else None
        self.tensors.append(t)
        return len(self.tensors) - 1

    def _buffer(self, data: bytes) -> Any:
        b = self.s.BufferT()
        b.data = np.frombuffer(data, np.uint8) if data else None
        return b

    def _code(self, name: str) -> Any:
        code = self.s.OperatorCodeT()
        code.builtinCode = getattr(self.s.BuiltinOperator, name)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        return code

    def _signature(self, logits: int) -> Any:
        signature = self.s.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        signature.inputs, signature.outputs = [self._named("x", 0)], [self._named("logits", logits)]
        return signature

    def _named(self, name: str, tensor: int) -> Any:
        entry = self.s.TensorMapT()
        entry.name, entry.tensorIndex = name, tensor
        return entry


CUT: dict[type[Node], str] = {Relu: "RELU", Relu6: "RELU6"}
"""Activations that an operation can end with; int8 runs much faster so."""


def cuts(net: Net) -> dict[str, str]:
    """Nodes that are read by such an activation only → which."""
    readers: dict[str, list[Node]] = {net.logits: [], net.features: []}
    for node in net.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    kinds = (Conv2d, Linear, BatchNorm, Add, Mul)
    mine = {n.name: readers[n.name] for n in net.nodes if isinstance(n, kinds) and n.name in readers}
    return {name: CUT[type(r[0])] for name, r in mine.items() if len(r) == 1 and type(r[0]) in CUT and name != net.logits}


def _packed(model: Any) -> bytes:
    from ai_edge_litert.tools.flatbuffer_utils import convert_object_to_bytearray

    return bytes(convert_object_to_bytearray(model))
