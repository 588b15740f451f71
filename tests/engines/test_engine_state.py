"""An engine's state: it goes in and out bit by bit, the same seed ends in the same bits, and reading changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from engine_cases import TINY, data, error, half_live, on_engines, on_nets, start, weights_for
from training import batches, direct, learner, same, stepper, sums

from edgecl.engines import ENGINES, make_engine
from edgecl.nets import Net, build_net
from edgecl.types import ConfigError, StoreError

Setting = tuple[str, Mapping[str, Any]]
NET = build_net(TINY, (1, 8, 8), 10)

# ---- load and arrays ----


@on_engines
@on_nets
def test_arrays_come_back_bit_by_bit(engine: Setting, net: Net) -> None:
    """Any float32: signed zeros, subnormals, infinities and NaN too."""
    made, rng = start(engine, net, momentum=0.9), np.random.default_rng(0)
    arrays = {k: rng.integers(0, 2**32, v.shape, dtype=np.uint32).view(np.float32) for k, v in made.arrays().items()}
    made.load(arrays)
    back = made.arrays()
    assert same(back, arrays)
    assert all(v.flags.c_contiguous and v.flags.writeable and v.dtype == np.float32 for v in back.values())


@on_engines
def test_arrays_are_copies(engine: Setting) -> None:
    made = start(engine, NET, momentum=0.9)
    given = made.arrays()
    made.load(given)
    kept = made.arrays()
    for a in given.values():
        a += 1
    for a in made.arrays().values():
        a += 1
    assert same(made.arrays(), kept)


@on_engines
def test_arrays_hold_the_whole_net(engine: Setting) -> None:
    names = {*NET.weights(), *NET.buffers()}
    assert set(start(engine, NET).arrays()) == names
    assert set(start(engine, NET, momentum=0.9).arrays()) == names | {f"momentum.{k}" for k in NET.weights()}


@on_engines
@pytest.mark.parametrize("name", ["conv2.weight", "bn1.running_var", "momentum.classifier.bias"])
def test_what_does_not_fit_is_named_and_changes_nothing(engine: Setting, name: str) -> None:
    made = start(engine, NET, momentum=0.9)
    before = made.arrays()
    other = {k: v + 1 for k, v in before.items()}
    with pytest.raises(StoreError, match=rf"weights: no array '{name}' for net tiny_cnn"):
        made.load({k: v for k, v in other.items() if k != name})
    with pytest.raises(StoreError, match=rf"weights: {name} has shape \(3, 1\), net tiny_cnn needs \("):
        made.load(other | {name: np.zeros((3, 1), np.float32)})
    assert same(made.arrays(), before)


@on_engines
def test_arrays_of_other_nets_are_not_read(engine: Setting) -> None:
    made = start(engine, NET)
    made.load({**weights_for(NET, 5), "momentum.conv1.weight": np.ones(3), "more": np.ones(2)})
    assert same(made.arrays(), weights_for(NET, 5))


def test_engines_that_cannot_be_made() -> None:
    with pytest.raises(ConfigError, match=r"engine\.name: unknown engine 'jax'; known: torch"):
        make_engine("jax", NET)
    with pytest.raises(ConfigError, match=r"engine\.device: 'tpu' is not cpu or cuda"):
        make_engine("torch", NET, device="tpu")
    with pytest.raises(ConfigError, match=r"engine\.precision: 'fp8' is not one of fp32, tf32, bf16"):
        make_engine("torch", NET, precision="fp8")
    assert all(name in ENGINES for name in ("torch",))


# ---- predict ----


@on_engines
@on_nets
def test_predict_changes_nothing(engine: Setting, net: Net) -> None:
    """Nor does a sample's company change it: statistics are the running ones. (Float64 agrees: see test_engine_ops.)"""
    made = start(engine, net, momentum=0.9)
    (x,), _ = data(net, (5,))
    before = made.arrays()
    whole = made.numpy(made.predict(made.asarray(x)))
    assert same(made.arrays(), before)
    assert whole.dtype == np.float32
    alone = np.concatenate([made.numpy(made.predict(made.asarray(x[i : i + 1]))) for i in range(5)])
    assert error(whole, alone) < 1e-5


@on_engines
def test_predict_between_forward_and_backward_is_harmless(engine: Setting) -> None:
    results = []
    for between in (False, True):
        made = learner(engine, NET)
        batch = batches(NET, 1)[0]
        outputs = made.forward([made.asarray(np.float32(p.x) / 255) for p in batch.parts], stepper(made).args[1].passes())
        if between:
            made.predict(made.asarray(np.ones((3, *NET.input), np.float32)))
        made.backward([o.logits * 0 + 1 for o in outputs])
        made.step(made.asarray(np.float32(0.1)))
        results.append(made.arrays())
    assert error(results[0]["conv1.weight"], results[1]["conv1.weight"]) < 1e-6


# ---- steps, again and compiled ----


@on_engines
@pytest.mark.parametrize("score", [False, True])
def test_the_same_seed_ends_in_the_same_bits(engine: Setting, score: bool) -> None:
    if engine[1].get("device") == "cuda":
        pytest.skip("cuDNN chooses its algorithms by their time, and some add up in any order")
    results = []
    for _ in range(2):
        made = learner(engine, NET, "kernel")
        losses = [direct(made, batch, score) for batch in batches(NET, 4)]
        results.append((made.arrays(), sums(made), {str(i): a for i, r in enumerate(losses) for a in r}))
    assert all(same(one, two) for one, two in zip(*results, strict=True))


@on_engines
@on_nets
@pytest.mark.parametrize("unit", ["", "weight"])
@pytest.mark.parametrize("score", [False, True])
def test_compiled_steps_do_the_same(engine: Setting, net: Net, unit: str, score: bool) -> None:
    """Weights, statistics, momentum, gathered gradients, losses and logits; on a CPU bit by bit."""
    exact = engine[1].get("device") != "cuda"
    one, two = (learner(engine, net, unit) for _ in range(2))
    compiled = two.compile(stepper(two, score))
    for batch in batches(net, 3):
        here, there = direct(one, batch, score), compiled(batch)
        assert isinstance(there.loss, np.ndarray)
        assert there.loss.shape == ()
        assert error(there.loss, here.loss) <= (0 if exact else 1e-4)
        assert error(there.logits, here.logits) <= (0 if exact else 1e-3)
    if exact:
        assert same(one.arrays(), two.arrays())
        assert same(sums(one), sums(two))
    else:
        theirs = two.arrays()
        assert max(error(theirs[k], v, floor=0.1) for k, v in one.arrays().items()) < 1e-3


@on_engines
def test_results_are_the_callers_own(engine: Setting) -> None:
    """A step does not write into what the one before it returned."""
    made = learner(engine, NET)
    step, (first, second) = made.compile(stepper(made)), batches(NET, 2)
    result = step(first)
    kept = [a.copy() for a in result]
    step(second)
    assert all(np.array_equal(a, b) for a, b in zip(result, kept, strict=True))


@on_engines
def test_a_batch_is_only_read(engine: Setting) -> None:
    made, (batch,) = learner(engine, NET), batches(NET, 1)
    kept = [a.copy() for part in batch.parts for a in part]
    made.compile(stepper(made))(batch)
    assert all(np.array_equal(a, b) for a, b in zip((a for part in batch.parts for a in part), kept, strict=True))


@on_engines
def test_absent_replay_teaches_nothing(engine: Setting) -> None:
    """Parts of weight 0 change running statistics at most: whatever they hold, weights end the same."""
    one, two = (learner(engine, NET) for _ in range(2))
    (first,), (other,) = batches(NET, 1, replay=0), batches(NET, 1, seed=9, replay=0)
    direct(one, first)
    direct(two, first._replace(parts=(first.parts[0], *other.parts[1:])))
    a, b = one.arrays(), two.arrays()
    assert max(error(a[k], b[k], floor=0.1) for k in NET.weights()) < 1e-6


# ---- what is not finite ----


@on_engines
def test_the_first_array_that_is_not_finite_is_named(engine: Setting) -> None:
    made = start(engine, NET)
    assert made.nonfinite() is None
    arrays = made.arrays()
    arrays["classifier.bias"][3] = np.nan
    made.load(arrays)
    assert made.nonfinite() == "classifier.bias"
    arrays["bn2.running_var"][0] = np.inf
    made.load(arrays)
    assert made.nonfinite() == "bn2.running_var"  # the forward pass wrote it: it comes before the weights


@on_engines
def test_weight_is_the_layers_own(engine: Setting) -> None:
    made, live = learner(engine, NET, "kernel"), half_live(NET, "kernel")
    for layer in live:
        assert np.array_equal(made.numpy(made.weight(layer)), made.arrays()[f"{layer}.weight"])
