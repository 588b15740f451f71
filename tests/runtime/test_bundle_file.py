"""A bundle file is opened where its key is given: checked, predicted with, taught, and as it was signed ever after."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from device_cases import held_out

from edgecl import bundle, runtime
from edgecl.bundle import Wish
from edgecl.model import open_model
from edgecl.runtime.place import find
from edgecl.types import ConfigError, StoreError


@pytest.fixture
def packed(tmp_path: Path, learned: Path) -> tuple[Path, Path]:
    """(bundle file, public key)."""
    public, _ = bundle.keygen(tmp_path / "key.pem")
    bundle.create(learned, tmp_path / "mine.edgecl", tmp_path / "key.pem", Wish("host"))
    return tmp_path / "mine.edgecl", public


def test_it_predicts_and_learns(packed: tuple[Path, Path], learned: Path) -> None:
    path, public = packed
    x = held_out()[0][0]
    with runtime.open(learned) as device:
        said = device.predict(x)
    for _ in range(2):  # unpacked, then as it lies there: checked again
        with runtime.open(path, public=public, size=20, changes={"train": {"epochs": 1}}) as device:
            assert device.predict(x) == said or device.card.classes[-1] == "mug"
            for _ in range(20):
                device.learn(x, "mug")
            snapshot = device.save()
    assert path.with_suffix(".lessons") in snapshot.parents
    assert open_model(snapshot.parents[1]).card.classes[-1] == "mug"


def test_a_key_is_asked_for(packed: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="--pub KEY"):
        find(packed[0])


def test_damage_is_refused_packed_and_unpacked(packed: tuple[Path, Path]) -> None:
    path, public = packed
    folder = find(path, public).learner
    assert folder is not None
    weights = next(folder.rglob("weights.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(StoreError, match="damaged"):
        find(path, public)
    whole = np.frombuffer(path.read_bytes(), np.uint8).copy()
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole.tobytes())
    with pytest.raises(StoreError, match="damaged"):
        find(path, public)
