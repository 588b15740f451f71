"""int8 that keeps the accuracy: what rounds the worst goes back to float until no more than half a point is lost."""

from __future__ import annotations

from typing import NamedTuple

from edgecl.card import Card
from edgecl.export import checks
from edgecl.export.formats import Format
from edgecl.export.predictors import Predict
from edgecl.export.samples import Checked
from edgecl.types import F32, U8

LIMIT = 0.5  # points of accuracy
NAMED = 3  # that a warning names
LOOKED_AT = 16  # samples that noise is measured on
TRIES = (1, 2, 4, 8, 16)
"""So many of the worst go back to float, one try after the other, up to half of all."""


class Quantised(NamedTuple):
    """The best of the tries."""

    data: bytes
    predict: Predict
    lost: float  # points
    floats: tuple[str, ...]  # what was left in float: a node for its output, `<node>.weight`
    logits: F32  # of the samples that it was judged by
    worst: tuple[tuple[str, float], ...]  # if the first try lost too much: what rounds the worst, in dB


def quantised(format_: Format, data: bytes, card: Card, calibration: U8, judge: Checked, by_float: F32, chip: str) -> Quantised:
    """The int8 file of a float one, whose logits of the judge's samples are `by_float`.

    `lost` may be above LIMIT where no try helped: the caller warns.
    """

    def attempt(floats: tuple[str, ...], worst: tuple[tuple[str, float], ...] = ()) -> Quantised:
        assert format_.quantise is not None
        made = format_.quantise(data, card, calibration, chip, floats)
        predict = format_.predictor(made)
        logits = predict(judge.x)
        found = checks.scores(card, judge, {"float": by_float, "int8": logits}, "float")
        return Quantised(made, predict, checks.lost(found["float"], found["int8"]), floats, logits, worst)

    best = attempt(())
    if holds(best) or format_.noise is None:
        return best
    ranked = sorted(format_.noise(data, best.data, calibration[:LOOKED_AT]).items(), key=lambda kv: (kv[1], kv[0]))
    for n in (n for n in TRIES if n <= max(1, len(ranked) // 2)):
        tried = attempt(tuple(name for name, _ in ranked[:n]))
        best = tried if tried.lost < best.lost else best
        if holds(best):
            break
    return best._replace(worst=tuple(ranked[:NAMED]))


def holds(found: Quantised) -> bool:
    return found.lost <= LIMIT + 1e-9  # a share of samples, times 100, is not quite a number of points
