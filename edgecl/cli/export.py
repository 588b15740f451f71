"""`edgecl export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table

    from edgecl.export import Exported

EPILOG = """\b
Example:
  edgecl export runs/mine --to onnx -o mine.onnx
"""


@click.command(epilog=EPILOG)
@click.argument("run")
@click.option("--to", "target", required=True, metavar="TARGET", help="onnx, onnx-int8, litert or litert-int8.")
@click.option("--snapshot", type=int, metavar="N", help="Number of the snapshot. [the newest]")
@click.option("--for", "chip", default="", metavar="CHIP", help="Chip that int8 is made for: x86, arm or wasm. [x86]")
@click.option("-o", "--out", type=click.Path(), metavar="FILE", help="The file to write. [RUN-NNN and the target, here]")
@click.option("--samples", type=click.Path(), metavar="FILE", help="An .npz with x, and y, to check with. [the replay memory]")
@click.option(
    "--test-samples",
    type=click.IntRange(min=0),
    default=2000,
    metavar="N",
    help="Judge by so many test samples, if they are here. [2000]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def command(run: str, snapshot: int | None, target: str, out: str | None, as_json: bool, **given: Any) -> None:
    """Write a snapshot's network as a model file for another runtime.

    RUN is a run folder, or a folder in its snapshots. The file is checked against the engine on real samples before it is
    written, and holds the model's card: classes, normalisation, and the snapshot it is of.
    """
    from edgecl.export import export
    from edgecl.files import write_atomic
    from edgecl.model import open_model

    folder, number = place(Path(run), snapshot)
    chip, tests, file = given["chip"], given["test_samples"], given["samples"]
    model = open_model(folder, number)
    made = export(model, target, chip, Path(file) if file else None, tests)
    path = Path(out) if out else Path(usual_name(folder, model.folder.name, target, made))
    if path.suffix != made.suffix:
        from edgecl.types import ConfigError

        raise ConfigError(f"--out: {path} does not end in {made.suffix}, as a file of {target} does")
    write_atomic(path, made.data)
    shown = as_plain(made, target, path)
    if made.warning:
        click.echo(f"edgecl: warning: {made.warning}", err=True)
    if as_json:
        print(json.dumps({"run": run, "snapshot": int(model.folder.name), **shown}, allow_nan=False))
    else:
        _print(shown)


def place(path: Path, number: int | None) -> tuple[Path, int | None]:
    """(run folder, snapshot) of a run folder or a folder in its snapshots. Raises ConfigError where both name a snapshot."""
    from edgecl.types import ConfigError

    full = path.absolute()
    if full.parent.name != "snapshots" or not full.name.isdigit():
        return path, number
    if number not in (None, int(full.name)):
        raise ConfigError(f"--snapshot: {number}, but {path} is another one")
    return full.parent.parent, int(full.name)


def usual_name(run: Path, snapshot: str, target: str, made: Exported) -> str:
    """mine-005.onnx, mine-005-int8-x86.onnx."""
    parts = [run.absolute().name, snapshot, *(["int8"] if target.endswith("int8") else []), *([made.chip] if made.chip else [])]
    return "-".join(parts) + made.suffix


def as_plain(made: Exported, target: str, path: Path) -> dict[str, Any]:
    """All that the check found, for JSON."""
    scores = {s: {k: v._asdict() for k, v in by.items()} for s, by in made.scores.items()}
    samples = [{"source": s, "samples": made.samples[s], **by} for s, by in scores.items()]
    return {
        "file": str(path),
        "to": target,
        "for": made.chip or None,
        "bytes": dict(made.bytes),
        "ms": dict(made.ms),
        "parity": made.parity,
        "engine": made.engine,
        "checks": samples,
        "lost": made.lost,
        "left_in_float": list(made.floats),
        "warning": made.warning or None,
        "parameters": dict(zip(("whole", "left"), made.parameters, strict=True)),
        "macs": dict(zip(("whole", "left"), made.macs, strict=True)),
    }


def _print(shown: dict[str, Any]) -> None:
    from edgecl.cli.look import console, grid
    from edgecl.cli.text import si

    params, macs = shown["parameters"], shown["macs"]
    rows = [
        ("file", shown["file"]),
        ("parity", f"logits within {shown['parity']:.1e} of the {shown['engine']} engine's"),
        ("parameters", f"{params['left']:,} of {params['whole']:,} are left"),
        ("multiply-adds", f"{si(macs['left'], '')} of {si(macs['whole'], '')} a sample"),
    ]
    out = console()
    out.print(_table(shown), "", grid(rows), sep="\n")


def _table(shown: dict[str, Any]) -> Table:
    from edgecl.cli.look import table
    from edgecl.cli.text import percent, size, three

    t = table("", f"{shown['to']} (time: one sample, one thread, here)", *shown["bytes"], right=shown["bytes"])
    t.add_row("size", *map(size, shown["bytes"].values()))
    t.add_row("time, ms", *map(three, shown["ms"].values()))
    for check in shown["checks"]:
        on = f"{check['samples']:,} of {check['source']}"
        t.add_row(f"accuracy, % ({on})", *(percent(check[k]["accuracy"]) for k in shown["bytes"]))
        if len(shown["bytes"]) > 1:
            t.add_row(f"agreement, % ({on})", *(percent(check[k]["agreement"]) for k in shown["bytes"]))
    return t
