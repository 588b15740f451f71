"""docs/formats/run.md against a run: every table, and the reader on the page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from run_cases import SPARCL, begun, events, to_end
from test_docs import FENCED, ROOT, code, first, section, tables

from edgecl import masks, session, store
from edgecl.ledger import KINDS

FORMAT = ROOT / "docs/formats/run.md"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one epoch a task, with every kind of array and event."""
    folder = tmp_path_factory.mktemp("docs") / "run"
    setup, state = begun(folder, *SPARCL, "tdm.enabled=false", "train.epochs=1", "train.momentum=0.9")
    state.warnings.append("of a resumed run")
    to_end(setup, state)
    session.result(setup, state)
    return folder


def newest(run: Path) -> Path:
    return run / "snapshots" / f"{store.latest(run):03d}"


def test_files(run: Path) -> None:
    (rows,) = tables(section(FORMAT, "Files"))
    said = {name.rstrip("/") for name in first(rows)}
    assert said == {p.name for p in run.iterdir()} | {"dense"}
    assert all(f"### {p.name}\n" in FORMAT.read_text() for p in newest(run).iterdir())


def test_config(run: Path) -> None:
    (rows,) = tables(section(FORMAT, "config.yaml"))
    recorded = yaml.safe_load((run / "config.yaml").read_text())
    keys = ["config"] + [f"{top}.{key}" for top, values in recorded.items() if top != "config" for key in values]
    assert sorted(first(rows)) == sorted([*keys, "compare", "net"])


@pytest.mark.parametrize("kind", ["task", "epoch", "end", "warning"])
def test_events(run: Path, kind: str) -> None:
    (rows,) = tables(section(FORMAT, kind))
    seen = events(run, kind)
    assert seen
    assert all(list(event) == [code(row[0])[0] for row in rows] for event in seen)


def test_ledger_and_result(run: Path) -> None:
    keys, kinds = tables(section(FORMAT, "ledger.json"))
    ledger = json.loads((run / "ledger.json").read_text())
    assert list(ledger) == first(keys)
    assert list(ledger["by_kind"]) == list(KINDS) == first(kinds)
    assert sum(ledger["by_kind"].values()) == ledger["executed"]
    (rows,) = tables(section(FORMAT, "result.json"))
    assert list(json.loads((run / "result.json").read_text())) == first(rows)


def test_state(run: Path) -> None:
    keys, state = tables(section(FORMAT, "state.json"))
    body = json.loads((newest(run) / "state.json").read_text())
    assert list(body) == first(keys)
    assert list(body["state"]) == [code(row[0])[0] for row in state]


def test_names_of_arrays(run: Path) -> None:
    snapshot = store.load(run, store.latest(run) or 0)
    (memory,) = tables(section(FORMAT, "memory.safetensors"))
    assert set(snapshot.memory) == set(first(memory))
    names, units = tables(section(FORMAT, "masks.safetensors"))
    layers = {name.split(".", 1)[1] for name in snapshot.masks}
    assert set(snapshot.masks) == {n.replace("<layer>", layer) for n in first(names) for layer in layers}
    assert first(units) == list(masks.UNITS)
    (weights,) = tables(section(FORMAT, "weights.safetensors"))
    patterns = [re.sub("<[a-z]+>", r".+", re.escape(n)) for n in first(weights)]
    assert all(any(re.fullmatch(p, name) for p in patterns) for name in snapshot.weights)
    assert all(any(re.fullmatch(p, name) for name in snapshot.weights) for p in patterns)


def reader() -> Callable[[Path], Any]:
    """The page's own program."""
    (program,) = [text for language, text in FENCED.findall(FORMAT.read_text()) if language == "python"]
    names: dict[str, Any] = {}
    exec(program, names)
    return names["read_snapshot"]


def test_the_page_has_a_reader_that_works(run: Path) -> None:
    read, own = reader()(newest(run)), store.load(run, store.latest(run) or 0)
    for here, there in zip(read[:3], own[:3], strict=True):
        assert list(here) == list(there)
        assert all(here[k].dtype == there[k].dtype and np.array_equal(here[k], there[k]) for k in there)
    assert read[3] == own.state


def test_the_reader_sees_damage(run: Path, tmp_path: Path) -> None:
    for broken in newest(run).iterdir():
        copy = tmp_path / broken.name
        copy.mkdir()
        for file in newest(run).iterdir():
            data = bytearray(file.read_bytes())
            if file == broken:
                data[-3] ^= 1
            (copy / file.name).write_bytes(data)
        with pytest.raises(ValueError, match=r"damaged|Expecting|Invalid"):
            reader()(copy)
