"""Which engine `auto` is."""

from __future__ import annotations

import pytest

from edgecl import engines, kernels
from edgecl.types import ConfigError


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(isa: str = "") -> None:
        raise ConfigError("engine native: its kernels were not built; run python -m edgecl.kernels")

    monkeypatch.setattr(kernels, "load", load)


def test_native_where_its_kernels_run() -> None:
    assert engines.pick("auto") == ("native", f"its kernels run here ({kernels.load().isa})", "")


@pytest.mark.usefixtures("no_kernels")
def test_numpy_where_they_do_not_and_it_says_how_to_get_them() -> None:
    chosen = engines.pick("auto")
    assert chosen.name == "numpy"
    lack = "its kernels were not built; run python -m edgecl.kernels"
    assert chosen.slow == f"native engine: {lack}; until then the slow numpy engine runs"
    assert chosen.why == f"native can't run: {lack}"


@pytest.mark.usefixtures("no_kernels")
@pytest.mark.parametrize("name", engines.ENGINES)
def test_a_name_stays(name: str) -> None:
    assert engines.pick(name) == (name, "it was asked for", "")


@pytest.mark.usefixtures("no_kernels")
@pytest.mark.parametrize(("device", "precision"), [("cuda", "fp32"), ("cuda", "tf32"), ("cpu", "bf16")])
def test_torch_for_a_gpu_and_other_precisions(device: str, precision: str) -> None:
    assert engines.pick("auto", device, precision)[::2] == ("torch", "")
