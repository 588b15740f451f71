"""One contract for all methods, found in METHODS with all choices of their options."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from method_cases import CHOICES, K, draw, every, loss, mask_of, with_part

from edgecl.config import Config
from edgecl.methods import METHODS, Method, make_method, options
from edgecl.types import ConfigError

ALL = every()
FEW = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 2**32 - 1)
methods = pytest.mark.parametrize("method", ALL, ids=repr)
replaying = pytest.mark.parametrize("method", [m for m in ALL if m.draws], ids=repr)


# ---- loss and gradient ----


@methods
def test_gradient_is_that_of_the_loss(method: Method) -> None:
    """Central differences in float64, for every logit of every part, some samples of weight 0 among them."""
    outputs, batch = draw(method, dtype=np.float64)
    batch = with_part(batch, 1, weight=np.array([1.0, 0, 1])) if method.draws else batch
    gradient = loss(method, outputs, batch).d_logits
    for part, analytic in zip(outputs, gradient, strict=True):
        logits, h = part.logits, 1e-6
        for at in np.ndindex(*logits.shape):
            was, ends = logits[at], []
            for moved in (was + h, was - h):
                logits[at] = moved
                ends.append(float(loss(method, outputs, batch).value))
            logits[at] = was
            assert analytic[at] == pytest.approx((ends[0] - ends[1]) / (2 * h), abs=1e-8)


@methods
@FEW
@given(seed=seeds, sizes=st.tuples(*[st.integers(1, 9)] * 3))
def test_numpy_equals_torch(method: Method, seed: int, sizes: tuple[int, int, int]) -> None:
    torch = pytest.importorskip("torch")
    import array_api_compat.torch as atorch

    outputs, batch = draw(method, seed, sizes)
    here = loss(method, outputs, batch)
    tensors = [type(o)(*map(torch.from_numpy, o)) for o in outputs]
    parts = tuple(type(p)(*map(torch.from_numpy, p)) for p in batch.parts)
    there = method.loss(atorch, tensors, type(batch)(parts, *(torch.from_numpy(a) for a in batch[1:])))
    assert there.value.dtype == torch.float32
    np.testing.assert_allclose(there.value.numpy(), here.value, rtol=1e-5, atol=1e-6)
    for a, b, o in zip(there.d_logits, here.d_logits, outputs, strict=True):
        assert a.shape == b.shape == o.logits.shape
        assert a.dtype == torch.float32
        assert b.dtype == np.float32
        np.testing.assert_allclose(a.numpy(), b, rtol=1e-4, atol=1e-6)


@methods
def test_reads_no_value(method: Method) -> None:
    """Tensors on `meta` have shapes but no values: what waits for the device, or has a shape that hangs on values, fails."""
    torch = pytest.importorskip("torch")
    import array_api_compat.torch as atorch

    def meta(a: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(a).to("meta")

    outputs, batch = draw(method)
    parts = tuple(type(p)(*map(meta, p)) for p in batch.parts)
    result = method.loss(atorch, [type(o)(*map(meta, o)) for o in outputs], type(batch)(parts, *map(meta, batch[1:])))
    assert result.value.shape == ()
    assert [d.shape for d in result.d_logits] == [o.logits.shape for o in outputs]


@methods
def test_changes_none_of_its_inputs(method: Method) -> None:
    outputs, batch = draw(method)
    arrays = [a for group in (*outputs, *batch.parts) for a in group] + list(batch[1:])
    kept = [a.copy() for a in arrays]
    loss(method, outputs, batch)
    assert all(np.array_equal(a, b) for a, b in zip(arrays, kept, strict=True))


@methods
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extreme_logits_stay_finite(method: Method, size: float) -> None:
    outputs, batch = draw(method)
    for i, o in enumerate(outputs):
        o.logits[:] = 0
        o.logits[:, i % K] = size  # now of the own class, now of another
        o.logits[0, :] = size
        o.logits[-1, -1] = -size  # of a class still to come
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        result = loss(method, outputs, batch)
    assert np.isfinite(result.value)
    assert all(np.isfinite(d).all() for d in result.d_logits)


# ---- replay ----


@replaying
@FEW
@given(seed=seeds, other=seeds)
def test_absent_replay_contributes_nothing(method: Method, seed: int, other: int) -> None:
    outputs, batch = draw(method, seed)
    others, other_batch = draw(method, other)
    for i in range(1, 1 + method.draws):
        n = len(batch.parts[i].y)
        batch = with_part(batch, i, weight=np.zeros(n, np.float32))
        other_batch = with_part(other_batch, i, weight=np.zeros(n, np.float32))
    one = loss(method, outputs, batch)
    two = loss(method, [outputs[0], *others[1:]], batch._replace(parts=(batch.parts[0], *other_batch.parts[1:])))
    assert one.value == two.value
    assert np.array_equal(one.d_logits[0], two.d_logits[0])
    assert not any(d.any() for d in one.d_logits[1:])


@replaying
@FEW
@given(seed=seeds, keep=st.lists(st.booleans(), min_size=3, max_size=3))
def test_a_sample_of_weight_0_contributes_nothing(method: Method, seed: int, keep: list[bool]) -> None:
    outputs, batch = draw(method, seed)
    batch = with_part(batch, 1, weight=np.array(keep, np.float32))
    one = loss(method, outputs, batch)
    assert not one.d_logits[1][~np.array(keep)].any()
    outputs[1].logits[~np.array(keep)] += 3
    two = loss(method, outputs, batch)
    assert one.value == two.value
    assert all(np.array_equal(a, b) for a, b in zip(one.d_logits, two.d_logits, strict=True))


# ---- classes ----


@methods
@FEW
@given(seed=seeds)
def test_classes_outside_the_mask_get_no_gradient(method: Method, seed: int) -> None:
    """Current samples: outside `class_mask`; replayed labels: outside the classes seen. Stored logits teach all classes."""
    kind = getattr(method, "class_mask", "seen")
    outputs, batch = draw(method, seed)
    result = loss(method, outputs, batch)
    allowed = {"task": batch.task_mask, "seen": batch.seen_mask, "none": mask_of(range(K))}[kind]
    assert not result.d_logits[0][:, allowed == 0].any()
    labels = result.d_logits[2:] if method.keeps_logits else result.d_logits[1:]
    if kind == "none":
        assert all(d[:, batch.seen_mask == 0].any() for d in (result.d_logits[0], *labels))
    else:
        assert not any(d[:, batch.seen_mask == 0].any() for d in labels)
        outputs[0].logits[:, allowed == 0] += 5
        assert loss(method, outputs, batch).value == result.value


@methods
def test_gradients_of_cross_entropy_add_up_to_nothing(method: Method) -> None:
    """Softmax less one-hot: over the classes of each sample the gradient sums to 0."""
    result = loss(method, *draw(method, dtype=np.float64))
    parts = [d for i, d in enumerate(result.d_logits) if not (method.keeps_logits and i == 1)]
    assert all(abs(d.sum(1)).max() < 1e-12 for d in parts)


# ---- passes and options ----


@methods
def test_passes_cover_every_part_once(method: Method) -> None:
    passes = method.passes()
    assert sorted(i for p in passes for i in p.parts) == list(range(1 + method.draws))
    forward = getattr(method, "forward", "separate")
    assert len(passes) == (1 if forward == "concat" else 1 + method.draws)


@methods
def test_frozen_and_hashable(method: Method) -> None:
    first = next(f.name for f in fields(method))
    with pytest.raises(FrozenInstanceError):
        setattr(method, first, "other")
    assert hash(method) == hash(replace(method))


@pytest.mark.parametrize("name", METHODS)
def test_named_as_registered(name: str) -> None:
    assert METHODS[name].name == name
    assert make_method(name, {}) == make_method(name, options(name))


@pytest.mark.parametrize(("name", "key"), [(n, k) for n in METHODS for k in options(n)])
def test_wrong_values_name_the_key(name: str, key: str) -> None:
    wrong = ("sideways", "") if key in CHOICES else (-1.0, float("nan"), float("inf"))
    for value in wrong:
        with pytest.raises(ConfigError, match=rf"method\.{key}: .*{value}"):
            make_method(name, {key: value})


def test_unknown_methods_and_options_are_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown method 'derp'; known: .*derpp"):
        make_method("derp", {})
    with pytest.raises(ConfigError, match=r"unknown key 'method\.alpha': er has class_mask, forward"):
        make_method("er", {"alpha": 1.0})
    with pytest.raises(ConfigError, match=r"unknown key 'method\.alpha'"):
        Config().set("method", {"name": "er", "alpha": 1.0})
