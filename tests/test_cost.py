"""Costs: torch's own FLOP counter agrees to the last FLOP; hand counts; the published convention."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgecl.config import Config
from edgecl.cost import LayerCost, dense, forward_flops, layer_costs
from edgecl.forecast import Workload, simulate
from edgecl.ledger import KINDS, step_table
from edgecl.nets import ZOO, Net, build_net
from edgecl.nets.init import initial
from edgecl.nets.nodes import Add, Conv2d, Flatten, GlobalPool, Linear, Relu

torch = pytest.importorskip("torch")

TINY = str(Path(__file__).parents[1] / "models" / "tiny_cnn.yaml")
NETS = [(name, (3, 12, 8), 6) for name in ZOO] + [(name, (1, 9, 9), 0) for name in ("small_cnn", "mlp")] + [(TINY, (1, 8, 8), 0)]
N = 5  # samples of a batch


def counted(net: Net, backward: bool) -> int:
    """What torch counts for a batch: parameters learn, the picture does not."""
    from torch.utils.flop_counter import FlopCounterMode

    from edgecl.engines.torch_ops import render

    p = {k: torch.from_numpy(v) for k, v in initial(net, np.random.default_rng(0)).items()}
    for name in net.weights():
        p[name].requires_grad_()
    with FlopCounterMode(display=False) as counter:
        logits = render(net, p, torch.randn(N, *net.input), [N])[net.logits]
        if backward:
            logits.sum().backward()
    return int(counter.get_total_flops()) - (miscounted(net) if backward else 0)


def miscounted(net: Net) -> int:
    """What torch's counter adds for a batch: it takes the weight gradient of a grouped convolution for that of a full one."""
    groups = {k: node.groups for k, node in net.layers().items() if isinstance(node, Conv2d)}
    return sum(N * c.flops(c.weights) * (groups.get(c.name, 1) - 1) for c in layer_costs(net))


@pytest.mark.parametrize(("name", "shape", "width"), NETS)
def test_forward_is_torchs_count(name: str, shape: tuple[int, int, int], width: int) -> None:
    net = build_net(name, shape, 10, width)
    costs = layer_costs(net)
    assert N * forward_flops(costs, dense(costs)) == counted(net, backward=False)


@pytest.mark.parametrize(("name", "shape", "width"), NETS)
def test_a_training_step_is_torchs_count(name: str, shape: tuple[int, int, int], width: int) -> None:
    net = build_net(name, shape, 10, width)
    costs = layer_costs(net)
    every = dense(costs)
    assert int(step_table(costs, every, every, None, N, 0).sum()) == counted(net, backward=True)
    assert int(step_table(costs, every, every, None, 2, N - 2).sum()) == counted(net, backward=True)


def test_full_width_resnet18_is_torchs_count() -> None:
    net = build_net("resnet18", (3, 32, 32), 10)
    costs = layer_costs(net)
    assert N * forward_flops(costs, dense(costs)) == counted(net, backward=False)


# ---- by hand ----


def hand_net() -> Net:
    """Two layers read the picture; a shortcut, groups and a bias are in it."""
    nodes = (
        Conv2d("a", ("x",), 4, 3, padding=1),  # 2×6×6 → 4×6×6
        Conv2d("b", ("x",), 4, 1),  # also reads the picture
        Add("sum", ("a", "b")),
        Relu("relu", ("sum",)),
        Conv2d("c", ("relu",), 6, 3, stride=2, groups=2, bias=True),  # → 6×2×2
        Flatten("flat", ("c",)),
        Linear("d", ("flat",), 5),
    )
    return Net("hand", (2, 6, 6), 5, nodes, "d", "flat")


def test_layers_by_hand() -> None:
    assert layer_costs(hand_net()) == (
        LayerCost("a", 4 * 2 * 9, 36, False),
        LayerCost("b", 4 * 2, 36, False),
        LayerCost("c", 6 * 2 * 9, 4, True),
        LayerCost("d", 5 * 24, 1, True),
    )


def test_a_step_by_hand() -> None:
    costs = layer_costs(hand_net())
    live = {"a": 36, "b": 8, "c": 10, "d": 120}  # c: 10 of 108 live, 4 of them updated
    table = step_table(costs, live, {**live, "c": 4}, {**live, "c": 108}, current=3, replay=2)
    c = dict(zip(KINDS, table[:, 2].tolist(), strict=True))
    one = 2 * 4  # FLOPs of a weight: 2 a multiply-add, 4 positions
    assert c == {
        "forward": 3 * 10 * one,
        "input_gradient": 3 * 10 * one,
        "weight_gradient": 3 * 4 * one,
        "replay_forward": 2 * 10 * one,
        "replay_input_gradient": 2 * 10 * one,
        "replay_weight_gradient": 2 * 4 * one,
        "scoring": 5 * 104 * one,
        "upkeep": 0,
    }
    assert table[KINDS.index("input_gradient"), :2].tolist() == [0, 0]
    assert forward_flops(costs, live) == 2 * (36 * 36 + 8 * 36 + 10 * 4 + 120)


def test_what_learns_nothing_gets_no_gradient() -> None:
    nodes = (GlobalPool("pool", ("x",)), Linear("a", ("pool",), 4), Linear("b", ("a",), 2))
    assert [c.input_gradient for c in layer_costs(Net("n", (3, 4, 4), 2, nodes, "b", "a"))] == [False, True]


# ---- Split CIFAR-10 as published: 5 tasks of 10,000, 50 epochs, batch 32 and as many replayed, ResNet-18 ----

SIZES = (10_000,) * 5
CIFAR = Workload((3, 32, 32), 10, SIZES)
SAMPLES = 5 * 312 * 32 * 50  # full batches only: 312 an epoch


def ledger_of(method: str) -> tuple[int, int, float, float]:
    """(executed, paper, FLOPs of a sample's forward pass, those of the stem)"""
    net = build_net("resnet18", CIFAR.input, CIFAR.classes)
    costs = layer_costs(net)
    ledger = simulate(Config().set("method.name", method).set("train.epochs", 50), net, CIFAR)
    return ledger.executed, ledger.paper, forward_flops(costs, dense(costs)), costs[0].flops(costs[0].weights)


def test_paper_convention_gives_the_published_figure() -> None:
    _, paper, forward, _ = ledger_of("er")
    assert f"{paper:.3g}" == "1.11e+16"  # 11.1e15, as CLFD and SparCL print it
    assert paper == SAMPLES * 4 * forward


@pytest.mark.parametrize(("method", "k", "executed_k"), [("sgd", 3, 3), ("er", 4, 6), ("derpp", 5, 9), ("er_ace", 4, 6)])
def test_both_conventions(method: str, k: int, executed_k: int) -> None:
    executed, paper, forward, stem = ledger_of(method)
    assert paper == SAMPLES * k * forward
    assert executed == SAMPLES * (executed_k * forward - executed_k // 3 * stem)  # no gradient for the picture
