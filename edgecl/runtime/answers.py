"""What a prediction says, and how long predictions take."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from edgecl.card import Card
from edgecl.runtime.frames import Frame
from edgecl.runtime.predictors import Predictor
from edgecl.types import F32, DataError

KEPT = 100_000  # latencies that percentiles are taken of: the latest


class Choice(NamedTuple):
    """One class that a sample may be of."""

    name: str
    id: int
    probability: float


class Answer(NamedTuple):
    """What the network says of one sample."""

    name: str
    id: int
    probability: float  # softmax over the classes learned
    top: tuple[Choice, ...]  # the likeliest first

    def to_dict(self) -> dict[str, Any]:
        """For a line of JSON."""
        return {
            "class": self.name,
            "id": self.id,
            "probability": round(self.probability, 6),
            "top": [{"class": c.name, "id": c.id, "probability": round(c.probability, 6)} for c in self.top],
        }


def answer(card: Card, logits: F32, top: int = 3) -> Answer:
    """From one sample's logits [classes], -inf where a class was not learned. Raises DataError where none is known."""
    if not card.seen:
        raise DataError("the network has learned no class yet")
    seen = np.array(card.seen)
    z = logits[seen].astype(np.float64)
    if not np.isfinite(z).all():
        raise DataError("the network's logits are not finite")
    p = np.exp(z - z.max())
    p /= p.sum()
    best = np.argsort(-p, kind="stable")[: max(1, top)]
    choices = tuple(Choice(card.classes[seen[i]], int(seen[i]), float(p[i])) for i in best)
    return Answer(*choices[0], choices)


@dataclass
class Latency:
    """Times of predictions, one sample each."""

    took: list[float] = field(default_factory=list)  # seconds
    count: int = 0
    right: int = 0
    labelled: int = 0
    began: float = field(default_factory=time.perf_counter)

    def add(self, seconds: float, label: str | None, name: str) -> None:
        self.count += 1
        self.took.append(seconds)
        del self.took[:-KEPT]
        self.labelled += label is not None
        self.right += label == name

    def summary(self, backend: str) -> dict[str, Any]:
        """Percentiles in ms of the prediction alone; frames a second with reading and printing; null where nothing was seen."""
        percent = np.percentile(self.took, (50, 95, 99)) * 1e3 if self.took else (None,) * 3
        ms = {f"p{q}_ms": None if v is None else round(float(v), 3) for q, v in zip((50, 95, 99), percent, strict=True)}
        elapsed = time.perf_counter() - self.began
        rate = self.count / elapsed if self.count and elapsed else None
        share = self.right / self.labelled if self.labelled else None
        return {
            "frames": self.count,
            **ms,
            "frames_per_s": rate,
            "backend": backend,
            "accuracy": share,
            "labelled": self.labelled,
        }


def stream(predictor: Predictor, frames: Iterable[Frame], latency: Latency, top: int = 3) -> Iterator[dict[str, Any]]:
    """A line for every frame, predicted one by one."""
    for frame in frames:
        began = time.perf_counter()
        logits = predictor.predict(frame.x[None])[0]
        took = time.perf_counter() - began
        said = answer(predictor.card, logits, top)
        latency.add(took, frame.label, said.name)
        label = {} if frame.label is None else {"label": frame.label}
        yield {"source": frame.source, **label, **said.to_dict(), "ms": round(took * 1e3, 3)}
