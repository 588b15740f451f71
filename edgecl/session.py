"""Puts a run together: from a resolved configuration, or from a run folder, to what the loop takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecl import config as configs
from edgecl import environment, plan, runfolder, schedule
from edgecl.config import Config
from edgecl.cost import layer_costs
from edgecl.data import joint, load_stream
from edgecl.engines import Engine, make_engine
from edgecl.forecast import Meter, Workload, method_of, simulate
from edgecl.layout import masked_layers
from edgecl.metrics import summary
from edgecl.plan import Plan
from edgecl.state import Setup, State, fresh, restore
from edgecl.types import Stream


def workload(stream: Stream) -> Workload:
    """What a plan must know of a stream."""
    return Workload(stream.shape, len(stream.class_names), tuple(len(t.train) for t in stream.tasks))


def read_stream(config: Config) -> Stream:
    """The configured stream, in tasks."""
    d = config.data
    return load_stream(d.name, d.root, classes_per_task=d.classes_per_task, samples_per_class=d.samples_per_class)


def make(config: Config, stream: Stream, pinned: Collection[str]) -> Plan:
    """The plan for a stream; see plan.make_plan."""
    return plan.make_plan(config, workload(stream), pinned)


def begin(run: Path, chosen: Plan, stream: Stream) -> tuple[Setup, State]:
    """A new run in the folder `run`, which must hold no other."""
    engine = _engine(chosen)
    runfolder.create_run(run, record(chosen))
    setup = _setup(run, chosen, stream)
    return setup, fresh(setup, engine)


def resume(run: Path) -> tuple[Setup, State]:
    """The run in `run`, from its newest snapshot."""
    config = configs.resolve("", [runfolder.read_config(run).get("config", {})])
    stream = read_stream(config)
    chosen = plan.frozen(config, workload(stream))
    setup = _setup(run, chosen, stream)
    return setup, restore(setup, _engine(chosen))


def record(chosen: Plan) -> dict[str, Any]:
    """What config.yaml holds: the configuration, what was planned and where."""
    return {
        "config": chosen.config.to_dict(),
        "plan": {"executed": chosen.ledger.executed, "dense_executed": chosen.dense.executed, "ratio": chosen.ratio},
        "environment": environment.describe(),
    }


def _setup(run: Path, chosen: Plan, stream: Stream) -> Setup:
    method = method_of(chosen.config)
    if method.joint:
        stream = joint(stream)
    layers, costs = masked_layers(chosen.net, chosen.config), layer_costs(chosen.net)
    epochs = schedule.epochs(chosen.config, [len(t.train) for t in stream.tasks])
    return Setup(run, chosen, stream, method, epochs, layers, Meter(chosen.config, costs, layers, method))


def _engine(chosen: Plan) -> Engine:
    c = chosen.config
    return make_engine(
        c.engine.name,
        chosen.net,
        device=c.engine.device,
        threads=c.engine.threads,
        precision=c.engine.precision,
        momentum=c.train.momentum,
        weight_decay=c.train.weight_decay,
    )


def result(setup: Setup, state: State) -> dict[str, Any]:
    """What a finished run, or one that stopped, has to show; also written as ledger.json and result.json."""
    learned = len(state.accuracy) - 1
    dense = simulate(plan.baseline(setup.config), plan.build(plan.baseline(setup.config), _work(setup)), _work(setup), learned)
    ledger = state.ledger.report(dense)
    runfolder.write_json(setup.run, "ledger.json", ledger)
    shown = {
        "run": str(setup.run),
        "method": setup.method.name,
        "net": setup.plan.net.name,
        "width": setup.config.net.width,
        "sparsity": setup.config.mask.sparsity,
        "accuracy": state.accuracy,
        **_metrics(state.accuracy),
        **{k: ledger[k] for k in ("executed", "paper", "dense_executed", "dense_paper", "ratio", "ratio_paper")},
        "seconds": state.seconds,
        "peak_rss_bytes": environment.peak_rss(),
        "memory_bytes": state.memory.nbytes if state.memory else 0,
    }
    runfolder.write_json(setup.run, "result.json", shown)
    return shown


def _work(setup: Setup) -> Workload:
    return workload(setup.stream)


def _metrics(accuracy: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return dict(summary(*([[row[k] for row in accuracy] for k in ("class_il", "task_il")])))
