"""Numbers, times and the picture of accuracy, as people read them."""

from __future__ import annotations

import pytest
from pages_cases import model

from edgecl.hub.pages import chart, shown

SIZES = (
    (0, "0 B"),
    (999, "999 B"),
    (1000, "1 kB"),
    (645_000, "645 kB"),
    (999_600, "1 MB"),
    (44_700_000, "44.7 MB"),
    (10**13, "10 TB"),
)
AGO = (
    (-5, "just now"),
    (59, "just now"),
    (60, "1 minute ago"),
    (7300, "2 hours ago"),
    (86400, "1 day ago"),
    (9e8, "28 years ago"),
)
NAMES = ((), ""), (("b", "a"), "b, a"), (tuple("abcd"), "a, b, c, d"), (tuple("abcdef"), "a, b, c, d and 2 more")


@pytest.mark.parametrize(("n", "said"), SIZES)
def test_size(n: int, said: str) -> None:
    assert shown.size(n) == said


@pytest.mark.parametrize(("seconds", "said"), AGO)
def test_ago(seconds: float, said: str) -> None:
    assert shown.ago(1000.0, 1000.0 + seconds) == said
    assert shown.ago(None, 1000.0) == "never"


@pytest.mark.parametrize(("classes", "said"), NAMES)
def test_names(classes: tuple[str, ...], said: str) -> None:
    assert shown.names(classes) == said


@pytest.mark.parametrize("values", [[0.0], [1.0], [0.5, 0.5], [0.999, 1.0], [0.0, 1.0], [0.31, 0.33, None, 0.29]])
def test_every_model_stays_within_the_picture(values: list[float | None]) -> None:
    models = [model(i + 1, v) for i, v in enumerate(values)]
    for m in [m for m in models if m.accuracy is not None]:
        low, high = chart._range([v for v in values if v is not None])
        assert low <= (m.accuracy or 0) <= high
    assert str(chart.accuracy(models)).count("<circle") == len([v for v in values if v is not None])


def test_nothing_to_draw_draws_nothing() -> None:
    assert chart.accuracy([]) == chart.accuracy([model(1, None)]) == ""
