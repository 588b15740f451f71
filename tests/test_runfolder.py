"""The run folder: one run each, one process at a time, and metrics that a resumed run continues as if never stopped."""

from __future__ import annotations

import contextlib
import errno
import json
import multiprocessing
import os
import random
import resource
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgecl import runfolder, store
from edgecl.runfolder import Metrics
from edgecl.types import StoreError

FORK = multiprocessing.get_context("fork")
plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=8,
)
configs = st.dictionaries(st.text(min_size=1, max_size=6), plain_values, max_size=4)


# config.yaml


@settings(max_examples=60, deadline=None)
@given(config=configs)
@example(config={"a\x85\u2028\u2029\ufeff\xa0\0": "\x85", "=": "1:30", "no": "1e3", "e": 1e-5, "ä": "\ud800"})
def test_a_config_comes_back(tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any]) -> None:
    run = tmp_path_factory.mktemp("runs") / "deep" / "a"
    runfolder.create_run(run, config)
    assert runfolder.read_config(run) == config


def test_a_config_is_written_for_people(tmp_path: Path) -> None:
    mean = (0.5, 0.25)
    runfolder.create_run(tmp_path, {"net": {"mean": mean, "std": mean}, "classes": ["Käse"], "budget": "23x"})
    text = (tmp_path / "config.yaml").read_text(encoding="utf-8")
    assert text == "net:\n  mean:\n  - 0.5\n  - 0.25\n  std:\n  - 0.5\n  - 0.25\nclasses:\n- Käse\nbudget: 23x\n"
    assert yaml.safe_load(text)["net"]["mean"] == [0.5, 0.25]


@pytest.mark.parametrize("value", [np.float32(1), np.zeros((9, 9)), range(2), object])
def test_a_config_of_other_values_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(StoreError, match=r"config.yaml: can't hold the config: ") as e:
        runfolder.create_run(tmp_path / "a", {"key": value})
    assert "\n" not in str(e.value)
    assert not (tmp_path / "a").exists()


def test_a_folder_holds_one_run(tmp_path: Path) -> None:
    runfolder.create_run(tmp_path / "a", {"seed": 1})
    with pytest.raises(StoreError, match=r"a: holds a run already"):
        runfolder.create_run(tmp_path / "a", {"seed": 1})
    assert runfolder.read_config(tmp_path / "a") == {"seed": 1}


def test_a_folder_that_is_no_run_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "photos").touch()
    with pytest.raises(StoreError, match=r"is no run folder, and not empty \(it holds 'photos'\)"):
        runfolder.create_run(tmp_path, {})
    assert os.listdir(tmp_path) == ["photos"]
    with pytest.raises(StoreError, match=r"photos: file exists$"):
        runfolder.create_run(tmp_path / "photos", {})
    with pytest.raises(StoreError, match=r"is no run folder \(no config.yaml\)$"):
        runfolder.read_config(tmp_path)
    with pytest.raises(StoreError, match=r"nowhere/config.yaml: no such file or directory$"):
        runfolder.read_config(tmp_path / "nowhere")


def test_a_run_can_be_made_where_making_it_was_killed(tmp_path: Path) -> None:
    (tmp_path / ".config.yaml.01ab.tmp").touch()
    (tmp_path / ".lock").touch()
    runfolder.create_run(tmp_path, {"seed": 1})
    assert runfolder.read_config(tmp_path) == {"seed": 1}


@pytest.mark.parametrize("data", [b"a: [1", b"\xff\xfe\x00", b"- 1\n", b"", b"!!python/object:os.system {}", b"a: \x00"])
def test_a_damaged_config_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(data)
    with pytest.raises(StoreError, match=r"config.yaml: (is not YAML|holds no keys)") as e:
        runfolder.read_config(tmp_path)
    assert "\n" not in str(e.value)


# ledger.json


def test_json_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runfolder.write_json(tmp_path, "ledger.json", {"ratio": 23.5, "name": "Käse"})
    assert json.loads((tmp_path / "ledger.json").read_text(encoding="utf-8")) == {"ratio": 23.5, "name": "Käse"}
    for bad in (float("nan"), {1}, np.float32(1), "\ud800"):
        with pytest.raises(StoreError, match=r"ledger.json: not JSON: "):
            runfolder.write_json(tmp_path, "ledger.json", [bad])
    store.save(tmp_path, 3, store.Snapshot({}, {}, {}, {}))
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError) as e:
        runfolder.write_json(tmp_path, "ledger.json", {})
    assert str(e.value) == f"{tmp_path}/ledger.json: no space left on device; last good snapshot: 003"
    assert json.loads((tmp_path / "ledger.json").read_text(encoding="utf-8"))["ratio"] == 23.5


def full(fd: int, data: Any) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# The lock


def hold(run: Path, ready: Connection) -> None:
    with runfolder.lock_run(run):
        ready.send(True)
        time.sleep(60)


def test_one_process_at_a_time_until_it_dies(tmp_path: Path) -> None:
    ours, theirs = FORK.Pipe(duplex=False)
    child = FORK.Process(target=hold, args=(tmp_path, theirs))
    child.start()
    assert ours.recv()
    with pytest.raises(StoreError) as e, runfolder.lock_run(tmp_path):
        pass
    assert str(e.value) == f"{tmp_path}: is in use by process {child.pid}"
    child.kill()
    child.join()
    for _ in range(2):
        with runfolder.lock_run(tmp_path):
            pass


def test_the_lock_holds_within_a_process_and_ends_with_an_error(tmp_path: Path) -> None:
    with runfolder.lock_run(tmp_path):
        with pytest.raises(StoreError, match=f"in use by process {os.getpid()}$"), runfolder.lock_run(tmp_path):
            pass
        with pytest.raises(StoreError), runfolder.lock_run(tmp_path):  # the first failure took nothing from the holder
            pass
    with contextlib.suppress(KeyError), runfolder.lock_run(tmp_path):
        raise KeyError
    with runfolder.lock_run(tmp_path):
        pass
    with pytest.raises(StoreError, match=r"nowhere/.lock: no such file or directory$"), runfolder.lock_run(tmp_path / "nowhere"):
        pass


def make_run(run: Path, seed: int, done: Connection) -> None:
    try:
        runfolder.create_run(run, {"seed": seed})
        done.send(seed)
    except StoreError:
        done.send(None)


def test_of_many_that_make_the_same_run_one_does(tmp_path: Path) -> None:
    for i in range(5):
        pipes = [FORK.Pipe(duplex=False) for _ in range(4)]
        children = [FORK.Process(target=make_run, args=(tmp_path / str(i), seed, p[1])) for seed, p in enumerate(pipes)]
        for child in children:
            child.start()
        winners = [seed for p in pipes if (seed := p[0].recv()) is not None]
        for child in children:
            child.join()
        assert winners == [runfolder.read_config(tmp_path / str(i))["seed"]]


# metrics.jsonl


def events(first: int, end: int) -> list[dict[str, Any]]:
    return [{"step": n, "loss": 1 / (n + 1), "name": "Käse\n"} for n in range(first, end)]


def write(run: Path, first: int, end: int, offset: int | None = None) -> int:
    with Metrics.open(run, offset) as metrics:
        for event in events(first, end):
            metrics.write(event)
        metrics.sync()
        return metrics.offset


def test_metrics_are_a_line_each(tmp_path: Path) -> None:
    assert runfolder.read_metrics(tmp_path) == []
    size = write(tmp_path, 0, 3)
    data = (tmp_path / "metrics.jsonl").read_bytes()
    assert size == len(data)
    assert [json.loads(line) for line in data.splitlines()] == events(0, 3) == runfolder.read_metrics(tmp_path)
    assert write(tmp_path, 3, 5) == len((tmp_path / "metrics.jsonl").read_bytes())
    assert runfolder.read_metrics(tmp_path) == events(0, 5)


@pytest.mark.parametrize("at", [0, 3])
def test_a_resumed_run_has_the_file_of_an_unbroken_one(tmp_path: Path, at: int) -> None:
    runs = [tmp_path / name for name in ("unbroken", "killed")]
    for run in runs:
        run.mkdir()
    write(runs[0], 0, 9)
    offset = write(runs[1], 0, at)
    write(runs[1], at, 7)  # past the snapshot
    with (runs[1] / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 7, "lo')
    write(runs[1], at, 9, offset)
    assert len({(run / "metrics.jsonl").read_bytes() for run in runs}) == 1


def test_a_torn_end_is_healed_at_every_length(tmp_path: Path) -> None:
    write(tmp_path, 0, 3)
    path = tmp_path / "metrics.jsonl"
    data = path.read_bytes()
    for n in range(len(data)):
        path.write_bytes(data[:n] + b"\0" * (n % 3 * 5))  # a power cut can leave zeros at an end
        whole = data[:n].count(b"\n")
        assert runfolder.read_metrics(tmp_path) == events(0, whole)
        write(tmp_path, whole, 4)
        assert runfolder.read_metrics(tmp_path) == events(0, 4)


def test_a_file_that_lost_what_the_snapshot_saw_is_refused(tmp_path: Path) -> None:
    offset = write(tmp_path, 0, 3)
    path = tmp_path / "metrics.jsonl"
    data = path.read_bytes()
    for at, kept in [(offset, data[:-1]), (offset + 1, data), (offset - 1, data), (offset, b"")]:
        path.write_bytes(kept)
        with pytest.raises(StoreError, match=f"metrics.jsonl: is damaged: no line ends at byte {at}"):
            Metrics.open(tmp_path, at)
        assert path.read_bytes() == kept


def test_what_is_no_event_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    write(tmp_path, 0, 1)
    with Metrics.open(tmp_path) as metrics:
        for bad in (float("nan"), np.float32(1), {1}):
            with pytest.raises(StoreError, match=r"metrics.jsonl: not JSON: "):
                metrics.write({"loss": bad})
    assert runfolder.read_metrics(tmp_path) == events(0, 1)
    for line in (b"?\n", b"[]\n", b'[["a", 1]]\n', b"\xff\n", b"\n"):
        (tmp_path / "metrics.jsonl").write_bytes(b"{}\n" + line + b"{}\n")
        with pytest.raises(StoreError, match=r"metrics.jsonl: line 2 is no JSON object$"):
            runfolder.read_metrics(tmp_path)


def write_with_little_room(run: Path, size: int, pipe: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        write(run, 0, 10_000)
    except StoreError as e:
        pipe.send(str(e))


@pytest.mark.parametrize("size", [0, 100, 1000])
def test_a_full_disk_leaves_whole_lines(tmp_path: Path, size: int) -> None:
    store.save(tmp_path, 1, store.Snapshot({}, {}, {}, {}))
    ours, theirs = FORK.Pipe(duplex=False)
    child = FORK.Process(target=write_with_little_room, args=(tmp_path, size, theirs))
    child.start()
    theirs.close()
    assert ours.recv() == f"{tmp_path}/metrics.jsonl: file too large; last good snapshot: 001"
    child.join()
    data = (tmp_path / "metrics.jsonl").read_bytes()
    assert data.endswith(b"\n") or not data
    assert runfolder.read_metrics(tmp_path) == events(0, data.count(b"\n"))


def keep_writing(run: Path, ready: Connection) -> None:
    ready.send(True)
    write(run, 0, 10**9)


def test_a_kill_at_any_moment_leaves_a_file_that_goes_on(tmp_path: Path) -> None:
    draw = random.Random(0)
    for i in range(5):
        run = tmp_path / str(i)
        run.mkdir()
        ours, theirs = FORK.Pipe(duplex=False)
        child = FORK.Process(target=keep_writing, args=(run, theirs))
        child.start()
        assert ours.recv()
        time.sleep(draw.uniform(0, 0.01))
        child.kill()
        child.join()
        n = len(runfolder.read_metrics(run))
        write(run, n, n + 1)
        assert runfolder.read_metrics(run) == events(0, n + 1)
