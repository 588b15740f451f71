"""What tools/test_device asks for, as commands: `samples DIR`, `alike LINES LINES`, `learned TEST BEFORE AFTER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgecl.data import load_stream

OLD = 8  # digits that are learned before
QUANTUM = 0.02
"""Of a probability: the step of an int8 logit moves none further, for logits of this network's range."""


def samples(folder: str) -> None:
    """old.npz, new.npz, test.npz of the digits that come with scikit-learn: few, for an emulated processor."""
    stream = load_stream("digits", samples_per_class=60)
    x, y = (np.concatenate([getattr(t.train, k)[:] for t in stream.tasks]) for k in ("x", "y"))
    tx, ty = (np.concatenate([getattr(t, k)[:] for t in stream.tests]) for k in ("x", "y"))
    few = np.concatenate([np.flatnonzero(ty == k)[:10] for k in range(10)])
    names = np.array(stream.class_names)
    test = {"x_test": tx[few], "y_test": ty[few]}
    old, told = y < OLD, ty < OLD
    np.savez(Path(folder, "old.npz"), x_train=x[old], y_train=y[old], x_test=tx[told], y_test=ty[told], classes=names[:OLD])
    np.savez(Path(folder, "new.npz"), x=x[~old], y=y[~old], classes=names)
    np.savez(Path(folder, "test.npz"), x=test["x_test"], y=test["y_test"], classes=names)


def alike(here: str, there: str) -> None:
    """The same file on two processors: probabilities by class differ by less than a quantum."""
    a, b = _probabilities(here), _probabilities(there)
    assert a.shape == b.shape, (a.shape, b.shape)
    far = float(np.abs(a - b).max())
    print(f"{Path(there).name}: largest difference of a probability to here {far:.6f}")
    assert far < QUANTUM


def learned(test: str, before: str, after: str) -> None:
    """The new digits are known now, and the old ones still."""
    names = np.load(test)["classes"][np.load(test)["y"]]
    new = np.isin(names, np.load(test)["classes"][OLD:])
    was, now = (np.array([line["class"] for line in _lines(p)]) == names for p in (before, after))
    print(f"old digits {was[~new].mean():.0%} → {now[~new].mean():.0%}, new ones {was[new].mean():.0%} → {now[new].mean():.0%}")
    assert was[new].mean() == 0
    assert now[new].mean() > 0.5
    assert now[~new].mean() > was[~new].mean() - 0.25


def _lines(path: str) -> list[Any]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def _probabilities(path: str) -> Any:
    rows = [sorted((c["id"], c["probability"]) for c in line["top"]) for line in _lines(path)]
    return np.array([[p for _, p in row] for row in rows])


if __name__ == "__main__":
    {"samples": samples, "alike": alike, "learned": learned}[sys.argv[1]](*sys.argv[2:])
