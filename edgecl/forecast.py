"""The cost of a run without running it: the same schedule as the loop, counted into the same ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgecl import schedule
from edgecl.config import Config
from edgecl.cost import LayerCost, dense, layer_costs
from edgecl.layout import MaskedLayer, live_weights, masked_layers, updated_weights
from edgecl.ledger import Ledger, gradient_mask_upkeep, scoring_upkeep, step_paper, step_table
from edgecl.methods import Method, make_method
from edgecl.nets import Net
from edgecl.types import I64


@dataclass(frozen=True)
class Workload:
    """What a forecast must know of the stream: its shape and sizes."""

    input: tuple[int, int, int]
    classes: int
    sizes: tuple[int, ...]  # training samples of each task


def simulate(config: Config, net: Net, work: Workload, until: int | None = None) -> Ledger:
    """The ledger of a run, without running it; `until` counts only that many epochs of its schedule."""
    costs, method = layer_costs(net), method_of(config)
    sizes: Sequence[int] = (sum(work.sizes),) if method.joint else work.sizes
    layers, ledger = masked_layers(net, config), Ledger(costs)
    meter = Meter(config, costs, layers, method)
    for epoch, times in alike(schedule.epochs(config, sizes)[:until]).items():
        live = live_weights(costs, layers, epoch.expanded)
        updated = updated_weights(costs, layers, epoch.expanded, config.dgm.share)
        gathering = schedule.gathering_steps(config, epoch) if layers else 0
        ledger.add_step(*meter.step(live, updated, gather=False), times * (epoch.steps - gathering))
        ledger.add_step(*meter.step(live, updated, gather=True), times * gathering)
        for i, flops in meter.upkeep(live, epoch).items():
            ledger.add_upkeep(i, times * flops)
    return ledger


def alike(epochs: Sequence[schedule.Epoch]) -> Mapping[schedule.Epoch, int]:
    """Epochs that cost the same, and how many there are: thousands of epochs are a handful of kinds."""
    return Counter(map(_kind, epochs))


def _kind(e: schedule.Epoch) -> schedule.Epoch:
    return replace(e, task=0, epoch=0, samples=0, swap=e.scores, settle=False, drop=0, last=False)


def shares(config: Config, net: Net, sizes: Sequence[int]) -> list[float]:
    """Of the FLOPs of a run over tasks of these `sizes`: the share that is done at the end of each epoch."""
    meter = Meter(config, layer_costs(net), masked_layers(net, config), method_of(config))
    kinds: dict[schedule.Epoch, float] = {}
    done, each = 0.0, list[float]()
    for epoch in schedule.epochs(config, sizes):
        kind = _kind(epoch)
        if kind not in kinds:
            kinds[kind] = meter.epoch(epoch)
        done += kinds[kind]
        each.append(done)
    return [d / done for d in each]


def method_of(config: Config) -> Method:
    """The configured method."""
    return make_method(config.method["name"], {k: v for k, v in config.method.items() if k != "name"})


class Meter:
    """Prices a step and a change of masks for one configuration: the same prices for plan and loop."""

    def __init__(self, config: Config, costs: tuple[LayerCost, ...], layers: dict[str, MaskedLayer], method: Method) -> None:
        self.config, self.costs, self.layers = config, costs, layers
        self.draws = method.draws
        self.replay = (config.memory.batch or config.train.batch) * method.draws
        self.mixed = sum(self._samples(p.parts) for p in method.passes() if 0 in p.parts and len(p.parts) > 1)

    def _samples(self, parts: tuple[int, ...]) -> int:
        """Samples of a pass: part 0 is the current batch, the others are draws."""
        batch, draw = self.config.train.batch, self.config.memory.batch or self.config.train.batch
        return sum(draw if part else batch for part in parts)

    def step(self, live: dict[str, int], updated: dict[str, int], *, gather: bool) -> tuple[I64, int]:
        """(table, paper) of one step; `gather` takes the gradient of all live weights (dense ones to grow by gradient)."""
        gathered = None
        if gather:
            gathered = dense(self.costs) if self.config.tdm.grow == "gradient" else live
        batch = self.config.train.batch
        table = step_table(self.costs, live, updated, gathered, batch, self.replay, self.mixed if gather else 0)
        return table, step_paper(self.costs, live, updated, batch, self.draws)

    def epoch(self, epoch: schedule.Epoch) -> float:
        """FLOPs of an epoch's steps, as planned."""
        live = live_weights(self.costs, self.layers, epoch.expanded)
        updated = updated_weights(self.costs, self.layers, epoch.expanded, self.config.dgm.share)
        gathering = schedule.gathering_steps(self.config, epoch) if self.layers else 0
        plain, gather = (float(self.step(live, updated, gather=g)[0].sum()) for g in (False, True))
        return (epoch.steps - gathering) * plain + gathering * gather

    def upkeep(self, live: Mapping[str, int], epoch: schedule.Epoch) -> dict[int, int]:
        """FLOPs by layer's index of an epoch's changes of masks: the scored one at its end, the choices of gradient masks."""
        refreshes = schedule.refreshing_steps(self.config, epoch.steps)
        flops = {}
        for i, c in enumerate(self.costs):
            if c.name in self.layers:
                units = self.layers[c.name].units
                scored = scoring_upkeep(live[c.name], units) if epoch.scores else 0
                flops[i] = scored + refreshes * gradient_mask_upkeep(live[c.name], units)
        return flops
