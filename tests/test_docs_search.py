"""The figures of the search for no loss at a 23rd, in docs/sparcl.md and the README, are those of the records."""

from __future__ import annotations

import json
from statistics import fmean
from typing import Any

from test_docs import ROOT, SPARCL_PAGE, code, section, tables


def results(setting: str) -> list[dict[str, Any]]:
    """Of all seeds."""
    return [json.loads(p.read_text()) for p in sorted((ROOT / "bench/records").glob(f"{setting}-s?/result.json"))]


def accuracy(setting: str) -> list[float]:
    """Class-IL %, by seed."""
    return [100 * r["class_il_accuracy"] for r in results(setting)]


def test_what_was_tried_is_the_records() -> None:
    ((*rows,),) = tables(section(SPARCL_PAGE, "What was tried for no loss at a 23rd"))
    for row in rows:
        name = code(row[0])[0]
        one, figures = results(name)[0], accuracy(name)
        assert row[2] == f"{one['executed'] / 1e15:.3g}", name
        assert row[3] == (f"{100 * one['sparsity']:.1f} %" if one["sparsity"] else "–"), name
        assert row[4:] == [f"{fmean(figures):.1f}", ", ".join(f"{f:.1f}" for f in figures)], name
    assert len(rows) == 22


def test_a_23rd_of_the_dense_runs_flops_is_that() -> None:
    ((*rows,),) = tables(section(SPARCL_PAGE, "What was tried for no loss at a 23rd"))
    (dense,) = {r["executed"] for r in results("c10-dense-e16")}
    sparse = [r["executed"] for row in rows for r in results(code(row[0])[0]) if r["sparsity"]]
    assert all(23 <= dense / executed < 23.3 for executed in sparse)


def test_the_readme_says_how_near_it_came() -> None:
    """Full length: the best recipe, the dense net with the same method, and plain dense DER++."""
    names = ("w64-onedraw16-momentum-average", "dense-onedraw16-momentum-average", "dense")
    best, same, dense = (accuracy(f"c10-derpp-{name}") for name in names)
    assert [len(a) for a in (best, same, dense)] == [5, 2, 2]
    text = " ".join((ROOT / "README.md").read_text().split())
    assert f"weights, has {fmean(best):.1f} ± 1.7 % there (95 % interval, five seeds)" in text
    assert (
        f"{fmean(same) - fmean(best):.1f} points below the dense net with the same method ({fmean(same):.1f}, two seeds)" in text
    )
    assert f"{fmean(dense) - fmean(best):.1f} below dense DER++ ({fmean(dense):.1f}, two seeds)" in text
