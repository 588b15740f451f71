"""One training step: augment → forward → loss → backward → update, for every engine and method."""

from __future__ import annotations

import numpy as np

from edgecl.data.augment import prepare
from edgecl.engines import Engine
from edgecl.engines.base import StepResult, sources_of
from edgecl.methods import ByPart, Method
from edgecl.types import Batch, Pass, Preprocess


def train_step(engine: Engine, method: Method, pre: Preprocess, score: bool, batch: Batch) -> StepResult:
    """One step, on the engine's arrays; the engine may capture it, so nothing here depends on values."""
    if engine.in_turn and isinstance(method, ByPart):
        result = _in_turn(engine, method, pre, score, batch)
    else:
        x = [prepare(engine.xp, part.x, part.crop, pre) for part in batch.parts]
        outputs = engine.forward(x, method.passes(), split=score)
        loss = method.loss(engine.xp, outputs, batch)
        engine.backward(loss.d_logits, score=score)
        result = StepResult(loss.value, outputs[0].logits)
    if engine.in_turn and not np.isfinite(engine.numpy(result.loss)):
        return result  # on the host one may ask; the weights stay, so that what first went wrong can be named
    engine.step(batch.rate)
    return result


def _in_turn(engine: Engine, method: ByPart, pre: Preprocess, score: bool, batch: Batch) -> StepResult:
    """Each pass goes forward and backward before the next begins, so that what one needs is there at a time."""
    values, logits, sources = [], [], sources_of(len(batch.parts))
    for one in method.passes():
        x = [prepare(engine.xp, batch.parts[i].x, batch.parts[i].crop, pre) for i in one.parts]
        outputs = engine.forward(x, [Pass(tuple(range(len(one.parts))))])
        losses = [method.part_loss(engine.xp, i, out, batch) for i, out in zip(one.parts, outputs, strict=True)]
        engine.backward([d for _, d in losses], score=score, sources=[sources[i] for i in one.parts])
        values += [value for value, _ in losses]
        logits += [out.logits for i, out in zip(one.parts, outputs, strict=True) if i == 0]
    return StepResult(sum(values[1:], start=values[0]), logits[0])
