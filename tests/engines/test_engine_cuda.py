"""A captured step on a GPU: one graph a step, that does what the uncaptured one does. The rest of the contract runs there too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_cases import TINY, data, error, half_live, needs_cuda, start
from training import Arrays, batches, direct, learner, same, stepper, sums

from edgecl.engines.base import StepResult
from edgecl.engines.cuda_graph import leaves, rebuild
from edgecl.engines.torch import TorchEngine
from edgecl.nets import build_net
from edgecl.types import Batch

GPU = ("torch", {"device": "cuda"})
NET = build_net(TINY, (1, 8, 8), 10)


def worst(one: Arrays, two: Arrays) -> float:
    return max(error(one[k], v, floor=0.1) for k, v in two.items())


def test_batches_and_their_leaves() -> None:
    """Runs anywhere: a batch is rebuilt from its arrays, in their order."""
    (batch,) = batches(NET, 1)
    again = rebuild(leaves(batch))
    assert isinstance(again, Batch)
    assert [len(p.y) for p in again.parts] == [4, 5, 5]
    assert all(a is b for a, b in zip(leaves(batch), leaves(again), strict=True))


@needs_cuda
@pytest.mark.parametrize("score", [False, True])
@pytest.mark.parametrize("name", ["resnet18", "small_cnn", "mlp"])
def test_a_graph_steps_as_eager_does(name: str, score: bool) -> None:
    net = build_net(name, (3, 8, 8), 5, 4)
    eager, captured = (learner(GPU, net, "kernel" if name != "mlp" else "weight") for _ in range(2))
    step = captured.compile(stepper(captured, score))
    for batch in batches(net, 6):
        here, there = direct(eager, batch, score), step(batch)
        assert error(there.loss, here.loss) < 1e-4
    assert worst(captured.arrays(), eager.arrays()) < 1e-3
    if score:
        assert worst(sums(captured), sums(eager)) < 1e-3


@needs_cuda
@pytest.mark.parametrize("score", [False, True])
def test_the_warm_up_leaves_no_trace(score: bool) -> None:
    """Of the first call only its own step remains: weights, statistics, momentum, sums."""
    eager, captured = (learner(GPU, NET, "kernel") for _ in range(2))
    (batch,) = batches(NET, 1)
    direct(eager, batch, score)
    captured.compile(stepper(captured, score))(batch)
    assert worst(captured.arrays(), eager.arrays()) < 1e-4
    assert worst(sums(captured), sums(eager)) < 1e-4


@needs_cuda
def test_a_rate_of_0_moves_no_weight() -> None:
    made = learner(GPU, NET, momentum=0.0)
    before = made.arrays()
    (batch,) = batches(NET, 1)
    made.compile(stepper(made))(batch._replace(rate=np.array(0, np.float32)))
    after = made.arrays()
    assert same({k: after[k] for k in NET.weights()}, {k: before[k] for k in NET.weights()})
    assert not np.array_equal(after["bn1.running_mean"], before["bn1.running_mean"])


@needs_cuda
def test_two_captured_steps_share_their_state() -> None:
    """The loop has one that gathers gradients and one that doesn't, and takes turns."""
    eager, captured = (learner(GPU, NET, "kernel") for _ in range(2))
    steps = {score: captured.compile(stepper(captured, score)) for score in (False, True)}
    for i, batch in enumerate(batches(NET, 6)):
        direct(eager, batch, i % 3 == 0)
        steps[i % 3 == 0](batch)
    assert worst(captured.arrays(), eager.arrays()) < 1e-3
    assert worst(sums(captured), sums(eager)) < 1e-3


@needs_cuda
def test_state_set_after_the_capture_is_used() -> None:
    """Loaded weights, new masks and reset sums: the graph reads the tensors that they are written to."""
    eager, captured = (learner(GPU, NET, "kernel") for _ in range(2))
    step, all_batches = captured.compile(stepper(captured, True)), batches(NET, 4)
    step(all_batches[0])
    direct(eager, all_batches[0], True)
    live = half_live(NET, "kernel", seed=11)
    fresh = start(GPU, NET, seed=5, momentum=0.8).arrays()
    for engine in (eager, captured):
        engine.load(fresh)
        engine.set_masks(live, dict.fromkeys(live, "kernel"))
        engine.set_gradient_masks({"conv2": engine.asarray(np.zeros_like(live["conv2"]))})
        engine.reset_scores()
    for batch in all_batches[1:]:
        step(batch)
        direct(eager, batch, True)
    assert worst(captured.arrays(), eager.arrays()) < 1e-3
    assert worst(sums(captured), sums(eager)) < 1e-3


@needs_cuda
def test_a_batch_of_another_shape_is_refused() -> None:
    made, (batch,) = learner(GPU, NET), batches(NET, 1)
    step = made.compile(stepper(made))
    step(batch)
    with pytest.raises(ValueError, match=r"a captured step takes \(4, 1, 8, 8\), not \(1, 1, 8, 8\)"):
        step(batch._replace(parts=(type(batch.parts[0])(*(a[:1] for a in batch.parts[0])), *batch.parts[1:])))


@needs_cuda
def test_results_come_back_on_the_host() -> None:
    made, (batch,) = learner(GPU, NET), batches(NET, 1)
    result = made.compile(stepper(made))(batch)
    assert isinstance(result, StepResult)
    assert all(isinstance(a, np.ndarray) and a.dtype == np.float32 for a in result)
    assert result.logits.shape == (4, 10)


@needs_cuda
@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-5), ("tf32", 5e-3), ("bf16", 5e-2)])
def test_precision(precision: str, most: float) -> None:
    (x,), _ = data(NET, (64,))
    exact = start(("torch", {"device": "cpu"}), NET)
    made = start(GPU, NET, precision=precision)
    assert error(made.numpy(made.predict(made.asarray(x))), exact.numpy(exact.predict(exact.asarray(x)))) < most
    TorchEngine(NET, "cuda")  # its flags are torch's own: back to fp32


@needs_cuda
def test_arrays_are_in_the_hosts_order() -> None:
    """Channels-last is the device's business alone."""
    made = start(GPU, NET)
    assert made.weight("conv2").is_contiguous(memory_format=torch.channels_last)
    there = start(("torch", {"device": "cpu"}), NET).arrays()
    assert same(made.arrays(), there)
