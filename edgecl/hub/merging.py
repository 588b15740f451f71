"""The merge job: what waits becomes a model, or is refused with a reason. Deterministic, apart from the server, alone by a lock.

Verify → decode beside the base → put on the newest base → screen → merge → accuracy on the held-out samples → publish. It takes
what is there and waits for nobody. Killed at any moment, the next one goes on: a model and what became of its updates are one
transaction; a run folder that no row names is made anew; publishing is repeated until the metadata name the model.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from sqlalchemy import Engine

from edgecl.hub import heldout, place, publishing, repository, store, window
from edgecl.hub.current import Current
from edgecl.hub.current import current as current_model
from edgecl.hub.place import Place
from edgecl.hub.settings import Settings
from edgecl.hub.store.updates import MERGED, REFUSED, STORED, Judged
from edgecl.merge import Contribution, Judge, Merged, mean_accuracy, merge, rebased, recalibrated, screen_all, write_run
from edgecl.merge import Settings as Rules
from edgecl.model import open_model
from edgecl.types import ConfigError, DataError
from edgecl.update.header import peek
from edgecl.update.payload import decode

MERGES_AT_ONCE = 100  # in one call of the job


class Outcome(NamedTuple):
    """What one merge came to."""

    model: int  # 0: refused
    updates: int
    accuracy: float | None
    before: float | None
    reason: str


def run(here: Place, known: Settings, engine: Engine) -> list[Outcome]:
    """Merges what waits, model after model; ends what an earlier job left. TUF's timestamps are kept young first: a merge that
    fails must not let them expire. Raises StoreError."""
    outcomes: list[Outcome] = []
    repository.refresh_timestamp(here.root)
    with place.alone(here, "merge"):
        publishing.publish_pending(here, known, engine)
        while len(outcomes) < MERGES_AT_ONCE and (done := merge_once(here, known, engine)) is not None:
            outcomes.append(done)
        publishing.remove_payloads(here, known, engine)
    return outcomes


def merge_once(here: Place, known: Settings, engine: Engine) -> Outcome | None:
    """None where nothing waits, or only what was refused together before: then it goes on to those that came later."""
    began, current = time.monotonic(), current_model(here, engine)
    tried = {m.inputs for m in store.merges(engine, MERGES_AT_ONCE)}
    for one in window.windows(current, known):
        enough = bool(one.taken) and len(one.taken) >= known.merging.at_least
        if (not enough and not one.found) or one.inputs in tried:
            continue
        taken, refused = _contributions(current, one.taken, known) if enough else ([], [])
        return _Job(here, known, engine, current, one.taken, one.inputs, began).end(taken, one.found + refused)
    return None


@dataclass
class _Job:
    """One merge under way."""

    here: Place
    known: Settings
    engine: Engine
    current: Current
    waiting: list[store.Update]
    inputs: str
    began: float

    @property
    def rules(self) -> Rules:
        return rules_of(self.known)

    def end(self, taken: list[Contribution], found: list[Judged]) -> Outcome:
        """Screens, merges, judges, and writes down what came of it."""
        base, judge = self.current.base, self._judge(self.current.base.net, self.current.base.classes)
        screened = screen_all(base, taken, self.rules, judge)
        found += [_judged(c, REFUSED, screened.refused[_key(c)]) for c in taken if _key(c) in screened.refused]
        before = mean_accuracy(judge(base.weights, base.live))
        if not screened.taken:
            return self._refused(found, before, None, "nothing to merge")
        best = max(before, reached(store.models(self.engine)))
        merged, after = self._best(screened.taken, best - self.known.merging.may_lose)
        if after < best - self.known.merging.may_lose:
            reason = f"accuracy on the held-out samples fell from {100 * best:.2f} to {100 * after:.2f} %"
            return self._refused(found + self._again(screened.taken, reason), before, after, reason)
        return self._published(merged, screened.taken, found, before, after)

    def _best(self, taken: Sequence[Contribution], enough: float) -> tuple[Merged, float]:
        """The merged model at the first rate that reaches `enough`, of the rules' and halves of it: lessons that came to the same
        on bases of their own, added one after the other, go too far. Else the last, with its accuracy."""
        rate = self.rules.rate
        for halvings in range(self.known.merging.rates):
            merged, accuracy = self._settled(merge(self.current.base, taken, replace(self.rules, rate=rate / 2**halvings)))
            if accuracy >= enough:
                break
        return merged, accuracy

    def _settled(self, merged: Merged) -> tuple[Merged, float]:
        """With batch norm's statistics as merged, or taken anew of the model's replay memory: whichever is right more often."""
        memory = self.current.model.memory
        choices = [(merged, self._accuracy(merged))]
        if memory is not None and memory.size > 1:
            anew = recalibrated(merged, self.current.model.card.preprocess, memory.x[: memory.size])
            choices.append((anew, self._accuracy(anew)))
        return max(choices, key=lambda c: c[1])

    def _judge(self, net: object, classes: tuple[str, ...]) -> Judge:
        return heldout.judge(self.here.held_out, self.current.model.card, net, classes)  # type: ignore[arg-type]

    def _accuracy(self, merged: Merged) -> float:
        """Over the classes of the base, told apart from the new ones too: those can only make it harder."""
        found = self._judge(merged.net, merged.classes)(merged.weights, merged.live)
        return mean_accuracy({k: v for k, v in found.items() if k in self.current.base.classes})

    def _again(self, taken: Sequence[Contribution], reason: str) -> list[Judged]:
        """They may be good together with others: each gets so many attempts."""
        rows = {(u.device, u.sequence): u.attempts + 1 for u in self.waiting}
        out = []
        for c in taken:
            attempts = rows[_key(c)]
            over = attempts >= self.known.merging.attempts
            out.append(_judged(c, REFUSED if over else STORED, f"{reason}, in {attempts} merges")._replace(attempts=attempts))
        return out

    def _refused(self, found: list[Judged], before: float, after: float | None, reason: str) -> Outcome:
        row = store.Merge(
            self.inputs, 0, self.current.row.number, len(found), after, before, reason, time.monotonic() - self.began
        )
        with store.writing(self.engine) as db:
            store.judged(db, found)
            store.add_merge(db, row)
        return Outcome(0, len(found), after, before, reason)

    def _published(
        self, merged: Merged, taken: Sequence[Contribution], found: list[Judged], before: float, after: float
    ) -> Outcome:
        number = self.current.row.number + 1
        folder = self.here.model(number)
        shutil.rmtree(folder, ignore_errors=True)  # of a job that was killed before its row
        write_run(folder, self.here.model(self.current.row.content), merged)
        made = publishing.row(
            number, open_model(folder), f"merged of {len(taken)} updates", parent=self.current.row.number,
            accuracy=after, before=before, updates=len(taken),
        )  # fmt: skip
        found += [_judged(c, MERGED, "")._replace(model=number) for c in taken]
        seconds = time.monotonic() - self.began
        with store.writing(self.engine) as db:
            store.add_model(db, made, "hub")
            store.judged(db, found)
            base = self.current.row.number
            store.add_merge(db, store.Merge(self.inputs, number, base, len(taken), after, before, "", seconds))
        publishing.publish_pending(self.here, self.known, self.engine)
        return Outcome(number, len(taken), after, before, "")


def reached(models: Sequence[store.Model]) -> float:
    """The best accuracy of the models since the last that was given or rolled back to, `models` being the newest first: small
    losses do not add up. Those before a class was added were asked for fewer classes, and do not count."""
    best = 0.0
    for made, parent in pairwise(models):
        if not made.updates or made.classes != parent.classes:
            break
        best = max(best, made.accuracy or 0.0, made.before or 0.0)
    return best


def rules_of(known: Settings) -> Rules:
    """What edgecl.merge goes by. Raises ConfigError that names the key of hub.yaml."""
    try:
        return Rules(**known.merging.rules)
    except TypeError as e:
        raise ConfigError(f"hub.yaml: merging.rules: {e}") from None


def _contributions(current: Current, taken: Sequence[store.Update], known: Settings) -> tuple[list[Contribution], list[Judged]]:
    """What can be merged, and what is refused at once."""
    shared = store.shared(current.engine) | set(current.base.classes)
    read = [_read(current, update, shared, known.merging.max_age) for update in taken]
    return [c for c in read if isinstance(c, Contribution)], [r for r in read if isinstance(r, Judged)]


def _read(current: Current, update: store.Update, shared: frozenset[str], max_age: int) -> Contribution | Judged:
    try:
        return _contribution(current, update, shared, max_age)
    except (DataError, ConfigError) as e:
        return Judged(update.device, update.sequence, REFUSED, str(e))


def _contribution(current: Current, update: store.Update, shared: frozenset[str], max_age: int) -> Contribution:
    payload = window.verified(current.here, current.engine, update)
    snapshot = peek(payload).base
    age = current.aged(snapshot, max_age)
    if age == 0:
        read = decode(payload, current.base)
    else:
        old = current.older(snapshot)
        read = decode(payload, old)
        if snapshot != current.base.snapshot:
            read = rebased(read, old, current.base)
    return Contribution(read, update.device, update.sequence, age, frozenset(set(read.classes) - shared))


def _key(c: Contribution) -> tuple[str, int]:
    return c.device, c.sequence


def _judged(c: Contribution, state: str, reason: str) -> Judged:
    learned = window.told(c.update.classes, c.update.samples)
    return Judged(c.device, c.sequence, state, reason, base=c.update.base, samples=sum(c.update.samples), classes=learned)
