"""F5: predict, and go on learning, on the device; without torch.

    from edgecl import runtime
    with runtime.open("runs/mine") as device:
        answer = device.predict(frame)     # answer.name, answer.probability
        device.learn(frame, "mug")
        print(device.save())               # the new snapshot

Importing this loads nothing but numpy; what a call needs is loaded when it is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgecl.runtime.device import Device


def open(place: Path | str, **options: Any) -> Device:
    """The network of a run folder, a bundle (packed: with `public`) or an exported model, ready to predict and to learn.

    `options` are those of `device.open_device`. Raises StoreError where there is nothing to open, ConfigError that names an
    option or the extra that is missing.
    """
    from edgecl.runtime.device import open_device

    return open_device(Path(place), **options)


__all__ = ["open"]
