"""`edgecl plan`."""

from __future__ import annotations

import json
from typing import Any

import click

from edgecl.cli.options import planning

EPILOG = """\b
Example:
  edgecl plan --data cifar10 --budget 23x --device rpi
  edgecl plan --data cifar10 --engine native --budget 10x,2h,300MB
"""


@click.command(epilog=EPILOG)
@planning
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def command(as_json: bool, **given: Any) -> None:
    """Print what train would do and cost, layer by layer.

    Takes the options of train. All numbers are predictions; the FLOPs of a run without early end come out exactly so.
    Time is predicted from this machine's calibration, or from the profile of another device.
    """
    from edgecl import session
    from edgecl.cli import plantables
    from edgecl.cli.clocks import clock_for
    from edgecl.cli.idle import warn, warn_if_slow
    from edgecl.cli.options import choose
    from edgecl.profiles import load_profile

    config, pinned = choose(given)
    load_profile(config.device)  # an unknown one is an error before the data is read
    stream = session.read_stream(config)
    settled, work = session.with_engine(config), session.workload(stream)
    plan = session.make(settled, stream, pinned, clock_for(settled, stream))
    warn(plan.config, pinned)
    warn_if_slow(config)
    if as_json:
        print(json.dumps({**plantables.plain(plan, work), "pinned": sorted(pinned)}, allow_nan=False))
    else:
        plantables.print_plan(plan, work, stream, pinned)
