"""bench/whole.py: the kinds of step that it times are those of the whole schedule, each counted once; its torch step is DER++."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from run_cases import SPARCL, planned

from edgecl import session
from edgecl.nets import build_net

WHOLE = runpy.run_path(str(Path(__file__).parents[1] / "bench" / "whole.py"))


@pytest.mark.parametrize("sets", [(), SPARCL])
def test_every_step_of_the_schedule_is_counted_once_and_timed(tmp_path: Path, sets: tuple[str, ...]) -> None:
    chosen, stream = planned("engine.name=native", *sets)
    short = WHOLE["Short"](tmp_path / "run", chosen, stream)
    counts = WHOLE["counts"](short.setup)
    steps = sum(n for k, n in counts.items() if not k.endswith("change"))
    assert steps == sum(e.steps for e in short.setup.epochs)
    gather = sum(n for k, n in counts.items() if k.endswith(("scores", "chooses")))
    assert gather == sum(short.setup.meter.gathering(e) for e in short.setup.epochs)
    took = WHOLE["measure"](short, {"other": lambda: None}, 1)
    assert {k for k, n in counts.items() if n} <= set(short.took)
    assert all(s >= 0 for v in short.took.values() for s in v)
    assert took["other"]


def test_the_torch_step_follows_the_loss_of_derpp(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes down: current samples among two classes, stored logits, replayed classes."""
    torch.set_num_threads(1)
    losses, grad = list[float](), torch.autograd.grad

    def spy(loss: torch.Tensor, trained: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        losses.append(float(loss.detach()))
        return grad(loss, trained)

    monkeypatch.setattr(torch.autograd, "grad", spy)
    net = build_net("small_cnn", (1, 8, 8), 10, 8)
    step = WHOLE["dense_torch"](net, {"alpha": 0.1, "beta": 0.5}, 16, channels_last=True)
    for _ in range(120):
        step()
    assert losses[0] == pytest.approx(np.log(2) + 0.5 * np.log(10) + 0.1, rel=0.5)
    assert losses[-1] < 0.7 * losses[0]


def test_a_run_that_has_not_ended_has_no_seconds_of_its_own(tmp_path: Path) -> None:
    chosen, stream = planned("engine.name=native")
    setup, state = session.begin(tmp_path / "run", replace(chosen), stream)
    state.note({"event": "warning", "message": "x"})
    assert WHOLE["finished"](str(setup.run)) is None
    assert WHOLE["finished"]("") is None
