"""An update of an older base, put in terms of a newer one, so that it can be merged with those of the newer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgecl import masks
from edgecl.merge.contribution import rows_of, weighted_layers
from edgecl.types import F32, DataError
from edgecl.update import Base, Update


def rebased(update: Update, old: Base, new: Base) -> Update:
    """The same change on top of `new`: what it learned of weights and of classes both bases know stays as it is.

    A class that only `old` lacks becomes its value minus the new base's row; one that `new` lacks keeps its value; the rows
    are the new base's, by name. A weight that is dead on the device becomes minus the new base's value. Raises DataError where
    the update is not the old base's, or the nets differ in more than the rows of their classifiers.
    """
    if update.base != old.snapshot or old.net.name != new.net.name:
        raise DataError(f"an update of base {update.base[:12]} can't be put on {new.snapshot[:12]} by way of {old.snapshot[:12]}")
    classes = (*new.classes, *(k for k in update.classes if k not in new.classes))
    samples = tuple(update.samples[update.classes.index(k)] if k in update.classes else 0 for k in classes)
    rows, masked = rows_of(new.net), weighted_layers(new)
    delta = {}
    for name, of_new in new.weights.items():
        if name not in update.delta or (name not in rows and update.delta[name].shape != of_new.shape):
            raise DataError(f"array {name!r} has another shape in base {new.snapshot[:12]} than in {old.snapshot[:12]}")
        delta[name] = _rows(update, old, new, name, classes) if name in rows else update.delta[name]
        if name in masked:
            live = masks.expand(update.live[name.removesuffix(".weight")], masked[name], of_new.shape)
            delta[name] = np.where(live, delta[name], -of_new)
    return replace(update, base=new.snapshot, classes=classes, samples=samples, delta=delta)


def _rows(update: Update, old: Base, new: Base, name: str, classes: tuple[str, ...]) -> F32:
    """The classifier's rows in the new order; those of no class known change by nothing."""
    of_old, of_new, given = old.weights[name], new.weights[name], update.delta[name]
    found = np.zeros((max(len(of_new), len(classes)), *of_new.shape[1:]), np.float32)
    for row, label in enumerate(classes):
        if label not in update.classes:
            continue
        at = update.classes.index(label)
        found[row] = given[at]
        if label not in old.classes:
            found[row] += of_old[at] if at < len(of_old) else 0
            found[row] -= of_new[row] if row < len(of_new) else 0
    return found
