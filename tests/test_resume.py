"""A run that is killed, at whatever moment, ends bit for bit as one that never was."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from run_cases import SPARCL, begun, events, finished, left_in, planned, remains, ticks, to_end

from edgecl import kernels, session, store
from edgecl.train import train
from edgecl.types import StoreError

SERVER = multiprocessing.get_context("forkserver")  # torch is imported once, and no child inherits threads or state
SERVER.set_forkserver_preload(["edgecl.session", "edgecl.train", "edgecl.engines.torch"])

THREE_TASKS = "data={classes_per_task: 4, samples_per_class: 12}"
FULL = (
    *SPARCL,
    THREE_TASKS,
    "train={momentum: 0.9, weight_decay: 0.001, schedule: cosine, epochs: 3, average: 0.7, bias_correction: true}",
    "tdm.steps=2",
)
OTHER = (*FULL, "tdm.grow=gradient", "mask.unit=weight", "method=er", "train.snapshot_every=2", "dgm.every=3")

Death = tuple[str, int]
"""("step", 4): after the 4th step; ("fsync", 3): in the place of the 3rd fsync; ("write", 2): the 2nd write does half, then …"""


def live(run: str, sets: tuple[str, ...], death: Death | None) -> None:
    """A child's whole life: begins the run or goes on with it."""
    torch.set_num_threads(1)
    folder = Path(run)
    setup, state = session.resume(folder) if (folder / "config.yaml").exists() else session.begin(folder, *planned(*sets))
    what, at = death or ("", 0)
    if what in ("write", "fsync", "replace"):
        setattr(os, what, deadly(getattr(os, what), what, at))
    for n, _ in enumerate(train(setup, state), 1):
        if (what, n) == ("step", at):
            die()
    session.result(setup, state)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def deadly(real: Callable[..., Any], what: str, at: int) -> Callable[..., Any]:
    calls = [0]

    def call(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == at:
            if what == "write":
                real(args[0], args[1][: len(args[1]) // 2])
            die()
        return real(*args, **kwargs)

    return call


def start(run: Path, sets: tuple[str, ...], death: Death | None = None) -> Any:
    child = SERVER.Process(target=live, args=(str(run), sets, death))
    child.start()
    return child


def end(run: Path, sets: tuple[str, ...]) -> dict[str, Any]:
    child = start(run, sets)
    child.join()
    assert child.exitcode == 0
    return left_in(run)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], dict[str, Any]]:
    def run(sets: tuple[str, ...]) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("unbroken") / "run"
        return remains(folder, *finished(folder, *sets))

    return {sets: run(sets) for sets in (FULL, OTHER)}


DEATHS: list[Death] = [
    ("step", 3),  # no snapshot yet
    ("write", 1),  # half an event in metrics.jsonl
    ("fsync", 3),  # in the first snapshot: the masks
    ("replace", 1),  # all is written, and has no name yet
    ("fsync", 12),  # it has its name
    ("step", 5),
    ("write", 9),  # half of the weights
    ("replace", 3),  # the oldest snapshot is about to go
    ("step", 9),
    ("write", 40),
]


def test_killed_at_all_kinds_of_moments(tmp_path: Path, unbroken: dict[tuple[str, ...], dict[str, Any]]) -> None:
    run, newest = tmp_path / "run", []
    for death in DEATHS:
        child = start(run, FULL, death)
        child.join()
        assert child.exitcode == -signal.SIGKILL, death
        newest.append(store.latest(run) or 0)
    assert newest[0] == newest[3] == 0 < newest[4] < newest[-1] < 9  # it gets on, and is not through
    assert end(run, FULL) == unbroken[FULL]


@pytest.mark.parametrize("sets", [FULL, OTHER], ids=["full", "other"])
def test_killed_from_outside_at_any_time(
    tmp_path: Path, unbroken: dict[tuple[str, ...], dict[str, Any]], sets: tuple[str, ...]
) -> None:
    draw, run, kills = random.Random(len(sets)), tmp_path / "run", 0
    for _ in range(6):
        child = start(run, sets)
        while child.exitcode is None and not (run / "metrics.jsonl").exists():
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.2))
        child.kill()
        child.join()
        kills += child.exitcode == -signal.SIGKILL
    assert kills >= 2
    assert end(run, sets) == unbroken[sets]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch finds")
def test_killed_on_a_gpu(tmp_path: Path) -> None:
    sets = (*FULL, "engine={name: torch, device: cuda}")
    start(tmp_path / "killed", sets, ("step", 7)).join()
    assert end(tmp_path / "killed", sets) == end(tmp_path / "unbroken", sets)


def test_a_finished_run_stays_as_it_is(tmp_path: Path, unbroken: dict[tuple[str, ...], dict[str, Any]]) -> None:
    run = tmp_path / "run"
    finished(run, *FULL)
    again = session.resume(run)
    assert [e["event"] for e in to_end(*again)] == ["end"]
    assert remains(run, *again) == unbroken[FULL]


# ---- damage ----


@pytest.mark.parametrize("part", [*store.PARTS, "state.json"])
@pytest.mark.parametrize("harm", ["a byte", "the end", "all of it"])
def test_a_damaged_snapshot_names_the_one_before(tmp_path: Path, part: str, harm: str) -> None:
    setup, state = begun(tmp_path / "run", *FULL)
    steps = ticks(setup, state)
    while state.snapshots < 2:
        next(steps)
    path = tmp_path / "run" / "snapshots" / "002" / part
    data = path.read_bytes()
    if harm == "all of it":
        path.unlink()
    else:
        path.write_bytes(data[:-9] if harm == "the end" else data[:200] + bytes([data[200] ^ 4]) + data[201:])
    with pytest.raises(StoreError) as error:
        session.resume(tmp_path / "run")
    assert str(error.value).startswith(f"{path}: ")
    assert str(error.value).endswith("; remove snapshots/002 to resume from 001")
    assert path.parent.exists()


def test_what_the_line_says_works(tmp_path: Path, unbroken: dict[tuple[str, ...], dict[str, Any]]) -> None:
    run = tmp_path / "run"
    setup, state = begun(run, *FULL)
    steps = ticks(setup, state)
    while state.snapshots < 2:
        next(steps)
    shutil.rmtree(run / "snapshots" / "002")
    again = session.resume(run)
    assert again[1].snapshots == 1
    to_end(*again)
    assert remains(run, *again) == unbroken[FULL]


# ---- elsewhere ----


def warned(run: Path) -> list[str]:
    return [e["message"] for e in events(run, "warning")]


def test_other_threads_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with more cores, with a net that is large enough to use them."""
    run = tmp_path / "run"
    monkeypatch.setattr("edgecl.engines.torch.SMALL", 0)
    monkeypatch.setattr("edgecl.engines.torch.THREADS", 1)
    begun(run, "engine.name=torch", "engine.threads=0", "train.epochs=1")
    assert yaml.safe_load((run / "config.yaml").read_text())["environment"]["threads"] == 1
    monkeypatch.setattr("edgecl.engines.torch.THREADS", 2)
    try:
        said = next(train(*session.resume(run)))
    finally:
        torch.set_num_threads(1)
    text = "the run goes on with threads 1 → 2: it will not be bit-identical to an unbroken one"
    assert isinstance(said, dict)
    assert (said["event"], said["message"]) == ("warning", text)
    assert warned(run) == [text]


def test_threads_that_are_configured_are_kept(tmp_path: Path) -> None:
    begun(tmp_path / "run", "engine.name=torch", "train.epochs=1")
    torch.set_num_threads(2)
    to_end(*session.resume(tmp_path / "run"))
    assert torch.get_num_threads() == 1
    assert warned(tmp_path / "run") == []


ELSEWHERE = """
import sys
from pathlib import Path
from edgecl import session
from edgecl.train import train
for event in train(*session.resume(Path(sys.argv[1]))):
    pass
"""


def test_another_instruction_set_is_said(tmp_path: Path) -> None:
    """In a new interpreter, told to do without the vector instructions that this machine has."""
    run = tmp_path / "run"
    begun(run, "train.epochs=1")
    recorded = yaml.safe_load((run / "config.yaml").read_text())["environment"]
    assert recorded["isa"] == kernels.load().isa
    other = [isa for isa, here in kernels.isas().items() if here and isa != recorded["isa"]]
    if not other:
        pytest.skip("this machine has but one instruction set that the kernels use")
    subprocess.run([sys.executable, "-c", ELSEWHERE, run], env={**os.environ, "EDGECL_ISA": other[0]}, check=True)
    assert [text.split(":")[0] for text in warned(run)] == [f"the run goes on with isa {recorded['isa']} → {other[0]}"]


def test_the_cases_are_as_hard_as_they_say() -> None:
    config = planned(*FULL)[0].config
    assert (config.mask.sparsity, config.ddr.share, config.dgm.share, config.train.momentum) == (0.7, 0.3, 0.6, 0.9)
    assert (config.tdm.enabled, config.method["name"], len(planned(*FULL)[1].tasks)) == (True, "derpp", 3)
