"""A hub and three devices over a line that loses a tenth of its connections: learn, push, merge, publish, pull, learn on."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fake_hub import Line, line
from hub_here import Device, merge, new_hub, served
from sync_cases import newest, right, samples, teach

from edgecl.hub import store
from edgecl.hub.service import Service
from edgecl.model import open_model
from edgecl.sync.place import Place, base_of, read_config

PERSONAL = {"a": 8, "b": 9, "c": 8}
"""Two devices call the same new class by the same name; still it is each one's own until an operator shares it."""


@pytest.fixture
def hub(base: Path, tmp_path: Path) -> Iterator[Service]:
    with served(new_hub(tmp_path / "hub", base)) as service:
        yield service


def a_tenth(seed: int) -> Callable[[int], int | None]:
    """Of the connections, cut at a byte by chance: a short one's, or one far into a long one."""
    draw = random.Random(seed)
    return lambda n: int(10 ** draw.uniform(1.5, 4.8)) if draw.random() < 0.1 else None


def fragile(seed: int) -> Callable[[int], int | None]:
    """All of them: a device keeps its connection, so that one in ten would hardly ever be cut in this short test."""
    draw = random.Random(seed)
    return lambda n: int(10 ** draw.uniform(3.2, 4.7))


def lesson(device: Device, classes: list[int], first: int, n: int = 20) -> None:
    teach(device.slot / "lessons", newest(device.slot), samples(classes, n, first), epochs=4)


@pytest.mark.parametrize("cuts", [a_tenth, fragile])
def test_every_device_ends_on_the_merged_model_with_its_own_class(
    hub: Service, tmp_path: Path, cuts: Callable[[int], Callable[[int], int | None]]
) -> None:
    with ExitStack() as stack:
        lines: list[Line] = [stack.enter_context(line(hub.port, cuts(seed))) for seed in range(3)]
        devices = {
            name: Device.joined(tmp_path / name, hub, at.port, trial="selftest", name=name)
            for name, at in zip(PERSONAL, lines, strict=True)
        }
        for i, (name, device) in enumerate(devices.items()):
            device.until("pull")
            lesson(device, [PERSONAL[name]], 0, 40)
            lesson(device, [2 * i, 2 * i + 1], 60)
            device.until("push")
        outcomes = merge(hub)
        assert [o.updates for o in outcomes] == [3], [(o.reason, o.before, o.after) for o in outcomes]
        for device in devices.values():
            device.until("pull")
            lesson(device, [7], 80)
            device.until("push")
        merge(hub)
        for device in devices.values():
            device.until("pull")
        if cuts is fragile:
            assert min(at.dropped for at in lines) >= 1

    updates = store.updates(hub.engine)
    assert sorted((u.device, u.sequence) for u in updates) == sorted(
        (read_config(Place(d.root)).device, n) for d in devices.values() for n in (1, 2)
    )
    assert {u.state for u in updates} == {"merged"}
    current = store.current(hub.engine)
    assert current.number >= 3
    shown = samples(range(8), 15, test=True)
    hubs = right(open_model(hub.place.model(current.number)), shown)
    for name, device in devices.items():
        assert base_of(device.slot) == current.snapshot
        assert not device.events("set aside")
        model, own = open_model(newest(device.slot)), PERSONAL[name]
        assert [model.card.classes[k] for k in model.card.seen] == [*map(str, range(8)), str(own)]
        assert right(model, samples([own], 15, test=True)) > 0.3, name
        assert right(model, shown) > hubs - 0.1, name
        assert json.loads((Place(device.root).state).read_text())["waits"] == {}
