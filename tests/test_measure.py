"""A calibration really times steps, is kept for its machine and net alone, and survives a damaged cache."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from run_cases import configured, digits

from edgecl import measure
from edgecl.config import Config
from edgecl.timing import WORK, Clock
from edgecl.types import Stream

CLOCK = Clock((1e-12,) * len(WORK), 16, 1e-9, 1e-9, None, "made up", True, 0.1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def case(*sets: str) -> tuple[Config, Stream]:
    return configured("engine.name=native", *sets), digits(5, 20)


def test_calibrating_prices_what_steps_take() -> None:
    config, stream = case()
    told: list[tuple[int, int]] = []
    clock = measure.calibrate(config, stream, lambda done, of: told.append((done, of)), time.thread_time)
    assert told[-1][0] >= measure.ENOUGH
    assert clock.measured
    assert all(p >= 0 for p in clock.prices)
    timings, change = measure.time_steps(measure.points(config)[1], stream, time.thread_time)
    assert {t.gather for t in timings} == {False, True}
    assert change is not None
    assert change > 0
    for t in timings:
        assert 0.2 < float(clock.step(t.work).sum()) / t.seconds < 5  # of the right size


def test_points_vary_only_what_the_planner_does() -> None:
    config, _ = case("train.batch=16", "memory.batch=8")
    found = measure.points(config)
    assert (
        len({(p.net.width, p.mask.sparsity, p.train.batch, p.engine.storage) for p in found}) == len(found) == len(measure.POINTS)
    )
    assert {(p.train.batch, p.memory.batch) for p in found} == {(16, 8), (8, 4)}
    dense = measure.points(config.set("engine.name", "torch"))
    assert {p.mask.sparsity for p in dense} == {0.0}


def test_a_calibration_is_kept_for_its_own_kind() -> None:
    config, stream = case()
    assert measure.recall(config, stream) is None
    path = measure.keep(config, stream, CLOCK)
    assert measure.recall(config, stream) == CLOCK
    assert measure.recall(config.set("mask.sparsity", 0.9).set("net.width", 4), stream) == CLOCK
    for key, value in (("method", "er"), ("engine.threads", 3), ("engine.name", "torch"), ("net.name", "mlp")):
        assert measure.recall(config.set(key, value), stream) is None, key
    path.write_text("{")
    assert measure.recall(config, stream) is None
    measure.keep(config, stream, replace(CLOCK, watts=3.0))
    assert measure.recall(config, stream).watts == 3.0


def test_another_processor_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    config, stream = case()
    measure.keep(config, stream, CLOCK)
    monkeypatch.setattr(measure.environment, "cpu_name", lambda: "another")
    assert measure.recall(config, stream) is None


def test_a_meter_is_read_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "METER", tmp_path / "none")
    assert measure.meter() is None
    for name, energy in (("intel-rapl:0", "1500000"), ("intel-rapl:1", "500000"), ("intel-rapl:0:0", "999")):
        (tmp_path / "cap" / name).mkdir(parents=True)
        (tmp_path / "cap" / name / "energy_uj").write_text(energy)
    monkeypatch.setattr(measure, "METER", tmp_path / "cap")
    assert measure.meter() == 2.0  # the packages, and not their parts again
