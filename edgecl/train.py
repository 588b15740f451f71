"""THE loop: select → forward → loss → backward → gradient mask → step → remember; then curate, mask, evaluate, snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, NoReturn

import numpy as np

from edgecl import average, correction, curate, masks, schedule
from edgecl.data.augment import draw_crops
from edgecl.engines.base import CURRENT, REPLAY, StepResult
from edgecl.evaluate import evaluate
from edgecl.holding import Stopped as Stopped
from edgecl.holding import clocked, hurry, saves, stop_if_due, testing
from edgecl.layout import MaskedLayer, frozen_nodes
from edgecl.schedule import Epoch
from edgecl.state import Setup, State, save
from edgecl.step import train_step
from edgecl.types import F32, I64, Array, Batch, Bools, NumericError, Part

Event = dict[str, Any]
Compiled = Callable[[Batch], StepResult]
Gradients = Mapping[str, Mapping[str, Array]]  # source → layer → weight's shape


class Progress(NamedTuple):
    """Where the loop is; yielded every step, never stored."""

    task: int
    epoch: int
    step: int
    steps: int
    loss: float


class Testing(NamedTuple):
    """A group of classes is about to be tested, which can take longer than a step; never stored. Counts from 1."""

    group: int
    groups: int


def train(setup: Setup, state: State, stopping: Callable[[], bool] = lambda: False) -> Iterator[Event | Progress | Testing]:
    """Trains from wherever `state` is to the end of the stream; yields what happens.

    Raises Stopped after a snapshot when `stopping()` turns true, BudgetError likewise at the budget's end, NumericError
    when the loss is not finite.
    """
    frozen, compiled = None, dict[bool, Compiled]()
    while state.warnings:
        yield state.note({"event": "warning", "message": state.warnings.pop(0)})
    if not state.accuracy:
        yield from _evaluate(setup, state, learned=0)
    while state.at < len(setup.epochs):
        epoch = setup.epochs[state.at]
        if epoch.frozen is not frozen:
            frozen, compiled = epoch.frozen, _compile(setup, state, epoch)
        if not len(state.order):
            _begin_epoch(setup, state, epoch)
        yield from _run_epoch(setup, state, epoch, compiled, stopping)
        yield from _end_epoch(setup, state, epoch)
    yield state.note({"event": "end", "executed": state.ledger.executed})


def _compile(setup: Setup, state: State, epoch: Epoch) -> dict[bool, Compiled]:
    """Whether it gathers gradients → a step; anew when the prefix freezes, since a captured step would go on as before."""
    state.engine.set_frozen(frozen_nodes(setup.plan.net, setup.config) if epoch.frozen else ())
    step = partial(train_step, state.engine, setup.method, setup.stream.preprocess)
    return {score: state.engine.compile(partial(step, score)) for score in (False, True)}


def _begin_epoch(setup: Setup, state: State, epoch: Epoch) -> None:
    if epoch.epoch == 0:
        state.learning = curate.new(len(setup.stream.tasks[epoch.task].train))
        with clocked(state):
            _resize(setup, state, epoch)
    kept = np.flatnonzero(state.learning.kept)
    order = state.rng.permutation(kept)
    state.order = np.resize(order, epoch.steps * setup.config.train.batch)
    state.step, state.skipped, state.loss, state.right = 0, 0, 0.0, 0


def _run_epoch(
    setup: Setup, state: State, epoch: Epoch, compiled: dict[bool, Compiled], stopping: Callable[[], bool]
) -> Iterator[Progress]:
    while state.step < epoch.steps:
        if not state.gathered:  # a snapshot holds no sums of gradients
            stop_if_due(setup, state, epoch, stopping())
            if hurry(setup, state, epoch):
                continue
        with clocked(state):
            result = _one_step(setup, state, epoch, compiled)
        yield Progress(epoch.task, epoch.epoch, state.step, epoch.steps, float(result.loss))


def _one_step(setup: Setup, state: State, epoch: Epoch, compiled: dict[bool, Compiled]) -> StepResult:
    masked = bool(setup.meter.changing(epoch))
    gather = masked and schedule.gathers(setup.config, epoch, state.step)
    refresh = masked and schedule.refreshes(setup.config, state.step)
    price = state.price(setup, gather)
    if refresh:
        state.engine.set_gradient_masks({})  # this step takes all gradients anyway
    positions = _positions(setup, state)
    batch = draw_batch(setup, state, epoch, positions)  # select
    result = compiled[gather](batch)  # forward → loss → backward → gradient mask → step
    if not np.isfinite(result.loss):
        _not_finite(setup, state, epoch, f"loss is {float(result.loss)}", state.engine.nonfinite() or "the loss")
    state.ledger.add_step(*price)
    state.gathered += gather
    if refresh:
        _choose_gradients(setup, state, epoch)
    if gather and not schedule.scoring(setup.config, epoch, state.step):
        _forget_gradients(state)
    _remember(setup, state, epoch, positions, result)
    state.step += 1
    average.add(setup, state, epoch)
    return result


def _positions(setup: Setup, state: State) -> I64:
    batch = setup.config.train.batch
    return state.order[state.step * batch : (state.step + 1) * batch]


def draw_batch(setup: Setup, state: State, epoch: Epoch, positions: I64) -> Batch:
    """The current samples at `positions` of the task, and the method's draws from memory; all crops drawn on the host."""
    data, pre = setup.stream.tasks[epoch.task].train, setup.stream.preprocess
    n, k = len(positions), setup.classes
    crop = draw_crops(state.rng, n, pre)
    now = Part(data.x[positions], crop, data.y[positions], np.ones(n, np.float32), np.zeros((n, k), np.float32))
    draws = [_replay(setup, state, now) for _ in range(setup.method.draws)]
    rate = np.array(schedule.rate(setup.config, epoch, state.step), np.float32)
    return Batch((now, *draws), setup.task_mask(epoch.task), setup.seen_mask(epoch.task), rate)


def _replay(setup: Setup, state: State, now: Part) -> Part:
    """A draw from memory; while it is empty, current samples of weight 0 keep the shapes."""
    n, memory = setup.config.memory.batch or setup.config.train.batch, state.memory
    assert memory is not None
    if not memory.size:
        index = np.resize(np.arange(len(now.y)), n)
        return Part(*(a[index] for a in now))._replace(weight=np.zeros(n, np.float32))
    slots = memory.draw(state.rng, n)
    crop = draw_crops(state.rng, n, setup.stream.preprocess)
    return Part(memory.x[slots], crop, memory.y[slots], np.ones(n, np.float32), memory.logits[slots])


def _remember(setup: Setup, state: State, epoch: Epoch, positions: I64, result: StepResult) -> None:
    """Offers the samples to the memory, and notes which were right among the task's classes."""
    data = setup.stream.tasks[epoch.task].train
    fresh = positions[: epoch.samples]  # a task smaller than a batch repeats its samples: remember each once
    logits: F32 = np.asarray(result.logits)
    allowed = np.where(setup.task_mask(epoch.task) > 0, logits, -np.inf)
    right = allowed.argmax(1) == data.y[positions]
    state.learning = curate.observe(state.learning, positions, right)
    state.loss += float(result.loss)
    state.right += int(right.sum())
    if state.memory is not None:
        rows = slice(0, len(fresh))
        state.memory.add(state.rng, data.x[fresh], data.y[fresh], data.ids[fresh], logits[rows])


def _not_finite(setup: Setup, state: State, epoch: Epoch, what: str, first: str) -> NoReturn:
    raise NumericError(
        f"{what} at task {epoch.task + 1}, epoch {epoch.epoch + 1}, step {state.step + 1}: first in {first}; "
        f"a lower train.rate than {setup.config.train.rate:g} may help; {state.last_good(setup.run)}"
    )


def _end_epoch(setup: Setup, state: State, epoch: Epoch) -> Iterator[Event | Testing]:
    """Curate, change masks, evaluate at a task's end, snapshot."""
    steps = epoch.steps - state.skipped
    if epoch.swap and setup.meter.changing(epoch) and not state.gathered:
        epoch = replace(epoch, swap=False)  # left out for lack of time
    live = sum(int(m.sum()) for m in state.live.values())
    yield state.note(
        {
            "event": "epoch",
            "task": epoch.task,
            "epoch": epoch.epoch,
            "samples": epoch.samples,
            "loss": state.loss / steps,
            "right": state.right / (steps * setup.config.train.batch),
            **({"skipped": state.skipped} if state.skipped else {}),
            "live_units": live,
            "executed": state.ledger.executed,
        }
    )
    if bad := state.engine.nonfinite():  # the last update: its loss was still finite
        _not_finite(setup, state, epoch, "weights are not finite", bad)
    ran = replace(epoch, steps=epoch.steps - state.skipped)  # what haste left out made no choices
    for i, flops in setup.meter.upkeep(state.live_weights(setup), ran).items():
        state.ledger.add_upkeep(i, flops)
    with clocked(state):
        if epoch.scores and setup.meter.changing(epoch):
            _change_masks(setup, state, epoch)
        if epoch.drop:
            state.learning = curate.remove(state.learning, epoch.drop, state.rng)
    state.at, state.step, state.order = state.at + 1, 0, np.zeros(0, np.int64)
    if epoch.last:
        average.take(setup, state)
        yield from _correct(setup, state, epoch)
        yield from _evaluate(setup, state, learned=epoch.task + 1)
    if saves(setup, state, epoch):
        save(setup, state)


def _correct(setup: Setup, state: State, epoch: Epoch) -> Iterator[Event]:
    if epoch.corrects:
        with clocked(state):
            shift = correction.apply(setup, state, epoch)
        yield state.note({"event": "correction", "task": epoch.task, "shift": shift})


# masks


def _resize(setup: Setup, state: State, epoch: Epoch) -> None:
    """At a task's start: random units up to the phase's number."""
    for name, layer in setup.meter.changing(epoch).items():
        missing = layer.target(epoch.expanded) - int(state.live[name].sum())
        state.live[name] = masks.grow(state.live[name], missing, rng=state.rng)
    state.apply_masks(setup)


def _change_masks(setup: Setup, state: State, epoch: Epoch) -> None:
    """Within a task prunes and regrows; settling prunes only. Scores are CWI over the gradients gathered."""
    gradients, swap = state.engine.scores(state.gathered), setup.config.tdm.swap
    layers = setup.meter.changing(epoch)
    before = {name: int(state.live[name].sum()) for name in layers}
    for name, layer in layers.items():
        surplus = before[name] - layer.target(False) if epoch.settle else round(swap * layer.units)
        state.live[name] = masks.prune(state.live[name], _cwi(setup, state, gradients, name, layer), surplus)
    state.apply_masks(setup)  # what is pruned becomes zero, even if it grows back at once
    if epoch.swap:
        for name, layer in layers.items():
            state.live[name] = _regrown(setup, state, gradients, layer, before[name])
        state.apply_masks(setup)
    _forget_gradients(state)


def _forget_gradients(state: State) -> None:
    state.engine.reset_scores()
    state.gathered = 0


def _regrown(setup: Setup, state: State, gradients: Gradients, layer: MaskedLayer, target: int) -> Bools:
    """The layer's mask with `target` live units again, grown at random or by gradient."""
    live = state.live[layer.name]
    missing = target - int(live.sum())
    if setup.config.tdm.grow == "random":
        return masks.grow(live, missing, rng=state.rng)
    total = sum(abs(source[layer.name]) for source in gradients.values())
    return masks.grow(live, missing, score=state.engine.numpy(masks.unit_scores(total, layer.unit)))


def _cwi(setup: Setup, state: State, gradients: Gradients, name: str, layer: MaskedLayer) -> F32:
    tdm = setup.config.tdm
    now, replay = gradients[CURRENT][name], gradients[REPLAY][name]
    importance = masks.cwi(state.engine.weight(name), now, replay, tdm.alpha, tdm.beta)
    score: F32 = state.engine.numpy(masks.unit_scores(importance, layer.unit))
    return score


def _choose_gradients(setup: Setup, state: State, epoch: Epoch) -> None:
    """DGM: until the next choice only the units with the largest gradients are updated."""
    gradients, chosen = state.engine.scores(state.gathered), {}
    for name, layer in setup.meter.changing(epoch).items():
        size = masks.unit_scores(abs(gradients[CURRENT][name] + gradients[REPLAY][name]), layer.unit)
        live = state.engine.asarray(state.live[name])
        chosen[name] = masks.top(size, live, layer.updated(int(state.live[name].sum()), setup.config.dgm.share))
    state.engine.set_gradient_masks(chosen)
    state.chosen = chosen


# evaluation


def _evaluate(setup: Setup, state: State, learned: int) -> Iterator[Event | Testing]:
    """A row of the accuracy matrices: groups learned, and the next one for forward transfer (all of them at first)."""
    stream = setup.stream
    groups = len(stream.groups)
    seen = groups if setup.method.joint and learned else min(stream.before + learned, groups)
    last = schedule.tested(groups, seen if learned else 0, joint=setup.method.joint)
    row = []
    for g in range(last):
        yield Testing(g + 1, last)
        with testing(state):
            row.append(evaluate(state.engine, stream, g, seen))
    state.ledger.add_evaluation(sum(len(stream.tests[g]) for g in range(last)), state.live_weights(setup))
    pad = [None] * (groups - last)
    rows = {"class_il": [a.class_il for a in row] + pad, "task_il": [a.task_il for a in row] + pad}
    state.accuracy.append(rows)
    yield state.note({"event": "task", "learned": learned, **rows})
