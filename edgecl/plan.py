"""From a budget to a plan: how wide, how sparse, on which samples, before anything runs."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction

from edgecl.config import Config
from edgecl.forecast import Workload, simulate
from edgecl.ledger import Ledger
from edgecl.nets import Net, build_net, full_width
from edgecl.types import BudgetError

WIDTHS = (1.0, 0.75, 0.625, 0.5, 0.375, 0.3125, 0.25, 0.1875, 0.125)
"""Shares of the full width that the planner tries, widest first."""

MOST_SPARSE = 0.9
"""The planner narrows the net rather than prune more than this: narrow nets gain more on the clock (docs/adr/0003)."""

DDR_SHARE, DGM_SHARE = 0.3, 0.8
"""What a budget turns on unless pinned: SparCL's 30 % of the data removed, and 80 % of live units updated."""


@dataclass(frozen=True)
class Plan:
    """A resolved configuration with what it will cost."""

    config: Config
    net: Net
    ledger: Ledger  # predicted
    dense: Ledger  # the baseline's
    limit: int | None  # FLOPs that a compute budget allows; None without one

    @property
    def ratio(self) -> float:
        return self.dense.executed / self.ledger.executed


def parse_budget(text: str) -> float | None:
    """`23x` → 23.0; "" → None. Other kinds raise BudgetError that says what is missing."""
    if not text:
        return None
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)x", text.strip())
    if match and float(match[1]) >= 1:
        return float(match[1])
    if re.search(r"[0-9]\s*(s|min|h|[KMG]i?B|Wh|J)\b", text):
        raise BudgetError(
            f"budget {text!r}: time, memory and energy can't be planned yet: the torch engine masks dense tensors, which "
            "saves none of them, and the native kernels are not timed on a device. Give compute, such as 23x"
        )
    raise BudgetError(f"budget {text!r}: expected a factor of at least 1 and an x, such as 23x")


def build(config: Config, work: Workload) -> Net:
    """The net that a configuration names."""
    return build_net(config.net.name, work.input, work.classes, config.net.width)


def baseline(config: Config) -> Config:
    """The dense run that a budget is measured against: full width, unmasked, all samples; all else the same."""
    changes = {"net.width": 0, "mask.sparsity": 0.0, "ddr.share": 0.0, "dgm.share": 1.0, "budget": ""}
    for key, value in changes.items():
        config = config.set(key, value)
    return config


def make_plan(config: Config, work: Workload, pinned: Collection[str] = ()) -> Plan:
    """Fills in what `pinned` (dotted keys the user gave) leaves open so that the budget holds.

    Raises BudgetError that names the nearest possible budget.
    """
    factor = parse_budget(config.budget)
    base = baseline(config)
    reference = simulate(base, build(base, work), work)
    if factor is None:
        return _plan(config, work, reference, None)
    limit = _limit(reference, factor)
    plain = _plan(config if "net.width" in pinned else config.set("net.width", 0), work, reference, limit)
    if plain.ledger.executed <= limit:
        return plain
    for candidate in _candidates(config, pinned):
        plan = _fit(candidate, work, reference, limit, pinned)
        if plan is not None:
            return plan
    sparsest = [_plan(c, work, reference, None) for c in _tightest(config, pinned)]
    tightest = min([plain, *sparsest], key=lambda p: p.ledger.executed)  # a tiny run's masks can cost more than they save
    held = sorted(k for k in pinned if k in OPEN)
    why = f" with {', '.join(held)} pinned" if held else _reach(tightest.config)
    raise BudgetError(f"budget {config.budget}: {_nearest(tightest)}{why}")


def frozen(config: Config, work: Workload) -> Plan:
    """The plan of a configuration that was resolved before: nothing is left to choose."""
    base, factor = baseline(config), parse_budget(config.budget)
    reference = simulate(base, build(base, work), work)
    return _plan(config, work, reference, _limit(reference, factor) if factor else None)


OPEN = ("net.width", "mask.sparsity", "ddr.share", "dgm.share")
"""Keys that the planner fills in unless they are pinned."""


def _limit(reference: Ledger, factor: float) -> int:
    """FLOPs of a budget: exact, since a long run counts more of them than a float does."""
    return int(reference.executed // Fraction(str(factor)))


def _nearest(tightest: Plan) -> str:
    """What can be met, to a tenth; given back as a budget it holds."""
    tenths = tightest.dense.executed * 10 // tightest.ledger.executed
    if tenths < 10:
        return f"none can be met, the least cost is {1 / tightest.ratio:.2f} times the dense baseline's"
    factor = f"{tenths // 10}" + (f".{tenths % 10}x" if tenths % 10 else "x")
    return f"the nearest possible is {factor}"


def _reach(tightest: Config) -> str:
    """What the nearest possible takes, so that a user sees what stands in the way."""
    width, share = tightest.net.width, tightest.mask.sparsity
    how = [f"width {width}"] * bool(width) + [f"{share:.0%} masked but for stem, shortcuts and classifier"] * bool(share)
    return f" at {', '.join(how)}" if how else ""


def _candidates(config: Config, pinned: Collection[str]) -> list[Config]:
    """One configuration a width, widest first, with what SparCL turns on; sparsity is still open."""
    if "ddr.share" not in pinned:
        config = config.set("ddr.share", DDR_SHARE)
    if "dgm.share" not in pinned:
        config = config.set("dgm.share", DGM_SHARE)
    full = full_width(config.net.name)
    if "net.width" in pinned or not full:
        return [config]
    return [config.set("net.width", max(4, round(full * w))) for w in WIDTHS]


def _tightest(config: Config, pinned: Collection[str]) -> list[Config]:
    """What may cost least: the narrowest and sparsest, or unmasked where the masks' upkeep costs more than they save."""
    config = _candidates(config, pinned)[-1]
    shares = [config.mask.sparsity] if "mask.sparsity" in pinned else [_most(config, pinned), 0.0]
    return [config.set("mask.sparsity", share) for share in shares]


def _most(config: Config, pinned: Collection[str]) -> float:
    """Highest sparsity to try: far beyond the usual only where the width is not the planner's to choose."""
    return 0.99 if "net.width" in pinned or not full_width(config.net.name) else MOST_SPARSE


def _fit(config: Config, work: Workload, reference: Ledger, limit: int, pinned: Collection[str]) -> Plan | None:
    """The least sparse plan at this width within `limit`, to a ten-thousandth; None where there is none."""

    def at(sparsity: int) -> Plan:
        return _plan(config.set("mask.sparsity", sparsity / 10_000), work, reference, limit)

    if "mask.sparsity" in pinned:
        plan = _plan(config, work, reference, limit)
        return plan if plan.ledger.executed <= limit else None
    low, high = 0, round(_most(config, pinned) * 10_000)
    unmasked = at(low)
    if unmasked.ledger.executed <= limit:
        return unmasked
    if at(high).ledger.executed > limit:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if at(middle).ledger.executed <= limit else (middle, high)
    return at(high)


def _plan(config: Config, work: Workload, reference: Ledger, limit: int | None) -> Plan:
    net = build(config, work)
    return Plan(config, net, simulate(config, net, work), reference, limit)
