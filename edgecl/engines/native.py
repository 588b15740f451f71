"""The native engine: C++ kernels on numpy arrays, for CPUs, without torch. Masked kernels are skipped, not multiplied by 0.

What is skipped: whole kernels of convolutions and single weights of linear layers, 1×1 and 3×3 convolutions, in the forward
pass, in the input gradient and in the weight gradient, there also what the gradient mask leaves out. 4×4 blocks and channels
of 1×1 convolutions are run by groups of rows; of single weights in other kernels only the wholly dead kernels are skipped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from edgecl.arrays import numpy_namespace
from edgecl.engines.base import CURRENT, REPLAY, Output, StepResult, check_arrays, sources_of
from edgecl.engines.native_build import Parameters
from edgecl.engines.native_layers import Floats, Means, Weights, expanded
from edgecl.engines.native_plan import Plan, make_plan
from edgecl.engines.native_programs import gathers, turns, updates
from edgecl.engines.native_single import Single, runs
from edgecl.kernels import array, load
from edgecl.nets.graph import Net
from edgecl.nets.prefix import checked, learning
from edgecl.types import Array, Batch, Bools, ConfigError, Named, Part, Pass

_PREDICT = 32  # samples at a time
_FEW = 8  # up to so many samples are predicted one by one: the batched plan takes as long for 1 as for 32
_PREDICTS, _APART = -1, -2  # slots of predictions: in memory that training uses, or while backward is still to read that, apart
_SHARING = (0, _PREDICTS)
_PLANS = 16  # kept; a run needs one a pass


class NativeEngine:
    """See `engines.base.Engine`. Passes run one after the other; the bits of a result hang on threads and instruction set."""

    def __init__(
        self,
        net: Net,
        device: str = "cpu",
        *,
        threads: int = 0,
        precision: str = "fp32",
        storage: str = "fp32",
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        """`threads` 0 takes all cores that this process may use; `storage` fp16 halves the activations that a pass keeps."""
        _only("engine.device", device, "cpu")
        _only("engine.precision", precision, "fp32")
        self.net = net
        self.xp: Any = numpy_namespace()
        self.in_turn = self.scores_dead = True
        self.momentum, self.weight_decay = momentum, weight_decay
        self.threads, self.storage = threads or _cores(), storage
        self._kernels = load()
        shapes, small = net.weights(), {k: s for k, s in net.weights().items() if len(s) == 1}
        self._small = {kind: array(sum(s[0] for s in small.values())) for kind in ("w", "v", "g")}
        self.p = {**_views(self._small["w"], small), **{k: array(s) for k, s in shapes.items() if len(s) > 1}}
        self.p |= {k: array(s) for k, s in net.buffers().items()}
        self.velocity: dict[str, Floats] = {}
        if momentum:
            self.velocity = {**_views(self._small["v"], small), **{k: array(s) for k, s in shapes.items() if len(s) > 1}}
        self._g = _views(self._small["g"], small)
        self.layers = {name: self._layer(name) for name in net.layers()}
        self._units: dict[str, str] = {}
        self._sums: dict[str, dict[str, Floats]] = {CURRENT: {}, REPLAY: {}}  # as `Weights.spread` takes them
        self._plans: dict[tuple[int, int, bool], Plan] = {}  # slot, samples, whether backward runs again
        self._shared: Floats = array(0)  # where passes that take turns, and predictions, keep activations
        self._passes: list[tuple[Pass, Plan, list[int]]] = []  # of the last forward: pass, plan, rows of its parts
        self._gather: Any = None  # programs that copy live weights, made anew when masks have changed
        self._turn: Any = None
        self.frozen: frozenset[str] = frozenset()
        self._still = False  # whether copies of frozen layers' live weights are as the weights
        self._single: Single | None = None
        self._update = self._updates()
        self._fresh = False  # whether copies of live weights are as the weights
        self._scored = False  # whether those are scored
        self._begun = False  # whether gradients have come since the last step
        self._totals: dict[str, Floats] = {}  # of masked layers in a step that scores

    def _layer(self, name: str) -> Weights:
        weight, bias = f"{name}.weight", f"{name}.bias"
        return Weights(self.net.layers()[name], self.p[weight], self.velocity.get(weight), self.p.get(bias), self._g.get(bias))

    # state

    def load(self, arrays: Named) -> None:
        wanted = self._state()
        check_arrays(self.net, arrays, wanted)
        for name, own in wanted.items():  # all fit: nothing is loaded by halves
            own[...] = arrays[name]
        self._fresh = self._still = False

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        return {k: v.copy() for k, v in self._state().items()}

    def held(self) -> Named:
        return self._state()

    def _state(self) -> dict[str, Floats]:
        order = [*self.net.weights(), *self.net.buffers()]
        return {k: self.p[k] for k in order} | {f"momentum.{k}": self.velocity[k] for k in order if k in self.velocity}

    def set_masks(self, live: Mapping[str, Bools], units: Mapping[str, str]) -> None:
        self._units = dict(units)
        for name, units_live in live.items():
            layer = self.layers[name]
            full = expanded(units_live, units[name], layer.w.shape)
            for a in (layer.w, layer.v):
                if a is not None:
                    a[~full] = 0
            layer.set_live(full)
        self.reset_scores()
        self._gather = self._single = None
        self.set_gradient_masks({})
        self._fresh = self._still = False

    def set_gradient_masks(self, units_updated: Mapping[str, Array]) -> None:
        for name in self._units:
            layer = self.layers[name]
            if name in units_updated:
                chosen, live = expanded(units_updated[name], self._units[name], layer.w.shape), layer.live
                layer.set_updated(chosen if live is None else chosen & live)
            else:
                layer.set_updated(layer.live)

    def set_frozen(self, nodes: Collection[str]) -> None:
        self.frozen = checked(self.net, nodes, "set_frozen")
        self._plans = {key: plan for key, plan in self._plans.items() if key[0] < 0}
        self._passes, self._gather, self._update = [], None, self._updates()

    def _thawed(self) -> dict[str, Weights]:
        """Layers that learn."""
        return {name: layer for name, layer in self.layers.items() if name not in self.frozen}

    def weight(self, layer: str) -> Array:
        return self.layers[layer].w

    # a step

    def forward(self, x: Sequence[Array], passes: Sequence[Pass], *, split: bool = False) -> list[Output]:
        self._refresh()
        self._passes, outputs = [], {}
        for i, one in enumerate(passes):
            rows = [len(x[part]) for part in one.parts]
            plan = self._plan(i, sum(rows), again=len(rows) > 1)
            np.concatenate([x[part] for part in one.parts], out=plan.x, casting="same_kind")
            self._run(plan.forward)
            self._passes.append((one, plan, rows))
            for part, logits, features in zip(one.parts, _split(plan.logits, rows), _split(plan.features, rows), strict=True):
                outputs[part] = Output(logits.copy(), features.copy())
        return [outputs[part] for part in range(len(x))]

    def _refresh(self) -> None:
        if self._gather is None:
            for layer in self.layers.values():
                layer.ready()
            self._gather, self._still = gathers(self._thawed()), False
            self._turn = turns(self.layers, learning(self.net, self.frozen))
        if not self._still:
            self._kernels.run(gathers({k: v for k, v in self.layers.items() if k in self.frozen}), self.threads)
            self._still = True
        if not self._fresh:
            self._kernels.run(self._gather, self.threads)
            self._fresh = True

    def _plan(self, slot: int, n: int, *, again: bool = False) -> Plan:
        """Passes that take turns, one a `forward`, share slot 0; see _PREDICTS, _APART."""
        if (slot, n, again) not in self._plans:
            while len(self._plans) >= _PLANS:
                del self._plans[next(iter(self._plans))]
            own = Parameters(self.layers, self.p, self._g, self.frozen)
            how = {"train": slot >= 0, "again": again, "half": self.storage == "fp16"}
            self._plans[slot, n, again] = make_plan(
                self.net, n, self._kernels.lanes, own, self._room if slot in _SHARING else array, **how
            )
        return self._plans[slot, n, again]

    def _room(self, floats: int) -> Floats:
        """Memory that one pass or prediction uses at a time. If it must grow, plans that point into it are made anew."""
        if len(self._shared) < floats:
            self._plans = {key: plan for key, plan in self._plans.items() if key[0] not in _SHARING}
            self._shared = array(0)  # the old goes first
            self._shared = array(floats)
        return self._shared[:floats]

    def _run(self, passing: Any) -> None:
        """Operations on activations, as they are stored."""
        self._kernels.run(passing, self.threads, half=self.storage == "fp16")

    def backward(self, d_logits: Sequence[Array], *, score: bool = False, sources: Sequence[str] = ()) -> None:
        if not self._begun:
            self._small["g"].fill(0)
            for layer in self._thawed().values():
                layer.want_updated()
            self._kernels.run(self._turn, self.threads)
            self._begun, self._scored, self._totals = True, score, {}
        if score != self._scored:
            raise ValueError("of one step's gradients all are scored, or none")
        if score:
            self._by_source(d_logits, sources or sources_of(len(d_logits)))
        else:
            self._run_back(d_logits, range(len(d_logits)))
        self._passes = []

    def _run_back(self, d_logits: Sequence[Array], parts: Sequence[int]) -> None:
        """The gradient of these parts, added to what is there."""
        for one, plan, rows in self._passes:
            if not set(one.parts) & set(parts):
                continue
            for part, d in zip(one.parts, _split(plan.d, rows), strict=True):
                d[...] = d_logits[part] if part in parts else 0
            self._run(plan.backward)

    def _by_source(self, d_logits: Sequence[Array], sources: Sequence[str]) -> None:
        """As `backward`, with the gradients of all live or of all weights of masked layers, summed by source."""
        masked = {name: layer for name, layer in self._thawed().items() if name in self._units}
        for source in dict.fromkeys(sources):
            found = {k: layer.want_all() if self.scores_dead else layer.want_live() for k, layer in masked.items()}
            self._run_back(d_logits, [i for i, s in enumerate(sources) if s == source])
            for sums in (self._sums[source], self._totals):
                for name, g in found.items():
                    sums[name] = sums[name] + g if name in sums else g
        for name, layer in masked.items():
            layer.update_from(self._totals[name])

    def step(self, rate: Array) -> None:
        for op in self._update:
            op.rate = float(rate)
        self._kernels.run(self._update, self.threads)
        self._fresh = self._begun = False

    def _updates(self) -> Any:
        return updates(self._thawed(), self._small, self._g, self.frozen, momentum=self.momentum, decay=self.weight_decay)

    def scores(self, steps: int) -> dict[str, Mapping[str, Array]]:
        return {source: Means(self.layers, self._units, sums, steps) for source, sums in self._sums.items()}

    def reset_scores(self) -> None:
        self._sums = {CURRENT: {}, REPLAY: {}}

    def predict(self, x: Array) -> Array:
        self._refresh()
        if len(x) <= _FEW and runs(self.net):
            self._single = self._single or Single(self.net, self._kernels, self.layers, self.p, self._g)
            return self._single.predict(x, self.threads)
        plan, out = self._plan(_APART if self._passes else _PREDICTS, _PREDICT), np.empty((len(x), self.net.classes), np.float32)
        for start in range(0, len(x), _PREDICT):
            rows = min(_PREDICT, len(x) - start)
            plan.x[:rows], plan.x[rows:] = x[start : start + rows], 0
            self._run(plan.forward)
            out[start : start + rows] = plan.logits[:rows]
        return out

    # host

    def compile(self, step: Callable[[Batch], StepResult]) -> Callable[[Batch], StepResult]:
        def on_cpu(batch: Batch) -> StepResult:
            parts = tuple(Part(*map(self.asarray, part)) for part in batch.parts)
            with np.errstate(all="ignore"):  # what is not finite is the loop's to report
                result = step(Batch(parts, *map(self.asarray, batch[1:])))
            return StepResult(*map(np.asarray, result))

        return on_cpu

    def asarray(self, a: Any) -> Array:
        return np.asarray(a, order="C")

    def numpy(self, a: Array) -> np.ndarray[Any, Any]:
        return np.asarray(a)

    def place(self) -> dict[str, Any]:
        return {"threads": self.threads, "isa": self._kernels.isa, "accelerator": None}

    def nonfinite(self) -> str | None:
        ordered = [*self.net.buffers(), *self.net.weights()]
        return next((k for k in ordered if not np.isfinite(self.p[k]).all()), None)


def _only(key: str, value: str, wanted: str) -> None:
    if value != wanted:
        raise ConfigError(f"{key}: engine native has only {wanted}, not {value!r}")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _views(flat: Floats, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Floats]:
    """Pieces of `flat`, by name, one after the other."""
    ends = np.cumsum([s[0] for s in shapes.values()])
    return {k: flat[end - s[0] : end] for (k, s), end in zip(shapes.items(), ends, strict=True)}


def _split(a: Floats, rows: Sequence[int]) -> list[Floats]:
    return np.split(a, np.cumsum(rows)[:-1])
