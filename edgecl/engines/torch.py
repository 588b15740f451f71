"""The reference engine: torch on any device. Masks are simulated over dense tensors, so they save no time here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import array_api_compat.torch as xp_torch
import numpy as np
import torch

from edgecl import masks
from edgecl.engines.base import CURRENT, REPLAY, Output, StepResult, check_arrays, sources_of
from edgecl.engines.cuda_graph import GraphStep, leaves, rebuild
from edgecl.engines.torch_ops import render
from edgecl.nets.graph import Net
from edgecl.nets.prefix import checked
from edgecl.types import Array, Batch, Bools, ConfigError, Named, Pass

PRECISIONS = ("fp32", "tf32", "bf16")
SMALL = 20_000_000  # multiply-adds a sample
THREADS = torch.get_num_threads()  # torch's own choice, before any engine changed it


class TorchEngine:
    """See `engines.base.Engine`. On CUDA a compiled step is a CUDA graph and arrays are channels-last."""

    def __init__(
        self,
        net: Net,
        device: str = "cpu",
        *,
        threads: int = 0,
        precision: str = "fp32",
        deterministic: bool = True,
        together: bool | None = None,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        """`threads` 0: one for a net of less than SMALL, else torch's choice.

        `together` runs all passes as one with grouped statistics (default: on CUDA).
        """
        self.net = net
        self.xp: Any = xp_torch
        self.in_turn, self.scores_dead = False, True
        self.device = _device(device)
        self.momentum, self.weight_decay = momentum, weight_decay
        self.together = self.device.type == "cuda" if together is None else together
        self.precision = precision
        _set_up_torch(threads or _threads(net), precision, deterministic)
        self.p = {k: self._new(s) for k, s in {**net.weights(), **net.buffers()}.items()}
        self.frozen: frozenset[str] = frozenset()
        self.trained: list[str] = []
        self.set_frozen(())
        self.velocity = {k: self._new(s) for k, s in net.weights().items()} if momentum else {}
        self.live: dict[str, torch.Tensor] = {}
        self.updated: dict[str, torch.Tensor] = {}
        self._units: dict[str, str] = {}
        self._sums: dict[str, dict[str, torch.Tensor]] = {CURRENT: {}, REPLAY: {}}
        self._logits: list[torch.Tensor] = []  # with their graph, from forward to backward
        self._grads: list[torch.Tensor] = []

    def _new(self, shape: tuple[int, ...]) -> torch.Tensor:
        t = torch.zeros(shape, device=self.device)
        return t.to(memory_format=torch.channels_last) if t.ndim == 4 and self.device.type == "cuda" else t

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision != "bf16":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False)

    # state

    def load(self, arrays: Named) -> None:
        wanted = {**self.p, **{f"momentum.{k}": v for k, v in self.velocity.items()}}
        check_arrays(self.net, arrays, wanted)
        with torch.no_grad():  # all fit: nothing is loaded by halves
            for name, tensor in wanted.items():
                tensor.copy_(torch.from_numpy(np.array(arrays[name], np.float32)))

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        state = {**self.p, **{f"momentum.{k}": v for k, v in self.velocity.items()}}
        return {k: np.ascontiguousarray(self.numpy(v)).copy() for k, v in state.items()}

    def held(self) -> Named:
        return self.arrays()

    @torch.no_grad()
    def set_masks(self, live: Mapping[str, Bools], units: Mapping[str, str]) -> None:
        self._units = dict(units)
        for layer, units_live in live.items():
            name = f"{layer}.weight"
            self._put(self.live, layer, self.asarray(units_live))
            self.p[name].mul_(self.live[layer])
            if name in self.velocity:
                self.velocity[name].mul_(self.live[layer])
            for sums in self._sums.values():
                sums.setdefault(layer, torch.zeros_like(self.live[layer]))
        self.set_gradient_masks({})

    @torch.no_grad()
    def set_gradient_masks(self, units_updated: Mapping[str, Array]) -> None:
        for layer in self.live:
            if layer in units_updated:
                self._put(self.updated, layer, units_updated[layer])
                self.updated[layer].mul_(self.live[layer])  # a dead unit stays dead, whatever was chosen
            else:
                self.updated.setdefault(layer, torch.empty_like(self.live[layer])).copy_(self.live[layer])

    def _put(self, where: dict[str, torch.Tensor], layer: str, units: torch.Tensor) -> None:
        """Expands a unit mask into the static tensor that a captured step reads."""
        weight = self.p[f"{layer}.weight"]
        full = masks.expand(units, self._units[layer], tuple(weight.shape))
        where.setdefault(layer, torch.empty_like(weight, requires_grad=False)).copy_(full)

    def set_frozen(self, nodes: Collection[str]) -> None:
        self.frozen = checked(self.net, nodes, "set_frozen")
        self.trained = [k for k in self.net.weights() if k.rpartition(".")[0] not in self.frozen]
        for name in self.net.weights():
            self.p[name].requires_grad_(name in self.trained)  # so that autograd keeps nothing of a frozen node

    def _thawed(self) -> list[str]:
        """Masked layers that learn."""
        return [layer for layer in self.updated if layer not in self.frozen]

    def weight(self, layer: str) -> torch.Tensor:
        return self.p[f"{layer}.weight"].detach()

    # a step

    def forward(self, x: Sequence[Array], passes: Sequence[Pass], *, split: bool = False) -> list[Output]:
        sizes = [sum(len(x[i]) for i in p.parts) for p in passes]
        if self.together and not split and len(passes) > 1:
            order = tuple(i for p in passes for i in p.parts)
            outputs = dict(zip(order, self._run_pass(x, Pass(order), sizes), strict=True))
        else:
            runs = [(p, self._run_pass(x, p, [n])) for p, n in zip(passes, sizes, strict=True)]
            outputs = {i: out for p, outs in runs for i, out in zip(p.parts, outs, strict=True)}
        self._logits = [outputs[i].logits for i in range(len(x))]
        return [Output(*(t.detach() for t in outputs[i])) for i in range(len(x))]

    def _run_pass(self, x: Sequence[Array], p: Pass, sizes: Sequence[int]) -> list[Output]:
        """Outputs of the pass's parts, in the order that it names them."""
        inputs = torch.cat([x[i] for i in p.parts]) if len(p.parts) > 1 else x[p.parts[0]]
        if self.device.type == "cuda":
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with self._autocast():
            values = render(self.net, self.p, inputs, sizes, self.frozen)
        rows = [len(x[i]) for i in p.parts]
        split = (torch.split(values[self.net.logits].float(), rows), torch.split(values[self.net.features].float(), rows))
        return [Output(*o) for o in zip(*split, strict=True)]

    def backward(self, d_logits: Sequence[Array], *, score: bool = False, sources: Sequence[str] = ()) -> None:
        weights, logits = [self.p[k] for k in self.trained], self._logits
        self._logits, sources = [], sources or sources_of(len(logits))
        if not score:
            self._add(torch.autograd.grad(logits, weights, list(d_logits), materialize_grads=True))
            return
        for source in (CURRENT, REPLAY):
            if chosen := [i for i, s in enumerate(sources) if s == source]:
                out, d = ([one[i] for i in chosen] for one in (logits, d_logits))
                grads = torch.autograd.grad(out, weights, d, retain_graph=source == CURRENT, materialize_grads=True)
                self._add_scores(source, grads)
                self._add(grads)

    def _add(self, grads: Sequence[torch.Tensor]) -> None:
        """To what came since the last step."""
        self._grads = [a + b for a, b in zip(self._grads, grads, strict=True)] if self._grads else list(grads)

    @torch.no_grad()
    def _add_scores(self, source: str, grads: Sequence[torch.Tensor]) -> None:
        named = dict(zip(self.trained, grads, strict=True))
        for layer in self._thawed():
            self._sums[source][layer].add_(named[f"{layer}.weight"])

    @torch.no_grad()
    def step(self, rate: Array) -> None:
        weights, grads = [self.p[k] for k in self.trained], self._grads
        if self.weight_decay:
            grads = list(torch._foreach_add(grads, weights, alpha=self.weight_decay))
        if self.momentum:
            grads = self._momentum(grads)
        for layer in self._thawed():
            i = self.trained.index(f"{layer}.weight")
            grads[i] = grads[i] * self.updated[layer]
        torch._foreach_sub_(weights, torch._foreach_mul(grads, rate))
        self._grads = []

    def _momentum(self, grads: list[torch.Tensor]) -> list[torch.Tensor]:
        """v ← momentum · v + g, in place; what the gradient masks hold back keeps its v, since its g is never to be read."""
        velocity = [self.velocity[k] for k in self.trained]
        held = {layer: self.velocity[f"{layer}.weight"] * (1 - self.updated[layer]) for layer in self._thawed()}
        torch._foreach_mul_(velocity, self.momentum)
        torch._foreach_add_(velocity, grads)
        for layer, v in held.items():
            self.velocity[f"{layer}.weight"].mul_(self.updated[layer]).add_(v)
        return velocity

    def scores(self, steps: int) -> dict[str, Mapping[str, Array]]:
        return {s: {k: v / steps for k, v in sums.items()} for s, sums in self._sums.items()}

    def reset_scores(self) -> None:
        for sums in self._sums.values():
            for total in sums.values():
                total.zero_()

    @torch.no_grad()
    def predict(self, x: Array) -> Array:
        with self._autocast():
            x = x.contiguous(memory_format=torch.channels_last) if self.device.type == "cuda" else x
            return render(self.net, self.p, x, None)[self.net.logits].float()

    # host

    def compile(self, step: Callable[[Batch], StepResult]) -> Callable[[Batch], StepResult]:
        if self.device.type == "cuda":
            return GraphStep(step, self._state(), self.device)

        def on_cpu(batch: Batch) -> StepResult:
            result = step(rebuild([torch.from_numpy(np.asarray(a, order="C")) for a in leaves(batch)]))
            return StepResult(*(self.numpy(t) for t in result))

        return on_cpu

    def _state(self) -> list[torch.Tensor]:
        """Every tensor that a step updates."""
        sums = [t for s in self._sums.values() for t in s.values()]
        return [t.detach() for t in self.p.values()] + list(self.velocity.values()) + sums

    def asarray(self, a: Any) -> Array:
        return torch.from_numpy(np.asarray(a, order="C")).to(self.device)

    def numpy(self, a: Array) -> np.ndarray[Any, Any]:
        return np.asarray(a.detach().cpu().numpy())

    def place(self) -> dict[str, Any]:
        accelerator = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else None
        isa = torch.backends.cpu.get_cpu_capability()
        return {"threads": torch.get_num_threads(), "isa": isa, "accelerator": accelerator}

    def nonfinite(self) -> str | None:
        ordered = [*self.net.buffers(), *self.net.weights()]
        return next((k for k in ordered if not bool(torch.isfinite(self.p[k]).all())), None)


def _device(name: str) -> torch.device:
    if name not in ("cpu", "cuda"):
        raise ConfigError(f"engine.device: {name!r} is not cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("engine.device: cuda, but torch finds no GPU here")
    return torch.device(name)


def _threads(net: Net) -> int:
    """Two threads on a step of a millisecond wait for each other most of the time."""
    return 1 if sum(node.macs(*shapes) for node, shapes in net.walk()) < SMALL else THREADS


def _set_up_torch(threads: int, precision: str, deterministic: bool) -> None:
    if precision not in PRECISIONS:
        raise ConfigError(f"engine.precision: {precision!r} is not one of {', '.join(PRECISIONS)}")
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = not deterministic, deterministic
    torch.backends.cudnn.allow_tf32 = precision != "fp32"
    torch.backends.cuda.matmul.allow_tf32 = precision != "fp32"
