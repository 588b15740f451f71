"""`edgecl run`."""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import click

EPILOG = """\b
Examples:
  edgecl run runs/mine --input photos/
  edgecl run /opt/edgecl/current --input camera --top 1
  edgecl run runs/mine --input test.npz --json
"""


@click.command(epilog=EPILOG)
@click.argument("place")
@click.option("--input", "given", metavar="SOURCE", required=True, help="camera, camera:N, a folder, a picture, an .npz, or -.")
@click.option("--runtime", metavar="NAME", default="auto", help="native, numpy, onnx or litert. [auto: by what is there]")
@click.option("--pub", metavar="KEY", help="Public key that signed PLACE, if that is a bundle file.")
@click.option("--lessons", metavar="DIR", help="Folder of what was learned here: the newest predicts. [PLACE/lessons]")
@click.option("--top", type=click.IntRange(1), default=3, help="Classes that a line names. [3]")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Stop after so many frames. [all]")
@click.option("--threads", type=click.IntRange(0, 1024), default=0, help="Of the predictor. [0: its own choice]")
@click.option("--raw", is_flag=True, help="Standard input holds frames of C·H·W bytes, not lines of JSON.")
@click.option("--json", "as_json", is_flag=True, help="Print only the summary, as one JSON object.")
def command(
    place: str,
    given: str,
    runtime: str,
    pub: str | None,
    lessons: str | None,
    top: int,
    limit: int | None,
    threads: int,
    raw: bool,
    as_json: bool,
) -> None:
    """Predict what a camera, files or standard input show, as lines of JSON.

    PLACE is a run folder, a bundle, packed or not, or an exported model; what `edgecl learn` taught it there counts. A
    summary with latencies ends on standard error.
    """
    from edgecl.runtime.answers import Latency, stream
    from edgecl.runtime.device import newest_predictor
    from edgecl.runtime.place import find
    from edgecl.runtime.sources import open_source

    found = find(Path(place), None if pub is None else Path(pub))
    predictor = newest_predictor(found, found.lessons if lessons is None else Path(lessons), runtime, threads)
    frames = open_source(predictor.card, given, sys.stdin.buffer, raw_frames=raw)
    latency = Latency()
    try:
        for line in stream(predictor, islice(frames, limit), latency, top):
            if not as_json:
                print(json.dumps(line, ensure_ascii=False, allow_nan=False), flush=True)
    except KeyboardInterrupt:  # how one ends a camera
        pass
    _say(latency.summary(predictor.backend), as_json)


def _say(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary, allow_nan=False))
    elif summary["frames"]:
        rate, ms = summary["frames_per_s"], "/".join(f"{summary[k]:.2f}" for k in ("p50_ms", "p95_ms", "p99_ms"))
        share = "" if summary["accuracy"] is None else f", {100 * summary['accuracy']:.1f} % of {summary['labelled']} right"
        text = f"{summary['frames']} frames, {rate:.1f} a second; prediction p50/p95/p99 {ms} ms ({summary['backend']}){share}"
        print(f"edgecl: {text}", file=sys.stderr)
