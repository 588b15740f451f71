"""A card comes back from JSON as it went, and a wrong one is refused by the key that is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgecl.card import Card
from edgecl.types import ConfigError, Preprocess

CARD = Card(
    "resnet18", (3, 32, 32), ("cat", "dog", "owl"), (0, 2), Preprocess((0.5, 0.5, 0.5), (0.2, 0.2, 0.2), 4, True), "a" * 64, "0.1"
)


def test_json_gives_it_back() -> None:
    assert Card.from_dict(json.loads(json.dumps(CARD.to_dict()))) == CARD


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"input": [3, 32]}, "input"),
    ({"input": [3, 32, 0]}, "input"),
    ({"input": 3}, "input"),
    ({"classes": ["cat", "cat", "owl"]}, "classes"),
    ({"classes": ["cat", 4, "owl"]}, "classes"),
    ({"seen": [2, 0]}, "seen"),
    ({"seen": [3]}, "seen"),
    ({"seen": [True]}, "seen"),
    ({"snapshot": "A" * 64}, "snapshot"),
    ({"snapshot": 5}, "snapshot"),
    ({"preprocess": {"mean": [0.5], "std": [0.2], "pad": 0, "flip": False}}, "mean and std"),
    ({"preprocess": {"mean": [0.5] * 3, "std": [0.2, 0.2, 0], "pad": 0, "flip": False}}, "std"),
    ({"preprocess": {"mean": ["0.5"] * 3, "std": [0.2] * 3, "pad": 0, "flip": False}}, "mean"),
    ({"preprocess": {"mean": [0.5] * 3, "std": [0.2] * 3, "pad": -1, "flip": False}}, "pad"),
    ({"preprocess": 5}, "preprocess"),
    ({"more": 1}, "unknown key 'more'"),
]


@pytest.mark.parametrize(("changes", "named"), WRONG)
def test_a_wrong_key_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Card.from_dict({**CARD.to_dict(), **changes})


@pytest.mark.parametrize("key", list(CARD.to_dict()))
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        Card.from_dict({k: v for k, v in CARD.to_dict().items() if k != key})
