"""Neither a kill, nor a full disk, nor a failure at any call costs a run the snapshot that it had."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import resource
import time
from collections.abc import Iterator
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecl import store
from edgecl.store import Snapshot
from edgecl.types import StoreError

FORK = multiprocessing.get_context("fork")  # a child starts at once, and no import of its own takes time


def example(number: int, size: int = 20) -> Snapshot:
    """A snapshot that tells its number in every part."""
    rng = np.random.default_rng(number)
    masks = {"fc": rng.random((size, 3)) < 0.5}
    return Snapshot({"fc": rng.random((size, 3))}, masks, {"y": rng.integers(0, 10, size)}, {"step": number})


def same(a: Snapshot, b: Snapshot) -> bool:
    pairs = zip(a[:3], b[:3], strict=True)
    return a.state == b.state and all(x.keys() == y.keys() and all(np.array_equal(x[k], y[k]) for k in x) for x, y in pairs)


def saved(run: Path, *numbers: int) -> Path:
    for n in numbers:
        store.save(run, n, example(n))
    return run


def names(run: Path) -> list[str]:
    return sorted(os.listdir(run / "snapshots"))


def all_whole(run: Path, size: int = 20) -> bool:
    """Every snapshot that has its name, the ones being removed among them."""
    return all(same(store.load(run, int(n)), example(int(n), size)) for n in names(run) if not n.startswith("."))


def keep_saving(run: Path, first: int, acks: Connection) -> None:
    for n in count(first):
        store.save(run, n, example(n, size=3000))
        acks.send(n)


def test_a_kill_at_any_moment_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    draw, newest = random.Random(1), 0
    for _ in range(25):
        ours, theirs = FORK.Pipe(duplex=False)
        child = FORK.Process(target=keep_saving, args=(tmp_path, newest + 1, theirs))
        child.start()
        theirs.close()
        newest = max(newest, ours.recv())
        time.sleep(draw.uniform(0, 0.02))
        child.kill()
        child.join()
        newest = max([newest, *received(ours)])
        number = store.latest(tmp_path)
        assert number in (newest, newest + 1)  # one more may be whole without having been announced
        assert all_whole(tmp_path, size=3000)
        newest = number
    saved(tmp_path, newest + 1)
    assert names(tmp_path) == [f"{newest:03d}", f"{newest + 1:03d}"]


def received(pipe: Connection) -> Iterator[int]:
    try:
        while True:
            yield pipe.recv()
    except EOFError:
        return


class Faults:
    """Lets the calls that change the disk fail: the `at`-th, or all from there on. A failing write still writes half."""

    def __init__(self, at: int, stays: bool, code: int = errno.ENOSPC) -> None:
        self.at, self.stays, self.code, self.calls = at, stays, code, 0

    def __call__(self, patch: pytest.MonkeyPatch) -> None:
        for name in ("open", "write", "fsync", "replace", "mkdir", "unlink", "rmdir"):
            patch.setattr(os, name, self.wrap(name, getattr(os, name)))

    def wrap(self, name: str, real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == self.at or (self.stays and self.calls > self.at):
                if name == "write":
                    real(args[0], args[1][: len(args[1]) // 2])
                raise OSError(self.code, os.strerror(self.code))
            return real(*args, **kwargs)

        return call


@pytest.mark.parametrize("stays", [False, True])
def test_a_failure_at_any_call_leaves_a_good_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stays: bool) -> None:
    for at in count(1):
        run = tmp_path / str(at)
        run.mkdir()
        saved(run, 1, 2)
        faults, said = Faults(at, stays), ""
        with monkeypatch.context() as patch:
            faults(patch)
            try:
                saved(run, 3)
            except StoreError as e:
                said = str(e)
        if faults.calls < at:
            break
        good = store.latest(run)
        assert good in (2, 3)
        assert all_whole(run)
        assert not said or said.endswith(f": no space left on device; last good snapshot: {good:03d}")
        assert said or good == 3
        saved(run, 4)
        assert names(run) == [f"{good:03d}", "004"]  # and nothing hidden
        assert all_whole(run)
    assert at > 30  # or the faults went past what they were meant for


def save_with_little_room(run: Path, size: int, pipe: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        store.save(run, 2, example(2, size=3000))
    except StoreError as e:
        pipe.send(str(e))


@pytest.mark.parametrize("size", [0, 500, 60_000])
def test_a_file_that_the_system_keeps_short(tmp_path: Path, size: int) -> None:
    saved(tmp_path, 1)
    ours, theirs = FORK.Pipe(duplex=False)
    child = FORK.Process(target=save_with_little_room, args=(tmp_path, size, theirs))
    child.start()
    theirs.close()
    said = ours.recv()
    child.join()
    assert said == f"{tmp_path}/snapshots/002/weights.safetensors: file too large; last good snapshot: 001"
    assert names(tmp_path) == ["001"]
    assert same(store.load(tmp_path, 1), example(1))
