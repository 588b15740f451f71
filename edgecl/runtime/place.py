"""What can be opened on a device: a run folder, a bundle, packed or unpacked, a slot, or an exported model file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from edgecl import files
from edgecl.card import CARD_BYTES, Card
from edgecl.runfolder import CONFIG
from edgecl.types import ConfigError, StoreError

CARD, LEARNER, ONNX, TFLITE = "card.json", "learner", "model.onnx", "model.tflite"
LESSONS = "lessons"
BUNDLE = ".edgecl"


class Place(NamedTuple):
    """What lies there; None for what does not."""

    path: Path
    learner: Path | None  # a run folder
    onnx: Path | None
    tflite: Path | None
    card: Card | None  # of card.json

    @property
    def lessons(self) -> Path:
        """Where lessons learned here are kept, if no other folder is named."""
        if self.path.is_dir():
            return self.path / LESSONS
        return self.path.with_suffix(f".{LESSONS}")  # beside the file: what is unpacked of a bundle stays as it was signed


def find(path: Path, public: Path | None = None) -> Place:
    """`public` is the PEM file of the key that signed it, where `path` is a bundle file; that is checked, and unpacked beside it.

    Raises StoreError where nothing there can be opened or a bundle does not hold, ConfigError for a card that is wrong.
    """
    if path.is_file():
        return _bundle(path, public) if path.suffix == BUNDLE else _file(path)
    if not path.is_dir():
        raise StoreError(f"{path}: no such file or folder")
    learner = path if (path / CONFIG).exists() else _there(path / LEARNER)
    found = Place(path, learner, _there(path / ONNX), _there(path / TFLITE), _card(path / CARD))
    if not (found.learner or found.onnx or found.tflite):
        raise StoreError(f"{path}: is no run folder ({CONFIG}), and holds no {LEARNER}/, {ONNX} or {TFLITE}")
    return found


def _bundle(path: Path, public: Path | None) -> Place:
    from edgecl.bundle import open_bundle  # here: other places need none of it

    if public is None:
        raise ConfigError(f"{path}: a bundle is opened with the key that signed it: --pub KEY.pub")
    return find(open_bundle(path, public))._replace(path=path)


def _file(path: Path) -> Place:
    if path.suffix not in (".onnx", ".tflite"):
        raise StoreError(f"{path}: is neither a folder nor a model (.onnx, .tflite) nor a bundle ({BUNDLE})")
    onnx = path.suffix == ".onnx"
    return Place(path, None, path if onnx else None, None if onnx else path, _card(path.with_suffix(".card.json")))


def _there(path: Path) -> Path | None:
    return path if path.exists() else None


def _card(path: Path) -> Card | None:
    return Card.parse(str(path), files.read_bounded(path, CARD_BYTES)) if path.exists() else None
