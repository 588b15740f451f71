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
    assert "| mine | derpp, w64 | 24.9 | 1.0× | 1.0× | 1.0× | 55.00 ± 63.5" in TABLES["table"]([row])


def test_every_record_has_its_row() -> None:
    rows = TABLES["read"](ROOT / "bench/records")
    named = {p.name for p in (ROOT / "bench/records").iterdir() if TABLES["SEED"].search(p.name)}
    assert sum(len(r.seeds) for r in rows) == len(named) > 0


def test_the_reference_is_what_dense_derpp_executed() -> None:
    """Against DER++: its price a sample, by formula, is the ledger's of a real run."""
    result = json.loads((ROOT / "bench/records/c10-derpp-dense-s0/result.json").read_text())
    assert TABLES["STEP"] * TABLES["SAMPLES"] * 50 == result["executed"]


def test_other_memories_have_tables_of_their_own(tmp_path: Path) -> None:
    for name in ("c10-derpp-dense-s0", "c10-b50-w64-onedraw16-e4-s0"):
        shutil.copytree(ROOT / "bench/records" / name, tmp_path / name)
    page = TABLES["page"](TABLES["read"](tmp_path))
    first, second = page.split("## Memory of ")[1:]
    assert first.startswith("500, 50 epochs")
    assert second.startswith("50, 4 epochs")
    assert "c10-derpp-dense" in first
    assert "draws of 16" in second
    assert "b50" not in first
