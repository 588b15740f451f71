"""A device that is hot, throttled or low on power, in files below a made-up root."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecl.runtime.health import THROTTLED, Health, Limits


def put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def battery(root: Path, percent: int, status: str = "Discharging", name: str = "BAT0") -> None:
    for key, value in (("type", "Battery"), ("capacity", percent), ("status", status)):
        put(root, f"sys/class/power_supply/{name}/{key}", f"{value}\n")


def zone(root: Path, celsius: float, number: int = 0) -> None:
    put(root, f"sys/class/thermal/thermal_zone{number}/temp", f"{int(celsius * 1000)}\n")


def test_a_machine_that_tells_nothing_is_well(tmp_path: Path) -> None:
    assert Health(tmp_path).check() == ()


def test_heat_has_two_limits(tmp_path: Path) -> None:
    health = Health(tmp_path)
    zone(tmp_path, 30, 1)
    said = []
    for celsius in (79, 80, 75, 71, 69, 75, 79, 85):
        zone(tmp_path, celsius)
        said.append(bool(health.check()))
    assert said == [False, True, True, True, False, False, False, True]
    assert health.check() == ("85 °C: waiting for 70 °C",)


def test_a_battery_has_two_limits_and_a_charger(tmp_path: Path) -> None:
    health = Health(tmp_path, Limits(low=20, enough=30))
    said = []
    for percent, status in ((21, "Discharging"), (20, "Discharging"), (29, "Discharging"), (25, "Charging"), (25, "Discharging"),
                            (15, "Not charging"), (31, "Discharging"), (5, "Charging"), (100, "Full")):  # fmt: skip
        battery(tmp_path, percent, status)
        said.append(bool(health.check()))
    assert said == [False, True, True, False, False, True, False, False, False]


def test_a_mouse_is_no_matter(tmp_path: Path) -> None:
    battery(tmp_path, 3, name="hid")
    put(tmp_path, "sys/class/power_supply/hid/scope", "Device\n")
    assert Health(tmp_path).check() == ()


@pytest.mark.parametrize("place", THROTTLED)
@pytest.mark.parametrize(("bits", "pauses"), [("0", False), ("50000", False), ("0x50005", True), ("8", True), ("what", False)])
def test_throttled_now_not_once(tmp_path: Path, place: str, bits: str, pauses: bool) -> None:
    """The high bits tell that it happened since the start."""
    put(tmp_path, place, bits + "\n")
    assert bool(Health(tmp_path).check()) is pauses


def test_files_that_hold_nothing_sensible(tmp_path: Path) -> None:
    put(tmp_path, "sys/class/thermal/thermal_zone0/temp", "warm")
    put(tmp_path, "sys/class/power_supply/BAT0/type", "Battery")
    assert Health(tmp_path).check() == ()
