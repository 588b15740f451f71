"""The merge itself: who counts and how much, then one array after the other. The order of arrival changes no bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edgecl import masks
from edgecl.merge import clip
from edgecl.merge.classes import merged_rows, shared_classes
from edgecl.merge.clip import F64
from edgecl.merge.contribution import Contribution, Merged, check, rows_of, weighted_layers
from edgecl.merge.settings import Settings
from edgecl.merge.values import Layer, merged_change
from edgecl.merge.vote import vote
from edgecl.nets import Net, with_room
from edgecl.types import F32, Bools, ConfigError, DataError
from edgecl.update import Base


class _Work(NamedTuple):
    """What all arrays are merged with."""

    base: Base
    taken: Sequence[Contribution]
    scales: F64
    voices: F64
    settings: Settings

    def layer(self, name: str) -> Layer:
        return Layer(self.base.weights[name], [c.update.delta[name] for c in self.taken], self.scales, self.voices)


def merge(base: Base, contributions: Sequence[Contribution], settings: Settings) -> Merged:
    """Merges what devices learned on top of `base`. Of a device only its newest update counts.

    Holds the contributions it is given, one array's sums in float64, and the result. Raises DataError that names the device and
    what does not belong to this base, or where no contribution has a sample of a shared class.
    """
    taken, notes = newest(contributions)
    for c in taken:
        check(base, c)
    norms = [clip.norm(base, c) for c in taken]
    scales = clip.scales(norms, settings.clip)
    heard = clip.voices([c.samples() for c in taken], [c.age for c in taken], settings.cap)
    if not heard.any():
        raise DataError("nothing to merge: no update has a sample of a shared class")
    notes += [f"{c.name}: its change was scaled by {s:.3g}" for c, s in zip(taken, scales, strict=True) if s < 1]
    work, classes = _Work(base, taken, scales, heard, settings), shared_classes(base, taken)
    net = _net(base, classes)
    live, weights = _masked(work, notes)
    rows = rows_of(base.net)
    for name in base.weights:
        if name in rows:
            weights[name] = merged_rows(base, name, classes, taken, scales, settings)
        elif name not in weights:
            weights[name] = _plain(work, name)
    notes += [f"class {k!r} is new: row {i} of the classifier" for i, k in enumerate(classes) if i >= len(base.classes)]
    return Merged({k: weights[k] for k in base.weights}, live, classes, tuple(notes), net)


def newest(contributions: Sequence[Contribution]) -> tuple[list[Contribution], list[str]]:
    """In the order of (device, sequence), one a device: an update holds all that its device learned since the base.

    Also a note of each that is left out.
    """
    taken: dict[str, Contribution] = {}
    notes = []
    for c in sorted(contributions, key=lambda c: (c.device, c.sequence)):
        if c.device in taken and taken[c.device].sequence != c.sequence:
            notes.append(f"{taken[c.device].name}: left out, {c.sequence} is newer")
        taken[c.device] = c
    return list(taken.values()), notes


def _masked(work: _Work, notes: list[str]) -> tuple[dict[str, Bools], dict[str, F32]]:
    """Masks by layer, and the arrays that they mask."""
    live: dict[str, Bools] = {}
    weights: dict[str, F32] = {}
    for name, unit in weighted_layers(work.base).items():
        key = name.removesuffix(".weight")
        before, each = work.base.live[key], [c.update.live[key] for c in work.taken]
        values = _changed(work.layer(name)._replace(live=each, unit=unit), work.settings)
        live[key] = vote(before, each, work.voices, work.settings.base_votes, values, unit)
        weights[name] = np.where(masks.expand(live[key], unit, values.shape), values, 0).astype(np.float32)
        if new := int(np.count_nonzero(live[key] & ~before)):
            notes.append(f"layer {key}: {new} of {np.count_nonzero(before)} live units are new")
    return live, weights


def _changed(layer: Layer, settings: Settings) -> F64:
    change = merged_change(layer, settings)
    change *= settings.rate
    change += layer.base
    return change


def _plain(work: _Work, name: str) -> F32:
    """An array without a mask. Running means and variances are averages: no rule that drops small changes, no step beyond."""
    settings = work.settings
    if name not in work.base.net.buffers():
        return _changed(work.layer(name), settings).astype(np.float32)
    rule = Settings(values="trimmed" if settings.values == "trimmed" else "mean", trim=settings.trim, rate=min(1, settings.rate))
    values = _changed(work.layer(name), rule)
    return (np.maximum(values, 0) if name.endswith(".running_var") else values).astype(np.float32)


def _net(base: Base, classes: Sequence[str]) -> Net:
    """With room for all classes. Raises DataError where the classifier can't grow."""
    if len(classes) <= base.net.classes:
        return base.net
    if f"{base.net.logits}" in base.live:
        raise DataError(f"class {classes[-1]!r}: layer {base.net.logits} is masked, and can't grow with the classifier")
    try:
        return with_room(base.net, len(classes))
    except ConfigError as e:
        raise DataError(f"class {classes[-1]!r}: {e}") from None
