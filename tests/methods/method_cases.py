"""Every method with every choice of its options, and batches for them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import array_api_compat.numpy as anp
import numpy as np

from edgecl.engines.base import Output
from edgecl.methods import METHODS, Loss, Method, make_method, options
from edgecl.methods.base import CLASS_MASKS, PASSES
from edgecl.types import Batch, Part

CHOICES: dict[str, tuple[Any, ...]] = {"class_mask": CLASS_MASKS, "forward": PASSES, "draws": (1, 2)}
"""Values of the options that are no fractions; a new one joins here."""

K, TASK, SEEN = 6, (2, 3), (0, 1, 2, 3)  # classes; 4 and 5 are still to come


def values(option: str, default: Any) -> tuple[Any, ...]:
    return (default, 1.7) if isinstance(default, float) else CHOICES[option]


def every() -> list[Method]:
    """All methods × all their options' values."""
    return [make_method(name, chosen) for name in METHODS for chosen in combinations(options(name))]


def combinations(known: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(known, chosen, strict=True)) for chosen in product(*(values(k, v) for k, v in known.items()))]


def mask_of(classes: Sequence[int], dtype: Any = np.float32) -> Any:
    return np.isin(np.arange(K), classes).astype(dtype)


def draw(method: Method, seed: int = 0, sizes: Sequence[int] = (4, 3, 5), dtype: Any = np.float32) -> tuple[list[Output], Batch]:
    """Outputs and a batch of `sizes` samples a part: current ones of TASK, replayed ones of SEEN."""
    rng = np.random.default_rng(seed)
    n = sizes[: 1 + method.draws]
    parts = tuple(
        Part(
            x=np.zeros((size, 1, 2, 2), np.uint8),
            crop=np.zeros((size, 3), np.int64),
            y=rng.choice(SEEN if i else TASK, size).astype(np.int64),
            weight=np.ones(size, dtype),
            logits=(rng.normal(size=(size, K)) * (i > 0)).astype(dtype),
        )
        for i, size in enumerate(n)
    )
    outputs = [Output(rng.normal(size=(size, K)).astype(dtype) * 2, rng.normal(size=(size, 3)).astype(dtype)) for size in n]
    return outputs, Batch(parts, mask_of(TASK, dtype), mask_of(SEEN, dtype), np.array(0.1, dtype))


def with_part(batch: Batch, i: int, **changes: Any) -> Batch:
    return batch._replace(parts=tuple(p._replace(**changes) if i == j else p for j, p in enumerate(batch.parts)))


def loss(method: Method, outputs: Sequence[Output], batch: Batch) -> Loss:
    return method.loss(anp, outputs, batch)
