"""The cost of a run without running it: the same schedule as the loop, counted into the same ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgecl import schedule
from edgecl.config import Config
from edgecl.cost import LayerCost, dense, layer_costs
from edgecl.layout import MaskedLayer, frozen_nodes, live_weights, masked_layers, updated_weights
from edgecl.ledger import Ledger, gradient_mask_upkeep, scoring_upkeep, step_paper, step_table
from edgecl.methods import Method, make_method
from edgecl.nets import Net
from edgecl.types import I64, ConfigError


@dataclass(frozen=True)
class Workload:
    """What a forecast must know of the stream: its shape and sizes."""

    input: tuple[int, int, int]
    classes: int
    sizes: tuple[int, ...]  # training samples of each task
    net: Net | None = None  # where no name builds it again: then it has no other width
    tests: tuple[int, ...] = ()  # test samples of each group of classes


def simulate(config: Config, net: Net, work: Workload, until: int | None = None) -> Ledger:
    """The ledger of a run, without running it; `until` counts only that many epochs of its schedule."""
    meter = meter_of(config, net)
    sizes: Sequence[int] = (sum(work.sizes),) if method_of(config).joint else work.sizes
    ledger = Ledger(meter.costs)
    for epoch, times in alike(schedule.epochs(config, sizes)[:until]).items():
        live, updated = meter.weights(epoch)
        gathering = meter.gathering(epoch)
        plain, gather = (meter.step(live, updated, gather=g, frozen=epoch.frozen) for g in (False, True))
        ledger.add_step(*plain, times * (epoch.steps - gathering))
        ledger.add_step(*gather, times * gathering)
        for i, flops in meter.upkeep(live, epoch).items():
            ledger.add_upkeep(i, times * flops)
        if epoch.corrects:
            ledger.add_forward(meter.fitted, meter.settled, times)
    return ledger


def alike(epochs: Sequence[schedule.Epoch]) -> Mapping[schedule.Epoch, int]:
    """Epochs that cost the same, and how many there are: thousands of epochs are a handful of kinds."""
    return Counter(map(_kind, epochs))


def _kind(e: schedule.Epoch) -> schedule.Epoch:
    return replace(e, task=0, epoch=0, samples=0, swap=e.scores, settle=False, drop=0, last=False)


def shares(config: Config, net: Net, sizes: Sequence[int]) -> list[float]:
    """Of the FLOPs of a run over tasks of these `sizes`: the share that is done at the end of each epoch."""
    meter = meter_of(config, net)
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


def meter_of(config: Config, net: Net) -> Meter:
    """Prices of a configuration. Raises ConfigError where the net has no prefix as `freeze.until` names it, and where
    `train.bias_correction` has no bias to correct or no old samples to correct it by."""
    method, why = method_of(config), "" if net.bias else f"the logits of net {net.name} have no bias of their own"
    why = why if method.draws else f"method {method.name} replays nothing, so that old classes have no samples to show"
    if config.train.bias_correction and why:
        raise ConfigError(f"train.bias_correction: {why}")
    held = layer_costs(net, frozen_nodes(net, config))
    return Meter(config, layer_costs(net), masked_layers(net, config), method, held)


class Meter:
    """Prices a step and a change of masks for one configuration: the same prices for plan and loop."""

    def __init__(
        self,
        config: Config,
        costs: tuple[LayerCost, ...],
        layers: dict[str, MaskedLayer],
        method: Method,
        held: tuple[LayerCost, ...] = (),
    ) -> None:
        """`held` are the costs while the net's prefix is frozen."""
        self.config, self.costs, self.layers, self.held = config, costs, layers, held or costs
        self.thawed = {c.name: layers[c.name] for c in self.held if c.name in layers and not c.frozen}
        self.draws = method.draws
        self.replay = (config.memory.batch or config.train.batch) * method.draws
        self.fitted = schedule.fitted(config)  # samples of a correction
        self.mixed = sum(self._samples(p.parts) for p in method.passes() if 0 in p.parts and len(p.parts) > 1)

    def _samples(self, parts: tuple[int, ...]) -> int:
        """Samples of a pass: part 0 is the current batch, the others are draws."""
        batch, draw = self.config.train.batch, self.config.memory.batch or self.config.train.batch
        return sum(draw if part else batch for part in parts)

    def changing(self, epoch: schedule.Epoch) -> dict[str, MaskedLayer]:
        """The layers whose masks may change in an epoch: none of a frozen prefix."""
        return self.thawed if epoch.frozen else self.layers

    def gathering(self, epoch: schedule.Epoch) -> int:
        """How many of an epoch's steps gather gradients."""
        return schedule.gathering_steps(self.config, epoch) if self.changing(epoch) else 0

    @property
    def settled(self) -> dict[str, int]:
        """Live weights by layer at a task's end, as planned."""
        return live_weights(self.costs, self.layers, expanded=False)

    def weights(self, epoch: schedule.Epoch) -> tuple[dict[str, int], dict[str, int]]:
        """Live and updated weights by layer in an epoch, as planned."""
        costs, share = self.held if epoch.frozen else self.costs, self.config.dgm.share
        updated = updated_weights(costs, self.layers, epoch.expanded, share)
        return live_weights(costs, self.layers, epoch.expanded), updated

    def step(self, live: dict[str, int], updated: dict[str, int], *, gather: bool, frozen: bool = False) -> tuple[I64, int]:
        """(table, paper) of one step; `gather` takes the gradient of all live weights (dense ones to grow by gradient)."""
        gathered = None
        if gather:
            gathered = dense(self.costs) if self.config.tdm.grow == "gradient" else live
        batch, costs = self.config.train.batch, self.held if frozen else self.costs
        table = step_table(costs, live, updated, gathered, batch, self.replay, self.mixed if gather else 0)
        return table, step_paper(costs, live, updated, batch, self.draws)

    def epoch(self, epoch: schedule.Epoch) -> float:
        """FLOPs of an epoch's steps, as planned."""
        live, updated = self.weights(epoch)
        gathering = self.gathering(epoch)
        plain, gather = (float(self.step(live, updated, gather=g, frozen=epoch.frozen)[0].sum()) for g in (False, True))
        return (epoch.steps - gathering) * plain + gathering * gather

    def upkeep(self, live: Mapping[str, int], epoch: schedule.Epoch) -> dict[int, int]:
        """FLOPs by layer's index of an epoch's changes of masks: the scored one at its end, the choices of gradient masks."""
        refreshes = schedule.refreshing_steps(self.config, epoch.steps)
        layers, flops = self.changing(epoch), {}
        for i, c in enumerate(self.costs):
            if c.name in layers:
                units = layers[c.name].units
                scored = scoring_upkeep(live[c.name], units) if epoch.scores else 0
                flops[i] = scored + refreshes * gradient_mask_upkeep(live[c.name], units)
        return flops
