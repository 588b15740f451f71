"""`edgecl learn`: from files, lines and a socket; interrupted and gone on with."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_cases import held_out, line
from run_cases import digits

from edgecl import runtime
from edgecl.cli import main
from edgecl.model import open_model
from edgecl.runtime import serving
from edgecl.runtime.serving import Server
from edgecl.runtime.teaching import FALL, Settings, Teacher
from edgecl.types import BudgetError, StoreError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def place(tmp_path: Path, learned: Path) -> Path:
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "learner").symlink_to(learned)
    return tmp_path / "place"


def light(n: int) -> Any:
    return 255 - np.asarray(digits(5, 20).tasks[0].train.x[:n])


def ran(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, list[dict[str, Any]], str]:
    with pytest.raises(SystemExit) as end:
        main(["learn", *args])
    said = capsys.readouterr()
    return int(end.value.code or 0), [json.loads(row) for row in said.out.splitlines()], said.err


def npz(path: Path, n: int = 30) -> str:
    np.savez(
        path, x_train=light(n), y_train=np.array(["mug", "cup"] * (n // 2)), x_test=light(2), y_test=np.array(["mug", "cup"])
    )
    return str(path)


def test_an_npz(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = npz(tmp_path / "a.npz")
    code, said, _ = ran(capsys, str(place), "--input", given, "--epochs", "2", "--budget", "4GB", "--held-out", given)
    events = [e["event"] for e in said if e["event"] != "warning"]
    assert (code, events) == (0, ["lesson", "epoch", "epoch", "learned", "saved"])
    assert (said[0]["samples"], said[0]["classes"]) == (30, ["mug", "cup"])
    assert said[3]["new_tests"] == "held-out samples"
    assert said[-1]["classes"][10:] == ["mug", "cup"]
    assert said[-1]["bytes_written"] >= said[3]["bytes_written"] > 10_000
    assert Path(said[-1]["snapshot"]) == open_model(place / "lessons" / "001").folder
    assert not (place / "lessons" / "001" / "lesson.npz").exists()
    assert not list((place / "lessons").glob("pending-*"))


def test_lessons_of_so_many_and_only_one_object(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said, _ = ran(
        capsys, str(place), "--input", npz(tmp_path / "a.npz"), "--set", "train.epochs=1", "--lesson", "10", "--json",
        "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert (code, len(said), said[0]["event"]) == (0, 1, "saved")
    assert open_model(Path(said[0]["snapshot"]).parent.parent).config.train.epochs == 1
    assert not (place / "lessons").exists()


WRONG: list[tuple[list[str], int, str]] = [
    (["--lesson", "0"], 2, "--lesson '0': expected a number of samples, or a time"),
    (["--input", "socket:"], 2, "no path for the socket"),
    (["--out", "/proc/nowhere"], 4, "/proc/nowhere: no such file"),
    (["--write-every", "often"], 2, "--write-every 'often'"),
    (["--budget", "10parsecs"], 5, "can't read"),
    (["--set", "net.width=9"], 2, "a lesson keeps what its base has"),
    (["--set", "train.speed=9"], 2, "unknown key"),
]


@pytest.mark.parametrize(("args", "code", "says"), WRONG)
def test_what_is_wrong_is_said_in_a_line(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], code: int, says: str
) -> None:
    got, said, err = ran(capsys, str(place), "--input", npz(tmp_path / "a.npz"), *args)
    assert (got, said, len(err.splitlines())) == (code, [], 1)
    assert says in err


def test_samples_need_labels(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "a.npz", x=light(2))
    code, _, err = ran(capsys, str(place), "--input", str(tmp_path / "a.npz"))
    assert (code, "has no label to learn" in err) == (3, True)


def spawn(*args: str, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "edgecl", "learn", *args]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, **options)


def test_lines_on_standard_input_interrupted_and_gone_on_with(place: Path) -> None:
    rows = b"".join(line(pixels=x.tobytes(), label="cup" if i % 2 else "mug") for i, x in enumerate(light(20)))
    child = spawn(str(place), "--input", "-", "--set", "train.epochs=100000", stdin=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(rows)
    child.stdin.close()
    assert json.loads(child.stdout.readline())["event"] == "lesson"
    assert json.loads(child.stdout.readline())["event"] == "epoch"
    child.send_signal(signal.SIGINT)
    assert child.wait(60) == 130
    assert child.stderr is not None
    assert b"stopped; the same command goes on" in child.stderr.read()
    with runtime.open(place) as device:
        assert device.card.classes[-1] == "9"  # the lesson is not learned yet
        assert device.start()


def ask(path: Path, *lines: bytes) -> list[dict[str, Any]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(60)
        client.connect(str(path))
        with client.makefile("rwb") as both:
            found = []
            for text in lines:
                both.write(text)
                both.flush()
                found.append(json.loads(both.readline()))
            return found


def test_a_socket(place: Path, tmp_path: Path) -> None:
    """Two clients: what one teaches the other is told of."""
    path = tmp_path / "s"
    x = held_out()[0]
    with runtime.open(place, size=10, changes={"train": {"epochs": 2}}) as device, Server(path, device):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        (said,) = ask(path, line(pixels=x[0].tobytes()))
        assert said == device.predict(x[0]).to_dict()
        assert ask(path, line(pixels=light(1)[0].tobytes(), label="mug")) == [{"waiting": 1}]
        (saved,) = ask(path, line(do="save"))
        assert Path(saved["snapshot"]).exists()
        (card,) = ask(path, line(do="card"))
        assert card["card"]["classes"][10:] == ["mug"]
        wrong = ask(
            path, b"what\n", line(path="a\0b"), line(pixels="AAAA"), line(pixels=x[0].tobytes(), label=""), line(do="card")
        )
        assert ["error" in said for said in wrong] == [True, True, True, True, False]
    assert not path.exists()


def test_a_line_that_does_not_end(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "LINE_BYTES", 1000)
    monkeypatch.setattr("edgecl.runtime.frames.LINE_BYTES", 1000)
    with runtime.open(place) as device, Server(tmp_path / "s", device):
        (said,) = ask(tmp_path / "s", b"a" * 5000 + b"\n")
        assert "more than 1000 bytes" in said["error"]
        assert "card" in ask(tmp_path / "s", line(do="card"))[0]


def test_a_path_that_is_taken(place: Path, tmp_path: Path) -> None:
    with runtime.open(place) as device:
        (tmp_path / "file").write_text("mine")
        with pytest.raises(StoreError, match="is no socket"):
            Server(tmp_path / "file", device).__enter__()
        with Server(tmp_path / "s", device), pytest.raises(StoreError, match="another process listens"):
            Server(tmp_path / "s", device).__enter__()
        dead = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        dead.bind(str(tmp_path / "s"))
        dead.close()  # as a killed process leaves it
        with Server(tmp_path / "s", device):
            assert "card" in ask(tmp_path / "s", line(do="card"))[0]


def test_predicting_goes_on_while_it_learns(place: Path, tmp_path: Path) -> None:
    """`--serve` answers in the midst of a long lesson; SIGTERM ends it with a snapshot."""
    path = tmp_path / "s"
    child = spawn(str(place), "--input", npz(tmp_path / "a.npz"), "--set", "train.epochs=100000", "--serve", str(path))
    assert child.stdout is not None
    rows = [json.loads(child.stdout.readline())["event"] for _ in range(3)]
    assert rows == ["lesson", "epoch", "epoch"]
    for x in held_out()[0][:5]:
        (said,) = ask(path, line(pixels=x.tobytes()))
        assert said["class"] in map(str, range(10))
    child.terminate()
    assert child.wait(60) == 130
    assert open_model(place / "lessons" / "001").state["at"] > 0
    assert not path.exists()


def test_a_budget_of_time_needs_this_machines_clock(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("edgecl.measure.LONGEST", 0.0)
    given = npz(tmp_path / "a.npz")
    with runtime.open(place, budget="10min") as device:
        device.learn(light(1)[0], "mug")
        with pytest.raises(BudgetError, match="edgecl measure calibrate --like"):
            device.save()

    real = subprocess.run

    def calibrate(command: list[str], **options: Any) -> Any:
        if "measure" not in command:
            return real(command, **options)
        with pytest.raises(SystemExit) as end:
            main(command[command.index("measure") :])
        return subprocess.CompletedProcess(command, int(end.value.code or 0))

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", calibrate)
        code, said, _ = ran(capsys, str(place), "--input", given, "--budget", "10min,4GB", "--epochs", "2")
    assert (code, said[-1]["event"]) == (0, "saved")
    code, said, err = ran(capsys, str(place), "--input", given, "--budget", "10min,4GB", "--epochs", "2", "--json")
    assert (code, said[-1]["event"], err) == (0, "saved", "")  # it is timed once


def test_a_lesson_that_costs_much_says_so(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = [part for key in ("train.rate=0.5", "method.class_mask=seen") for part in ("--set", key)]
    code, said, _ = ran(capsys, str(place), "--input", npz(tmp_path / "a.npz"), "--epochs", "3", *sets)
    (learned,) = [e for e in said if e["event"] == "learned"]
    assert code == 0
    assert learned["old_before"] - learned["old"] > FALL
    (message,) = [e["message"] for e in said if e["event"] == "warning"]
    fell = f"from {100 * learned['old_before']:.1f} to {100 * learned['old']:.1f} %"
    assert fell in message


@pytest.mark.parametrize(("before", "after", "warned"), [(0.9, 0.81, 0), (0.9, 0.79, 1), (0.5, 0.9, 0), (None, None, 0)])
def test_a_lesson_that_costs_little_says_nothing(tmp_path: Path, before: float | None, after: float | None, warned: int) -> None:
    said: list[dict[str, Any]] = []
    Teacher(tmp_path, Settings(), said.append, lambda: False)._mind({"old_before": before, "old": after})
    assert len(said) == warned
