"""A network that predicts, whatever runs it: the own engines on a learner, ONNX Runtime or LiteRT on an exported model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgecl.card import Card
from edgecl.engines import Engine, make_engine, pick
from edgecl.evaluate import logits_of
from edgecl.export.metadata import read_card
from edgecl.layout import masked_layers
from edgecl.model import Model, open_model
from edgecl.runtime.place import Place
from edgecl.types import F32, U8, ConfigError, DataError, StoreError

RUNTIMES = ("auto", "native", "numpy", "onnx", "litert")


class Predictor(Protocol):
    """May be called by several threads; they take turns."""

    card: Card
    backend: str  # native, numpy, onnxruntime or litert

    def predict(self, x: U8) -> F32:
        """Logits [N, classes] of samples [N, C, H, W] as stored; -inf for a class that was not learned.

        Raises DataError for samples of another form.
        """


class EnginePredictor:
    """A snapshot's network on an engine of edgecl, with its masks: what is pruned is not computed."""

    def __init__(self, model: Model, engine: str = "auto", threads: int = 0) -> None:
        name = pick(engine).name
        self.card, self.backend = model.card, name
        self._engine: Engine = make_engine(name, model.net, threads=threads)
        self._engine.load(model.weights)
        if model.live:
            layers = masked_layers(model.net, model.config)
            self._engine.set_masks(model.live, {k: layers[k].unit for k in model.live})
        self._turn = threading.Lock()

    def predict(self, x: U8) -> F32:
        check_samples(self.card, x)
        with self._turn:
            return _among_seen(self.card, logits_of(self._engine, x, self.card.preprocess))


class OnnxPredictor:
    """An exported model on ONNX Runtime: uint8 [N, C, H, W] in, logits of the card's `seen` classes, or of all, out."""

    backend = "onnxruntime"

    def __init__(self, path: Path, card: Card | None = None, threads: int = 0) -> None:
        runtime = _module("onnxruntime", "onnxruntime", "onnx")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except (RuntimeError, ValueError) as e:
            raise ConfigError(f"{path}: ONNX Runtime can't open it: {' '.join(str(e).split())[:200]}") from None
        self.card = _one_card(path, card)
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name
        self._turn = threading.Lock()

    def predict(self, x: U8) -> F32:
        check_samples(self.card, x)
        with self._turn:
            return _among_seen(self.card, np.asarray(self._session.run([self._output], {self._input: x})[0]))


class LitertPredictor:
    """An exported model on LiteRT: float32 [N, H, W, C] of 0 to 255 in, logits as for ONNX out; a sample at a time."""

    backend = "litert"

    def __init__(self, path: Path, card: Card | None = None, threads: int = 0) -> None:
        interpreter = _interpreter()
        try:
            self._model = interpreter(model_path=str(path), num_threads=threads or None)
            self._model.allocate_tensors()
        except (RuntimeError, ValueError) as e:
            raise ConfigError(f"{path}: LiteRT can't open it: {' '.join(str(e).split())[:200]}") from None
        self.card = _one_card(path, card)
        self._in, self._out = self._model.get_input_details()[0], self._model.get_output_details()[0]
        c, h, w = self.card.input
        if tuple(self._in["shape"]) != (1, h, w, c) or self._in["dtype"] is not np.float32:
            raise ConfigError(
                f"{path}: takes {self._in['dtype'].__name__} {list(self._in['shape'])}, not float32 [1, {h}, {w}, {c}]"
            )
        self._turn = threading.Lock()

    def predict(self, x: U8) -> F32:
        check_samples(self.card, x)
        with self._turn:
            return _among_seen(self.card, np.stack([self._one(sample) for sample in x]))

    def _one(self, sample: U8) -> Any:
        self._model.set_tensor(self._in["index"], sample.transpose(1, 2, 0)[None].astype(np.float32))
        self._model.invoke()
        return self._model.get_tensor(self._out["index"])[0]


def _interpreter() -> Any:
    """LiteRT's, or that of its predecessor, which 32-bit systems still have."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        return _module("tflite_runtime.interpreter", "ai-edge-litert", "litert").Interpreter
    return Interpreter


def _module(name: str, package: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError(f'--runtime {extra}: {package} is not installed; pip install "edgecl[{extra}]"') from None


def _one_card(path: Path, beside: Card | None) -> Card:
    """The model's own card, else the one that lies beside it, for a file that another program wrote.

    Raises StoreError where there is none, ConfigError where they differ.
    """
    try:
        own = read_card(path)
    except StoreError:
        if beside is None:
            raise
        return beside
    if beside and own.snapshot != beside.snapshot:
        raise ConfigError(f"{path}: was made from snapshot {own.snapshot[:12]}, but card.json is of {beside.snapshot[:12]}")
    return own


def check_samples(card: Card, x: U8) -> None:
    """Raises DataError unless x is uint8 [N, C, H, W] of the card's input."""
    if x.ndim != 4 or x.shape[1:] != card.input or x.dtype != np.uint8:
        raise DataError(f"samples are {x.dtype} {list(x.shape)}, not uint8 [N, {', '.join(map(str, card.input))}]")


def _among_seen(card: Card, outputs: F32) -> F32:
    """[N, classes]: outputs of all classes, or of those seen in the order of their ids, with -inf elsewhere."""
    seen, columns = list(card.seen), outputs.shape[1]
    if columns != len(seen) and columns < len(card.classes):
        raise ConfigError(f"the model has {columns} outputs, the card {len(card.classes)} classes, {len(seen)} of them seen")
    logits = np.full((len(outputs), len(card.classes)), -np.inf, np.float32)
    logits[:, seen] = outputs if columns == len(seen) else outputs[:, seen]
    return logits


def make_predictor(place: Place, runtime: str = "auto", threads: int = 0) -> Predictor:
    """The predictor that `runtime` names; auto takes the own engine where there is a learner, else the model there is.

    Raises ConfigError where the place has nothing for it, or a package is missing.
    """
    if runtime not in RUNTIMES:
        raise ConfigError(f"--runtime {runtime!r} is not one of {', '.join(RUNTIMES)}")
    name = _first(place) if runtime == "auto" else runtime
    if name in ("native", "numpy"):
        return _own(place, "auto" if runtime == "auto" else name, threads)
    make: Callable[..., Predictor] = OnnxPredictor if name == "onnx" else LitertPredictor
    path = place.onnx if name == "onnx" else place.tflite
    if path is None:
        raise ConfigError(f"{place.path}: holds no model for --runtime {name}")
    return make(path, place.card, threads)


def _first(place: Place) -> str:
    return "native" if place.learner else "onnx" if place.onnx else "litert"


def _own(place: Place, engine: str, threads: int) -> Predictor:
    if place.learner is None:
        raise ConfigError(f"{place.path}: has no learner, which the own engines need; it has a model for another --runtime")
    return EnginePredictor(open_model(place.learner), engine, threads)
