"""The hub's own samples: what a merged model has to be good at. No device sees them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from edgecl.card import Card
from edgecl.merge import Judge, held_out_judge
from edgecl.nets import Net
from edgecl.runtime.sources import open_source
from edgecl.types import U8, DataError


def read(path: Path, card: Card) -> tuple[U8, list[str]]:
    """Samples [N, C, H, W] and the names of their classes, of an .npz as `edgecl learn --input` takes it.

    Raises DataError for samples of another form than the model's, or without labels.
    """
    frames = list(open_source(card, str(path), io.BytesIO()))
    labels = [f.label for f in frames if f.label is not None]
    if not frames or len(labels) != len(frames):
        raise DataError(f"{path}: holds no samples with labels: y is needed beside x")
    return np.stack([f.x for f in frames]), labels


def judge(path: Path, card: Card, net: Net, classes: tuple[str, ...]) -> Judge:
    """By those samples whose class is among `classes`, the net's rows. Raises DataError where there are none."""
    x, labels = read(path, card)
    known = [i for i, name in enumerate(labels) if name in classes]
    if not known:
        raise DataError(f"{path}: no sample is of a class of the model ({', '.join(classes)[:200]})")
    return held_out_judge(net, classes, card.preprocess, x[known], [labels[i] for i in known])
