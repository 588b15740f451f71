"""The engine seam: what the loop asks of whatever runs a network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from edgecl.nets.graph import Net
from edgecl.types import Array, Batch, Bools, Named, Pass, StoreError

CURRENT, REPLAY = "current", "replay"
"""Sources of gradient: part 0 of a batch is current, all others are replay."""


def sources_of(parts: int) -> tuple[str, ...]:
    """The source of gradient of each part of a whole batch."""
    return (CURRENT, *[REPLAY] * (parts - 1))


class Output(NamedTuple):
    """What the network says of one part."""

    logits: Array  # [N, K] float32
    features: Array  # [N, F] float32


class StepResult(NamedTuple):
    """What the host reads back from a training step."""

    loss: Array  # [] float32
    logits: Array  # [N, K] float32, of the current part, before the update


def check_arrays(net: Net, arrays: Named, wanted: Mapping[str, Any]) -> None:
    """Raises StoreError that names an array which `wanted` (name → array) has and `arrays` lacks, or has in another shape."""
    for name, own in wanted.items():
        if name not in arrays:
            raise StoreError(f"weights: no array {name!r} for net {net.name}")
        if arrays[name].shape != tuple(own.shape):
            raise StoreError(f"weights: {name} has shape {arrays[name].shape}, net {net.name} needs {tuple(own.shape)}")


class Engine(Protocol):
    """Runs a Net. Arrays inside a step belong to the engine's namespace `xp`; the host sees numpy.

    A step is `forward` → a method's loss → `backward` → `step`; `compile` makes it fast without changing it.
    """

    net: Net
    xp: Any  # array namespace
    scores_dead: bool  # whether scores hold gradients of dead weights too: only growth by gradient reads them
    in_turn: bool  # passes cost least memory, and no time, if each goes forward and backward before the next begins

    def load(self, arrays: Named) -> None:
        """Sets weights, buffers and momentum (`momentum.<weight>`). Raises StoreError naming a missing or misshapen array."""

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Copies of all that `load` takes."""

    def held(self) -> Named:
        """The same to read at once: where the engine computes in numpy its own arrays, which take no more memory."""

    def set_masks(self, live: Mapping[str, Bools], units: Mapping[str, str]) -> None:
        """Weight masks by layer, in unit shape: dead weights and their momentum become zero. Gradient masks follow them."""

    def set_gradient_masks(self, units_updated: Mapping[str, Array]) -> None:
        """Which live units are updated, by layer, in unit shape (engine arrays); all of a layer that is not named.

        Dead units stay dead even if they are named here.
        """

    def set_frozen(self, nodes: Collection[str]) -> None:
        """From now on these nodes, a prefix of the net, run as in `predict`: none of their arrays changes.

        No gradient is taken of them nor through them, and their scores stay as they are. Steps compiled before must be compiled
        anew. Raises ConfigError where the nodes are no prefix, or hold the classifier.
        """

    def forward(self, x: Sequence[Array], passes: Sequence[Pass], *, split: bool = False) -> list[Output]:
        """Training mode, one output a part. Each pass has batch statistics of its own and updates the running ones in order.

        The engine may run the passes together; `split` forbids it, which makes gradients by source cheap.
        """

    def backward(self, d_logits: Sequence[Array], *, score: bool = False, sources: Sequence[str] = ()) -> None:
        """Gradient of every weight, of what the last `forward` returned, added to what came since the last `step`.

        `score` also adds it up by source, for `scores`, over the masked layers' live weights, and dead ones where `scores_dead`
        says so; of the calls before one `step` all score, or none. `sources`
        names each part's; by default the first is CURRENT, the others are REPLAY.
        """

    def step(self, rate: Array) -> None:
        """SGD with momentum and weight decay on what the gradient masks let through; the rest keeps weight and momentum."""

    def scores(self, steps: int) -> dict[str, Mapping[str, Array]]:
        """Gradients summed since the last reset, over `steps`: source → masked layer → weight's shape.

        Read them before the weight masks change.
        """

    def reset_scores(self) -> None:
        """Sets the sums to 0."""

    def weight(self, layer: str) -> Array:
        """The layer's weight, as the engine's array."""

    def predict(self, x: Array) -> Array:
        """Logits [N, K] with running statistics."""

    def compile(self, step: Callable[[Batch], StepResult]) -> Callable[[Batch], StepResult]:
        """A step that takes and returns numpy; shapes are fixed by its first call."""

    def asarray(self, a: Any) -> Array:
        """A host array on the engine's device."""

    def numpy(self, a: Array) -> np.ndarray[Any, Any]:
        """An engine array on the host."""

    def place(self) -> dict[str, Any]:
        """What the last bits of a result hang on beside the code: `threads`, `isa`, `accelerator` (None on a CPU)."""

    def nonfinite(self) -> str | None:
        """The first array with values that are not finite: running statistics first, since the forward pass writes them."""
