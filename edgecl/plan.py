"""From a budget to a plan: how wide, how sparse, on which samples, for how many epochs, before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import ceil, floor

from edgecl import budget as budgets
from edgecl import recipe
from edgecl.budget import Budget
from edgecl.config import Config
from edgecl.forecast import Workload, simulate
from edgecl.ledger import Ledger
from edgecl.nets import Net, build_net, full_width
from edgecl.outlook import HEADROOM as HEADROOM
from edgecl.outlook import Device as Device
from edgecl.outlook import Plan as Plan
from edgecl.outlook import surely
from edgecl.timing import run_seconds
from edgecl.types import BudgetError, ConfigError

WIDTHS = (1.0, 0.75, 0.625, 0.5, 0.375, 0.3125, 0.25, 0.1875, 0.125)
"""Shares of the full width that the planner tries, widest first."""

MOST_SPARSE = 0.91
"""The planner narrows the net rather than prune more than this: narrow nets gain more on the clock (docs/adr/0003)."""

DDR_SHARE, DGM_SHARE = 0.3, 0.8
"""What a budget turns on unless pinned: SparCL's 30 % of the data removed, and 80 % of live units updated."""

NARROW, FEWEST = 0.3125, 1 / 3
"""From this share of the width down a time budget takes epochs before it narrows on, to this share of them (docs/adr/0006)."""


def build(config: Config, work: Workload) -> Net:
    """The net that a configuration names. Raises ConfigError, also where its classifier has no room for the data's classes."""
    if work.net is not None:
        return work.net
    room = config.net.capacity or work.classes
    if room < work.classes:
        raise ConfigError(f"net.capacity is {room}, but the data has {work.classes} classes")
    return build_net(config.net.name, work.input, room, config.net.width)


def baseline(config: Config) -> Config:
    """The dense run that a budget is measured against: full width, unmasked, all samples, replay as named; all else the same."""
    changes = {"net.width": 0, "mask.sparsity": 0.0, "ddr.share": 0.0, "dgm.share": 1.0, "freeze.until": "", "budget": ""}
    for key, value in changes.items():
        config = config.set(key, value)
    return recipe.undone(config)


def make_plan(config: Config, work: Workload, pinned: Collection[str] = (), device: Device | None = None) -> Plan:
    """Fills in what `pinned` (dotted keys the user gave) leaves open so that the budget holds.

    Raises BudgetError that names the nearest possible budget.
    """
    maker = _Maker(work, device or Device())
    if budgets.parse(config.budget) == Budget():
        return maker(config)
    plan = _search(config, maker, pinned)
    if plan is None and config.clock == "auto" and maker(config).clocked:
        maker = _Maker(work, maker.device, flops_only=True)
        plan = _search(config, maker, pinned)
    if plan is None:
        raise _refusal(config, maker, pinned)
    return plan


def _search(config: Config, maker: _Maker, pinned: Collection[str]) -> Plan | None:
    """The first plan that holds, in the order of preference: the widest, and there the least sparse."""
    plain = maker(config if "net.width" in pinned else config.set("net.width", 0))
    if plain.holds:
        return plain
    candidates = _candidates(config, pinned)
    for candidate in candidates:
        plan = _at_width(config, candidate, maker, pinned, last=candidate == candidates[-1])
        if plan is not None:
            return plan
    return None


def _refusal(config: Config, maker: _Maker, pinned: Collection[str]) -> BudgetError:
    plain = maker(config if "net.width" in pinned else config.set("net.width", 0))
    tightest = min([plain, *map(maker, _tightest(config, pinned))], key=lambda p: max(p.shares().values()))
    timed = budgets.parse(config.budget).timed
    also = {EPOCHS: timed, STORAGE: budgets.parse(config.budget).memory is not None}
    held = sorted(k for k in pinned if k in OPEN or also.get(k))
    why = f" with {', '.join(held)} pinned" if held else _reach(tightest.config)
    return BudgetError(f"budget {config.budget}: {_nearest(tightest)}{why}")


def frozen(config: Config, work: Workload, device: Device | None = None) -> Plan:
    """The plan of a configuration that was resolved before: nothing is left to choose."""
    return _Maker(work, device or Device())(config)


class _Maker:
    """Plans of resolved configurations; the baselines' ledgers are kept."""

    def __init__(self, work: Workload, device: Device, *, flops_only: bool = False) -> None:
        self.work, self.device, self.flops_only = work, device, flops_only
        self.references: dict[tuple[int, str], tuple[Ledger, float | None]] = {}

    def __call__(self, config: Config) -> Plan:
        net, (reference, dense_seconds) = build(config, self.work), self._reference(baseline(config))
        factor = budgets.parse(config.budget).compute
        limit = None if factor is None else int(reference.executed // factor)  # exact: a float can't count so many
        ledger = simulate(config, net, self.work)
        return Plan(config, net, ledger, reference, limit, self.work, self.device, dense_seconds, self.flops_only)

    def _reference(self, base: Config) -> tuple[Ledger, float | None]:
        """Of what the planner chooses only epochs and storage reach the baseline."""
        key, clock = (base.train.epochs, base.engine.storage), self.device.clock
        if key not in self.references:
            net = build(base, self.work)
            seconds = self.device.dense_seconds if clock is None else float(run_seconds(base, net, self.work, clock).sum())
            self.references[key] = simulate(base, net, self.work), seconds
        return self.references[key]


OPEN = ("net.width", "mask.sparsity", "ddr.share", "dgm.share", *recipe.REPLAY)
EPOCHS, STORAGE = "train.epochs", "engine.storage"
"""Keys of cost that the planner fills in unless they are pinned; epochs only where time or energy is limited, storage where
memory is."""


def _nearest(tightest: Plan) -> str:
    """What can be met, each limit rounded so that, given back as a budget, it holds."""
    b, said = tightest.budget, list[str]()
    if tightest.limit is not None:
        tenths = tightest.dense.executed * 10 // tightest.ledger.executed
        if "clock" in tightest.shares() and b.compute is not None:
            tenths = min(tenths, floor(10 * surely(tightest.clock_ratio or 0)))
        if tenths < 10:
            least = min(tightest.ratio, tightest.clock_ratio or tightest.ratio) if tightest.clocked else tightest.ratio
            return f"none can be met, the least cost is {1 / least:.2f} times the dense baseline's"
        said.append(f"{tenths // 10}" + (f".{tenths % 10}x" if tenths % 10 else "x"))
    if b.time is not None and tightest.spent is not None:
        said.append(budgets.time_text(HEADROOM * tightest.spent))
    if b.memory is not None and tightest.bytes is not None:
        said.append(budgets.memory_text(1.02 * tightest.bytes))  # another process is a little larger or smaller
    if b.energy is not None and tightest.joules is not None:
        said.append(budgets.energy_text(HEADROOM * tightest.joules))
    return f"the nearest possible is {','.join(said)}"


def _reach(tightest: Config) -> str:
    """What the nearest possible takes, so that a user sees what stands in the way."""
    width, share = tightest.net.width, tightest.mask.sparsity
    stored = ["activations stored as fp16"] * (tightest.engine.storage == "fp16")
    how = [f"width {width}"] * bool(width) + [f"{share:.0%} masked but for stem, shortcuts and classifier"] * bool(share) + stored
    more = "; the planner masks no more, --set mask.sparsity does" * (share == MOST_SPARSE)
    return f" at {', '.join(how)}{more}" if how else ""


def _candidates(config: Config, pinned: Collection[str]) -> list[Config]:
    """One configuration a width, widest first, with what SparCL and the recipe turn on; sparsity is still open."""
    budget = budgets.parse(config.budget)
    if budget.compute is not None or budget.timed:  # neither saves memory
        for key, value in (("ddr.share", DDR_SHARE), ("dgm.share", DGM_SHARE)):
            config = config if key in pinned else config.set(key, value)
        config = recipe.apply(config, pinned)
    full = full_width(config.net.name)
    if "net.width" in pinned or not full:
        return [config]
    return [config.set("net.width", max(4, round(full * w))) for w in WIDTHS]


def _storages(config: Config, pinned: Collection[str]) -> tuple[str, ...]:
    """How activations may be stored, in the order of trial: half precision only where full does not fit the memory."""
    free = budgets.parse(config.budget).memory is not None and STORAGE not in pinned
    return ("fp32", "fp16") if free and config.engine.name == "native" else (config.engine.storage,)


def _at_width(
    config: Config, candidate: Config, maker: Callable[[Config], Plan], pinned: Collection[str], *, last: bool
) -> Plan | None:
    """The plan at the candidate's width, if any holds."""
    for storage in _storages(config, pinned):
        candidate = candidate.set(STORAGE, storage)
        whole = maker(config.set(STORAGE, storage).set("net.width", candidate.net.width))
        if whole.budget.memory is not None and whole.holds:  # memory alone narrowed the net
            return whole
        narrows = whole.exceeds == {"memory"} and not last  # masks are for limits of work
        plan = None if narrows else _fit(candidate, maker, pinned)
        if plan is not None:
            return plan
    return None if narrows else _shorter(candidate, maker, pinned, last=last)


def _tightest(config: Config, pinned: Collection[str]) -> list[Config]:
    """What may cost least: the narrowest and sparsest, or unmasked where the masks' upkeep costs more than they save."""
    config = _candidates(config, pinned)[-1].set(STORAGE, _storages(config, pinned)[-1])
    if budgets.parse(config.budget).timed and "train.epochs" not in pinned:
        config = config.set("train.epochs", 1)
    shares = [config.mask.sparsity] if "mask.sparsity" in pinned else [_most(config, pinned), 0.0]
    return [config.set("mask.sparsity", share) for share in shares]


def _most(config: Config, pinned: Collection[str]) -> float:
    """Highest sparsity to try: far beyond the usual only where the width is not the planner's to choose."""
    return 0.99 if "net.width" in pinned or not full_width(config.net.name) else MOST_SPARSE


def _fit(config: Config, maker: Callable[[Config], Plan], pinned: Collection[str]) -> Plan | None:
    """The least sparse plan at this width that holds, to a ten-thousandth; None where there is none."""

    def at(sparsity: int) -> Plan:
        return maker(config.set("mask.sparsity", sparsity / 10_000))

    if "mask.sparsity" in pinned:
        plan = maker(config)
        return plan if plan.holds else None
    unmasked = at(0)
    if unmasked.holds:
        return unmasked
    low, high = 0, round(_most(config, pinned) * 10_000)
    if not at(high).holds:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if at(middle).holds else (middle, high)
    return at(high)


def _shorter(config: Config, maker: Callable[[Config], Plan], pinned: Collection[str], *, last: bool) -> Plan | None:
    """The most epochs that hold where time or energy is limited and the net is narrow and as sparse as may be; else None.

    To a third of the epochs, and to a single one where nothing narrower is left to try.
    """
    full, epochs = full_width(config.net.name), config.train.epochs
    narrow = last or not full or config.net.width <= round(full * NARROW)
    if not budgets.parse(config.budget).timed or "train.epochs" in pinned or not narrow:
        return None
    sparsest = config if "mask.sparsity" in pinned else config.set("mask.sparsity", _most(config, pinned))
    low, high = 1 if last else ceil(epochs * FEWEST), epochs
    if low >= high or not (best := maker(sparsest.set("train.epochs", low))).holds:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        plan = maker(sparsest.set("train.epochs", middle))
        low, high, best = (middle, high, plan) if plan.holds else (low, middle, best)
    return best
