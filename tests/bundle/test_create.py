"""What is in a bundle, and that equal inputs give equal bytes."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from bundle_cases import members
from wheel_cases import wheel

from edgecl import bundle
from edgecl.bundle import Wish, container, selftest
from edgecl.bundle.contents import fits
from edgecl.model import Model, open_model
from edgecl.types import ConfigError, StoreError


def test_files_of_a_bundle(run: Path, made: Path) -> None:
    number = open_model(run).folder.name
    parts = [
        f"learner/snapshots/{number}/{n}"
        for n in ("masks.safetensors", "memory.safetensors", "state.json", "weights.safetensors")
    ]
    names = [n for n, _ in members(made)]
    assert names == ["manifest.json", "manifest.sig", "LICENSES.txt", "card.json", "learner/config.yaml", *parts]
    files = dict(members(made))
    assert files["learner/config.yaml"] == (run / "config.yaml").read_bytes()
    assert all(files[p] == (run / p.removeprefix("learner/")).read_bytes() for p in parts)
    assert b"CC BY 4.0" in files["LICENSES.txt"]
    assert json.loads(files["card.json"])["seen"] == list(range(10))


def test_an_older_snapshot(run: Path, private: Path, public: Path, tmp_path: Path) -> None:
    bundle.create(run, tmp_path / "x.edgecl", private, Wish("host", snapshot=1))
    folder = bundle.open_bundle(tmp_path / "x.edgecl", public)
    assert bundle.read_card(folder).seen == tuple(range(5)) == open_model(folder / "learner").card.seen
    with pytest.raises(StoreError, match="no snapshot 009"):
        bundle.create(run, tmp_path / "y.edgecl", private, Wish("host", snapshot=9))


def test_a_snapshots_folder(run: Path, private: Path, made: Path, tmp_path: Path) -> None:
    folder = open_model(run).folder
    bundle.create(folder, tmp_path / "x.edgecl", private, Wish("host"))
    assert (tmp_path / "x.edgecl").read_bytes() == made.read_bytes()
    with pytest.raises(ConfigError, match="asks for 9"):
        bundle.create(folder, tmp_path / "x.edgecl", private, Wish("host", snapshot=9))


def test_equal_inputs_give_equal_bytes(run: Path, private: Path, made: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "elsewhere")
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    bundle.create(copy, tmp_path / "again.edgecl", private, Wish("host"))
    assert (tmp_path / "again.edgecl").read_bytes() == made.read_bytes()


def test_any_reader_of_archives_lists_it(made: Path) -> None:
    with tarfile.open(made, "r:") as archive:
        assert {(m.type, m.mode, m.mtime, m.uid, m.uname) for m in archive} == {(tarfile.REGTYPE, 0o644, 0, 0, "")}


def test_a_header_by_hand() -> None:
    block = container.header("card.json", 8)
    assert len(block) == 512
    assert block[:10] == b"card.json\0"
    assert block[124:136] == b"00000000010\0"
    assert int(block[148:154], 8) == sum(block[:148]) + sum(block[156:]) + 8 * 32
    assert block[257:265] == b"ustar\x0000"


def test_the_self_test_expects_what_the_model_says(run: Path, made: Path, public: Path) -> None:
    test, model = bundle.verify(made, public).manifest.selftest, open_model(run)
    assert test.source == "memory"
    assert model.memory is not None
    assert len(test.samples) == 16
    right = np.mean(model.memory.y[list(test.samples)] == np.array(test.predicted))
    assert right > 0.5  # it learned these


def test_the_self_test_takes_no_close_call() -> None:
    logits = np.array([[0, 1, 0.99], [5, 0, 1], [0, 0.05, 0]], np.float32)
    assert (selftest._margins(logits) >= selftest.MARGIN).tolist() == [False, True, False]


def test_patterns() -> None:
    x = selftest.pattern((1, 2, 2), [0, 3])
    assert x.tolist() == [[[[0, 1], [2, 3]]], [[[93, 100], [107, 114]]]]


def test_a_model_without_memory(run: Path) -> None:
    model = open_model(run)._replace(memory=None)
    test = selftest.expectation(model)
    assert test.source == "pattern"
    assert test.samples
    assert set(test.predicted) <= set(model.card.seen)
    assert selftest.expectation(model._replace(card=replace(model.card, seen=()))).source == "none"


def test_weights_that_are_no_numbers(run: Path) -> None:
    model = open_model(run)
    model.weights[next(k for k in model.weights if k.endswith("weight"))][:] = np.nan
    with pytest.raises(StoreError, match="not a finite number"):
        selftest.expectation(model)


def test_a_board_gets_services_and_wheels(run: Path, private: Path, public: Path, tmp_path: Path) -> None:
    wheels = wheel(tmp_path / "wheels", "edgecl-0.1.0-py3-none-manylinux_2_34_aarch64.whl", "License-Expression: Apache-2.0")
    wheel(wheels, f"longer-1.0-cp311-cp311-{'.'.join(f'manylinux_2_{n}_aarch64' for n in (17, 27, 28))}.whl")
    wheel(wheels, "pure-1.0-py3-none-any.whl", "License: UNKNOWN\nClassifier: License :: OSI Approved :: BSD License")
    notes, out = tmp_path / "notes.txt", tmp_path / "x.edgecl"
    notes.write_text("Mine: CC0\n")
    limits = {"memory_bytes": 256_000_000, "cpu_percent": 75}
    bundle.create(run, out, private, Wish("rpi", wheels=wheels, notes=notes, limits=limits))
    files = dict(members(out))
    assert max(map(len, files)) > 100
    assert {
        "install.sh",
        "edgecl-run.service",
        "edgecl-learn.service",
        "edgecl-sync.service",
        "wheels/pure-1.0-py3-none-any.whl",
    } <= files.keys()
    for unit in ("edgecl-run.service", "edgecl-learn.service", "edgecl-sync.service"):
        text = files[unit].decode()
        assert "\nMemoryMax=256000000\n" in text
        assert "\nCPUQuota=75%\n" in text
        assert "\nNoNewPrivileges=yes\nProtectSystem=strict\n" in text
        assert "@" not in text
    assert "--budget 204MB " in files["edgecl-learn.service"].decode()
    said = files["LICENSES.txt"].decode()
    assert "aarch64.whl: Apache-2.0\n" in said
    assert "any.whl: OSI Approved :: BSD License\n" in said
    assert said.endswith("\nMine: CC0\n")
    assert bundle.verify(out, public).manifest.machine == "aarch64"


def test_a_32_bit_board_only_predicts(run: Path, private: Path, tmp_path: Path) -> None:
    model, out = tmp_path / "small.tflite", tmp_path / "x.edgecl"
    model.write_bytes(b"TFL3")
    manifest = bundle.create(run, out, private, Wish("rpi-32", models=[model]))
    assert manifest.machine == "armv7l"
    assert set(manifest.files) == {"card.json", "LICENSES.txt", "model.tflite"}
    assert manifest.selftest.source == "none"
    wheels = wheel(tmp_path / "wheels", "tflite_runtime-2.14.0-cp311-cp311-manylinux_2_34_armv7l.whl")
    assert "wheels/" in str(bundle.create(run, out, private, Wish("rpi-32", models=[model], wheels=wheels)).files)
    assert "cannot learn" in bundle.TARGETS["rpi-32"].about


def test_wishes_that_cannot_be_granted(run: Path, private: Path, tmp_path: Path) -> None:
    onnx, other = tmp_path / "m.onnx", tmp_path / "m.pt"
    onnx.write_bytes(b"x")
    x86 = wheel(tmp_path / "x86", "edgecl-0.1.0-py3-none-manylinux_2_34_x86_64.whl")
    foreign = wheel(tmp_path / "foreign", "pure-1.0-py3-none-any.whl")
    (wheel(tmp_path / "broken", "edgecl-0.1.0-py3-none-any.whl") / "edgecl-0.1.0-py3-none-any.whl").write_bytes(b"PK")
    refused = {
        "did you mean 'rpi'": Wish("rpy"),
        "another .onnx": Wish("host", models=[onnx, onnx]),
        "runs files that end in .onnx, .tflite": Wish("host", models=[other]),
        "runs files that end in .tflite": Wish("rpi-32", models=[onnx]),
        "needs a model": Wish("host", learner=False),
        "not for aarch64": Wish("rpi", wheels=x86),
        "no wheel of edgecl": Wish("rpi", wheels=foreign),
        "is no wheel": Wish("rpi", wheels=tmp_path / "broken"),
    }
    for said, wish in refused.items():
        with pytest.raises(ConfigError, match=said):
            bundle.create(run, tmp_path / "x.edgecl", private, wish)
    assert not (tmp_path / "x.edgecl").exists()


def test_models_that_are_made_now(run: Path, private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter is told the format and the chip of the target; its file lies where the runtime looks for it."""
    asked = []

    def export(model: Model, name: str, chip: str) -> SimpleNamespace:
        asked.append((model.card.seen, name, chip))
        return SimpleNamespace(data=name.encode(), warning="loses 2 points" if "onnx" in name else "")

    monkeypatch.setitem(sys.modules, "edgecl.export", SimpleNamespace(export=export))
    out, said = tmp_path / "x.edgecl", []
    bundle.create(run, out, private, Wish("rpi", exports=["onnx-int8", "litert-int8"]), said.append)
    assert said == ["model.onnx: loses 2 points"]
    files = dict(members(out))
    assert (files["model.onnx"], files["model.tflite"]) == (b"onnx-int8", b"litert-int8")
    bundle.create(run, out, private, Wish("rpi-32", exports=["litert-int8"]))
    assert [(n, c) for _, n, c in asked] == [("onnx-int8", "arm"), ("litert-int8", ""), ("litert-int8", "")]
    for wish in (Wish("rpi-32", exports=["onnx"]), Wish("rpi", exports=["onnx", "onnx-int8"]), Wish("rpi", exports=["pt"])):
        with pytest.raises(ConfigError, match="takes one of"):
            bundle.create(run, out, private, wish)
    (tmp_path / "m.onnx").write_bytes(b"x")
    with pytest.raises(ConfigError, match="both --model and --export"):
        bundle.create(run, out, private, Wish("rpi", models=[tmp_path / "m.onnx"], exports=["onnx"]))


def test_a_run_that_does_not_say_its_classes(run: Path, private: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "old")
    config = yaml.safe_load((copy / "config.yaml").read_text())
    del config["stream"]
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match="older edgecl"):
        bundle.create(copy, tmp_path / "x.edgecl", private, Wish("host"))


def test_a_file_that_changes_meanwhile(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="changed while"):
        list(container.pack(tmp_path, [("a", 1, "0" * 64, [b"x"])]))


def test_platform_tags() -> None:
    assert fits("any", "aarch64")
    assert fits("manylinux_2_28_aarch64", "aarch64")
    assert fits("linux_armv6l", "armv7l")
    assert not fits("musllinux_1_2_aarch64", "aarch64")
    assert not fits("manylinux_2_28_x86_64", "aarch64")
    assert not fits("win_amd64", "x86_64")
