"""How long training takes, by layer: counted work, priced by what was measured on this machine or by a device's profile.

A step's time is taken as a sum of non-negative prices over a few kinds of work (`WORK`). A clock holds the prices; `fit`
finds them from measured steps. What a mask skips is priced apart from what dense loops do, since it runs at another speed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecl.config import Config
from edgecl.cost import Count, LayerCost, dense, layer_costs
from edgecl.forecast import Workload, alike, meter_of, method_of
from edgecl.layout import MaskedLayer, frozen_nodes, live_weights, masked_layers
from edgecl.methods import Method
from edgecl.nets import Net
from edgecl.profiles import Profile
from edgecl.schedule import TESTED, epochs, saves, test_sizes

F64 = npt.NDArray[np.float64]

WORK = (
    "dense",  # FLOPs of layers without a mask
    "sparse",  # FLOPs through live weights of masked layers: forward and input gradient
    "updates",  # FLOPs of the weight gradients of masked layers
    "gathered",  # FLOPs of the weight gradients that score units, in steps that gather them
    "traffic",  # numbers in layers' inputs and outputs, stored in full
    "halves",  # such numbers where activations are stored in half precision
    "weights",  # live weights, which every step turns and updates
    "ranked",  # weights of masked layers, dead ones too, in steps that gather
    "calls",  # layers times passes
    "step",  # 1 a step
)
ENGINES_THAT_SKIP = ("native",)
"""Engines whose masks save time."""


@dataclass(frozen=True)
class Clock:
    """Seconds for each kind of work on one machine."""

    prices: tuple[float, ...]  # of a unit of each kind in WORK
    lanes: int  # samples that are always computed together
    upkeep: float  # seconds a masked weight at a change of masks
    snapshot: float  # seconds a byte of a snapshot
    watts: float | None  # drawn meanwhile, where a meter could be read
    source: str  # where the prices are from, for people
    measured: bool  # here, rather than read from a profile
    error: float  # median share by which held-out steps were mispredicted; nan for a profile

    def step(self, work: F64) -> F64:
        """Seconds by layer of a step; the last entry belongs to no layer."""
        seconds: F64 = work @ np.array(self.prices)
        return seconds


def profile_clock(profile: Profile) -> Clock | None:
    """A profile's prediction; None where it lacks a figure.

    FLOPs at the share of the peak that dense training reaches, and `_PASSES` times each layer's inputs and outputs through
    memory at the measured bandwidth: masks save the first and not the second. Python's share is unknown, and left out.
    """
    figures = [f.value for f in (profile.peak_gflops_fp32, profile.training_efficiency, profile.bandwidth_gbs)]
    if any(v is None for v in figures):
        return None
    peak, efficiency, bandwidth = (float(v or 0) for v in figures)
    flop, number = 1 / (peak * 1e9 * profile.cores * efficiency), _PASSES * 4 / (bandwidth * 1e9)
    prices = {"dense": flop, "sparse": flop, "updates": flop, "gathered": flop, "traffic": number}
    prices |= {"halves": number / 2, "weights": number, "ranked": 10 * number}
    return Clock(
        tuple(prices.get(k, 0.0) for k in WORK), 1, 40 * number, 0.0, None, f"profile {profile.name}", False, float("nan")
    )


_PASSES = 8  # reads and writes of an activation in a step: the forward pass, batch norm, both gradients


class Counter:
    """Counts the work of one configuration's steps."""

    def __init__(self, config: Config, net: Net, lanes: int) -> None:
        self.config, self.costs, self.lanes = config, layer_costs(net), lanes
        self.half = config.engine.storage == "fp16"
        self.method: Method = method_of(config)
        self.masked: Mapping[str, MaskedLayer] = masked_layers(net, config) if skips(config) else {}
        self.numbers = _numbers(net, self.costs)
        self.held = layer_costs(net, frozen_nodes(net, config))

    def step(self, live: Count, updated: Count, *, gather: bool, frozen: bool = False) -> F64:
        """Work [layers + 1, WORK] of a step through `live` weights that updates `updated` of them; any engine spares a prefix."""
        samples, mixed, passes = self._samples(gather)
        costs = self.held if frozen else self.costs
        rows = [
            self._forward(c, live[c.name], samples, passes)
            if c.frozen
            else self._layer(c, live[c.name], updated[c.name], samples, mixed, passes, gather)
            for c in costs
        ]
        return np.array([*rows, [0.0] * (len(WORK) - 1) + [1.0]])

    def test(self, live: Count, samples: int) -> F64:
        """Work [layers + 1, WORK] of predicting so many samples, `TESTED` at a time."""
        batches = -(-samples // TESTED)
        rows = [self._forward(c, live[c.name], batches * TESTED, batches) for c in self.costs]
        return np.array([*rows, [0.0] * (len(WORK) - 1) + [float(batches)]])

    def _forward(self, c: LayerCost, live: int, n: int, passes: int) -> list[float]:
        """Of a frozen layer: half the traffic and the calls of one that learns, and no weights that change."""
        dense, sparse = (0, n * c.flops(live)) if c.name in self.masked else (n * c.flops(c.weights), 0)
        return [dense, sparse, 0, 0, *self._stored(self.numbers[c.name] * n / 2), 0, 0, passes / 2, 0]

    def _layer(self, c: LayerCost, live: int, updated: int, n: int, mixed: int, passes: int, gather: bool) -> list[float]:
        forward, back = c.flops(live), c.flops(live) if c.input_gradient else 0
        numbers = self._stored(self.numbers[c.name] * (n + mixed / 2))
        if c.name not in self.masked:
            whole = n * (forward + back + c.flops(c.weights)) + mixed * (back + c.flops(c.weights))
            return [whole, 0, 0, 0, *numbers, c.weights, 0, passes, 0]
        scored = c.weights if self.config.tdm.grow == "gradient" else live
        weights = (0, (n + mixed) * c.flops(scored)) if gather else (n * c.flops(updated), 0)
        return [0, n * forward + (n + mixed) * back, *weights, *numbers, live, gather * c.weights, passes, 0]

    def _stored(self, numbers: float) -> tuple[float, float]:
        """Traffic and halves."""
        return (0.0, numbers) if self.half else (numbers, 0.0)

    def _samples(self, gather: bool) -> tuple[int, int, int]:
        """Samples of all passes, in whole vectors; those sent back twice, once a source, when gradients are gathered; passes."""
        batch, draw = self.config.train.batch, self.config.memory.batch or self.config.train.batch
        sizes = [(sum(draw if part else batch for part in p.parts), p.parts) for p in self.method.passes()]
        padded = [(-(-n // self.lanes) * self.lanes, parts) for n, parts in sizes]
        mixed = sum(n for n, parts in padded if gather and 0 in parts and len(parts) > 1)
        return sum(n for n, _ in padded), mixed, len(padded)


def skips(config: Config) -> bool:
    """Whether the configured engine skips what is masked."""
    return config.engine.name in ENGINES_THAT_SKIP


def _numbers(net: Net, costs: Sequence[LayerCost]) -> dict[str, int]:
    """Layer → numbers in its input and output, of one sample."""
    names = {c.name for c in costs}
    return {node.name: prod(inputs[0]) + prod(node.out_shape(*inputs)) for node, inputs in net.walk() if node.name in names}


def run_seconds(config: Config, net: Net, work: Workload, clock: Clock) -> F64:
    """Seconds of a whole run by layer [layers + 1], by the same schedule as the loop; the last entry belongs to no layer."""
    counter = Counter(config, net, clock.lanes)
    sizes = (sum(work.sizes),) if counter.method.joint else work.sizes
    total: F64 = np.zeros(len(counter.costs) + 1)
    meter = meter_of(config, net)
    for epoch, times in alike(epochs(config, sizes)).items():
        live, updated = meter.weights(epoch) if counter.masked else (dense(counter.costs),) * 2
        gathering, layers = meter.gathering(epoch), meter.changing(epoch)
        plain, gather = (clock.step(counter.step(live, updated, gather=g, frozen=epoch.frozen)) for g in (False, True))
        total += times * ((epoch.steps - gathering) * plain + gathering * gather)
        if epoch.scores:
            total += times * clock.upkeep * np.array([*(c.weights if c.name in layers else 0 for c in counter.costs), 0])
        if epoch.corrects:
            total += times * clock.step(counter.test(meter.settled, meter.fitted))
    return total


SAVING = 0.05
"""Share of the time that snapshots within tasks may take under a limit of time: then one is left out until it is due again."""


def aside_seconds(config: Config, net: Net, work: Workload, clock: Clock, training: float, *, limited: bool) -> float:
    """Seconds of a whole run's tests and snapshots, beside so many of training; `limited` where time is."""
    counter = Counter(config, net, clock.lanes)
    joint, sizes = counter.method.joint, (sum(work.sizes),) if counter.method.joint else work.sizes
    live = live_weights(counter.costs, counter.masked, False)
    tests = float(clock.step(counter.test(live, sum(test_sizes(work.tests, joint=joint)))).sum())
    each, saved = clock.snapshot * snapshot_bytes(config, net), [e.last for e in epochs(config, sizes) if saves(config, e)]
    within = each * (len(saved) - sum(saved))
    return tests + each * sum(saved) + (min(within, SAVING * (training + tests)) if limited else within)


def snapshot_bytes(config: Config, net: Net) -> int:
    """Of a snapshot, about: weights, momentum, and the replay memory's samples."""
    weights = 4 * sum(map(prod, net.weights().values())) * (2 if config.train.momentum else 1)
    return weights + config.memory.capacity * prod(net.input) * bool(method_of(config).draws)


def fit(work: Sequence[F64], seconds: Sequence[float]) -> tuple[float, ...]:
    """Non-negative prices that explain measured steps best, by the squares of relative errors; `RARE` ones count less."""
    counted = np.array([w.sum(axis=0) for w in work])
    weight = np.where(counted[:, WORK.index("ranked")] > 0, RARE, 1.0)
    rows = counted * (weight / np.array(seconds))[:, None]
    scale = np.where(rows.any(axis=0), np.sqrt((rows**2).sum(axis=0)), 1.0)
    return tuple((_nonnegative(rows / scale, weight) / scale).tolist())


RARE = 0.3
"""Weight of a step that gathers gradients: there are few in a run, and plain steps should not be bent to them."""


def _nonnegative(a: F64, b: F64, sweeps: int = 1500) -> F64:
    """argmin |a x - b|² over x ≥ 0, by coordinates. No solver of numpy's: some take tens of megabytes at their first call."""
    gram, wanted, x = np.einsum("ij,ik->jk", a, a), np.einsum("ij,i->j", a, b), np.zeros(a.shape[1])
    for _ in range(sweeps):
        for j in np.flatnonzero(gram.diagonal() > 0):
            x[j] = max(0.0, x[j] + (wanted[j] - (gram[j] * x).sum()) / gram[j, j])
    return x


def held_out(work: Sequence[F64], seconds: Sequence[float]) -> list[float]:
    """For each step: by what share it is mispredicted from all the others."""
    errors = []
    for i, took in enumerate(seconds):
        others = [j for j in range(len(work)) if j != i]
        prices = fit([work[j] for j in others], [seconds[j] for j in others])
        errors.append(float((work[i] @ np.array(prices)).sum() / took - 1))
    return errors


def as_plain(clock: Clock) -> dict[str, Any]:
    """For JSON; `from_plain` reads it back."""
    return {**vars(clock), "prices": dict(zip(WORK, clock.prices, strict=True))}


def from_plain(d: Mapping[str, Any]) -> Clock:
    """Raises KeyError, TypeError or ValueError for what `as_plain` did not write."""
    prices = tuple(float(d["prices"][k]) for k in WORK)
    watts = None if d["watts"] is None else float(d["watts"])
    said = str(d["source"]), bool(d["measured"]), float(d["error"])
    return Clock(prices, int(d["lanes"]), float(d["upkeep"]), float(d["snapshot"]), watts, *said)
