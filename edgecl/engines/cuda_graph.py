"""A training step as one CUDA graph: a launch a step, so that Python never holds the GPU back.

Every leaf of the batch lies in one pinned block, which the graph itself copies to the device; results come back
the same way. The step's state (weights, statistics, masks) lives in tensors that the graph updates in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from edgecl.engines.base import StepResult
from edgecl.types import Batch, Part

_ALIGN = 64
_WARM_UP = 3  # steps that let cuDNN choose its algorithms before the capture


def leaves(batch: Batch) -> list[Any]:
    """The arrays of a batch, in a fixed order; `rebuild` is the inverse."""
    return [a for part in batch.parts for a in part] + [batch.task_mask, batch.seen_mask, batch.rate]


def rebuild(arrays: Sequence[Any]) -> Batch:
    """A batch from its leaves."""
    n = len(Part._fields)
    parts = [Part(*arrays[i : i + n]) for i in range(0, len(arrays) - 3, n)]
    return Batch(tuple(parts), *arrays[-3:])


class _Block:
    """Arrays side by side in one pinned host tensor and its twin on the device."""

    def __init__(self, arrays: Sequence[np.ndarray[Any, Any]], device: torch.device) -> None:
        starts = np.cumsum([0] + [-(-a.nbytes // _ALIGN) * _ALIGN for a in arrays])
        self.host = torch.zeros(int(starts[-1]), dtype=torch.uint8).pin_memory()
        self.device = torch.zeros(int(starts[-1]), dtype=torch.uint8, device=device)
        raw = self.host.numpy()
        self.views = [raw[s : s + a.nbytes].view(a.dtype).reshape(a.shape) for s, a in zip(starts, arrays, strict=False)]
        self.tensors = [
            self.device[s : s + a.nbytes].view(torch.from_numpy(a.reshape(-1)).dtype).view(a.shape)
            for s, a in zip(starts, arrays, strict=False)
        ]

    def fill(self, arrays: Sequence[np.ndarray[Any, Any]]) -> None:
        for view, a in zip(self.views, arrays, strict=True):
            if view.shape != a.shape:  # copyto would spread a smaller one over the block
                raise ValueError(f"a captured step takes {view.shape}, not {a.shape}")
            np.copyto(view, a)


class GraphStep:
    """Captures `step` at the first call; `state` are the tensors it updates, put back after the warm-up."""

    def __init__(self, step: Callable[[Batch], StepResult], state: Sequence[torch.Tensor], device: torch.device) -> None:
        self._step, self._state, self._device = step, state, device
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Batch) -> StepResult:
        arrays = [np.asarray(a, order="C") for a in leaves(batch)]
        if self._graph is None:
            self._capture(arrays)
        assert self._graph is not None
        self._in.fill(arrays)
        self._graph.replay()
        torch.cuda.current_stream().synchronize()
        return StepResult(*(t.numpy().copy() for t in self._out))

    def _run(self) -> StepResult:
        self._in.device.copy_(self._in.host, non_blocking=True)
        return self._step(rebuild(self._in.tensors))

    def _capture(self, arrays: Sequence[np.ndarray[Any, Any]]) -> None:
        self._in = _Block(arrays, self._device)
        self._in.fill(arrays)
        kept = [t.clone() for t in self._state]
        self._out = self._warm_up()
        for tensor, was in zip(self._state, kept, strict=True):
            tensor.copy_(was)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for out, t in zip(self._out, self._run(), strict=True):
                out.copy_(t, non_blocking=True)
        self._graph = graph

    def _warm_up(self) -> tuple[torch.Tensor, ...]:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                out = self._run()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        return tuple(torch.empty(t.shape, dtype=t.dtype).pin_memory() for t in out)
