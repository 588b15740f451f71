"""bench/tables.py: seeds of a setting make one row, with the interval that a statistics book has."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLES = runpy.run_path(str(ROOT / "bench" / "tables.py"))


def test_the_interval_by_hand() -> None:
    """1, 2, 3: mean 2, deviation 1, and 4.303 · 1 / √3 with two degrees of freedom."""
    found = TABLES["mean"]([1.0, 2.0, 3.0])
    assert (found.value, found.std, found.n) == (2.0, 1.0, 3)
    assert found.half == pytest.approx(2.484, abs=1e-3)
    assert str(TABLES["mean"]([70.0])) == "70.00"


def test_seeds_are_joined(tmp_path: Path) -> None:
    for seed, accuracy in ((0, 0.5), (1, 0.6)):
        folder = tmp_path / f"mine-s{seed}"
        shutil.copytree(ROOT / "bench/records/c10-derpp-dense-s0", folder)
        result = json.loads((folder / "result.json").read_text())
        (folder / "result.json").write_text(json.dumps({**result, "class_il_accuracy": accuracy}))
    (row,) = TABLES["read"](tmp_path)
    assert (row.name, row.seeds, row.class_il.value, row.ratio) == ("mine", (0, 1), pytest.approx(55.0), 1.0)
    assert "| mine | derpp, w64 | 24.9 | 1.0× | 1.0× | 55.00 ± 63.5" in TABLES["table"]([row])


def test_every_record_has_its_row() -> None:
    rows = TABLES["read"](ROOT / "bench/records")
    named = {p.name for p in (ROOT / "bench/records").iterdir() if TABLES["SEED"].search(p.name)}
    assert sum(len(r.seeds) for r in rows) == len(named) > 0
