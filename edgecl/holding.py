"""Keeps a run within its time and memory while it runs: the clock of training, the haste of one that is late, the last stop."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from edgecl import environment, schedule
from edgecl.schedule import Epoch
from edgecl.state import RESERVE, Setup, State, save
from edgecl.timing import SAVING
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


@contextmanager
def testing(state: State) -> Iterator[None]:
    """Counts its block as time of tests."""
    began = time.perf_counter()
    yield
    state.tested_seconds += time.perf_counter() - began


def _testing(setup: Setup, state: State, rows: slice) -> float:
    """Seconds of these of the run's tests, by those that were; the first is before training."""
    return state.tested_seconds / max(1, sum(setup.tests[: len(state.accuracy)])) * sum(setup.tests[rows])


def _correcting(setup: Setup, state: State, epochs: Sequence[Epoch]) -> float:
    """Seconds of the corrections of bias after these epochs, by the tests that were."""
    each = state.tested_seconds / max(1, sum(setup.tests[: len(state.accuracy)]))
    return each * setup.meter.fitted * sum(e.corrects for e in epochs)


def _saving(state: State) -> float:
    """Seconds of a snapshot, by those that were."""
    return state.saved_seconds / state.snapshots if state.snapshots else 0.0


def _aside(setup: Setup, state: State) -> float:
    """Seconds of all tests and snapshots of the run, and of corrections to come, reckoned by those that were."""
    tests, each, limit = _testing(setup, state, slice(len(state.accuracy), None)), _saving(state), setup.plan.clock_limit or 0.0
    ends = sum(e.last for e in setup.epochs[state.at :])
    within = min(each * (sum(setup.saves[state.at :]) - ends), max(0.0, SAVING * limit - state.saved_seconds))
    corrections = _correcting(setup, state, setup.epochs[state.at :])
    return state.tested_seconds + state.saved_seconds + tests + each * ends + within + corrections


def saves(setup: Setup, state: State, epoch: Epoch) -> bool:
    """Whether a snapshot follows the epoch. Within a task one is left out where the last was taken not long ago, and, under a
    limit of time, where they had their share.
    """
    if not epoch.last and state.seconds - state.saved < setup.config.train.snapshot_seconds:
        return False
    free = epoch.last or setup.plan.clock_limit is None
    return schedule.saves(setup.config, epoch) and (free or state.saved_seconds + _saving(state) <= SAVING * state.spent)


def hurry(setup: Setup, state: State, epoch: Epoch) -> bool:
    """Under a time budget: skips what is left of an epoch that is behind its time. So every task keeps its share of the time.

    The steps that score units are left out only where even they come too late, and never those before masks settle, so that
    no mask outgrows its plan. Each epoch has one step at least.
    """
    limit = setup.plan.clock_limit
    if limit is None or not state.step:
        return False
    left = setup.shares[state.at] * ((1 - RESERVE) * limit - _aside(setup, state)) - state.seconds
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
    if seconds is not None and state.spent + _until_a_stop(setup, state, epoch) > seconds:
        took = f"{state.seconds:.2f} s of training and {state.spent - state.seconds:.2f} s of tests and snapshots"
        why = f"since the next step may take {state.latest:.2f} s"
        path = save(setup, state)
        raise BudgetError(f"budget {budget} is used up after {took}, {why}; snapshot {path} is whole")
    if size is not None and (peak := environment.peak_rss()) > size:
        path = save(setup, state)
        raise BudgetError(f"budget {budget}: this process has come to {peak / 1e6:.1f} MB; snapshot {path} is whole")


def _until_a_stop(setup: Setup, state: State, epoch: Epoch) -> float:
    """Seconds until the loop can stop again with a snapshot: of steps, and at a task's end of its test."""
    steps = _steps_ahead(setup, state, epoch)
    tested = epoch.last and state.step + steps > epoch.steps
    test = _testing(setup, state, slice(len(state.accuracy), len(state.accuracy) + 1)) if tested else 0.0
    correction = _correcting(setup, state, [epoch]) if tested else 0.0
    return state.latest * steps + test + correction + _saving(state)


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
    """FLOPs until the loop can stop again: of the next step or all that score units, the change of masks and the correction."""
    scores = bool(setup.meter.changing(epoch)) and schedule.scoring(setup.config, epoch, state.step)
    end = epoch.steps if scores else state.step + 1
    gathers = [bool(setup.meter.changing(epoch)) and schedule.gathers(setup.config, epoch, i) for i in range(state.step, end)]
    flops = sum(int(state.price(setup, gather)[0].sum()) for gather in gathers)
    if end < epoch.steps:
        return flops
    live = state.live_weights(setup)
    fitted = setup.meter.fitted if epoch.corrects else 0
    return flops + sum(setup.meter.upkeep(live, epoch).values()) + fitted * sum(c.flops(live[c.name]) for c in setup.meter.costs)
