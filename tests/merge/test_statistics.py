"""Batch statistics taken anew are those that training mode has of the same samples."""

from __future__ import annotations

import numpy as np
import pytest
from merge_cases import NET, UNITS, a_base, fleet

from edgecl.data import center_crops, prepare
from edgecl.engines import make_engine
from edgecl.merge import Settings, merge, recalibrated, statistics
from edgecl.types import DataError, Pass, Preprocess

PRE = Preprocess((0.5,), (0.25,))
MADE = merge(a_base(), fleet(a_base(), size=0.2), Settings())
X = np.random.default_rng(3).integers(0, 256, (statistics.BATCH, 1, 8, 8), np.uint8)


def test_predictions_are_those_of_training_mode() -> None:
    """The samples are one batch, so that all batches are alike."""
    found = recalibrated(MADE, PRE, X)
    engine = make_engine("native", NET, threads=1)
    engine.load({**found.weights, **{f"momentum.{k}": np.zeros(s, np.float32) for k, s in NET.weights().items()}})
    engine.set_masks(found.live, UNITS)
    x = prepare(engine.xp, X, center_crops(len(X), PRE), PRE)
    predicted = engine.predict(x)
    (trained,) = engine.forward([x], [Pass((0,))])
    np.testing.assert_allclose(predicted, trained.logits, rtol=0.01, atol=0.01 * float(np.abs(trained.logits).max()))


def test_only_statistics_change_and_always_the_same() -> None:
    one, two = (recalibrated(MADE, PRE, X[:20]) for _ in range(2))
    for k, a in one.weights.items():
        np.testing.assert_array_equal(a, two.weights[k])
        assert (a is MADE.weights[k]) != ("running" in k)
    assert list(one.weights) == list(MADE.weights)
    assert one.notes[-1] == "batch statistics of 20 samples"


def test_what_devices_said_of_statistics_does_not_matter() -> None:
    other = MADE._replace(weights={k: a + 7 if "running" in k else a for k, a in MADE.weights.items()})
    for k, a in recalibrated(other, PRE, X).weights.items():
        np.testing.assert_array_equal(a, recalibrated(MADE, PRE, X).weights[k])


def test_samples_of_another_form() -> None:
    for x in (X[:1], X[:, :, 1:], X.astype(np.int64)):
        with pytest.raises(DataError, match="samples to take statistics of"):
            recalibrated(MADE, PRE, x)
