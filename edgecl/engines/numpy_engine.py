"""The engine of last resort: numpy alone, on any machine, without compiler or torch. Slow but right.

Masks lie over dense arrays, so they save no time here. It shares no code with the kernels, so it also checks them where torch
is not to be had.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from edgecl import masks
from edgecl.arrays import numpy_namespace
from edgecl.engines.base import CURRENT, REPLAY, Output, StepResult, check_arrays, sources_of
from edgecl.engines.numpy_ops import OPS, Arrays, Pull, Pulled
from edgecl.nets.graph import Net
from edgecl.nets.nodes import Node
from edgecl.nets.prefix import checked, learning
from edgecl.types import F32, Array, Batch, Bools, ConfigError, Named, Part, Pass

_PREDICT = 64  # samples at a time


class _Tape(NamedTuple):
    """What a pass leaves for its way back."""

    parts: tuple[int, ...]
    rows: list[int]  # of each part
    pulls: list[tuple[Node, Pull]]


class NumpyEngine:
    """See `engines.base.Engine`. Passes run one after the other; threads are those of numpy's own linear algebra."""

    dtype: Any = np.float32  # a subclass may compute in float64, as a reference for others

    def __init__(
        self,
        net: Net,
        device: str = "cpu",
        *,
        threads: int = 0,
        precision: str = "fp32",
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        """`threads` plays no part: numpy's linear algebra reads OPENBLAS_NUM_THREADS, or its like, when it loads."""
        for key, value, only in (("engine.device", device, "cpu"), ("engine.precision", precision, "fp32")):
            if value != only:
                raise ConfigError(f"{key}: {value!r}, but the numpy engine has only {only}; engine.name=torch may have it")
        self.net = net
        self.xp: Any = numpy_namespace()
        self.in_turn = self.scores_dead = True
        self.momentum, self.weight_decay = momentum, weight_decay
        self.p: Arrays = {k: np.zeros(s, self.dtype) for k, s in {**net.weights(), **net.buffers()}.items()}
        self.velocity: Arrays = {k: np.zeros_like(self.p[k]) for k in net.weights()} if momentum else {}
        self._own = {node.name: self._parameters(node.name) for node in net.nodes}
        self.live: dict[str, Bools] = {}  # masked layer → in the weight's shape
        self.updated: dict[str, Bools] = {}
        self._units: dict[str, str] = {}
        self._sums: dict[str, Arrays] = {CURRENT: {}, REPLAY: {}}
        self._tapes: list[_Tape] = []  # of the last forward
        self._grads: Arrays = {}
        self.set_frozen(())

    def _parameters(self, node: str) -> Arrays:
        """Of one node, by their last names; the arrays are the engine's own."""
        named = (k.rpartition(".") for k in self.p)
        return {last: self.p[f"{prefix}.{last}"] for prefix, _, last in named if prefix == node}

    # state

    def load(self, arrays: Named) -> None:
        wanted = self._state()
        check_arrays(self.net, arrays, wanted)
        for name, own in wanted.items():  # all fit: nothing is loaded by halves
            own[...] = arrays[name]

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        return {k: v.copy() for k, v in self._state().items()}

    def held(self) -> Named:
        return self._state()

    def _state(self) -> Arrays:
        return self.p | {f"momentum.{k}": v for k, v in self.velocity.items()}

    def set_masks(self, live: Mapping[str, Bools], units: Mapping[str, str]) -> None:
        self._units = dict(units)
        for layer, units_live in live.items():
            name = f"{layer}.weight"
            self.live[layer] = self._expanded(layer, units_live)
            for a in (self.p[name], self.velocity.get(name)):
                if a is not None:
                    a[~self.live[layer]] = 0
            for sums in self._sums.values():
                sums.setdefault(layer, np.zeros_like(self.p[name]))
        self.set_gradient_masks({})

    def set_gradient_masks(self, units_updated: Mapping[str, Array]) -> None:
        for layer, live in self.live.items():
            chosen = self._expanded(layer, units_updated[layer]) & live if layer in units_updated else live
            self.updated[layer] = chosen

    def _expanded(self, layer: str, units: Array) -> Bools:
        full: Bools = masks.expand(np.asarray(units, np.bool_), self._units[layer], self.p[f"{layer}.weight"].shape)
        return full

    def set_frozen(self, nodes: Collection[str]) -> None:
        self.frozen = checked(self.net, nodes, "set_frozen")
        self.trained = [k for k in self.net.weights() if k.rpartition(".")[0] not in self.frozen]
        self._learning = learning(self.net, self.frozen)

    def weight(self, layer: str) -> Array:
        return self.p[f"{layer}.weight"]

    # a step

    def forward(self, x: Sequence[Array], passes: Sequence[Pass], *, split: bool = False) -> list[Output]:
        self._tapes, outputs = [], {}
        for one in passes:
            rows = [len(x[part]) for part in one.parts]
            values, pulls = self._run(np.concatenate([x[part] for part in one.parts]), train=True)
            self._tapes.append(_Tape(one.parts, rows, pulls))
            both = (_split(values[k], rows) for k in (self.net.logits, self.net.features))
            for part, logits, features in zip(one.parts, *both, strict=True):
                outputs[part] = Output(logits.copy(), features.copy())
        return [outputs[part] for part in range(len(x))]

    def _run(self, x: F32, *, train: bool) -> tuple[Arrays, list[tuple[Node, Pull]]]:
        """Outputs by node, and the way back through each node; a value goes once nothing more reads it."""
        last = {i: node.name for node in self.net.nodes for i in node.inputs}
        values: Arrays = {"x": np.asarray(x, self.dtype)}
        pulls: list[tuple[Node, Pull]] = []
        for node in self.net.nodes:
            inputs = (values[i] for i in node.inputs)
            values[node.name], pull = OPS[type(node)](node, self._own[node.name], train and node.name not in self.frozen, *inputs)
            pulls += [(node, pull)] if train and node.name in self._learning else []
            for name in {*node.inputs, node.name} - {self.net.logits, self.net.features}:
                if last.get(name, node.name) == node.name:
                    del values[name]
        return values, pulls

    def backward(self, d_logits: Sequence[Array], *, score: bool = False, sources: Sequence[str] = ()) -> None:
        sources = sources or sources_of(len(d_logits))
        if not self._grads:
            self._grads = {k: np.zeros_like(self.p[k]) for k in self.trained}
        if not score:
            self._run_back(d_logits, range(len(d_logits)))
        for source in dict.fromkeys(sources) if score else ():
            found = self._grads
            self._grads = {k: np.zeros_like(v) for k, v in found.items()}
            self._run_back(d_logits, [i for i, s in enumerate(sources) if s == source])
            for layer in self.live.keys() - self.frozen:
                self._sums[source][layer] += self._grads[f"{layer}.weight"]
            self._grads = {k: v + self._grads[k] for k, v in found.items()}
        self._tapes = []

    def _run_back(self, d_logits: Sequence[Array], parts: Iterable[int]) -> None:
        """Adds the gradient of these parts to what is there."""
        wanted = set(parts)
        for tape in self._tapes:
            if wanted & set(tape.parts):
                d = [d_logits[part] if part in wanted else np.zeros_like(d_logits[part]) for part in tape.parts]
                self._pull(tape.pulls, np.concatenate(d))

    def _pull(self, pulls: list[tuple[Node, Pull]], d: F32) -> None:
        """Through one pass from its logits' gradient; nodes that the logits don't read are left out."""
        gradients: Arrays = {self.net.logits: d}
        for node, pull in reversed(pulls):
            if node.name not in gradients:
                continue
            found = pull(gradients.pop(node.name))
            for name, g in found.weights.items():
                self._grads[f"{node.name}.{name}"] += g
            for name, g in self._handed(node, found):
                gradients[name] = gradients[name] + g if name in gradients else g

    def _handed(self, node: Node, found: Pulled) -> list[tuple[str, F32]]:
        """Gradients of the node's inputs that learn; a costly one is found only then."""
        if found.only is not None:
            return [(name, found.only()) for name in node.inputs if name in self._learning]
        return [(name, g) for name, g in zip(node.inputs, found.inputs, strict=True) if name in self._learning]

    def step(self, rate: Array) -> None:
        for name in self.trained:
            w, v, g = self.p[name], self.velocity.get(name), self._grads[name]
            if self.weight_decay:
                g = g + self.weight_decay * w
            if v is not None:
                g = self.momentum * v + g
            chosen = self.updated.get(name.removesuffix(".weight"), np.True_)
            if v is not None:
                np.copyto(v, g, where=chosen)
            np.copyto(w, w - float(rate) * g, where=chosen)
        self._grads = {}

    def scores(self, steps: int) -> dict[str, Mapping[str, Array]]:
        return {s: {k: v / steps for k, v in sums.items()} for s, sums in self._sums.items()}

    def reset_scores(self) -> None:
        for sums in self._sums.values():
            for total in sums.values():
                total.fill(0)

    def predict(self, x: Array) -> Array:
        starts = range(0, len(x), _PREDICT)
        found = [self._run(x[i : i + _PREDICT], train=False)[0][self.net.logits] for i in starts]
        return np.concatenate(found) if found else np.empty((0, self.net.classes), np.float32)

    # host

    def compile(self, step: Callable[[Batch], StepResult]) -> Callable[[Batch], StepResult]:
        def plain(batch: Batch) -> StepResult:
            parts = tuple(Part(*map(self.asarray, part)) for part in batch.parts)
            with np.errstate(all="ignore"):  # what is not finite is the loop's to report
                return StepResult(*map(np.asarray, step(Batch(parts, *map(self.asarray, batch[1:])))))

        return plain

    def asarray(self, a: Any) -> Array:
        return np.asarray(a, order="C")

    def numpy(self, a: Array) -> np.ndarray[Any, Any]:
        return np.asarray(a)

    def place(self) -> dict[str, Any]:
        return {"threads": _threads(), "isa": f"numpy's ({_linear_algebra()})", "accelerator": None}

    def nonfinite(self) -> str | None:
        ordered = [*self.net.buffers(), *self.net.weights()]
        return next((k for k in ordered if not np.isfinite(self.p[k]).all()), None)


def _split(a: F32, rows: list[int]) -> list[F32]:
    return np.split(a, np.cumsum(rows)[:-1])


def _threads() -> int | None:
    """Of numpy's linear algebra, where it was told at the start: the command line tells it 1."""
    said = os.environ.get("OPENBLAS_NUM_THREADS", "")
    return int(said) if said.isdigit() else None


def _linear_algebra() -> str:
    """The library that numpy multiplies matrices with, as it says: openblas 0.3.30."""
    config: Any = np.show_config(mode="dicts")
    blas = config.get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()
