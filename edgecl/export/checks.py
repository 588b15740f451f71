"""Is an export the network that it was made of? Its logits beside the engine's, its accuracy, its time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from edgecl.card import Card
from edgecl.export.predictors import Predict
from edgecl.export.samples import Checked
from edgecl.types import F32, I64, U8, NumericError

PARITY = 1e-4
"""How far a float export's logits may lie from the engine's, in parts of the largest where that is above 1."""

ROUNDS, WARM = 30, 3


class Score(NamedTuple):
    """Of one model on some samples; accuracy is a share, None without labels."""

    accuracy: float | None
    agreement: float  # share of samples that get the class that the float model gives them


def parity(found: F32, wanted: F32, what: str) -> float:
    """The largest difference of logits. Raises NumericError that says so where it is above PARITY, or not a number."""
    worst = float(abs(found - wanted).max())
    if not worst <= PARITY * max(1.0, float(abs(wanted).max())):  # not: NaN is no number
        raise NumericError(f"export: its logits are up to {worst:.3g} from {what}'s on the same samples; nothing was written")
    return worst


def classes(card: Card, logits: F32) -> I64:
    """Class ids [N] of logits [N, S], which are those of `seen`."""
    ids: I64 = np.asarray(card.seen, np.int64)[logits.argmax(axis=1)]
    return ids


def scores(card: Card, samples: Checked, logits: Mapping[str, F32], reference: str) -> dict[str, Score]:
    """By model, from the logits of each on the samples; they are to agree with the model `reference`."""
    said = {k: classes(card, v) for k, v in logits.items()}
    right = {k: None if samples.y is None else float((v == samples.y).mean()) for k, v in said.items()}
    return {k: Score(right[k], float((v == said[reference]).mean())) for k, v in said.items()}


def lost(float_: Score, int8: Score) -> float:
    """Points of accuracy that int8 costs; where no labels are, of agreement."""
    if float_.accuracy is None or int8.accuracy is None:
        return 100 * (1 - int8.agreement)
    return 100 * (float_.accuracy - int8.accuracy)


def times(predictors: Mapping[str, Predict], sample: U8) -> dict[str, float]:
    """Median milliseconds of this thread's CPU time for one sample [1, C, H, W], round by round in turn."""
    spent: dict[str, list[float]] = {k: [] for k in predictors}
    for round_ in range(WARM + ROUNDS):
        for name, predict in predictors.items():
            began = time.thread_time()
            predict(sample)
            if round_ >= WARM:
                spent[name].append(1e3 * (time.thread_time() - began))
    return {k: float(np.median(v)) for k, v in spent.items()}
