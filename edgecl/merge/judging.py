"""A judge of weights: accuracy by class on samples that no device sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgecl.engines import make_engine, pick
from edgecl.evaluate import logits_of
from edgecl.merge.contribution import unit_of
from edgecl.merge.screening import Judge
from edgecl.nets import Net
from edgecl.types import F32, U8, Bools, DataError, Named, Preprocess


def held_out_judge(
    net: Net, classes: Sequence[str], pre: Preprocess, x: U8, labels: Sequence[str], engine: str = "auto", threads: int = 1
) -> Judge:
    """A judge by held-out samples x [N, C, H, W] as stored, with the names of their classes; predicted among `classes`, the net's
    rows in order. One engine is made and used for all. Raises DataError for samples of another form, or of no class known."""
    strange = sorted(set(labels) - set(classes))
    if x.dtype != np.uint8 or x.shape != (len(labels), *net.input) or not len(labels):
        raise DataError(f"held-out samples are {x.dtype} {list(x.shape)} with {len(labels)} labels, the net's {list(net.input)}")
    if strange:
        raise DataError(f"held-out samples are of class {strange[0]!r}, which the net does not know")
    runner = make_engine(pick(engine).name, net, threads=threads)
    at = {k: i for i, k in enumerate(classes)}
    y = np.array([at[k] for k in labels], np.int64)

    def judge(weights: Named, live: Mapping[str, Bools]) -> dict[str, float]:
        runner.load({**{f"momentum.{k}": np.zeros(s, np.float32) for k, s in net.weights().items()}, **weights})
        if live:
            runner.set_masks(live, {k: unit_of(weights[f"{k}.weight"].shape, m.shape) for k, m in live.items()})
        return by_class(logits_of(runner, x, pre)[:, : len(classes)], y, classes)

    return judge


def by_class(logits: F32, y: np.ndarray[tuple[int], np.dtype[np.int64]], classes: Sequence[str]) -> dict[str, float]:
    """Share right of each class that has samples; what is not a number is wrong."""
    right = np.where(np.isfinite(logits).all(axis=1), logits.argmax(axis=1) == y, False)
    return {k: float(right[y == i].mean()) for i, k in enumerate(classes) if (y == i).any()}


def mean_accuracy(found: Mapping[str, float]) -> float:
    """Over classes, each counting the same."""
    return float(np.mean(list(found.values()))) if found else 0.0
