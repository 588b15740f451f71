"""Passes: in sequence as together, with batch statistics of their own; gradients by source add up."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import reference_net
from engine_cases import (
    NETS,
    PASSES,
    TINY,
    branched,
    data,
    error,
    gradients,
    half_live,
    needs_cuda,
    on_engines,
    on_nets,
    run,
    start,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecl.engines import Engine
from edgecl.engines.base import CURRENT, REPLAY
from edgecl.nets import ZOO, Net, build_net
from edgecl.types import ConfigError, Pass

Setting = tuple[str, Mapping[str, Any]]
APART, TOGETHER = (("torch", {"device": "cpu", "together": t}) for t in (False, True))
on_passes = pytest.mark.parametrize("how", PASSES)


def differences(one: Mapping[str, np.ndarray], two: Mapping[str, np.ndarray], most: float) -> dict[str, float]:
    """Arrays that differ by more than `most`, in parts of the largest value of all."""
    scale = max(float(abs(v).max()) for v in two.values())
    found = {k: float(abs(one[k].astype(np.float64) - two[k]).max()) / scale for k in two}
    return {k: e for k, e in found.items() if e > most}


def statistics(engine: Engine) -> dict[str, np.ndarray]:
    return {k: v for k, v in engine.arrays().items() if ".running_" in k}


# ---- against float64 ----


@on_engines
@on_nets
@on_passes
def test_passes_have_their_own_statistics(engine: Setting, net: Net, how: str) -> None:
    """Logits, features and running statistics: as if each pass had come by itself, one after the other."""
    x, _ = data(net)
    made = start(engine, net)
    exact = reference_net.Result(net, made.arrays(), x, PASSES[how])
    assert max(error(a, b) for a, b in zip(run(made, x, PASSES[how]), exact.outputs(), strict=True)) < 2e-5
    assert differences(statistics(made), exact.buffers(), 1e-5) == {} if exact.buffers() else True


@on_engines
def test_parts_keep_their_order(engine: Setting) -> None:
    """Whatever order the passes name them in, outputs come in the order of the parts, with their sizes."""
    net = branched()
    x, _ = data(net, (2, 5, 3))
    for how in PASSES.values():
        made = start(engine, net)
        outputs = made.forward([made.asarray(a) for a in x], how)
        assert [tuple(o.logits.shape) for o in outputs] == [(2, 5), (5, 5), (3, 5)]
        assert [tuple(o.features.shape) for o in outputs] == [(2, 3), (5, 3), (3, 3)]


# ---- in sequence and together ----


def compare(net: Net, sizes: tuple[int, ...], passes: tuple[Pass, ...], one: Setting, two: Setting, most: float) -> None:
    x, d = data(net, sizes)
    results = []
    for setting in (one, two):
        engine = start(setting, net, momentum=0.5)
        logits = run(engine, x, passes)
        results.append(({str(i): a for i, a in enumerate(logits)}, statistics(engine), gradients(engine, d)))
    for here, there in zip(*results, strict=True):
        assert not here or differences(here, there, most) == {}


@on_nets
@on_passes
@pytest.mark.parametrize("sizes", [(4, 4, 4), (5, 2, 7)], ids=str)
def test_in_sequence_equals_together(net: Net, how: str, sizes: tuple[int, ...]) -> None:
    compare(net, sizes, PASSES[how], APART, TOGETHER, 1e-7 * max(20, len(net.layers())))  # rounding adds up with the depth


@needs_cuda
@on_nets
def test_in_sequence_equals_together_on_a_gpu(net: Net) -> None:
    apart, together = (("torch", {"device": "cuda", "together": t}) for t in (False, True))
    compare(net, (5, 2, 7), PASSES["separate"], apart, together, 1e-5)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_parts_in_any_passes(data: st.DataObject) -> None:
    sizes = tuple(data.draw(st.lists(st.integers(2, 6), min_size=1, max_size=5)))
    order = data.draw(st.permutations(range(len(sizes))))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(sizes)), max_size=3)) | {0, len(sizes)})
    passes = tuple(Pass(tuple(order[a:b])) for a, b in pairwise(cuts))
    compare(build_net(TINY, (1, 8, 8), 10), sizes, passes, APART, TOGETHER, 2e-6)


@on_engines
def test_split_changes_nothing(engine: Setting) -> None:
    net = branched()
    x, d = data(net)
    results = []
    for split in (False, True):
        made = start(engine, net, momentum=0.5)
        run(made, x, PASSES["separate"], split=split)
        results.append(gradients(made, d) | statistics(made))
    assert differences(*results, 1e-5) == {}


# ---- gradients by source ----


def masked(engine: Setting, net: Net, unit: str) -> Engine:
    """With about half of all units live."""
    made, live = start(engine, net, momentum=0.5), half_live(net, unit)
    made.set_masks(live, dict.fromkeys(live, unit))
    return made


@on_engines
@on_passes
def test_sums_by_source_are_separate_gradients(engine: Setting, how: str) -> None:
    """Over live and dead weights alike; the whole gradient is the one that is found without scoring."""
    net, totals = branched(), []
    x, d = data(net)
    for score in (True, False):
        made = masked(engine, net, "weight")
        exact = reference_net.Result(net, made.arrays(), x, PASSES[how])
        run(made, x, PASSES[how], split=score)
        totals.append(gradients(made, d, score=score))
        for source, parts in ((CURRENT, (0,)), (REPLAY, (1, 2))):
            sums = {f"{k}.weight": made.numpy(v) for k, v in made.scores(1)[source].items()}
            wanted = {k: v for k, v in exact.gradients(d, parts).items() if k in sums}
            assert len(wanted) == len(half_live(net, "weight"))
            assert differences(sums, {k: v * score for k, v in wanted.items()}, 2e-5) == {} if score else not any_of(sums)
    assert differences(*totals, 1e-5) == {}


def any_of(sums: Mapping[str, Any]) -> bool:
    return any(np.asarray(v).any() for v in sums.values())


@on_engines
def test_scores_are_means_since_the_last_reset(engine: Setting) -> None:
    """Of steps whose samples differ; the weights stay, as the rate is 0."""
    made, steps = masked(engine, branched(), "kernel"), []
    for seed in (1, 2, 3):
        x, d = data(made.net, seed=seed)
        steps.append(reference_net.Result(made.net, made.arrays(), x, PASSES["separate"]).gradients(d, (0,)))
        run(made, x, PASSES["separate"], split=True)
        gradients(made, d, score=True)
    found = {k: made.numpy(v) for k, v in made.scores(3)[CURRENT].items()}
    assert differences(found, {k: sum(s[f"{k}.weight"] for s in steps) / 3 for k in found}, 1e-5) == {}
    made.reset_scores()
    assert not any(any_of({k: made.numpy(v) for k, v in source.items()}) for source in made.scores(1).values())


@on_engines
def test_without_replay_its_sum_stays_0(engine: Setting) -> None:
    made = masked(engine, branched(), "channel")
    x, d = data(made.net, (4,))
    run(made, x, (Pass((0,)),), split=True)
    gradients(made, d, score=True)
    now, old = ({k: made.numpy(v) for k, v in made.scores(1)[source].items()} for source in (CURRENT, REPLAY))
    assert not any_of(old)
    assert [k for k, v in now.items() if not v.any()] == ["head"]  # the logits don't read it


@on_engines
def test_a_pass_without_a_variance_is_named(engine: Setting) -> None:
    """One sample, whose last stage is a single pixel."""
    made = start(engine, build_net("resnet18", (3, 8, 8), 5, 2))
    x, _ = data(made.net, (1, 2))
    with pytest.raises(ConfigError, match=r"node layer4\.0\.bn1: a pass of one sample has one value a channel"):
        run(made, x, (Pass((0,)), Pass((1,))))
    run(made, x, (Pass((0, 1)),))


def test_every_zoo_net_is_here() -> None:
    assert {*ZOO, "tiny_cnn", "branched", "gated"} == {net.name for net in NETS}
