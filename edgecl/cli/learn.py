"""`edgecl learn`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgecl.cli.signals import Stop
    from edgecl.lesson import Labelled
    from edgecl.runtime.device import Device
    from edgecl.runtime.teaching import Settings

EPILOG = """\b
Examples:
  edgecl learn runs/mine --input photos/ --budget 10min,256MB
  edgecl learn /opt/edgecl/current --input socket:/run/edgecl.sock --lesson 200
  edgecl learn runs/mine --input more.npz --held-out test.npz --set train.rate=0.01
"""

SOCKET = "socket:"


@click.command(epilog=EPILOG)
@click.argument("place")
@click.option("--input", "given", metavar="SOURCE", required=True, help="Folder of classes, .npz, - (JSON lines), socket:PATH.")
@click.option("--budget", metavar="LIMITS", default="", help="Of a lesson: 10min,256MB, as for train. [none]")
@click.option("--lesson", metavar="N|TIME", help="Samples, or time (60s), that make a lesson. [all; of a socket 64]")
@click.option("--epochs", type=click.IntRange(1), metavar="N", help="Of a lesson. [as the network was trained]")
@click.option("--held-out", metavar="SOURCE", help="Labelled folder or .npz to test on. [the replay memory, and the lesson]")
@click.option("--pub", metavar="KEY", help="Public key that signed PLACE, if that is a bundle file.")
@click.option("--out", metavar="DIR", help="Folder of lessons. [PLACE/lessons]")
@click.option("--serve", metavar="PATH", help="Answer predictions on this Unix socket meanwhile.")
@click.option("--write-every", metavar="TIME", default="5min", help="Of training at least between two snapshots. [5min]")
@click.option("--hot", type=float, metavar="CELSIUS", default=80.0, help="Pause from this temperature on. [80]")
@click.option("--low", type=float, metavar="PERCENT", default=20.0, help="Pause at this charge of a battery. [20]")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Set a key of the lesson, such as train.rate=0.01.")
@click.option("--json", "as_json", is_flag=True, help="Print only the last line, as one JSON object.")
def command(place: str, given: str, pub: str | None, as_json: bool, **how: Any) -> None:
    """Go on learning from labelled samples, new classes too, and keep predicting meanwhile.

    PLACE is a run folder or a bundle, packed or not. Prints what happens as lines of JSON; the last names the snapshot. Ctrl-C
    stops with a snapshot, and the same command goes on from it.
    """
    from edgecl.cli.errors import InterruptedRun
    from edgecl.cli.signals import Stop
    from edgecl.runtime.device import open_device

    def say(event: dict[str, Any]) -> None:
        if not as_json:
            print(json.dumps(event, allow_nan=False), flush=True)

    settings = _settings(given, how)
    public = None if pub is None else Path(pub)
    _time_machine(Path(place), public, how["out"], settings.budget)
    with Stop() as stop, open_device(Path(place), public=public, out=how["out"], say=say, settings=settings) as device:
        if how["held_out"] is not None:
            device.test_on(_labelled(device, how["held_out"]))
        learned = _learn(device, given, how["serve"], stop)
    if learned is None:
        raise InterruptedRun(f"stopped; the same command goes on with what {device.folder} keeps")
    print(json.dumps(learned, allow_nan=False))


def _time_machine(place: Path, public: Path | None, out: str | None, budget: str) -> None:
    """Calibrates this machine, in a process of its own, where a budget of time or energy needs it and nobody has.

    Raises BudgetError where that fails.
    """
    import subprocess

    from edgecl import budget as budgets
    from edgecl.cli import again
    from edgecl.model import open_model
    from edgecl.runtime import lessons
    from edgecl.runtime.place import find
    from edgecl.runtime.teaching import clock_for
    from edgecl.types import BudgetError

    if not budgets.parse(budget).timed:
        return
    found = find(place, public)
    run = lessons.newest(found, found.lessons if out is None else Path(out))
    if run is None or clock_for(open_model(run), budget) is not None:
        return
    print("edgecl: timing training steps for some seconds: no calibration of this machine yet", file=sys.stderr)
    command = again.command("measure", "calibrate", "--like", str(run), "--json")
    if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
        raise BudgetError(f"budget {budget}: this machine could not be timed; the line above says why")


def _settings(given: str, how: dict[str, Any]) -> Settings:
    from dataclasses import replace

    from edgecl import config as configs
    from edgecl.runtime.health import Health, Limits
    from edgecl.runtime.teaching import Settings

    changes: dict[str, Any] = {}
    for text in how["sets"]:
        changes = _over(changes, configs.parse_set(text)[1])
    if how["epochs"]:
        changes = _over(changes, {"train": {"epochs": how["epochs"]}})
    usual = Limits()
    limits = replace(usual, hot=how["hot"], cool=how["hot"] - (usual.hot - usual.cool))
    limits = replace(limits, low=how["low"], enough=how["low"] + (usual.enough - usual.low))
    size, seconds = _lesson(how["lesson"], given)
    written = _seconds("--write-every", how["write_every"])
    return Settings(how["budget"], changes, size, seconds, written, health=Health(limits=limits), journal=_passes(given))


def _passes(given: str) -> bool:
    """Whether the input is gone once it is read."""
    return given == "-" or given.startswith(SOCKET)


def _over(values: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Nested keys laid over each other."""
    found = dict(values)
    for key, value in more.items():
        old = found.get(key)
        found[key] = _over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return found


WHOLE = 1_000_000
"""Samples of a lesson that ends with its input: more than are ever held."""


def _lesson(text: str | None, given: str) -> tuple[int, float | None]:
    """(samples, seconds) that make a lesson."""
    if text is None:
        return (64, None) if given.startswith(SOCKET) else (WHOLE, None)
    if text.isdigit() and int(text):
        return int(text), None
    return WHOLE, _seconds("--lesson", text, "a number of samples, or a time")


def _seconds(option: str, text: str, wanted: str = "a time") -> float:
    from edgecl.budget import parse
    from edgecl.types import BudgetError, ConfigError

    try:
        found = parse(text).time
    except BudgetError:
        found = None
    if found is None:
        raise ConfigError(f"{option} {text!r}: expected {wanted} such as 60s or 5min") from None
    return float(found)


def _labelled(device: Device, given: str) -> Labelled:
    import numpy as np

    from edgecl.lesson import Labelled
    from edgecl.runtime.sources import open_source
    from edgecl.types import DataError

    frames = list(open_source(device.card, given, sys.stdin.buffer))
    bare = next((f for f in frames if f.label is None), None)
    if bare is not None:
        raise DataError(f"{bare.source}: has no label")
    return Labelled(np.stack([f.x for f in frames]), [f.label or "" for f in frames])


def _learn(device: Device, given: str, serve: str | None, stop: Stop) -> dict[str, Any] | None:
    """Learns to the input's end; the last line: what was learned. None where it was asked to stop."""
    from edgecl.runtime.device import Closed
    from edgecl.runtime.serving import Server
    from edgecl.types import ConfigError

    by_socket = given.removeprefix(SOCKET) if given.startswith(SOCKET) else None
    if by_socket == "":
        raise ConfigError(f"--input {given}: names no path for the socket")
    try:
        with ExitStack() as stack:
            for path in sorted({path for path in (serve, by_socket) if path}):
                stack.enter_context(Server(Path(path), device))
            stack.enter_context(_watching(device, stop))
            left = device.start()
            if by_socket:
                _wait(device)
            elif left and not device.settings.journal:
                print("edgecl: ending the lesson that was left; run the command again to learn from --input", file=sys.stderr)
            else:
                _read(device, given)
            snapshot = device.save()
    except Closed:
        return None
    return {"event": "saved", "snapshot": str(snapshot), "classes": list(device.card.classes), "bytes_written": device.written}


@contextmanager
def _watching(device: Device, stop: Stop) -> Iterator[None]:
    """Closes the device once the user asks to stop: whoever waits for it then raises Closed."""
    import threading

    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            if stop.asked:
                device.close()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _read(device: Device, given: str) -> None:
    from edgecl.runtime.sources import open_source
    from edgecl.types import DataError

    for frame in open_source(device.card, given, sys.stdin.buffer, split="train"):
        if frame.label is None:
            raise DataError(f"{frame.source}: has no label to learn")
        device.learn(frame.x, frame.label)


def _wait(device: Device) -> None:
    """Till the device is closed, or a lesson fails."""
    import time

    while not device.over:
        time.sleep(0.2)
