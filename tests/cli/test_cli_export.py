"""`edgecl export` on a run of seconds."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
from cli_cases import TINY, Cli

from edgecl.card import Card
from edgecl.cli import main
from edgecl.export import FORMATS, Reduced, read_card
from edgecl.model import open_model
from edgecl.types import U8

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def trained(folder: Path, method: str) -> Path:
    with pytest.raises(SystemExit) as end:
        main(["train", "--net", "small_cnn", "--method", method, "--run", str(folder / "mine"), *TINY])
    assert not end.value.code
    return folder / "mine"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("run"), "derpp")


def test_a_run_becomes_a_checked_file(cli: Cli, run: Path) -> None:
    done = cli("export", str(run), "--to", "onnx", "-o", "m.onnx", "--json")
    assert (done.code, done.err) == (0, "")
    said = json.loads(done.out)
    assert said["file"] == "m.onnx"
    assert said["bytes"]["float"] == Path("m.onnx").stat().st_size
    assert said["parity"] < 1e-4
    assert [c["source"] for c in said["checks"]] == ["replay memory", "test split"]
    assert read_card(Path("m.onnx")) == open_model(run).card


def test_the_first_tasks_alone_are_judged_by_their_test_split(cli: Cli, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as end:
        main(["train", "--net", "small_cnn", "--run", str(tmp_path / "mine"), *TINY, "--set", "data.tasks=2"])
    assert not end.value.code
    said = json.loads(cli("export", str(tmp_path / "mine"), "--to", "onnx", "-o", "m.onnx", "--json").out)
    assert [c["source"] for c in said["checks"]] == ["replay memory", "test split"]


def test_a_snapshot_by_number_or_folder_and_the_usual_name(cli: Cli, run: Path) -> None:
    newest = open_model(run).folder
    done = cli("export", str(newest), "--to", "onnx", "--test-samples", "0")
    assert done.code == 0, done.err
    assert Path(f"mine-{newest.name}.onnx").exists()
    assert "of replay memory" in done.out
    assert "test split" not in done.out
    done = cli("export", str(newest), "--snapshot", "99", "--to", "onnx")
    assert (done.code, "another one" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("--to", "onx"), 2, "did you mean 'onnx'?"),
        (("--to", "onnx", "--for", "arm"), 2, "the same for every chip"),
        (("--to", "onnx", "-o", "m.tflite"), 2, "does not end in .onnx"),
        (("--to", "onnx", "-o", "no/m.onnx"), 4, "no/m.onnx: no such file"),
        (("--to", "onnx", "--samples", "none.npz"), 3, "none.npz: no such file"),
        (("--to", "onnx", "--snapshot", "77"), 4, "no snapshot 077"),
    ],
)
def test_what_goes_wrong_is_one_line(cli: Cli, run: Path, args: tuple[str, ...], code: int, said: str) -> None:
    done = cli("export", str(run), *args)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert len(done.err.splitlines()) == 1
    assert not list(Path().glob("*.onnx"))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"y": np.zeros(3, int)}, "x is missing"),
        ({"x": np.zeros((3, 1, 8, 8), np.float32)}, "x is float32 (3, 1, 8, 8), not uint8 [N, 1, 8, 8]"),
        ({"x": np.zeros((3, 1, 8, 8), np.uint8), "y": np.zeros(2, int)}, "not 3 class ids"),
        ({"x": np.zeros((3, 1, 8, 8), np.uint8), "y": np.full(3, 77)}, "no class that was learned"),
    ],
)
def test_samples_that_do_not_fit(cli: Cli, run: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    np.savez("s.npz", **arrays)
    done = cli("export", str(run), "--to", "onnx", "--samples", "s.npz")
    assert done.code == 3
    assert "s.npz: " in done.err
    assert said in done.err


def test_samples_of_ones_own(cli: Cli, run: Path) -> None:
    np.savez("s.npz", x=np.zeros((3, 1, 8, 8), np.uint8))
    done = cli("export", str(run), "--to", "onnx", "--samples", "s.npz", "--test-samples", "0", "--json")
    assert json.loads(done.out)["checks"][0]["float"]["accuracy"] is None


def test_int8_is_the_chips_and_says_what_it_costs(cli: Cli, run: Path) -> None:
    done = cli("export", str(run), "--to", "onnx-int8", "--for", "arm")
    assert done.code == 0, done.err
    path = Path(f"mine-{open_model(run).folder.name}-int8-arm.onnx")
    assert read_card(path) == open_model(run).card
    assert "agreement, % (" in done.out
    done = cli("export", str(run), "--to", "onnx-int8", "-o", "m.onnx", "--json")
    said = json.loads(done.out)
    assert said["for"] == "x86"
    assert said["bytes"]["int8"] == Path("m.onnx").stat().st_size < said["bytes"]["float"]
    assert said["lost"] == pytest.approx(100 * (said["checks"][-1]["float"]["accuracy"] - said["checks"][-1]["int8"]["accuracy"]))
    assert (said["warning"] is None) == (done.err == "")


def test_a_method_without_memory_is_told_how_to_give_samples(cli: Cli, tmp_path: Path) -> None:
    run = trained(tmp_path, "sgd")
    done = cli("export", str(run), "--to", "onnx-int8")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "method sgd keeps no replay memory to calibrate int8 with; give --samples FILE.npz" in done.err
    x = np.random.default_rng(0).integers(0, 17, (40, 1, 8, 8), dtype=np.uint8)
    np.savez("s.npz", x=x)
    done = cli("export", str(run), "--to", "onnx-int8", "--samples", "s.npz", "--json")
    assert done.code == 0, done.err
    done = cli("export", str(run), "--to", "onnx", "--test-samples", "0", "--json")
    assert json.loads(done.out)["checks"][0]["source"] == "random pictures, for want of samples"


def test_a_file_that_is_not_the_network_is_not_written(cli: Cli, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = FORMATS["onnx"]

    def wrong(found: Reduced, card: Card) -> bytes:
        off = {k: v + 0.01 * k.endswith("classifier.bias") for k, v in found.weights.items()}
        return right.write(Reduced(found.net, off), card)

    monkeypatch.setitem(FORMATS, "onnx", right._replace(write=wrong))
    done = cli("export", str(run), "--to", "onnx", "-o", "m.onnx")
    assert (done.code, done.out) == (6, "")
    assert "logits are up to 0.01 from engine" in done.err
    assert not Path("m.onnx").exists()


def test_int8_that_no_try_saves_is_written_with_a_warning(cli: Cli, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = FORMATS["onnx"]

    def turned(data: bytes, card: Card, x: U8, chip: str, floats: Collection[str]) -> bytes:
        """Logits of all classes but the first are pushed down, so that it is always chosen."""
        import onnx

        model = onnx.load_from_string(data)
        (bias,) = [t for t in model.graph.initializer if t.name == "classifier.bias"]
        bias.CopyFrom(onnx.numpy_helper.from_array(np.float32([0] + [-1e3] * (len(card.seen) - 1)), bias.name))
        return bytes(model.SerializeToString())

    noise = lambda *a: {"relu1": 3.0, "relu2": 2.0, "relu3": 1.0, "relu4": 4.0}  # noqa: E731
    monkeypatch.setitem(FORMATS, "onnx", right._replace(quantise=turned, noise=noise))
    done = cli("export", str(run), "--to", "onnx-int8", "-o", "m.onnx")
    assert done.code == 0
    (line,) = done.err.splitlines()
    assert line.startswith("edgecl: warning: int8 loses ")
    assert line.endswith("it rounds the worst in relu3 (1 dB), relu2 (2 dB), relu1 (3 dB)")
    assert Path("m.onnx").exists()
