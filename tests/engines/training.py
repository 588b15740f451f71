"""Whole training steps, as the loop makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from engine_cases import half_live, start

from edgecl.data.augment import draw_crops
from edgecl.engines import Engine
from edgecl.engines.base import StepResult
from edgecl.methods import make_method
from edgecl.nets import Net
from edgecl.step import train_step
from edgecl.types import Batch, Part, Preprocess

Setting = tuple[str, Mapping[str, Any]]
Arrays = dict[str, np.ndarray]


def batches(net: Net, n: int, seed: int = 4, replay: float = 1.0) -> list[Batch]:
    """`n` batches of random samples for three parts: classes 2 and 3 now, 0 to 3 from memory with weight `replay`."""
    rng, pre = np.random.default_rng(seed), preprocess(net)
    mask = [np.isin(np.arange(net.classes), seen).astype(np.float32) for seen in ((2, 3), (0, 1, 2, 3))]

    def part(size: int, classes: Sequence[int], weight: float) -> Part:
        x = rng.integers(0, 256, (size, *net.input), dtype=np.uint8)
        logits = rng.normal(size=(size, net.classes)).astype(np.float32)
        return Part(x, draw_crops(rng, size, pre), rng.choice(classes, size), np.full(size, weight, np.float32), logits)

    def batch() -> Batch:
        parts = (part(4, (2, 3), 1), part(5, range(4), replay), part(5, range(4), replay))
        return Batch(parts, *mask, np.array(0.05, np.float32))

    return [batch() for _ in range(n)]


def preprocess(net: Net) -> Preprocess:
    return Preprocess((0.4,) * net.input[0], (0.25,) * net.input[0], pad=1, flip=True)


def stepper(engine: Engine, score: bool = False) -> Callable[[Batch], StepResult]:
    """The loop's own step with DER++: on the engine's arrays, not yet compiled."""
    return partial(train_step, engine, make_method("derpp", {}), preprocess(engine.net), score)


def direct(engine: Engine, batch: Batch, score: bool = False) -> StepResult:
    """One step without `compile`."""
    parts = tuple(Part(*map(engine.asarray, p)) for p in batch.parts)
    result = stepper(engine, score)(Batch(parts, *map(engine.asarray, batch[1:])))
    return StepResult(*map(engine.numpy, result))


def learner(setting: Setting, net: Net, unit: str = "", **options: Any) -> Engine:
    """An engine with momentum and weight decay; `unit` masks about half of every layer but the last."""
    engine = start(setting, net, **({"momentum": 0.8, "weight_decay": 0.01} | options))
    if unit:
        live = half_live(net, unit)
        engine.set_masks(live, dict.fromkeys(live, unit))
    return engine


def sums(engine: Engine) -> Arrays:
    """The gradients gathered, by source and layer."""
    return {f"{s}.{k}": engine.numpy(v) for s, layers in engine.scores(1).items() for k, v in layers.items()}


def same(one: Mapping[str, np.ndarray], two: Mapping[str, np.ndarray]) -> bool:
    """Bit by bit."""
    return one.keys() == two.keys() and all(one[k].tobytes() == two[k].tobytes() for k in one)
