"""Learns one lesson after the other in the folder of a place, and pauses where the device is not well."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgecl import budget as budgets
from edgecl import lesson, measure, runfolder, session, store
from edgecl.lesson import Labelled
from edgecl.model import Model, open_model
from edgecl.runtime import lessons
from edgecl.runtime.health import Health
from edgecl.runtime.lessons import Sample
from edgecl.timing import Clock
from edgecl.train import train
from edgecl.types import BudgetError, ConfigError

Say = Callable[[dict[str, Any]], None]

CHECKED = 5.0  # seconds between looks at the device's health
FALL = 0.1  # of accuracy on the classes known before, that a lesson may cost without a word
WAIT = 1.0  # seconds between looks while it pauses

TIMING = "edgecl measure calibrate --like PLACE times this machine"


@dataclass(frozen=True)
class Settings:
    """How lessons are learned."""

    budget: str = ""  # of each lesson
    changes: Mapping[str, Any] = field(default_factory=dict)  # nested keys of the configuration
    size: int = 64  # samples that make a lesson
    seconds: float | None = None  # after which those gathered make a lesson, however few
    write_every: float = 300.0  # seconds of training at least between two snapshots
    held_out: Labelled | None = None  # what lessons are tested on
    health: Health = field(default_factory=Health)
    journal: bool = True  # what is gathered is kept on the disk; false where it lies in files anyway


@dataclass
class Teacher:
    """Goes through lessons in `folder`. Not for several threads at once; `stopping` is asked at every step."""

    folder: Path
    settings: Settings
    say: Say
    stopping: Callable[[], bool]
    written: int = 0  # bytes, by count of the files

    def begin(self, base: Path, samples: Sequence[Sample], number: int) -> Path:
        """Makes lesson `number` of these samples, on top of the run folder `base`; returns its run folder.

        Raises BudgetError where the lesson can't be had for its budget, and what `lesson.prepare` raises.
        """
        run = lessons.at(self.folder, number)
        given = Labelled(np.stack([s.x for s in samples]), [s.label for s in samples])
        model = open_model(base)
        clock = clock_for(model, self.settings.budget)
        if clock is None and budgets.parse(self.settings.budget).timed:
            raise BudgetError(f"budget {self.settings.budget}: how long a lesson takes here is not known; {TIMING}")
        prepared = lesson.prepare(
            model, given, budget=self.settings.budget, changes=self._changes(), held_out=self._held_out(model, given),
            clock=clock,
        )  # fmt: skip
        self.written += lesson.begin(run, model, prepared)
        names = [prepared.stream.class_names[k] for k in prepared.stream.tasks[0].classes]
        executed = prepared.plan.ledger.executed
        self.say({"event": "lesson", "number": number, "samples": len(samples), "classes": names, "flops_planned": executed})
        return run

    def go_on(self, run: Path) -> Path:
        """Learns a lesson that has begun, to its end; returns its run folder.

        Raises Stopped, with a snapshot from which it goes on when called again, BudgetError where it outgrew its budget.
        """
        with runfolder.lock_run(run):
            setup, state = session.resume(run)
            saved = state.snapshots
            try:
                for event in self._minding(train(setup, state, self.stopping)):
                    if isinstance(event, dict):
                        self._tell(event)
                    if state.snapshots != saved:
                        saved = state.snapshots
                        self.written += lesson.size_of(store.place(run, saved))
            except BudgetError as e:
                raise BudgetError(f"{e}; the lesson is set aside in {lessons.set_aside(run)}") from None
            result = session.result(setup, state)
            state.metrics.close()
        self.written += sum((run / name).stat().st_size for name in ("metrics.jsonl", "ledger.json", "result.json"))
        lesson.forget_samples(run)
        lessons.prune(self.folder)
        learned = self._learned(run, result)
        self.say(learned)
        self._mind(learned)
        return run

    def _changes(self) -> dict[str, Any]:
        changes = dict(self.settings.changes)
        changes["train"] = {"snapshot_seconds": self.settings.write_every, **changes.get("train", {})}
        return changes

    def _held_out(self, model: Model, given: Labelled) -> Labelled | None:
        """Those of the classes that this lesson teaches, or that were known."""
        shown = self.settings.held_out
        if shown is None:
            return None
        known = {model.card.classes[k] for k in model.card.seen} | set(given.labels)
        rows = [i for i, label in enumerate(shown.labels) if label in known]
        return Labelled(shown.x[rows], [shown.labels[i] for i in rows]) if rows else None

    def _minding(self, events: Iterator[Any]) -> Iterator[Any]:
        """The same events, with a pause wherever the device needs one."""
        looked = 0.0
        for event in events:
            yield event
            if time.monotonic() - looked >= CHECKED:
                self._pause_while_unwell()
                looked = time.monotonic()

    def _pause_while_unwell(self) -> None:
        why = self.settings.health.check()
        if not why:
            return
        self.say({"event": "pause", "why": "; ".join(why)})
        while self.settings.health.check() and not self.stopping():
            time.sleep(WAIT)
        self.say({"event": "resume"})

    def _tell(self, event: dict[str, Any]) -> None:
        if event["event"] in ("epoch", "warning"):
            self.say({k: event[k] for k in ("event", "epoch", "loss", "right", "message", "seconds") if k in event})

    def _mind(self, learned: Mapping[str, Any]) -> None:
        """Says it where the lesson cost much of what was known before."""
        before, after = learned["old_before"], learned["old"]
        if before is not None and after is not None and before - after > FALL:
            fell = f"fell from {100 * before:.1f} to {100 * after:.1f} %"
            advice = "more samples, more classes at a time or a lower train.rate may help"
            self.say({"event": "warning", "message": f"classes known before {fell}: {advice}"})

    def _learned(self, run: Path, result: Mapping[str, Any]) -> dict[str, Any]:
        before, after = result["accuracy"][0]["class_il"], result["accuracy"][-1]["class_il"]
        base = runfolder.read_config(run)["base"]
        shown = {"old_before": before[0], "old": after[0], "new": after[1] if len(after) > 1 else None}
        tests = {k: base.get(k) for k in ("old_tests", "new_tests")}
        cost = {"seconds": result["seconds"], "peak_rss_bytes": result["peak_rss_bytes"], "bytes_written": self.written}
        path = store.place(run, store.latest(run) or 0)
        return {"event": "learned", "number": int(run.name), "snapshot": str(path), **shown, **tests, **cost}


def clock_for(model: Model, budget: str) -> Clock | None:
    """This machine's calibration where the budget needs one; see lesson.timed_like. None where there is none."""
    if not budgets.parse(budget).timed:
        return None
    try:
        return measure.recall(*lesson.timed_like(model))
    except ConfigError:  # the net's file is not here: there is no calibration of it either
        return None
