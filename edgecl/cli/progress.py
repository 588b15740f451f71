"""A run as a sequence of events: where it is at every step, and what the loop has to tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, NamedTuple

from edgecl import plan, schedule
from edgecl.state import Setup, State
from edgecl.train import Event, Progress, Testing, train


class Tick(NamedTuple):
    """After a step: `done` of `total` in the whole run; task and epoch count from 1."""

    done: int
    total: int
    task: int
    tasks: int
    epoch: int
    epochs: int
    loss: float
    ratio: float  # dense FLOPs up to here / executed ones


class Course:
    """What a run's steps are counted against, its own schedule and the dense baseline's."""

    def __init__(self, setup: Setup) -> None:
        sizes = [len(t.train) for t in setup.stream.tasks]
        dense = [e.steps for e in schedule.epochs(plan.baseline(setup.config), sizes)]
        self.tasks, self.epochs = len(sizes), setup.config.train.epochs
        self.starts = [0, *accumulate(e.steps for e in setup.epochs)]
        self.dense_starts = [0, *accumulate(dense)]
        self.dense_price = setup.plan.dense.executed / sum(dense)  # of a step; all of them cost the same

    def tick(self, state: State, at: Progress) -> Tick:
        """Call it before the loop goes on from `at`."""
        done = self.starts[state.at] + at.step
        dense_steps = self.dense_starts[state.at + 1] - self.dense_starts[state.at]
        dense = self.dense_price * (self.dense_starts[state.at] + dense_steps * at.step / at.steps)
        ratio = dense / state.ledger.executed
        return Tick(done, self.starts[-1], at.task + 1, self.tasks, at.epoch + 1, self.epochs, at.loss, ratio)


def follow(setup: Setup, state: State, stopping: Callable[[], bool]) -> Iterator[Tick | Testing | Event]:
    """train.train, with its steps as ticks. Raises what it raises."""
    course = Course(setup)
    for event in train(setup, state, stopping):
        yield course.tick(state, event) if isinstance(event, Progress) else event


PASSING: dict[str, type[Tick] | type[Testing]] = {"tick": Tick, "testing": Testing}
"""What a run shows and does not store."""


def as_line(event: Tick | Testing | Event) -> dict[str, Any]:
    """For a line of JSON; `from_line` reads it back."""
    names = {kind: name for name, kind in PASSING.items()}
    return dict(event) if isinstance(event, dict) else {"event": names[type(event)], **event._asdict()}


def from_line(line: dict[str, Any]) -> Tick | Testing | Event:
    kind = PASSING.get(str(line.get("event")))
    return kind(**{k: line[k] for k in kind._fields}) if kind else line
