"""Refuses an update that does harm on its own: what no rule over many values can see, a held-out set shows.

A device whose labels are wrong sends a change of the usual length and form. Held-out accuracy after that change alone tells it
from others, as Xie et al. 2019 (*Zeno*) score workers by the loss on a few samples of the server. What is asked is only how the
classes fare that the device says it learned: an honest one may know nothing of the others. Where devices see different shares
of the classes, each alone costs much, and only their merge is good: an update is compared with the others, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from edgecl import masks
from edgecl.merge.contribution import Contribution, check, rows_of, weighted_layers
from edgecl.merge.merging import newest
from edgecl.merge.settings import Settings
from edgecl.tensors import Arrays
from edgecl.types import Bools, DataError, Named
from edgecl.update import Base


class Judge(Protocol):
    """Who knows how good a network is, on samples that no device sent."""

    counts: Mapping[str, int]  # samples by name of the class; those without any are absent

    def __call__(self, weights: Named, live: Mapping[str, Bools]) -> Mapping[str, float]:
        """Accuracy of the base's net with these weights and masks, by the names in `counts`."""


class Screened(NamedTuple):
    """Every contribution is in one of both."""

    taken: list[Contribution]  # in the order of (device, sequence)
    refused: dict[tuple[str, int], str]  # (device, sequence) → why


def screen_all(base: Base, contributions: Sequence[Contribution], settings: Settings, judge: Judge | None = None) -> Screened:
    """What may be merged. `merge` takes `taken` without an error, if there is any. Superseded updates are refused as such."""
    kept, _ = newest(contributions)
    old = {(c.device, c.sequence): "a newer update of the device is here" for c in contributions}
    refused = {k: v for k, v in old.items() if k not in {(c.device, c.sequence) for c in kept}}
    wrong = {(c.device, c.sequence): why for c in kept if (why := _unsound(base, c))}
    refused |= wrong
    sound = [c for c in kept if (c.device, c.sequence) not in wrong]
    harmful = _harmful(base, sound, judge, settings) if judge and sound else {}
    return Screened([c for c in sound if (c.device, c.sequence) not in harmful], refused | harmful)


def _harmful(base: Base, sound: Sequence[Contribution], judge: Judge, settings: Settings) -> dict[tuple[str, int], str]:
    """Those whose change costs more than is usual: the median of three and more, which a minority can't move."""
    before = judge(base.weights, base.live)
    falls = [fall(base, c, judge, before) for c in sound]
    usual = max(0.0, sorted(falls)[(len(falls) - 1) // 2]) if len(falls) > 2 else 0.0
    return {
        (c.device, c.sequence): _words(lost, usual, settings)
        for c, lost in zip(sound, falls, strict=True)
        if lost > usual + settings.points
    }


def _words(lost: float, usual: float, settings: Settings) -> str:
    more = f"{settings.points:g}" + (f" more than the {usual:.1f} that are usual" if usual else "")
    return f"alone it costs {lost:.1f} points of held-out accuracy on the classes it learned; at most {more}"


def _unsound(base: Base, c: Contribution) -> str:
    """What `check` says of it, if anything."""
    try:
        check(base, c)
    except DataError as e:
        return str(e)
    return ""


def screen(base: Base, c: Contribution, judge: Judge, settings: Settings, before: Mapping[str, float]) -> str:
    """Why a sound contribution would be refused if it came alone, or nothing. `before` is the judge's word on the base."""
    lost = fall(base, c, judge, before)
    return _words(lost, 0.0, settings) if lost > settings.points else ""


def fall(base: Base, c: Contribution, judge: Judge, before: Mapping[str, float]) -> float:
    """Points of accuracy that the change costs on the held-out samples of all classes that it learned and shares; 0 if there are
    none. It is judged in full: what clipping leaves of wrong labels passes for an honest change."""
    after = judge(*alone(base, c))
    own = {k for k, n in zip(c.update.classes, c.update.samples, strict=True) if n and k not in c.personal}
    asked = {k: n for k, n in judge.counts.items() if k in own}
    lost = sum((before[k] - after[k]) * n for k, n in asked.items())
    return 100 * lost / max(1, sum(asked.values()))


def alone(base: Base, c: Contribution) -> tuple[Arrays, dict[str, Bools]]:
    """The base with one change: weights of the base's own net, and the device's masks."""
    rows, masked = rows_of(base.net), weighted_layers(base)
    weights: Arrays = {}
    for name, of_base in base.weights.items():
        delta = c.update.delta[name][: len(of_base)]
        if name in rows:  # rows of classes that the base lacks are not judged
            delta = np.where(np.arange(len(of_base)).reshape(-1, *(1,) * (of_base.ndim - 1)) < len(base.classes), delta, 0)
        values = (of_base + delta).astype(np.float32)
        if name in masked:
            values *= masks.expand(c.update.live[name.removesuffix(".weight")], masked[name], values.shape)
        weights[name] = np.maximum(values, 0) if name.endswith(".running_var") else values
    return weights, dict(c.update.live)
