"""Updates to bytes and back."""

from __future__ import annotations

import numpy as np
import pytest

from edgecl.update import Base, Update, decode, encode, peek
from edgecl.update.values import KINDS


@pytest.mark.parametrize("values", KINDS)
def test_there_and_back(base: Base, update: Update, values: str) -> None:
    payload = encode(update, base, values)
    found = decode(payload, base)
    assert encode(found, base, values) == payload
    assert (found.base, found.net, found.classes, found.samples) == (update.base, update.net, update.classes, update.samples)
    assert (found.steps, found.executed) == (update.steps, update.executed)
    assert found.seconds == pytest.approx(update.seconds, abs=5e-4)
    for name, units in update.live.items():
        np.testing.assert_array_equal(found.live[name], units)
    assert [*found.delta] == [*update.delta]


def test_exact(base: Base, update: Update) -> None:
    found = decode(encode(update, base, "fp32"), base)
    for name, d in update.delta.items():
        np.testing.assert_array_equal(found.delta[name], d, err_msg=name)


def test_peek(base: Base, update: Update) -> None:
    head = peek(encode(update, base, "int4"))
    assert (head.base, head.net, head.classes, head.samples) == (base.snapshot, base.net.name, update.classes, update.samples)
    assert head.values == "int4"
