"""F3: the mean of the weights over a task's last epochs, which the network becomes at the task's end.

Stochastic weight averaging (Izmailov et al. 2018), once a task: it takes the noise of a constant rate out of what is tested and
kept, and costs no pass through the network. Statistics of batch norm are averaged with the weights.
"""

from __future__ import annotations

import numpy as np

from edgecl import schedule
from edgecl.schedule import Epoch
from edgecl.state import Setup, State


def add(setup: Setup, state: State, epoch: Epoch) -> None:
    """After a step: the weights enter the mean if it is their turn."""
    if not setup.config.train.average or not schedule.averages(setup.config, epoch, state.step):
        return
    state.averaged += 1
    held = state.engine.held()
    for name in (*setup.plan.net.weights(), *setup.plan.net.buffers()):
        now = np.asarray(held[name], np.float32)
        mean = state.mean.setdefault(name, np.zeros_like(now, order="C"))
        mean += (now - mean) / np.float32(state.averaged)


def take(setup: Setup, state: State) -> None:
    """At a task's end: the mean replaces the weights, but for dead units; momentum stays."""
    if state.averaged:
        state.engine.load({**state.engine.held(), **state.mean})
        state.apply_masks(setup)
        state.averaged, state.mean = 0, {}
