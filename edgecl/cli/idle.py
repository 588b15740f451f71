"""Says which of the options that the user gave change nothing, and when a slow engine stands in."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection

from edgecl import config as configs
from edgecl import schedule
from edgecl.budget import parse
from edgecl.config import Config, get
from edgecl.engines import pick
from edgecl.forecast import method_of

IDLE: tuple[tuple[str, Callable[[Config], bool], str], ...] = (
    ("mask.unit mask.start tdm. dgm.", lambda c: not c.mask.sparsity, "mask.sparsity is 0"),
    ("tdm.", lambda c: not c.tdm.enabled, "tdm.enabled is false"),
    ("dgm.every", lambda c: c.dgm.share == 1, "dgm.share is 1"),
    ("freeze.after", lambda c: not c.freeze.until, "freeze.until is empty"),
    ("ddr.times ddr.until", lambda c: not c.ddr.share, "ddr.share is 0"),
    ("ddr.", lambda c: not any(e.drop for e in schedule.epochs(c, [1_000_000])), "no epoch follows a removal"),
    ("engine.threads", lambda c: c.engine.name == "numpy", "numpy's linear algebra has threads of its own"),
    ("engine.deterministic", lambda c: c.engine.device == "cpu", "on a CPU it always is"),
    ("clock", lambda c: parse(c.budget).compute is None, "only a budget of compute, such as 23x, is held to it"),
    ("memory.", lambda c: not method_of(c).draws, "the method replays nothing"),
)
"""(keys, or beginnings of keys; when they change nothing; why)."""


def warn(config: Config, pinned: Collection[str]) -> None:
    """A line on standard error for each pinned key that changes nothing, unless it has its usual value anyway."""
    usual = configs.resolve(config.data.name, [])
    for key in sorted(pinned):
        why = next((why for keys, when, why in IDLE if key.startswith(tuple(keys.split())) and when(config)), None)
        if why and get(config, key) != get(usual, key) and key != "tdm.enabled":
            print(f"edgecl: warning: {key} changes nothing here: {why}", file=sys.stderr)


def warn_if_slow(config: Config) -> None:
    """A line on standard error where nobody chose an engine and the kernels are not to be had: how to get them."""
    slow = pick(config.engine.name, config.engine.device, config.engine.precision).slow
    if slow:
        print(f"edgecl: warning: {slow}", file=sys.stderr)
