"""Pictures from outside as a network's input: files, raw pixels and lines of JSON, each bounded before it is read."""

from __future__ import annotations

import base64
import binascii
import io
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgecl import files
from edgecl.card import Card
from edgecl.types import U8, ConfigError, DataError

FILE_BYTES = 32 << 20  # of a picture's file
PIXELS = 50_000_000  # of a picture, before it is unpacked
LINE_BYTES = 4 << 20  # of a line of JSON
NAME_LENGTH = 200  # of a class's name
SUFFIXES = (".png", ".jpg", ".jpeg")


class Frame(NamedTuple):
    """One sample, and what is known of it."""

    source: str
    x: U8  # [C, H, W]
    label: str | None = None


def decoded(card: Card, data: bytes, where: str) -> U8:
    """A PNG's or JPEG's pixels as the card's input [C, H, W]: scaled until it covers it, then cut to its middle.

    Raises DataError that names the picture, ConfigError where pillow is missing.
    """
    _pillow()
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > PIXELS:
                raise DataError(f"{where}: {image.width}×{image.height} pixels; at most {PIXELS:,} are read")
            return _fitted(card, ImageOps.exif_transpose(image), where)  # a phone held upright says so there only
    except UnidentifiedImageError:  # its text is an object's address
        raise DataError(f"{where}: is no PNG or JPEG") from None
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as e:
        raise DataError(f"{where}: is no PNG or JPEG that can be read ({' '.join(str(e).split())[:100]})") from None


def _pillow() -> None:
    """Raises ConfigError that says how to have it."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise ConfigError('pictures need pillow: pip install "edgecl[device]"') from None


def _fitted(card: Card, image: Any, where: str) -> U8:
    from PIL import ImageOps

    c, h, w = card.input
    if c not in (1, 3):
        raise DataError(f"{where}: the network takes {c} channels, a picture has 1 or 3")
    image = image.convert("L" if c == 1 else "RGB")
    if image.size != (w, h):
        image = ImageOps.fit(image, (w, h))
    pixels: U8 = np.asarray(image, np.uint8).reshape(h, w, c).transpose(2, 0, 1)
    return np.ascontiguousarray(pixels)


def as_input(card: Card, frame: Any) -> U8:
    """uint8 [C, H, W] of the card's input from such an array, a picture [H, W, C] or [H, W] of any size, or a picture's path.

    Raises DataError for anything else.
    """
    if isinstance(frame, (str, Path)):
        return from_file(card, Path(frame))
    x = np.asarray(frame)
    if x.dtype == np.uint8 and x.shape == card.input:
        return np.ascontiguousarray(x)
    if x.dtype != np.uint8 or x.ndim not in (2, 3) or (x.ndim == 3 and x.shape[2] not in (1, 3)) or not 0 < x.size <= 3 * PIXELS:
        raise DataError(f"a frame is {x.dtype} {list(x.shape)}, not uint8 {list(card.input)}, [H, W] or [H, W, 1 or 3]")
    return _from_picture(card, x)


def _from_picture(card: Card, x: U8) -> U8:
    c, h, w = card.input
    channels = x[:, :, None] if x.ndim == 2 else x
    if channels.shape == (h, w, c):
        return np.ascontiguousarray(channels.transpose(2, 0, 1))
    _pillow()
    from PIL import Image

    return _fitted(card, Image.fromarray(channels[:, :, 0] if channels.shape[2] == 1 else channels), "a frame")


def from_file(card: Card, path: Path) -> U8:
    """A picture's file as the card's input. Raises StoreError, DataError."""
    return decoded(card, files.read_bounded(path, FILE_BYTES), str(path))


def parse_line(card: Card, line: bytes, where: str) -> tuple[Frame | None, Mapping[str, Any]]:
    """A line of JSON, and the sample that it holds, if it holds one: as `path`, `image` (base64 of a PNG or JPEG) or `pixels`
    (base64 of C·H·W bytes in that order), with `label` where it is known. Raises DataError that names the line.
    """
    if len(line) > LINE_BYTES:
        raise DataError(f"{where}: has more than {LINE_BYTES} bytes")
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        raise DataError(f"{where}: is not JSON") from None
    if not isinstance(said, dict):
        raise DataError(f"{where}: is no JSON object")
    kinds = [k for k in ("path", "image", "pixels") if k in said]
    if not kinds:
        return None, said
    if len(kinds) > 1 or not isinstance(said[kinds[0]], str):
        raise DataError(f"{where}: give one of path, image and pixels, as text")
    return Frame(str(said.get("source", where))[:NAME_LENGTH], _sample(card, kinds[0], said, where), label_of(said, where)), said


def _sample(card: Card, kind: str, said: Mapping[str, Any], where: str) -> U8:
    if kind == "path":
        try:
            return from_file(card, Path(said["path"]))
        except ValueError:  # a zero byte, or half of a surrogate pair
            raise DataError(f"{where}: path is none that a system has") from None
    try:
        data = base64.b64decode(said[kind], validate=True)
    except (binascii.Error, ValueError):
        raise DataError(f"{where}: {kind} is not base64") from None
    return decoded(card, data, where) if kind == "image" else raw(card, data, where)


def label_of(said: Mapping[str, Any], where: str) -> str | None:
    """The label, None where there is none. Raises DataError for one that is no name."""
    label = said.get("label")
    return None if label is None else checked_name(label, where)


def checked_name(label: Any, where: str) -> str:
    """A class's name. Raises DataError unless it is a printable text of 1 to 200 characters."""
    if not isinstance(label, str) or not 0 < len(label) <= NAME_LENGTH or not label.isprintable():
        raise DataError(f"{where}: a label is a printable text of 1 to {NAME_LENGTH} characters, not {str(label)[:40]!r}")
    return label


def raw(card: Card, data: bytes, where: str) -> U8:
    """A frame's own bytes, C·H·W of them in that order. Raises DataError for another number."""
    x = np.frombuffer(data, np.uint8)
    if x.size != np.prod(card.input):
        raise DataError(f"{where}: {x.size} bytes are not a sample of {'×'.join(map(str, card.input))}")
    return x.reshape(card.input)
