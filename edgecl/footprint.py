"""How much memory a run will take at its peak, part by part, before it takes it.

Only the native engine's memory can be told: what torch's allocator keeps is its own affair.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import prod

from edgecl.config import Config
from edgecl.engines.native_bytes import activation_bytes
from edgecl.forecast import method_of
from edgecl.layout import MaskedLayer, frozen_nodes, masked_layers
from edgecl.methods import ByPart
from edgecl.nets import Net
from edgecl.schedule import TESTED

MARGIN = 0.05
"""Share added to what is counted: Python's own objects, and what the allocator does not give back at once."""

GROWTH = 4_000_000
"""Bytes that a process grows by when it first trains: modules, the kernels' threads."""

Bytes = dict[str, int]


def run_bytes(config: Config, net: Net, lanes: int) -> Bytes:
    """Bytes by what they are for, beyond those of the process: their sum is the most that a run takes at any moment."""
    layers = masked_layers(net, config)
    weights = 4 * sum(map(prod, net.weights().values()))
    state = weights * (2 if config.train.momentum else 1)
    replay, dead = _replay(config, net), config.tdm.grow == "gradient"
    frozen = frozenset() if config.freeze.after else frozen_nodes(net, config)  # else the first task needs all
    held = {
        "weights": state,
        "mean of weights": weights * bool(config.train.average),
        "masks and gradients": sum(_lists(net, layers, dead=dead).values()),
        "activations": _activations(net, _passes(config), lanes, isinstance(method_of(config), ByPart), _half(config), frozen),
        "replay memory": replay,
        "a step's samples": _STEP * sum(map(sum, _passes(config))) * prod(net.input),
    }
    later = sum(held.values()) - state  # is not there yet while initial weights are
    return {**held, "passing copies": _passing(net, layers, weights, later, dead=dead)}


_STEP = 20  # bytes a pixel while samples are cropped and normalised: places, pixels, floats and their products


@lru_cache(maxsize=64)
def _activations(
    net: Net, passes: tuple[tuple[int, ...], ...], lanes: int, in_turn: bool, half: bool, frozen: frozenset[str]
) -> int:
    return activation_bytes(net, passes, lanes, in_turn=in_turn, half=half, frozen=frozen)


def _half(config: Config) -> bool:
    return config.engine.storage == "fp16"


def _passes(config: Config) -> tuple[tuple[int, ...], ...]:
    """Samples of each part of each pass of a step."""
    batch, draw = config.train.batch, config.memory.batch or config.train.batch
    return tuple(tuple(draw if part else batch for part in p.parts) for p in method_of(config).passes())


def _replay(config: Config, net: Net) -> int:
    """Of the replay memory: pixels, class and id, logits."""
    each = prod(net.input) + 8 + 8 + 4 * net.classes
    return config.memory.capacity * each if method_of(config).draws else 0


def _lists(net: Net, masked: Mapping[str, MaskedLayer], *, dead: bool) -> dict[str, int]:
    """Layer → bytes of what the engine keeps beside the weights.

    Lists for the forward pass, the input gradient and the update: two numbers and the values an entry, which is a kernel or
    a single weight. A masked layer also has its mask and, of a step that scores, gradients of one source, of all, and their
    sums by source: of live weights, or of dead ones too, then with a list of all kernels.
    """
    found = {}
    for name in net.layers():
        shape = net.weights()[f"{name}.weight"]
        pairs, size = shape[0] * shape[1], prod(shape)
        share = min(1.0, (masked[name].target(True) / masked[name].units)) if name in masked else 1.0
        entries = size if name in masked and masked[name].unit == "weight" else pairs
        found[name] = round(share * (24 * entries + 3 * 4 * size))
        if name in masked:
            found[name] += round((1.0 if dead else share) * 4 * 4 * size) + dead * 8 * pairs + 2 * size
    return found


def _passing(net: Net, masked: Mapping[str, MaskedLayer], weights: int, later: int, *, dead: bool) -> int:
    """The largest of what is there for a moment: copies of gradients while masks change, test samples, or initial weights, at
    whose time `later` bytes of the rest are not taken yet."""
    sizes = [prod(v.weight_shape) for v in masked.values()]
    largest = max((prod(s) for s in net.weights().values()), default=0)
    change = dead * 12 * sum(sizes) + 40 * max(sizes, default=0)
    return max(change, 2 * weights + 12 * largest - later, _STEP * TESTED * prod(net.input))


def peak(parts: Mapping[str, int], resident: int, before: int) -> int:
    """Bytes at the peak of a process that is `resident` now and was `before` at its largest."""
    return max(before, resident + GROWTH + round((1 + MARGIN) * sum(parts.values())))
