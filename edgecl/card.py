"""F0: a model's card: what a predictor must know besides numbers. Every export and bundle carries one, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from edgecl.types import ConfigError, Preprocess

CARD_BYTES = 1 << 20
"""Of a card's file at most: one of ten thousand classes is a fifth of it."""


@dataclass(frozen=True)
class Card:
    """Which network this is, what goes in, what comes out, and where it came from."""

    net: str  # name
    input: tuple[int, int, int]  # C, H, W of a sample, uint8
    classes: tuple[str, ...]  # names by class id; at most the classifier's capacity, K
    seen: tuple[int, ...]  # ids of the classes that were learned, rising: the only ones that are predicted
    preprocess: Preprocess
    snapshot: str  # sha256 of the snapshot's state.json, 64 hex digits: it names the bytes of all its files
    edgecl: str  # version that wrote the snapshot's export

    def __post_init__(self) -> None:
        channels = self.input[0] if len(self.input) == 3 else 0
        if len(self.input) != 3 or not all(type(n) is int and n > 0 for n in self.input):
            raise ConfigError(f"card: input is {self.input!r}, not C, H, W from 1 up")
        if len(set(self.classes)) != len(self.classes) or not all(isinstance(c, str) and c for c in self.classes):
            raise ConfigError("card: classes are not different names")
        if list(self.seen) != sorted(set(self.seen)) or not all(type(k) is int and 0 <= k < len(self.classes) for k in self.seen):
            raise ConfigError(f"card: seen is {list(self.seen)!r}, not rising ids of its {len(self.classes)} classes")
        if len(self.preprocess.mean) != channels or len(self.preprocess.std) != channels or not all(self.preprocess.std):
            raise ConfigError(f"card: mean and std are not {channels} numbers each, std above 0")
        if len(self.snapshot) != 64 or set(self.snapshot) - set("0123456789abcdef"):
            raise ConfigError(f"card: snapshot is {self.snapshot!r}, not a sha256")

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and dicts; `from_dict` reads them back."""
        return {**asdict(self), "input": list(self.input), "classes": list(self.classes), "seen": list(self.seen)} | {
            "preprocess": preprocess_to_dict(self.preprocess)
        }

    @staticmethod
    def parse(where: str, text: bytes | str) -> Card:
        """From JSON. Raises ConfigError that names where it is from and the key that is wrong."""
        try:
            return Card.from_dict(json.loads(text))
        except (ValueError, RecursionError):
            raise ConfigError(f"{where}: the card is not JSON") from None
        except ConfigError as e:
            raise ConfigError(f"{where}: {e}") from None

    @staticmethod
    def from_dict(d: Mapping[str, Any]) -> Card:
        """Raises ConfigError that names the key that is missing, unknown or wrong."""
        values = _exactly("card", d, [f.name for f in fields(Card)])
        for key in ("input", "classes", "seen"):
            values[key] = _tuple(f"card: {key}", values[key])
        for key in ("net", "snapshot", "edgecl"):
            if not isinstance(values[key], str):
                raise ConfigError(f"card: {key} is {values[key]!r}, not text")
        values["preprocess"] = preprocess_from_dict(values["preprocess"])
        return Card(**values)


def preprocess_to_dict(pre: Preprocess) -> dict[str, Any]:
    """Plain values, for YAML or JSON."""
    return {"mean": list(pre.mean), "std": list(pre.std), "pad": pre.pad, "flip": pre.flip}


def preprocess_from_dict(d: Any) -> Preprocess:
    """Raises ConfigError that names the key."""
    values = _exactly("preprocess", d, [f.name for f in fields(Preprocess)])
    for key in ("mean", "std"):
        numbers = _tuple(f"preprocess: {key}", values[key])
        if not all(type(n) in (int, float) for n in numbers):
            raise ConfigError(f"preprocess: {key} is {values[key]!r}, not a list of numbers")
        values[key] = tuple(map(float, numbers))
    if type(values["pad"]) is not int or values["pad"] < 0 or type(values["flip"]) is not bool:
        raise ConfigError("preprocess: pad is not a number from 0 up, or flip not true or false")
    return Preprocess(**values)


def _exactly(what: str, d: Any, keys: list[str]) -> dict[str, Any]:
    if not isinstance(d, Mapping):
        raise ConfigError(f"{what}: {d!r} is not a mapping of keys to values")
    missing, unknown = [k for k in keys if k not in d], [k for k in d if k not in keys]
    if missing or unknown:
        raise ConfigError(f"{what}: {'no' if missing else 'unknown'} key {str((missing or unknown)[0])!r}")
    return dict(d)


def _tuple(where: str, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{where} is {value!r}, not a list")
    return tuple(value)
