"""F2: how a run within a budget trains beside its masks: replay, momentum and the mean of the last weights (docs/adr/0011).

What the dense baseline draws is kept beside it: a resolved configuration still says what it is measured against.
"""

from __future__ import annotations

from collections.abc import Collection

from edgecl.config import Config
from edgecl.forecast import method_of

MOMENTUM, AVERAGE = 0.9, 0.1
"""What a budget turns on unless pinned: momentum at the same rate in effect, and the mean over a task's last tenth."""

REPLAY = ("method.draws", "memory.batch")
OTHERS = ("train.momentum", "train.rate", "train.average")
DENSE = ("memory.dense_draws", "memory.dense_batch")
KEYS = (*REPLAY, *DENSE, *OTHERS)
"""All that the recipe may change."""


def apply(config: Config, pinned: Collection[str] = ()) -> Config:
    """`config` with the recipe laid over what nobody pinned or set before; a second time changes nothing.

    Only for a method with a choice of replay draws: the recipe was found on DER++, and no other has been run with it. Momentum
    and the mean only at a constant rate: they take the noise out of it, which a falling rate does by itself.
    """
    if "draws" not in config.method:
        return config
    smoothing = (_momentum, _average) if config.train.schedule == "constant" else ()
    for part in (_one_draw, _half_a_draw, *smoothing):
        config = part(config, pinned)
    return config


def undone(config: Config) -> Config:
    """`config` with the replay of its dense baseline; all else stays."""
    if config.memory.dense_draws and "draws" in config.method:
        config = config.set("method.draws", config.memory.dense_draws)
    if config.memory.dense_batch:
        config = config.set("memory.batch", config.memory.dense_batch)
    return config.set("memory.dense_draws", 0).set("memory.dense_batch", 0)


def replay(config: Config) -> tuple[int, int]:
    """Replay draws of a step, and samples of each."""
    return method_of(config).draws, config.memory.batch or config.train.batch


def _one_draw(config: Config, pinned: Collection[str]) -> Config:
    """Both losses read the same replayed samples."""
    draws = config.method["draws"]
    if "method.draws" in pinned or draws == 1:
        return config
    return config.set("method.draws", 1).set("memory.dense_draws", config.memory.dense_draws or draws)


def _half_a_draw(config: Config, pinned: Collection[str]) -> Config:
    """Half as many samples as are usual, where no number is set."""
    if "memory.batch" in pinned or config.memory.batch or config.train.batch == 1:
        return config
    usual = config.train.batch
    return config.set("memory.batch", usual // 2).set("memory.dense_batch", config.memory.dense_batch or usual)


def _momentum(config: Config, pinned: Collection[str]) -> Config:
    """The rate falls by what momentum adds up to, so that a gradient moves the weights as far in the end."""
    if {"train.momentum", "train.rate"} & set(pinned) or config.train.momentum:
        return config
    rate = round(config.train.rate * (1 - MOMENTUM), 12)
    return config.set("train.momentum", MOMENTUM).set("train.rate", rate)


def _average(config: Config, pinned: Collection[str]) -> Config:
    return config if "train.average" in pinned or config.train.average else config.set("train.average", AVERAGE)
