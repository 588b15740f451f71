"""Model cards: every number in models/README.md is the code's."""

from __future__ import annotations

import re
from math import prod
from pathlib import Path

import pytest

from edgecl.nets import ZOO, build_net, full_width

MODELS = Path(__file__).parents[2] / "models"
TEXT = (MODELS / "README.md").read_text()
CARDS = {
    cells[0]: cells[1:] for cells in re.findall(r"^\| (\S+) \| (\S+) \| ([\d×]+), (\d+) \| ([\d,]+) \| ([\d,]+) \|$", TEXT, re.M)
}


def test_every_net_has_a_card() -> None:
    files = {f"models/{path.name}" for path in MODELS.glob("*.yaml")}
    assert set(CARDS) == set(ZOO) | files
    assert all(f"\n## {name.removeprefix('models/')}\n" in TEXT for name in CARDS)


@pytest.mark.parametrize("name", CARDS)
def test_numbers_are_the_codes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(MODELS.parent)
    width, shape, classes, parameters, macs = CARDS[name]
    c, h, w = (int(n) for n in shape.split("×"))
    net = build_net(name, (c, h, w), int(classes))
    assert width == (str(full_width(name)) if name in ZOO else "fixed")
    assert parameters == f"{sum(prod(s) for s in net.weights().values()):,}"
    assert macs == f"{sum(node.macs(*shapes) for node, shapes in net.walk()):,}"
