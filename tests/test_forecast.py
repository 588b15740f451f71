"""A step costs what torch counts around the real one: each method, its passes, with and without gathering gradients."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from torch.utils.flop_counter import FlopCounterMode

from edgecl import config as configs
from edgecl.cost import dense, layer_costs
from edgecl.engines import make_engine
from edgecl.engines.base import StepResult
from edgecl.forecast import Meter, method_of
from edgecl.layout import masked_layers
from edgecl.methods import METHODS, options
from edgecl.methods.base import PASSES
from edgecl.nets import build_net
from edgecl.nets.init import initial
from edgecl.types import Batch, Part

CASES = [
    (name, how, score)
    for name, how, score in product(METHODS, PASSES, (False, True))
    if "forward" in options(name) or how == "separate"
]
N, DRAW, K = 6, 4, 10


def part(rng: np.random.Generator, n: int) -> Part:
    x = rng.integers(0, 256, (n, 1, 8, 8), dtype=np.uint8)
    zeros = np.zeros((n, K), np.float32)
    return Part(x, np.zeros((n, 3), np.int64), rng.integers(0, 2, n), np.ones(n, np.float32), zeros)


@pytest.mark.parametrize(("name", "how", "score"), CASES)
def test_the_meter_agrees_with_torch(name: str, how: str, score: bool) -> None:
    wanted = {"name": name, **({"forward": how} if "forward" in options(name) else {})}
    config = configs.resolve(
        "", [{"method": wanted, "train": {"batch": N}, "memory": {"batch": DRAW}, "mask": {"sparsity": 0.5}}]
    )
    net, method, rng = build_net("small_cnn", (1, 8, 8), K, 8), method_of(config), np.random.default_rng(0)
    engine, costs, layers = make_engine("torch", net), layer_costs(net), masked_layers(net, config)
    engine.load({**engine.arrays(), **initial(net, rng)})
    engine.set_masks({k: np.ones(v.shape, bool) for k, v in layers.items()}, {k: v.unit for k, v in layers.items()})
    batch = Batch((part(rng, N), *(part(rng, DRAW) for _ in range(method.draws))), *np.ones((2, K), np.float32), np.float32(0.1))
    assert (
        counted(engine, method, batch, score)
        == Meter(config, costs, layers, method).step(dense(costs), dense(costs), gather=score)[0].sum()
    )


def counted(engine, method, batch: Batch, score: bool) -> int:
    def step(b: Batch):
        x = [p.x.float() for p in b.parts]
        loss = method.loss(engine.xp, engine.forward(x, method.passes(), split=score), b)
        engine.backward(loss.d_logits, score=score)
        return StepResult(loss.value, loss.value)

    with FlopCounterMode(display=False) as counter:
        engine.compile(step)(batch)
    return int(counter.get_total_flops())
