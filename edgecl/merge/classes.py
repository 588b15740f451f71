"""The classifier's rows, by the name of the class: each is merged from those that were taught it, and from no other.

A row whose class a device saw nothing of moves all the same, away from what it did see; averaged in, such moves undo what others
learned (Luo et al. 2021, *No fear of heterogeneity*: the classifier is the layer that drifts most).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecl.merge.clip import F64, voices
from edgecl.merge.contribution import Contribution
from edgecl.merge.settings import Settings
from edgecl.merge.values import Layer, merged_change
from edgecl.types import F32
from edgecl.update import Base


def shared_classes(base: Base, contributions: Sequence[Contribution]) -> tuple[str, ...]:
    """The base's classes, then new ones that some contribution learned and does not keep for itself, in the order given."""
    found = dict.fromkeys(base.classes)
    for c in contributions:
        for name, count in zip(c.update.classes, c.update.samples, strict=True):
            if count and name not in c.personal:
                found.setdefault(name)
    return tuple(found)


def merged_rows(
    base: Base, name: str, classes: Sequence[str], contributions: Sequence[Contribution], scales: F64, settings: Settings
) -> F32:
    """The array `name` of the classifier, a row for each of `classes` and as many at least as the base's."""
    of_base = base.weights[name]
    rows: F32 = np.zeros((max(len(of_base), len(classes)), *of_base.shape[1:]), np.float32)
    rows[: len(of_base)] = of_base
    for row, label in enumerate(classes):
        merge = _known if row < len(base.classes) else _new
        rows[row : row + 1] = merge(base, name, label, contributions, scales, settings)
    return rows


def _learners(label: str, contributions: Sequence[Contribution], cap: float) -> tuple[list[int], list[int], F64]:
    """Positions of those that learned a class and share it, its row in each, and how much each counts."""
    found = [(i, c.update.classes.index(label)) for i, c in enumerate(contributions) if _counts(c, label)]
    who, rows = [i for i, _ in found], [r for _, r in found]
    counts = [contributions[i].update.samples[r] for i, r in found]
    return who, rows, voices(counts, [contributions[i].age for i in who], cap)


def _counts(c: Contribution, label: str) -> bool:
    return label not in c.personal and label in c.update.classes and c.update.samples[c.update.classes.index(label)] > 0


def _known(base: Base, name: str, label: str, contributions: Sequence[Contribution], scales: F64, settings: Settings) -> F32:
    """[1, ...]: a row of the base, changed by those that learned its class; as it was if none did."""
    who, rows, heard = _learners(label, contributions, settings.cap)
    at = base.classes.index(label)
    row = base.weights[name][at : at + 1]
    deltas = [contributions[i].update.delta[name][r : r + 1] for i, r in zip(who, rows, strict=True)]
    if not deltas:
        return row
    change = merged_change(Layer(row, deltas, scales[who], heard), settings)
    return (row + settings.rate * change).astype(np.float32)


def _new(base: Base, name: str, label: str, contributions: Sequence[Contribution], scales: F64, settings: Settings) -> F32:
    """[1, ...]: a row of a class that the base lacks: the values themselves are merged, not changes, and never by `ties`."""
    who, rows, heard = _learners(label, contributions, settings.cap)
    values = [_value(base, name, contributions[i], r) for i, r in zip(who, rows, strict=True)]
    rule = Settings(values="trimmed" if settings.values == "trimmed" else "mean", trim=settings.trim)
    return merged_change(Layer(np.zeros_like(values[0]), values, np.ones(len(who)), heard), rule).astype(np.float32)


def _value(base: Base, name: str, c: Contribution, row: int) -> F32:
    """[1, ...]: a device's row as it is. One that the base has room for began as the base's, another as 0."""
    delta, of_base = c.update.delta[name][row : row + 1], base.weights[name][row : row + 1]
    return np.asarray(delta + of_base, np.float32) if len(of_base) else delta
