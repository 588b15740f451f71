"""The card inside a model file, written as JSON under the key `edgecl`, and read back without the file's own library.

ONNX is a protocol buffer: the fields of ModelProto are walked on the file, and only `metadata_props` is read. LiteRT's is in
tflite_metadata.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from edgecl.card import Card
from edgecl.export.tflite_metadata import tflite_text
from edgecl.files import naming
from edgecl.types import ConfigError, StoreError

KEY = "edgecl"
OUTPUTS = "edgecl.outputs"
"""Beside the card, for readers that know no card: the names of the classes, one a logit, in their order."""

LIMIT = 1 << 20  # bytes of a card, or of any metadata entry, that are read
_METADATA_PROPS, _PROP_KEY, _PROP_VALUE = 14, 1, 2  # onnx.proto: ModelProto, StringStringEntryProto
_VARINT, _EIGHT_BYTES, _SIZED, _FOUR_BYTES = 0, 1, 2, 5


def entries(card: Card) -> dict[str, str]:
    """What an export says of itself; the same text for the same card."""
    names = [card.classes[k] for k in card.seen]
    plain = {KEY: card.to_dict(), OUTPUTS: names}
    return {k: json.dumps(v, sort_keys=True, separators=(",", ":")) for k, v in plain.items()}


def read_card(path: Path) -> Card:
    """The card of a model file that `edgecl export` wrote. Reads only its metadata.

    Raises StoreError that names the file if it can't be read, is no such file or is damaged; ConfigError for a wrong card.
    """
    path = Path(path)
    find = READERS.get(path.suffix)
    if find is None:
        raise StoreError(f"{path}: not a model that edgecl exports ({', '.join(READERS)})")
    with naming(path), path.open("rb") as file:
        try:
            text = find(file)
            plain = None if text is None else json.loads(text)
        except (ValueError, RecursionError) as e:
            raise StoreError(f"{path}: is damaged, or no {path.suffix} file: {e}") from None
    if plain is None:
        raise StoreError(f"{path}: holds no card; edgecl export did not write it")
    try:
        return Card.from_dict(plain)
    except ConfigError as e:
        raise ConfigError(f"{path}: {e}") from None


def onnx_text(file: BinaryIO) -> bytes | None:
    """The card's JSON in an ONNX model, or None. Raises ValueError for what is no protocol buffer."""
    for entry in _messages(file, _size(file), _METADATA_PROPS):
        found = dict(_strings(entry))
        if found.get(_PROP_KEY) == KEY.encode():
            return found.get(_PROP_VALUE)
    return None


READERS: dict[str, Callable[[BinaryIO], bytes | None]] = {".onnx": onnx_text, ".tflite": lambda file: tflite_text(file, KEY)}
"""By a file's ending: the card's JSON, or None where there is none; ValueError where the file is damaged."""


# protocol buffers


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _messages(file: BinaryIO, end: int, wanted: int) -> Iterator[bytes]:
    """The bodies of a message's fields of this number; others are passed over unread."""
    while file.tell() < end:
        field, kind = divmod(_varint(file), 8)
        size = {_VARINT: 0, _EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(kind)
        if kind == _VARINT:
            _varint(file)
        if size is None:
            if kind != _SIZED:
                raise ValueError(f"byte {file.tell()} begins no field")
            size = _varint(file)
        after = file.tell() + size
        if after > end:
            raise ValueError("it is cut off")
        if field == wanted and kind == _SIZED:
            if size > LIMIT:
                raise ValueError(f"a metadata entry of {size} bytes")
            yield file.read(size)
        file.seek(after)


def _strings(message: bytes) -> Iterator[tuple[int, bytes]]:
    """(field number, bytes) of a message that holds nothing but strings."""
    at = 0
    while at < len(message):
        tag, at = _varint_at(message, at)
        size, at = _varint_at(message, at)
        if tag % 8 != _SIZED or at + size > len(message):
            raise ValueError("a metadata entry is no pair of texts")
        yield tag // 8, message[at : at + size]
        at += size


def _varint(file: BinaryIO) -> int:
    start = file.tell()
    value, used = _varint_at(file.read(10), 0)
    file.seek(start + used)
    return value


def _varint_at(data: bytes, at: int) -> tuple[int, int]:
    """(value, where it ends)."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        value, at = value | (byte & 0x7F) << shift, at + 1
        if byte < 0x80:
            return value, at
    raise ValueError("a number has no end")
