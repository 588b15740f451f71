"""Does the learner of a bundle predict here what it predicted where the bundle was made?

Chips round differently, so that logits differ in their last digits. What is compared is the predicted class, of samples
for which it is no close call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgecl import files
from edgecl.bundle.manifest import SAMPLES, Manifest, SelfTest
from edgecl.card import CARD_BYTES, Card
from edgecl.engines import AUTO, make_engine, pick
from edgecl.evaluate import logits_of
from edgecl.model import Model, open_model
from edgecl.types import F32, U8, StoreError

LEARNER, CARD = "learner", "card.json"
MARGIN = 0.02  # of the logits' range, between the best class and the next


def expectation(model: Model) -> SelfTest:
    """Up to 16 samples with what the model predicts, those first that come first. Raises StoreError if a logit is not finite."""
    source = "memory" if model.memory is not None and model.memory.size else "pattern"
    samples = range(64) if source == "pattern" else range(min(model.memory.size if model.memory else 0, 256))
    seen = list(model.card.seen)
    if not seen:
        return SelfTest()
    logits = _logits(model, source, samples)[:, seen]
    clear = np.flatnonzero(_margins(logits) >= MARGIN)[:SAMPLES]
    if not len(clear):
        return SelfTest()
    return SelfTest(source, tuple(samples[i] for i in clear), tuple(seen[k] for k in logits[clear].argmax(1)))


def check(folder: Path, manifest: Manifest) -> str:
    """Opens the learner of an unpacked bundle and predicts; what was done, in a few words.

    Raises StoreError that names the folder: another network than the card's, a logit that is not finite, another class.
    """
    if not (folder / LEARNER).is_dir():
        return "no self-test: there is no learner in this bundle"
    model, card = open_model(folder / LEARNER), read_card(folder)
    if replace(model.card, edgecl=card.edgecl) != card:
        raise StoreError(f"{folder}: self-test: {CARD} is not of the network in {LEARNER}")
    test = manifest.selftest
    if not test.samples:
        return "the learner opens; the bundle has no samples to test it with"
    predicted = np.array(card.seen)[_logits(model, test.source, test.samples)[:, list(card.seen)].argmax(1)]
    wrong = np.flatnonzero(predicted != np.array(test.predicted))
    if len(wrong):
        was, now = test.predicted[wrong[0]], predicted[wrong[0]]
        raise StoreError(f"{folder}: self-test: {len(wrong)} of {len(predicted)} samples wrong (class {now}, expected {was})")
    return f"predicts {len(predicted)} of {len(predicted)} samples as expected"


def read_card(folder: Path) -> Card:
    """card.json of an unpacked bundle. Raises StoreError or ConfigError that names it."""
    return Card.parse(str(folder / CARD), files.read_bounded(folder / CARD, CARD_BYTES))


def _logits(model: Model, source: str, samples: Sequence[int]) -> F32:
    """[N, K] of slots of the memory, or of patterns."""
    if source == "pattern":
        x = pattern(model.net.input, samples)
    elif model.memory is None or max(samples) >= model.memory.size:
        raise StoreError(f"{model.folder}: self-test: the memory lacks a sample that it needs")
    else:
        x = model.memory.x[np.asarray(samples)]
    engine = make_engine(pick(AUTO).name, model.net, threads=1)
    engine.load(model.weights)
    logits = logits_of(engine, x, model.card.preprocess)
    if not np.isfinite(logits).all():
        raise StoreError(f"{model.folder}: self-test: a logit is not a finite number")
    return logits


def pattern(shape: tuple[int, int, int], samples: Sequence[int]) -> U8:
    """uint8 [N, C, H, W]: value i of sample n, in C order, is (i·(2n + 1) + 31·n) mod 256."""
    i = np.arange(int(np.prod(shape)), dtype=np.int64)
    return np.stack([((i * (2 * n + 1) + 31 * n) % 256).astype(np.uint8).reshape(shape) for n in samples])


def _margins(logits: F32) -> F32:
    """[N]: from the best to the next, as a share of all logits' range; 1 with one class only."""
    if logits.shape[1] == 1:
        return np.ones(len(logits), np.float32)
    two = np.sort(logits, axis=1)[:, -2:]
    return np.asarray((two[:, 1] - two[:, 0]) / max(float(logits.max() - logits.min()), 1e-30), np.float32)
