"""Every shipped profile loads and is sane; every mistake in a user's file is named."""

import os
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml

from edgecl import profiles
from edgecl.profiles import UNITS, Figure, Profile, joules, load_profile, profile_names, seconds
from edgecl.types import ConfigError

BOARDS = ("rpi", "rpi4", "rpi3", "rpi-zero2w", "phone-arm64-big", "phone-arm64-small")

RANGES = {
    "core_count": (1, 64),
    "clock_ghz": (0.3, 6),
    "peak_gflops_fp32": (1, 300),
    "bandwidth_gbs": (0.5, 200),
    "ram_bytes": (256 * 2**20, 64 * 2**30),
    "l2_bytes": (64 * 2**10, 16 * 2**20),
    "l3_bytes": (0, 64 * 2**20),
    "training_efficiency": (0.02, 0.9),
    "power_idle_w": (0.1, 10),
    "power_load_w": (0.5, 30),
}


def figures(profile: Profile) -> dict[str, Figure]:
    return {f.name: value for f in fields(profile) if isinstance(value := getattr(profile, f.name), Figure)}


def number(figure: Figure) -> float:
    assert figure.value is not None
    return figure.value


def test_the_named_devices_are_there() -> None:
    assert set(profile_names()) == {*BOARDS, "host"}
    assert list(profile_names()) == sorted(profile_names())


@pytest.mark.parametrize("name", [*BOARDS, "host"])
def test_every_figure_has_its_unit_and_a_source(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert set(figures(profile)) == set(UNITS)
    for key, figure in figures(profile).items():
        assert figure.unit == UNITS[key], key
        assert figure.source.strip(), key


@pytest.mark.parametrize("name", BOARDS)
def test_every_figure_is_sane(name: str) -> None:
    profile = load_profile(name)
    assert profile.isa == "aarch64"
    for key, (low, high) in RANGES.items():
        assert low <= number(figures(profile)[key]) <= high, key
    assert number(profile.power_idle_w) < number(profile.power_load_w)


@pytest.mark.parametrize("name", BOARDS)
def test_the_peak_is_a_whole_number_of_flops_a_clock(name: str) -> None:
    profile = load_profile(name)
    per_clock = number(profile.peak_gflops_fp32) / number(profile.clock_ghz)
    assert per_clock == pytest.approx(16 if name in ("rpi", "phone-arm64-big") else 8, rel=0.005)


@pytest.mark.parametrize("name", BOARDS)
def test_a_source_can_be_looked_up_or_says_estimate(name: str) -> None:
    for key, figure in figures(load_profile(name)).items():
        assert figure.estimated or len(figure.source) > 15, key
    assert not load_profile(name).peak_gflops_fp32.estimated


def test_a_newer_board_is_predicted_faster() -> None:
    times = [seconds(load_profile(name), 1e12) for name in ("rpi", "rpi4", "rpi3", "rpi-zero2w")]
    assert times == sorted(times, key=lambda t: t or 0.0)


def test_seconds_give_back_the_published_training_times() -> None:
    """ResNet-18 at 224 × 224, batch 16: 5.84 s on the Pi 5 and 10.92 s on the Pi 4 (the sources of training_efficiency)."""
    step = 6 * 1.80e9 * 16
    assert seconds(load_profile("rpi"), step) == pytest.approx(5.84, rel=0.03)
    assert seconds(load_profile("rpi4"), step) == pytest.approx(10.92, rel=0.03)


def test_seconds_and_joules_by_hand() -> None:
    rpi = load_profile("rpi")
    rpi = replace(rpi, peak_gflops_fp32=replace(rpi.peak_gflops_fp32, value=10.0), core_count=replace(rpi.core_count, value=2))
    rpi = replace(rpi, training_efficiency=replace(rpi.training_efficiency, value=0.5))
    rpi = replace(rpi, power_load_w=replace(rpi.power_load_w, value=4.0))
    assert seconds(rpi, 1e11) == pytest.approx(10.0)
    assert seconds(rpi, 0) == 0
    assert joules(rpi, 10.0) == pytest.approx(40.0)


def test_host_knows_its_cores_and_guesses_its_power() -> None:
    host = load_profile("host")
    assert 1 <= host.cores <= (os.cpu_count() or 1)
    assert host.ram_bytes.value is None or host.ram_bytes.value > 2**27
    assert host.isa
    assert host.isa not in ("measured here", "amd64", "arm64")
    assert seconds(host, 1e9) is None
    assert host.power_load_w.estimated
    assert joules(host, 1.0) == 10 * host.cores
    assert joules(load_profile("rpi"), None) is None


@pytest.mark.parametrize(("machine", "isa"), [("AMD64", "x86_64"), ("arm64", "aarch64"), ("riscv64", "riscv64"), ("", "unknown")])
def test_host_calls_an_instruction_set_as_linux_does(monkeypatch: pytest.MonkeyPatch, machine: str, isa: str) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert load_profile("host").isa == isa


def test_host_where_posix_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sysconf")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    host = load_profile("host")
    assert host.cores == 1
    assert host.ram_bytes.value is None


def test_profiles_are_found_inside_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "_deploy").mkdir()
    (tmp_path / "_deploy" / "only.yaml").write_text(Path(profiles._folder() / "rpi.yaml").read_text(encoding="utf-8"), "utf-8")
    monkeypatch.setattr(profiles, "__file__", str(tmp_path / "profiles.py"))
    assert profile_names() == ("only",)
    assert load_profile("only").title == "Raspberry Pi 5, 8 GB"


def user_file(folder: Path, **changes: object) -> str:
    """A copy of the Pi's profile; a change to None drops the key."""
    d = yaml.safe_load((profiles._folder() / "rpi.yaml").read_text(encoding="utf-8"))
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in (d | changes).items() if v is not None}), "utf-8")
    return str(path)


def figure(value: object, unit: str, **more: object) -> dict[str, object]:
    return {"value": value, "unit": unit, "source": "measured by me"} | more


def test_a_users_file_is_named_by_its_path(tmp_path: Path) -> None:
    mine = load_profile(user_file(tmp_path, title="My board", clock_ghz=figure(2, "GHz")))
    assert (mine.name, mine.title, mine.clock_ghz.value) == ("mine", "My board", 2)
    unknown = load_profile(user_file(tmp_path, power_load_w=figure(None, "W")))
    assert joules(unknown, 1.0) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clok_ghz": figure(2, "GHz")}, "unknown key 'clok_ghz'; nearest: 'clock_ghz'"),
        ({"clock_ghz": None}, "no key 'clock_ghz'"),
        ({"title": None}, "no key 'title'"),
        ({"title": 5}, "title: needs a text"),
        ({"clock_ghz": 2.4}, "clock_ghz: needs the keys value, unit, source"),
        ({"clock_ghz": figure(2400, "MHz")}, "clock_ghz: unit is 'MHz', not 'GHz'"),
        ({"clock_ghz": figure("fast", "GHz")}, "clock_ghz: value 'fast' is no number"),
        ({"clock_ghz": figure(True, "GHz")}, "clock_ghz: value True is no number"),
        ({"clock_ghz": figure(float("nan"), "GHz")}, "clock_ghz: value nan is no number"),
        ({"clock_ghz": figure(0, "GHz")}, "clock_ghz: value 0 must be above 0"),
        ({"l3_bytes": figure(-1, "B")}, "l3_bytes: value -1 must be above 0"),
        ({"clock_ghz": figure(2, "GHz", source=" ")}, "clock_ghz: source: needs a text"),
        ({"clock_ghz": figure(2, "GHz", sauce="x")}, "clock_ghz: unknown key 'sauce'; nearest: 'source'"),
        ({"training_efficiency": figure(19, "share of peak")}, "training_efficiency: value 19 is a share, at most 1"),
        ({"core_count": figure(2.5, "cores")}, "core_count: value 2.5 is no whole number"),
    ],
)
def test_a_mistake_is_named_with_file_and_key(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = user_file(tmp_path, **changes)
    with pytest.raises(ConfigError) as error:
        load_profile(path)
    assert str(error.value).startswith(path)
    assert message in str(error.value)


def test_only_host_may_leave_its_cores_open(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mine: core_count needs a value"):
        load_profile(user_file(tmp_path, core_count=figure(None, "cores")))


@pytest.mark.parametrize("text", ["a: [1", "just words", "", "\x00"])
def test_a_file_that_is_no_profile(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=r"odd\.yaml") as error:
        load_profile(str(path))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        load_profile(str(tmp_path / "none.yaml"))
    (tmp_path / "raw.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match=r"raw\.yaml"):
        load_profile(str(tmp_path / "raw.yaml"))


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown profile 'rpi44'; nearest: 'rpi4'"):
        load_profile("rpi44")
    with pytest.raises(ConfigError, match="known: host, phone-arm64-big"):
        load_profile("xyzzy")
