"""What a resolved configuration will cost: FLOPs, and where they can be predicted seconds, bytes and joules; and its limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

from edgecl import budget as budgets
from edgecl.budget import Budget
from edgecl.config import Config
from edgecl.footprint import Bytes, peak, run_bytes
from edgecl.forecast import Workload
from edgecl.ledger import Ledger
from edgecl.nets import Net
from edgecl.profiles import Figure, load_profile
from edgecl.timing import F64, Clock, aside_seconds, run_seconds, skips
from edgecl.types import BudgetError

HEADROOM = 1.1  # predicted time and energy are planned to fit so many times over, since a clock's predictions err
CLOCK_MARGIN = 0.08  # of what a ratio of times is above 1, planned on top: see docs/adr/0008


def wanted(factor: float) -> float:
    """The ratio of training times that is planned for, so that the one measured is `factor`; the dense net needs no margin."""
    return factor + CLOCK_MARGIN * (factor - 1)


def surely(ratio: float) -> float:
    """The factor that a predicted ratio is enough for: the inverse of `wanted`."""
    return (ratio + CLOCK_MARGIN) / (1 + CLOCK_MARGIN)


@dataclass(frozen=True)
class Device:
    """What all but FLOPs is predicted from. The default knows nothing, which is enough for a budget of compute."""

    clock: Clock | None = None
    lanes: int = 0  # samples that the native engine computes together; 0: memory is not predicted
    resident: int = 0  # bytes of this process now
    before: int = 0  # bytes at its largest so far
    power: Figure | None = None  # watts that a run began with
    dense_seconds: float | None = None  # of the dense baseline, as predicted where a run began


@dataclass(frozen=True)
class Plan:
    """A resolved configuration with what it will cost."""

    config: Config
    net: Net
    ledger: Ledger  # predicted
    dense: Ledger  # the baseline's
    limit: int | None  # FLOPs that a compute budget allows; None without one
    work: Workload
    device: Device = field(default_factory=Device)
    dense_seconds: float | None = None  # predicted for the baseline on the same engine; None if unknown
    flops_only: bool = False  # no plan holds a compute budget on the clock too

    @property
    def ratio(self) -> float:
        return self.dense.executed / self.ledger.executed

    @cached_property
    def budget(self) -> Budget:
        return budgets.parse(self.config.budget)

    @cached_property
    def layer_seconds(self) -> F64 | None:
        """Predicted seconds of training by layer [layers + 1], the last entry for what no layer takes; None if unknown."""
        clock = self.device.clock
        return None if clock is None else run_seconds(self.config, self.net, self.work, clock)

    @property
    def seconds(self) -> float | None:
        return None if self.layer_seconds is None else float(self.layer_seconds.sum())

    @cached_property
    def aside_seconds(self) -> float | None:
        """Predicted for the run's tests and snapshots, which limits of time and energy are of too; None if unknown."""
        clock, limited = self.device.clock, self.budget.timed
        if clock is None or self.seconds is None:
            return None
        return aside_seconds(self.config, self.net, self.work, clock, self.seconds, limited=limited)

    @property
    def spent(self) -> float | None:
        """Predicted seconds of the whole run: training, tests and snapshots."""
        return None if self.seconds is None or self.aside_seconds is None else self.seconds + self.aside_seconds

    @property
    def clock_ratio(self) -> float | None:
        """Predicted: how many times longer the dense baseline trains; None if unknown."""
        return self.dense_seconds / self.seconds if self.dense_seconds is not None and self.seconds else None

    @property
    def clocked(self) -> bool:
        """Whether a compute budget is held to on the clock too; of itself only where this machine's own kernels were timed."""
        c, clock = self.config, self.device.clock
        if self.budget.compute is None or self.flops_only or c.clock == "never":
            return False
        return c.clock == "always" or (clock is not None and clock.measured and c.device == "host" and skips(c))

    @cached_property
    def parts(self) -> Bytes | None:
        """Predicted bytes beside those of the process, by what they are for; None if unknown."""
        if not self.device.lanes or self.config.engine.name != "native":
            return None
        return run_bytes(self.config, self.net, self.device.lanes)

    @property
    def bytes(self) -> int | None:
        """Predicted peak of the process."""
        return None if self.parts is None else peak(self.parts, self.device.resident, self.device.before)

    @cached_property
    def power(self) -> Figure:
        """Watts that energy is reckoned with."""
        clock = self.device.clock
        if self.device.power is not None:
            return self.device.power
        if clock is not None and clock.watts is not None:
            return Figure(clock.watts, "W", "measured here during calibration (RAPL, the processor's packages)")
        return load_profile(self.config.device).power_load_w

    @property
    def joules(self) -> float | None:
        """Predicted energy of the run: seconds times watts. An estimate, whatever the watts are from."""
        return None if self.spent is None or self.power.value is None else self.spent * self.power.value

    @property
    def clock_limit(self) -> float | None:
        """Seconds of training, tests and snapshots after which the run stops; None where no limit is this machine's to keep."""
        if self.config.device != "host":
            return None
        limits = [float(self.budget.time)] if self.budget.time is not None else []
        if self.budget.energy is not None and self.power.value:
            limits.append(float(self.budget.energy) / self.power.value)
        return min(limits, default=None)

    @property
    def byte_limit(self) -> int | None:
        """Bytes that the process may have resident, wherever it runs."""
        return None if self.budget.memory is None else int(self.budget.memory)

    def shares(self) -> dict[str, float]:
        """Limit → the share of it that the plan takes, headroom included. Raises BudgetError for what can't be predicted."""
        b, found = self.budget, dict[str, float]()
        if self.limit is not None:
            found["compute"] = float(Fraction(self.ledger.executed, max(1, self.limit)))
        if self.clocked and b.compute is not None:
            found["clock"] = wanted(float(b.compute)) / self._known(self.clock_ratio, _CLOCK)
        if b.time is not None:
            found["time"] = HEADROOM * self._known(self.spent, _TIME) / float(b.time)
        if b.memory is not None:
            found["memory"] = self._known(self.bytes, _MEMORY) / float(b.memory)
        if b.energy is not None:
            found["energy"] = HEADROOM * self._known(self.joules, _ENERGY) / float(b.energy)
        return found

    def _known(self, value: float | None, why: str) -> float:
        if value is None:
            raise BudgetError(f"budget {self.config.budget}: {why.format(device=self.config.device)}")
        return value

    @property
    def exceeds(self) -> set[str]:
        """The limits that do not hold, by prediction."""
        found = {kind for kind, share in self.shares().items() if kind != "compute" and share > 1}
        if self.limit is not None and self.ledger.executed > self.limit:  # exact, which a share is not
            found.add("compute")
        return found

    @property
    def holds(self) -> bool:
        """Whether every limit holds, by prediction."""
        return not self.exceeds


_CLOCK = "clock is always, but how long training takes on {device} is not known; see edgecl measure calibrate"
_TIME = "how long training takes on {device} is not known; its profile lacks a figure, or run edgecl measure calibrate"
_MEMORY = "memory can be planned for engine native only, whose every array is known; add --engine native"
_ENERGY = "the energy of training on {device} is not known; its profile lacks power_load_w or a figure for time"
