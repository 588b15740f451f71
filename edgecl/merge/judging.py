"""A judge of weights: accuracy by class on samples that no device sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgecl.engines import Engine, make_engine, pick
from edgecl.evaluate import logits_of
from edgecl.merge.contribution import unit_of
from edgecl.nets import Net
from edgecl.types import F32, I64, U8, Bools, DataError, Named, Preprocess


class HeldOut:
    """A Judge by held-out samples: one engine is made and used for all."""

    def __init__(self, runner: Engine, classes: Sequence[str], pre: Preprocess, x: U8, y: I64) -> None:
        self._runner, self._classes, self._pre, self._x, self._y = runner, tuple(classes), pre, x, y
        self.counts: Mapping[str, int] = {k: int((y == i).sum()) for i, k in enumerate(classes) if (y == i).any()}

    def __call__(self, weights: Named, live: Mapping[str, Bools]) -> dict[str, float]:
        """Accuracy by class, predicted among all of them. Not for several threads at once."""
        net = self._runner.net
        self._runner.load({**{f"momentum.{k}": np.zeros(s, np.float32) for k, s in net.weights().items()}, **weights})
        if live:
            self._runner.set_masks(live, {k: unit_of(weights[f"{k}.weight"].shape, m.shape) for k, m in live.items()})
        logits = logits_of(self._runner, self._x, self._pre)
        return by_class(logits[:, : len(self._classes)], self._y, self._classes)


def held_out_judge(
    net: Net, classes: Sequence[str], pre: Preprocess, x: U8, labels: Sequence[str], engine: str = "auto", threads: int = 1
) -> HeldOut:
    """A judge by samples x [N, C, H, W] as stored, with the names of their classes, among `classes`, the net's rows in order.

    Raises DataError for samples of another form, or of no class known.
    """
    strange = sorted(set(labels) - set(classes))
    if x.dtype != np.uint8 or x.shape != (len(labels), *net.input) or not len(labels):
        raise DataError(f"held-out samples are {x.dtype} {list(x.shape)} with {len(labels)} labels, the net's {list(net.input)}")
    if strange:
        raise DataError(f"held-out samples are of class {strange[0]!r}, which the net does not know")
    at = {k: i for i, k in enumerate(classes)}
    y = np.array([at[k] for k in labels], np.int64)
    return HeldOut(make_engine(pick(engine).name, net, threads=threads), classes, pre, x, y)


def by_class(logits: F32, y: I64, classes: Sequence[str]) -> dict[str, float]:
    """Share right of each class that has samples; what is not a number is wrong."""
    right = np.where(np.isfinite(logits).all(axis=1), logits.argmax(axis=1) == y, False)
    return {k: float(right[y == i].mean()) for i, k in enumerate(classes) if (y == i).any()}


def mean_accuracy(found: Mapping[str, float]) -> float:
    """Over classes, each counting the same."""
    return float(np.mean(list(found.values()))) if found else 0.0
