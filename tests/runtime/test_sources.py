"""Samples from outside: right pixels from every source, and one clear line for what is wrong or too large."""

from __future__ import annotations

import io
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_cases import held_out, line
from PIL import Image

from edgecl.card import Card
from edgecl.runtime import camera, frames
from edgecl.runtime.frames import as_input, parse_line
from edgecl.runtime.sources import open_source
from edgecl.types import ConfigError, DataError, EdgeclError, Preprocess

GREY = Card("n", (1, 8, 8), ("0", "1", "2"), (0, 1), Preprocess((0.5,), (0.5,)), "a" * 64, "0.1")
COLOUR = Card("n", (3, 4, 6), ("0",), (0,), Preprocess((0.5,) * 3, (0.5,) * 3), "a" * 64, "0.1")


def png(pixels: Any, form: str = "PNG") -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, form)
    return data.getvalue()


def read(card: Card, given: str, stdin: bytes = b"", **options: Any) -> list[frames.Frame]:
    return list(open_source(card, given, io.BytesIO(stdin), **options))


def test_a_folder_of_classes(tmp_path: Path) -> None:
    x = held_out()[0][:3, 0]
    for i, name in enumerate(("mug", "cup", "mug")):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / f"{i}.png").write_bytes(png(x[i]))
    (tmp_path / "plain.PNG").write_bytes(png(x[0]))
    (tmp_path / "notes.txt").write_text("no picture")
    found = read(GREY, str(tmp_path))
    assert [(Path(f.source).name, f.label) for f in found] == [
        ("1.png", "cup"),
        ("0.png", "mug"),
        ("2.png", "mug"),
        ("plain.PNG", None),
    ]
    np.testing.assert_array_equal(found[0].x[0], x[1])


def test_a_picture_is_scaled_to_cover_and_cut_to_its_middle() -> None:
    picture = np.zeros((8, 24, 3), np.uint8)
    picture[:, 6:18] = (10, 200, 30)
    got = as_input(COLOUR, picture)
    assert (got.shape, got.dtype) == ((3, 4, 6), np.uint8)
    assert [int(v) for v in got[:, 2, 3]] == [10, 200, 30]
    np.testing.assert_array_equal(as_input(GREY, np.full((8, 8), 7, np.uint8)), np.full((1, 8, 8), 7, np.uint8))


def test_an_npz_with_its_layouts_and_labels(tmp_path: Path) -> None:
    x = np.arange(2 * 3 * 4 * 6, dtype=np.uint8).reshape(2, 3, 4, 6)
    np.savez(tmp_path / "a.npz", x=x.transpose(0, 2, 3, 1), y=np.array(["mug", "0"]))
    np.savez(tmp_path / "b.npz", x_test=x, y_test=np.array([1, 0]), classes=np.array(["p", "q"]))
    for name, labels in (("a.npz", ["mug", "0"]), ("b.npz", ["q", "p"])):
        found = read(COLOUR, str(tmp_path / name))
        np.testing.assert_array_equal([f.x for f in found], x)
        assert [f.label for f in found] == labels


def test_lines_of_json_and_raw_frames(tmp_path: Path) -> None:
    x = held_out()[0][:3]
    (tmp_path / "a.png").write_bytes(png(x[0, 0]))
    said = (
        line(path=str(tmp_path / "a.png"))
        + b"\n"
        + line(image=png(x[1, 0]), label="mug")
        + line(pixels=x[2].tobytes(), source="s")
    )
    found = read(GREY, "-", said)
    np.testing.assert_array_equal([f.x for f in found], x)
    assert [(f.source, f.label) for f in found] == [("line 1", None), ("line 3", "mug"), ("s", None)]
    np.testing.assert_array_equal([f.x for f in read(GREY, "-", x.tobytes(), raw_frames=True)], x)


WRONG = [
    (b"{", "is not JSON"),
    (b"[1]", "no JSON object"),
    (b"[" * 100_000, "is not JSON"),
    (line(label="mug"), "none of path, image and pixels"),
    (line(pixels=b"12"), "2 bytes are not a sample of 1×8×8"),
    (line(pixels="%%"), "is not base64"),
    (line(image=b"GIF89a"), "no PNG or JPEG"),
    (line(pixels=bytes(64), image=b""), "one of path"),
    (line(pixels=5), "as text"),
    (line(pixels=bytes(64), label=""), "label"),
    (line(pixels=bytes(64), label="a\nb"), "label"),
    (line(pixels=bytes(64), label="a" * 201), "label"),
    (line(path="/nowhere.png"), "no such file"),
    (line(path="a\0b"), "path is none that a system has"),
    (line(path="\ud800"), "path is none that a system has"),
]


@pytest.mark.parametrize(("text", "says"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_line_is_named(text: bytes, says: str) -> None:
    with pytest.raises(EdgeclError, match=says):
        read(GREY, "-", b"\n" + text)


def test_sizes_are_bounded_before_anything_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecl.runtime.sources.LINE_BYTES", 100)
    monkeypatch.setattr(frames, "LINE_BYTES", 100)
    with pytest.raises(DataError, match="more than 100 bytes"):
        read(GREY, "-", b'"' + b"a" * 1000)
    monkeypatch.setattr(frames, "PIXELS", 100)
    with pytest.raises(DataError, match="pixels; at most"):
        frames.decoded(GREY, png(np.zeros((20, 20), np.uint8)), "p")
    (tmp_path / "a.png").write_bytes(bytes(1000))
    monkeypatch.setattr(frames, "FILE_BYTES", 999)
    with pytest.raises(EdgeclError, match="more than the 999 bytes"):
        read(GREY, str(tmp_path / "a.png"))
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((100, 1, 8, 8), np.uint8))
    monkeypatch.setattr("edgecl.runtime.sources.ARRAY_BYTES", 6000)
    with pytest.raises(DataError, match=r"x\.npy has more than"):
        read(GREY, str(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"z": np.zeros(3)}, "no array 'x'"),
        ({"x": np.zeros((2, 8, 9), np.uint8)}, "x is uint8"),
        ({"x": np.zeros((2, 8, 8), np.uint8), "y": np.array([0, 3])}, "sample 1 has label"),
        ({"x": np.array([{}])}, "not a readable .npz"),
        ({"x": np.zeros((0, 8, 8), np.uint8)}, "holds no sample"),
        ({"x": np.zeros((2, 8, 8), np.uint8), "y": np.zeros(1, int)}, "a label for each of 2 samples"),
        ({"x": np.zeros((2, 8, 8), np.uint8), "y": np.eye(2, 3, dtype=int)}, "a label for each of 2 samples"),
        ({"x": np.zeros((2, 8, 8), np.uint8), "y": np.array(0)}, "a label for each of 2 samples"),
    ],
)
def test_a_wrong_npz_is_named(tmp_path: Path, arrays: dict[str, Any], says: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=says):
        read(GREY, str(tmp_path / "a.npz"))


def test_other_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.npz: no such file$"):
        read(GREY, str(tmp_path / "x.npz"))
    with pytest.raises(DataError, match=r"l: is no PNG or JPEG$"):
        parse_line(GREY, line(image=b"GIF89a"), "l")
    with pytest.raises(DataError, match="no folder, picture or"):
        read(GREY, str(tmp_path / "x.gif"))
    with pytest.raises(DataError, match="holds no picture"):
        read(GREY, str(tmp_path))
    assert parse_line(GREY, b'{"do": "save"}', "l") == (None, {"do": "save"})


class FakeCamera:
    """Two blue pictures, then none."""

    released = 0

    def __init__(self, number: int) -> None:
        self.number, self.left = number, 2

    def read(self) -> tuple[bool, Any]:
        self.left -= 1
        picture = np.zeros((8, 12, 3), np.uint8)
        picture[:, :, 0] = 250  # OpenCV's order is blue, green, red
        return self.left >= 0, picture

    def release(self) -> None:
        FakeCamera.released += 1


def test_a_camera_through_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", types.SimpleNamespace(VideoCapture=FakeCamera))
    found = read(COLOUR, "camera:1")
    assert [f.source for f in found] == ["camera 1 #1", "camera 1 #2"]
    assert [int(v) for v in found[0].x[:, 0, 0]] == [0, 0, 250]
    assert FakeCamera.released == 1


def test_a_camera_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setattr(camera.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"edgecl\[camera\]"):
        read(COLOUR, "camera")
    with pytest.raises(ConfigError, match="by its number"):
        read(COLOUR, "camera:front")


def test_a_camera_through_rpicam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of that name which writes two red frames, as planes Y, U, V."""
    program = tmp_path / "rpicam-vid"
    planes = "bytes([76]) * a + bytes([85]) * (a // 4) + bytes([255]) * (a // 4)"
    code = f"import sys; a = 640 * 480; sys.stdout.buffer.write(({planes}) * 2)"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{code}'\n")
    program.chmod(0o755)
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setattr(camera, "RPICAM", str(program))
    found = read(COLOUR, "camera")
    assert len(found) == 2
    red, green, blue = (int(v) for v in found[1].x[:, 1, 1])
    assert red > 250 > 5 > max(green, blue)


def test_a_phones_picture_stands_upright() -> None:
    """EXIF's orientation 6: the camera was turned by a quarter, and the pixels lie on their side."""
    image = Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 8, 0).repeat(4, 1))  # dark left, light right
    exif, data = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    image.save(data, "JPEG", exif=exif, quality=100)
    got = frames.decoded(GREY, data.getvalue(), "p")[0]
    assert got[0].max() < 20
    assert got[-1].min() > 235
