"""The Python API: predict and learn at once, from several threads, killed or not, well or hot."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_cases import held_out
from run_cases import digits

from edgecl import lesson, runtime
from edgecl.lesson import Labelled
from edgecl.model import open_model
from edgecl.runtime import device as devices
from edgecl.runtime import lessons, teaching
from edgecl.runtime.device import Closed
from edgecl.runtime.health import Health, Limits
from edgecl.types import BudgetError, ConfigError, DataError, EdgeclError, StoreError

QUICK: dict[str, Any] = {"changes": {"train": {"epochs": 2}}}
SERVER = multiprocessing.get_context("forkserver")  # what is slow to import is imported once
SERVER.set_forkserver_preload(["run_cases", "edgecl.runtime.device"])


@pytest.fixture
def place(tmp_path: Path, learned: Path) -> Path:
    """A place of one's own to learn in."""
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "learner").symlink_to(learned)
    return tmp_path / "place"


def inverted(n: int, first: int = 0) -> Any:
    """Dark digits on a light ground: a look that the network does not know."""
    return 255 - np.asarray(digits(5, 20).tasks[0].train.x[first : first + n])


def test_new_classes_are_learned_while_it_predicts(place: Path) -> None:
    x, _ = held_out()
    said: list[dict[str, Any]] = []
    with runtime.open(place, say=said.append, size=30, **QUICK) as device:
        before, seen = device.predict(x[0]), set()
        for i, sample in enumerate(inverted(60)):
            device.learn(sample, "mug" if i % 2 else "cup")
            seen.add(device.predict(x[0]).id)
        snapshot = device.save()
        assert device.card.classes[10:] == ("cup", "mug")
        assert set(device.card.seen) == set(range(12))
        after = device.predict(x[0])
        assert device.written >= sum(p.stat().st_size for p in snapshot.iterdir())
    assert before.id in seen
    numbers = [e["number"] for e in said if e["event"] == "learned"]
    assert numbers in ([1, 2], [1])  # one, if all had come before the first began
    lesson = place / "lessons" / f"{numbers[-1]:03d}"
    assert snapshot == lesson / "snapshots" / snapshot.name
    assert (snapshot / "state.json").exists()
    with runtime.open(place) as again:  # what was learned is there again
        assert again.predict(x[0]) == after
        assert again.card.snapshot == open_model(lesson).card.snapshot


def test_frames_come_as_pictures_and_paths(place: Path, tmp_path: Path) -> None:
    from PIL import Image

    x = held_out()[0][0]
    Image.fromarray(x[0]).save(tmp_path / "a.png")
    with runtime.open(place) as device:
        said = [device.predict(frame) for frame in (x, x[0], tmp_path / "a.png", str(tmp_path / "a.png"))]
        assert len(set(said)) == 1
        with pytest.raises(DataError, match="a frame is float64"):
            device.predict(np.zeros((8, 8)))
        with pytest.raises(DataError, match="a label"):
            device.learn(x, "")
    assert not (place / "lessons").exists()  # who only predicts writes nothing


def test_many_threads_at_once(place: Path) -> None:
    x, errors = held_out()[0], list[BaseException]()

    def use(device: Any, number: int) -> None:
        try:
            for i in range(15):
                device.predict(x[(number * 15 + i) % len(x)])
                device.learn(inverted(1, number * 15 + i)[0], f"class {number % 2}")
        except BaseException as e:
            errors.append(e)

    with runtime.open(place, size=20, **QUICK) as device:
        threads = [threading.Thread(target=use, args=(device, n)) for n in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        device.save()
        assert errors == []
        assert set(device.card.classes[10:]) == {"class 0", "class 1"}
    taught = [e for e in (place / "lessons").iterdir() if e.name.isdigit()]
    assert 1 <= len(taught) <= lessons.KEPT


def test_learning_waits_while_too_much_waits(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lesson is held up; `learn` returns only once it goes on."""
    gate = threading.Event()
    real = teaching.Teacher.begin

    def held(self: Any, *args: Any) -> Any:
        gate.wait(20)
        return real(self, *args)

    monkeypatch.setattr(teaching.Teacher, "begin", held)
    with runtime.open(place, size=2, **QUICK) as device:
        given: list[int] = []
        late = threading.Thread(target=lambda: [given.append(device.learn(x, "mug")) for x in inverted(60)])
        late.start()
        late.join(0.5)
        assert late.is_alive()
        assert len(given) <= 2 * devices.ROOM * 2  # what the first lesson took, and what then waits
        gate.set()
        late.join(30)
        assert len(given) == 60


def test_closing_stops_and_opening_goes_on(place: Path) -> None:
    said: list[dict[str, Any]] = []
    long = {"changes": {"train": {"epochs": 400}}}
    device = runtime.open(place, say=said.append, size=40, **long)
    for i, sample in enumerate(inverted(40)):
        device.learn(sample, "mug" if i % 2 else "cup")
    while not any(e["event"] == "epoch" for e in said):
        time.sleep(0.01)
    device.learn(inverted(1, 50)[0], "spoon")
    device.close()
    with pytest.raises(Closed):
        device.learn(inverted(1)[0], "mug")
    with pytest.raises(Closed):
        device.save()
    assert device.predict(held_out()[0][0]).id < 10  # it still predicts, as before the lesson
    assert lessons.unfinished(place / "lessons") == place / "lessons" / "001"
    with runtime.open(place, say=said.append, **QUICK) as again:
        assert again.card.classes[-1] == "9"
        again.save()
        assert again.card.classes[10:] == ("cup", "mug", "spoon")
    assert [e["event"] for e in said if e["event"] in ("go on", "learned")] == ["go on", "learned", "learned"]


def life(place: str, killed_at: int) -> None:
    """Gathers 40 samples, learns, and is killed at so many events of the lesson; then all that is left is learned."""
    count = [0]

    def say(event: dict[str, Any]) -> None:
        count[0] += 1
        if count[0] == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    with runtime.open(place, say=say, size=40, threads=1, changes={"train": {"epochs": 3}}, write_every=0.0) as device:
        if not device.start():
            for i, sample in enumerate(inverted(40)):
                device.learn(sample, "mug" if i % 2 else "cup")
        device.save()


def test_killed_it_ends_as_if_it_never_was(tmp_path: Path, learned: Path) -> None:
    found = []
    for name, deaths in (("whole", [0]), ("killed", [1, 3, 2, 0])):
        place = tmp_path / name
        place.mkdir()
        (place / "learner").symlink_to(learned)
        for at in deaths:
            child = SERVER.Process(target=life, args=(str(place), at))
            child.start()
            child.join()
            assert child.exitcode == (-signal.SIGKILL if at else 0)
        model = open_model(place / "lessons" / "001")
        assert lesson.finished(place / "lessons" / "001")
        found.append(model)
    assert found[0].card.classes == found[1].card.classes
    for key, a in found[0].weights.items():
        np.testing.assert_array_equal(found[1].weights[key], a)


def test_a_hot_device_pauses(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone = tmp_path / "sys/class/thermal/thermal_zone0/temp"
    zone.parent.mkdir(parents=True)
    zone.write_text("90000\n")
    monkeypatch.setattr(teaching, "CHECKED", 0.0)
    monkeypatch.setattr(teaching, "WAIT", 0.01)
    said: list[dict[str, Any]] = []

    def say(event: dict[str, Any]) -> None:
        said.append(event)
        if event["event"] == "pause":
            zone.write_text("60000\n")

    with runtime.open(place, say=say, health=Health(tmp_path, Limits()), **QUICK) as device:
        for sample in inverted(4):
            device.learn(sample, "mug")
        device.save()
    words = [e["event"] for e in said]
    assert words.count("pause") == words.count("resume") == 1
    assert words.index("pause") < words.index("resume") < words.index("learned")
    assert "90 °C" in next(e["why"] for e in said if e["event"] == "pause")


def test_a_budget_that_cannot_be_met_is_said_and_nothing_lost(place: Path) -> None:
    with runtime.open(place, budget="1MB", **QUICK) as device:
        for sample in inverted(5):
            device.learn(sample, "mug")
        with pytest.raises(BudgetError, match="nearest possible"):
            device.save()
    with runtime.open(place, budget="4GB", **QUICK) as device:
        device.save()
        assert device.card.classes[10:] == ("mug",)


def test_a_lesson_that_outgrows_its_budget_is_set_aside(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[dict[str, Any]] = []

    def grow(event: dict[str, Any]) -> None:
        said.append(event)
        if event["event"] == "epoch" and not (place / "lessons" / "001.stopped").exists():
            monkeypatch.setattr("edgecl.environment.peak_rss", lambda: 10**12)

    with runtime.open(place, budget="4GB", say=grow, **QUICK) as device:
        for sample in inverted(5):
            device.learn(sample, "mug")
        with pytest.raises(BudgetError, match=r"set aside in .*001\.stopped"):
            device.save()
        monkeypatch.undo()
        assert (place / "lessons" / "001.stopped" / "lesson.npz").exists()
        device.learn(inverted(1)[0], "cup")
        device.save()
        assert device.card.classes[10:] == ("cup",)


def test_held_out_samples_are_tested_on(place: Path) -> None:
    x, y = held_out()
    said: list[dict[str, Any]] = []
    shown = Labelled(np.concatenate([x, inverted(20, 60)]), [*map(str, y), *["mug"] * 20])
    with runtime.open(place, say=said.append, held_out=shown, **QUICK) as device:
        for sample in inverted(40):
            device.learn(sample, "mug")
        device.save()
    told = next(e for e in said if e["event"] == "learned")
    assert (told["old_tests"], told["new_tests"]) == (lesson.HELD_OUT, lesson.HELD_OUT)
    assert 0 <= told["old"] <= told["old_before"] + 1
    assert json.loads(json.dumps(told)) == told


def test_two_cannot_learn_in_one_place(place: Path) -> None:
    with runtime.open(place) as one, runtime.open(place) as other:
        one.learn(inverted(1)[0], "mug")
        with pytest.raises(StoreError, match="is in use by process"):
            other.learn(inverted(1)[0], "mug")
        assert other.predict(held_out()[0][0]).top


def test_wrong_options_and_places(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown option 'speed'"):
        runtime.open(place, speed=9)
    with pytest.raises(StoreError, match="no such file"):
        runtime.open(tmp_path / "nowhere")
    shutil.rmtree(place / "lessons", ignore_errors=True)
    assert runtime.open(place).save() == open_model(place / "learner").folder


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_in_the_thread_is_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits is not left waiting."""
    monkeypatch.setattr(teaching.Teacher, "begin", lambda *args: 1 / 0)
    with runtime.open(place) as device:
        device.learn(inverted(1)[0], "mug")
        with pytest.raises(EdgeclError, match="ended by a fault"):
            device.save()
