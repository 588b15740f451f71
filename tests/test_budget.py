"""Budgets are read exactly, in every unit, or refused in one line that shows how."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecl import budget
from edgecl.budget import UNITS, Budget, parse
from edgecl.types import BudgetError

READ = {
    "": Budget(),
    "  ": Budget(),
    "23x": Budget(compute=Fraction(23)),
    " 1x ": Budget(compute=Fraction(1)),
    "2.5x": Budget(compute=Fraction(5, 2)),
    "90s": Budget(time=Fraction(90)),
    "10min": Budget(time=Fraction(600)),
    "0.1h": Budget(time=Fraction(360)),
    "256MB": Budget(memory=Fraction(256_000_000)),
    "80kB": Budget(memory=Fraction(80_000)),
    "1GiB": Budget(memory=Fraction(2**30)),
    "5Wh": Budget(energy=Fraction(18_000)),
    "200J": Budget(energy=Fraction(200)),
    "10x,10min,256MB": Budget(Fraction(10), Fraction(600), Fraction(256_000_000)),
    "2kJ , 3x": Budget(compute=Fraction(3), energy=Fraction(2000)),
}


@pytest.mark.parametrize("text", READ)
def test_what_a_budget_says(text: str) -> None:
    assert parse(text) == READ[text]


@pytest.mark.parametrize(
    "text", ["23", "x", "0.5x", "-3x", "23 x", "lots", "1e3x", "nanx", "9" * 400 + "x", "0s", "10m", "3x,", ",", "3x;4s", "٣x"]
)
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(BudgetError, match="expected a factor of at least 1 and an x, such as 23x") as error:
        parse(text)
    assert "\n" not in str(error.value)


def test_hints() -> None:
    with pytest.raises(BudgetError, match=r"can't read '256mb' \(did you mean MB\?\)"):
        parse("256mb")
    with pytest.raises(BudgetError, match="two limits of memory; give one"):
        parse("1GB,2MB")


amounts = st.decimals(1, 10**9, places=3).map(str)


@given(amounts, st.sampled_from(sorted(UNITS)))
def test_any_amount_in_any_unit_is_exact(amount: str, unit: str) -> None:
    kind, size = UNITS[unit]
    assert parse(f"{amount}{unit}") == Budget(**{kind: Fraction(amount) * size})


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(BudgetError):
        assert isinstance(parse(text), Budget)


@given(st.floats(0.001, 1e7))
def test_what_is_named_as_nearest_is_no_less(value: float) -> None:
    assert parse(budget.time_text(value)).time >= value
    assert parse(budget.memory_text(value * 1000)).memory >= value * 1000
    assert parse(budget.energy_text(value)).energy >= value
