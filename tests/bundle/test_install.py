"""A bundle in a slot: tested there before it is used, on the right chip only, with or without an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_cases import archive, members, resigned
from wheel_cases import wheel_of_this_checkout

from edgecl import bundle, slots
from edgecl.bundle import Wish, selftest, targets
from edgecl.types import ConfigError, StoreError

ROOT = Path(__file__).resolve().parents[2]


def good(made: Path, root: Path, public: Path) -> Path:
    slot = bundle.install(made, root, public).slot
    assert slots.current(root) == slot
    return slot


def test_install_and_what_it_leaves(made: Path, newer: Path, public: Path, tmp_path: Path) -> None:
    first = bundle.install(made, tmp_path, public)
    assert first.slot == tmp_path / "slots/a"
    assert first.tested == "predicts 16 of 16 samples as expected"
    assert slots.on_trial(tmp_path) is None  # there is nothing to return to
    assert bundle.install(newer, tmp_path, public).slot == tmp_path / "slots/b"
    assert bundle.verify_folder(tmp_path / "current", public).digest == bundle.verify(newer, public).digest
    assert slots.on_trial(tmp_path) == 0
    assert slots.rollback(tmp_path) == tmp_path / "slots/a"
    bundle.verify_folder(tmp_path / "current", public)


def failing(made: Path, private: Path, out: Path, act: Callable[[dict[str, bytes]], None]) -> Path:
    """A bundle whose owner signed what does not work."""
    import hashlib
    import json

    files = dict(members(made))
    act(files)
    entries = {
        k: {"bytes": len(v), "sha256": hashlib.sha256(v).hexdigest()} for k, v in files.items() if not k.startswith("manifest")
    }
    manifest = json.loads(files["manifest.json"])
    out.write_bytes(archive(list(files.items())))
    out.write_bytes(resigned(out, private, files=entries, selftest=manifest["selftest"]))
    return out


def edit(key: bytes, new: bytes, name: str = "card.json") -> Callable[[dict[str, bytes]], None]:
    def act(files: dict[str, bytes]) -> None:
        assert key in files[name]
        files[name] = files[name].replace(key, new)

    return act


def other_answers(files: dict[str, bytes]) -> None:
    files["manifest.json"] = files["manifest.json"].replace(b'"predicted": [', b'"predicted": [\n   7,', 1)
    text = files["manifest.json"].decode()
    at = text.index('"predicted": [')
    numbers = text[at:].split("]")[0]
    kept = numbers[: numbers.rindex(",")]
    files["manifest.json"] = (text[:at] + kept + "\n  ]" + text[at + len(numbers) + 1 :]).encode()


def no_learner_state(files: dict[str, bytes]) -> None:
    name = next(n for n in files if n.endswith("state.json"))
    files[name] = files[name].replace(b"1", b"2")


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (edit(b'"net": "', b'"net": "other_'), "not of the network in learner"),
        (edit(b'"net"', b'"ten"'), "no key 'net'"),
        (other_answers, "samples wrong"),
        (no_learner_state, "state.json: is damaged"),
    ],
)
def test_a_failed_self_test_leaves_the_old_slot(
    made: Path, newer: Path, private: Path, public: Path, tmp_path: Path, act: Callable[[dict[str, bytes]], None], said: str
) -> None:
    bad = failing(newer, private, tmp_path / "bad.edgecl", act)
    bundle.verify(bad, public)  # it is whole: only the test can tell
    root = tmp_path / "root"
    slot = good(made, root, public)
    with pytest.raises((StoreError, ConfigError), match=said):
        bundle.install(bad, root, public)
    assert slots.current(root) == slot
    assert [p.name for p in (root / "slots").iterdir()] == ["a"]
    assert slots.on_trial(root) is None


def test_a_refused_bundle_leaves_both_slots(made: Path, newer: Path, public: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for each in (made, newer):
        bundle.install(each, root, public)
        slots.confirm(root)
    bad = tmp_path / "bad.edgecl"
    bad.write_bytes(made.read_bytes()[:-600])
    with pytest.raises(StoreError, match="cut off"):
        bundle.install(bad, root, public)
    assert sorted(p.name for p in (root / "slots").iterdir()) == ["a", "b"]
    for slot in ("a", "b"):
        bundle.verify_folder(root / "slots" / slot, public)


def test_a_command_besides(made: Path, newer: Path, public: Path, tmp_path: Path) -> None:
    bundle.install(made, tmp_path, public, command=["test", "-e"])
    with pytest.raises(StoreError, match="self-test command failed with exit code 7: no light"):
        bundle.install(newer, tmp_path, public, command=["sh", "-c", "echo no light >&2; exit 7"])
    with pytest.raises(StoreError, match="no such file"):
        bundle.install(newer, tmp_path, public, command=["/no/such/program"])
    assert slots.current(tmp_path) == tmp_path / "slots/a"


def test_another_chip(run: Path, private: Path, public: Path, tmp_path: Path) -> None:
    bundle.create(run, tmp_path / "x.edgecl", private, Wish("rpi"))
    with pytest.raises(StoreError, match=r"is for rpi \(aarch64\), but this machine is x86_64"):
        bundle.install(tmp_path / "x.edgecl", tmp_path / "root", public, machine="x86_64")
    with pytest.raises(StoreError, match="is for rpi"):
        bundle.open_bundle(tmp_path / "x.edgecl", public, machine="armv7l")
    done = bundle.install(tmp_path / "x.edgecl", tmp_path / "root", public, machine="aarch64")
    assert (done.slot / "edgecl-run.service").is_file()


@pytest.mark.parametrize(
    ("says", "bits", "machine"),
    [
        ("aarch64", 64, "aarch64"),
        ("aarch64", 32, "armv7l"),
        ("ARM64", 64, "aarch64"),
        ("AMD64", 64, "x86_64"),
        ("armv7l", 32, "armv7l"),
    ],
)
def test_what_this_machine_is(monkeypatch: pytest.MonkeyPatch, says: str, bits: int, machine: str) -> None:
    monkeypatch.setattr("platform.machine", lambda: says)
    monkeypatch.setattr("sys.maxsize", (1 << (bits - 1)) - 1)
    assert targets.this_machine() == machine


def test_no_learner_no_self_test(run: Path, private: Path, public: Path, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"x")
    bundle.create(run, tmp_path / "x.edgecl", private, Wish("host", learner=False, models=[tmp_path / "m.onnx"]))
    done = bundle.install(tmp_path / "x.edgecl", tmp_path / "root", public)
    assert done.tested == "no self-test: there is no learner in this bundle"
    assert (done.slot / "model.onnx").read_bytes() == b"x"


def test_a_card_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_bytes(b" " * (selftest.CARD_BYTES + 1))
    with pytest.raises(StoreError, match=r"card\.json: has more than"):
        selftest.read_card(tmp_path)


def test_an_environment_needs_wheels(made: Path, public: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no wheels"):
        bundle.install(made, tmp_path, public, venv=True)
    assert slots.current(tmp_path) is None


# ---- install.sh ----


def sh(file: Path, public: Path, dest: Path) -> subprocess.CompletedProcess[str]:
    where = {"PATH": os.environ["PATH"], "DESTDIR": str(dest), "ROOT": "/srv/here", "PYTHON": sys.executable}
    command = ["sh", str(ROOT / "deploy/bundle/install.sh"), str(file), str(public)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=where, timeout=300)


@pytest.fixture(scope="module")
def with_wheels(run: Path, private: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sh")
    wheels = wheel_of_this_checkout(folder / "wheels", "aarch64")
    bundle.create(run, folder / "x.edgecl", private, Wish("rpi", wheels=wheels))
    return folder / "x.edgecl"


def test_install_without_network(with_wheels: Path, public: Path, tmp_path: Path) -> None:
    done = sh(with_wheels, public, tmp_path / "dest")
    assert done.returncode == 0, done.stderr
    current = tmp_path / "dest/srv/here/current"
    assert "predicts 16 of 16 samples as expected" in done.stdout
    bundle.verify_folder(current, public, "aarch64", extra=["venv"])
    for unit in ("edgecl-run.service", "edgecl-learn.service", "edgecl-sync.service"):
        placed = (tmp_path / "dest/etc/systemd/system" / unit).read_text()
        assert placed == (current / unit).read_text().replace("/opt/edgecl", "/srv/here")
    command = [current / "venv/bin/python", "-I", "-m", "edgecl", "bundle", "selftest", current]
    again = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "16 of 16" in again.stdout


def test_install_sh_refuses_before_anything_runs(with_wheels: Path, public: Path, made: Path, tmp_path: Path) -> None:
    """Wheels and manifest are checked by programs that the board has."""
    data, bad = with_wheels.read_bytes(), tmp_path / "bad.edgecl"
    places = {"is damaged, or was not signed": data.index(b'"target"'), ".whl is damaged": len(data) - 70_000, "bad checksum": 3}
    for said, at in places.items():
        bad.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        done = sh(bad, public, tmp_path / "dest")
        assert done.returncode != 0
        assert said in done.stderr
    assert "holds no wheels" in sh(made, public, tmp_path / "dest").stderr
    bundle.keygen(tmp_path / "other.pem")
    assert "was not signed by" in sh(with_wheels, tmp_path / "other.pub", tmp_path / "dest").stderr
    assert not (tmp_path / "dest").exists()
