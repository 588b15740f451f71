"""Keeps a run within its time and memory while it runs: the clock of training, the haste of one that is late, the last stop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from edgecl import environment, schedule
from edgecl.schedule import Epoch
from edgecl.state import Setup, State, save
from edgecl.types import BudgetError


class Stopped(Exception):
    """The user asked the loop to stop; a snapshot holds all that was done."""


@contextmanager
def clocked(state: State) -> Iterator[None]:
    """Counts its block as training time, on the wall and of the processor, and remembers how long it took."""
    began, used = time.perf_counter(), time.process_time()
    yield
    state.cpu_seconds += time.process_time() - used
    state.latest = time.perf_counter() - began
    state.seconds += state.latest


def hurry(setup: Setup, state: State, epoch: Epoch) -> bool:
    """Under a time budget: skips what is left of an epoch that is behind its time. So every task keeps its share of the time.

    The steps that score units are left out only where even they come too late, and never those before masks settle, so that
    no mask outgrows its plan. Each epoch has one step at least.
    """
    if setup.deadlines is None or not state.step:
        return False
    left = setup.deadlines[state.at] - state.seconds
    scores = bool(setup.meter.changing(epoch)) and epoch.scores
    start = max(state.step, epoch.steps - setup.config.tdm.steps) if scores else epoch.steps
    if left >= state.latest * (epoch.steps - start + 2):  # this step, those that score, and the change of masks
        return False
    whole = not scores or (epoch.swap and left < state.latest * (epoch.steps - start + 1))
    end = epoch.steps if whole else start
    skipped = end - state.step
    state.step, state.skipped = end, state.skipped + skipped
    return skipped > 0


def _stop_if_late_or_large(setup: Setup, state: State, epoch: Epoch) -> None:
    """Stops with a snapshot before a step that would pass the time, judged by the latest step, and once the memory is passed.

    Raises BudgetError.
    """
    seconds, size, budget = setup.plan.clock_limit, setup.plan.byte_limit, setup.config.budget
    if seconds is not None and state.seconds + state.latest * _steps_ahead(setup, state, epoch) > seconds:
        path = save(setup, state)
        raise BudgetError(
            f"budget {budget} is used up after {state.seconds:.2f} s of training, since the next step may take "
            f"{state.latest:.2f} s; snapshot {path} is whole"
        )
    if size is not None and (peak := environment.peak_rss()) > size:
        path = save(setup, state)
        raise BudgetError(f"budget {budget}: this process has come to {peak / 1e6:.1f} MB; snapshot {path} is whole")


def _steps_ahead(setup: Setup, state: State, epoch: Epoch) -> int:
    """Steps until the loop can stop again; a change of masks or data counts as one."""
    scores = bool(setup.meter.changing(epoch)) and schedule.scoring(setup.config, epoch, state.step)
    end = epoch.steps if scores else state.step + 1
    return end - state.step + (end == epoch.steps)


def stop_if_due(setup: Setup, state: State, epoch: Epoch, asked: bool) -> None:
    """Stops with a snapshot when asked, or before a step that would lead past the budget."""
    limit = setup.plan.limit
    if asked:
        path = save(setup, state)
        raise Stopped(f"stopped; edgecl train --resume {setup.run} goes on from {path.name}")
    _stop_if_late_or_large(setup, state, epoch)
    if limit is not None and state.ledger.executed + _ahead(setup, state, epoch) > limit:
        path = save(setup, state)
        raise BudgetError(
            f"budget {setup.config.budget} is used up after {state.ledger.executed:.4g} FLOPs; snapshot {path} is whole"
        )


def _ahead(setup: Setup, state: State, epoch: Epoch) -> int:
    """FLOPs until the loop can stop again: of the next step, or of all that score units, and of the change of masks."""
    scores = bool(setup.meter.changing(epoch)) and schedule.scoring(setup.config, epoch, state.step)
    end = epoch.steps if scores else state.step + 1
    gathers = [bool(setup.meter.changing(epoch)) and schedule.gathers(setup.config, epoch, i) for i in range(state.step, end)]
    flops = sum(int(state.price(setup, gather)[0].sum()) for gather in gathers)
    return flops + (sum(setup.meter.upkeep(state.live_weights(setup), epoch).values()) if end == epoch.steps else 0)
