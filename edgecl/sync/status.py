"""What `edgecl sync status` tells: read from the disk alone, while a service is at work too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgecl import slots
from edgecl.sync.outbox import Outbox
from edgecl.sync.place import Place, base_of, read_config, read_state


def status(place: Place) -> dict[str, Any]:
    """Plain values. Raises ConfigError where the device is not enrolled, StoreError where a file is damaged."""
    config, state = read_config(place), read_state(place)
    outbox, slot, spent = Outbox(place.outbox, config.quota, sweep=False), place.slot(), state.bytes
    tries = slots.on_trial(place.root)
    return {
        "hub": config.url,
        "device": config.device,
        "name": config.name,
        "state": state.hub or "not heard of since it enrolled",
        "slot": _slot(slot, tries),
        "base": base_of(slot)[:12],
        "waiting": [{"sequence": i.sequence, "bytes": i.bytes, "begun": i.begun} for i in outbox.items()],
        "set_aside": [{"sequence": i.sequence, "why": i.reason} for i in outbox.aside()],
        "pushed": dict(state.pushed),
        "pulled": dict(state.pulled),
        "failed": dict(state.failed),
        "waits_for": dict(state.waits),
        "bytes_today": {"up": spent.up, "down": spent.down, "of": config.bytes_a_day or None},
        "hub_time": int(state.time) or None,
    }


def _slot(slot: Path | None, tries: int | None) -> str:
    if slot is None:
        return "nothing is installed; edgecl sync pull does it"
    return slot.name if tries is None else f"{slot.name}, on trial ({tries} starts)"
