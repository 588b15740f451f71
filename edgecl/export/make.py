"""One export from end to end: reduced, written, made int8 where that is asked for, and checked before anything is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgecl.export import checks, samples
from edgecl.export.checks import Score
from edgecl.export.formats import chosen
from edgecl.export.int8 import LIMIT, quantised
from edgecl.export.predictors import of_engine
from edgecl.export.reduce import count, reduce
from edgecl.export.samples import Checked
from edgecl.model import Model
from edgecl.types import ConfigError

FLOAT, INT8 = "float", "int8"


@dataclass(frozen=True)
class Exported:
    """A model file, and what its check found. Sizes, times and scores are by FLOAT and INT8."""

    data: bytes
    suffix: str  # of its file
    chip: str  # that int8 is for, or ""
    engine: str  # that the float model was held to
    parity: float  # its largest difference of logits
    scores: Mapping[str, Mapping[str, Score]]  # source of samples → by model; the last source is judged by
    samples: Mapping[str, int]  # source → how many
    bytes: Mapping[str, int]
    ms: Mapping[str, float]  # one sample on one thread
    parameters: tuple[int, int]  # of the whole net, and of what is left of it
    macs: tuple[int, int]
    lost: float  # points that int8 costs, on the last of the samples
    floats: tuple[str, ...]  # what int8 left in float, lest it lose more
    worst: tuple[tuple[str, float], ...]  # what rounds the worst, in dB, where all in int8 lost too much

    @property
    def warning(self) -> str:
        """A line for people where int8 loses more than it may, or had to leave something in float; else ""."""
        named = ", ".join(f"{name} ({db:.0f} dB)" for name, db in self.worst)
        if self.lost > LIMIT + 1e-9:
            return f"int8 loses {self.lost:.1f} points, over {LIMIT}; it rounds the worst in {named}"
        return f"all in int8 it lost over {LIMIT} points; left in float: {', '.join(self.floats)}" if self.floats else ""


def export(model: Model, target: str, chip: str = "", file: Path | None = None, tests: int = 0) -> Exported:
    """`target` and `chip` as `chosen` knows them; samples from `file`, else from the replay memory; also judged by at most
    `tests` test samples, where the data set is here.

    Raises ConfigError for a target that is unknown or not installed and for int8 without real samples, DataError for a wrong
    file, NumericError where the float model is not the net.
    """
    format_, int8, chip = chosen(target, chip)
    sets = _samples(model, file, tests, real=int8)
    found = reduce(model.net, model.weights, model.card.seen)
    data = {FLOAT: format_.write(found, model.card)}
    predict = {k: format_.predictor(v) for k, v in data.items()}
    name, engine = of_engine(model)
    logits = {s.source: {FLOAT: predict[FLOAT](s.x)} for s in sets}
    first, judge = sets[0], sets[-1]
    parity = checks.parity(logits[first.source][FLOAT], engine(first.x), f"engine {name}")
    small = None
    if int8:
        small = quantised(format_, data[FLOAT], model.card, first.x, judge, logits[judge.source][FLOAT], chip)
        data[INT8], predict[INT8] = small.data, small.predict
        for s in sets:
            logits[s.source][INT8] = small.logits if s is judge else small.predict(s.x)
    whole, left = count(model.net), count(found.net)
    return Exported(
        data=small.data if small else data[FLOAT],
        suffix=format_.suffix,
        chip=chip,
        engine=name,
        parity=parity,
        scores={s.source: checks.scores(model.card, s, logits[s.source], FLOAT) for s in sets},
        samples={s.source: len(s.x) for s in sets},
        bytes={k: len(v) for k, v in data.items()},
        ms=checks.times(predict, sets[0].x[:1]),
        parameters=(whole[0], left[0]),
        macs=(whole[1], left[1]),
        lost=small.lost if small else 0.0,
        floats=small.floats if small else (),
        worst=small.worst if small else (),
    )


def _samples(model: Model, file: Path | None, tests: int, *, real: bool) -> list[Checked]:
    """What is known here: the first to calibrate with, the last to judge by."""
    own = samples.of_model(model, file)
    if real and own is None:
        method = model.config.method["name"]
        raise ConfigError(f"export: method {method} keeps no replay memory to calibrate int8 with; give --samples FILE.npz")
    test = samples.of_tests(model.config, model.card, tests)
    return [s for s in (own, test) if s] or [samples.noise(model.card)]
