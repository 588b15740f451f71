"""The device's rules of sync, by examples and properties."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecl.sync import rules
from edgecl.sync.rules import Blame, Spent, Verdict, Waiting


@given(st.integers(0, 10_000), st.integers(0, 2**32))
def test_a_wait_is_within_its_bound_and_the_cap(failures: int, seed: int) -> None:
    wait = rules.backoff(failures, random.Random(seed))
    bound = 0 if failures == 0 else min(rules.CAP, rules.FIRST * 2 ** min(failures - 1, 40))
    assert 0 <= wait <= bound


def test_waits_are_spread_over_all_of_their_bound() -> None:
    rng = random.Random(1)
    waits = [rules.backoff(5, rng) for _ in range(2000)]
    assert min(waits) < 2
    assert max(waits) > 30
    assert 15 < sum(waits) / len(waits) < 17  # 32 s / 2


@pytest.mark.parametrize(
    ("asked", "backed", "wait"), [(None, 3.0, 3.0), (60.0, 3.0, 60.0), (1.0, 3.0, 3.0), (1e12, 0.0, rules.CAP)]
)
def test_the_hub_may_ask_for_a_longer_wait_up_to_the_cap(asked: float | None, backed: float, wait: float) -> None:
    assert rules.wait_for(asked, backed) == wait


VERDICTS = {
    200: Verdict.DONE, 201: Verdict.DONE, 204: Verdict.DONE, 301: Verdict.FINAL, 400: Verdict.FINAL, 401: Verdict.FINAL,
    404: Verdict.FINAL, 408: Verdict.RETRY, 409: Verdict.FINAL, 413: Verdict.FINAL, 422: Verdict.FINAL, 425: Verdict.RETRY,
    429: Verdict.RETRY, 500: Verdict.RETRY, 503: Verdict.RETRY, 507: Verdict.RETRY,
}  # fmt: skip


@pytest.mark.parametrize("status", VERDICTS)
def test_verdicts(status: int) -> None:
    assert rules.verdict(status) == VERDICTS[status]


def test_409_with_an_offset_goes_on() -> None:
    assert rules.verdict(409, offset=True) == Verdict.GO_ON


@given(st.integers(300, 499), st.booleans())
def test_what_is_final_has_somebody_to_blame(status: int, offset: bool) -> None:
    if rules.verdict(status, offset) == Verdict.FINAL:
        assert rules.blame(rules.OPENING, status) in (Blame.DEVICE, Blame.UPDATE)
        assert rules.blame(rules.SENDING, status) in Blame


@pytest.mark.parametrize(
    ("stage", "status", "whose"),
    [
        (rules.OPENING, 403, Blame.DEVICE), (rules.OPENING, 404, Blame.DEVICE), (rules.OPENING, 302, Blame.DEVICE),
        (rules.OPENING, 409, Blame.UPDATE), (rules.OPENING, 413, Blame.UPDATE), (rules.SENDING, 404, Blame.UPLOAD),
        (rules.SENDING, 422, Blame.UPLOAD), (rules.SENDING, 403, Blame.DEVICE), (rules.SENDING, 400, Blame.UPDATE),
        (rules.SENDING, 413, Blame.DEVICE), (rules.OPENING, 402, Blame.DEVICE), (rules.OPENING, 407, Blame.DEVICE),
        (rules.OPENING, 421, Blame.DEVICE), (rules.SENDING, 451, Blame.DEVICE), (rules.SENDING, 406, Blame.DEVICE),
    ],
)  # fmt: skip
def test_whom_a_final_status_is_about(stage: str, status: int, whose: Blame) -> None:
    assert rules.blame(stage, status) == whose


@given(st.lists(st.tuples(st.floats(0, 200), st.booleans())))
def test_chunks_stay_within_their_bounds(took: list[tuple[float, bool]]) -> None:
    size = rules.SMALLEST
    for seconds, failed in took:
        size = rules.next_chunk(size, seconds, failed)
        assert rules.SMALLEST <= size <= rules.LARGEST


def test_a_quick_line_gets_large_chunks_and_a_slow_one_small_ones() -> None:
    size = rules.SMALLEST
    for _ in range(4):
        size = rules.next_chunk(size, 1.0, False)
    assert size == rules.LARGEST
    assert rules.next_chunk(size, 60.0, False) == size
    assert rules.next_chunk(size, 60.0, True) == size // 2


# the day's bytes


@given(st.lists(st.tuples(st.one_of(st.none(), st.floats(0, 4e9)), st.integers(0, 10**6), st.integers(0, 10**6))))
def test_the_day_is_the_hubs_and_bytes_only_grow_within_one(steps: list[tuple[float | None, int, int]]) -> None:
    spent = Spent()
    for time, up, down in steps:
        before, day = spent, rules.today(time, spent)
        spent = rules.spend(spent, day, up, down)
        assert spent.day == (before.day if time is None else int(time // 86400))
        assert spent.total == up + down + (before.total if spent.day == before.day else 0)


def test_a_hubs_day_that_was_too_late_does_not_hold_back_the_right_one() -> None:
    wrong = rules.spend(Spent(), rules.today(40_000 * 86400.0, Spent()), up=1000)
    assert rules.allowance(wrong, 1000) == 0
    assert rules.allowance(rules.spend(wrong, rules.today(20_000 * 86400.0, wrong)), 1000) == 1000


def test_a_new_day_has_a_new_budget_and_an_unknown_one_has_not() -> None:
    spent = rules.spend(Spent(), rules.today(20_000 * 86400.0, Spent()), up=900)
    assert rules.allowance(spent, 1000) == 100
    assert rules.today(None, spent) == 20_000
    assert rules.allowance(rules.spend(spent, rules.today(20_001 * 86400.0, spent)), 1000) == 1000
    assert rules.allowance(spent, None) is None
    assert rules.allowance(rules.spend(spent, 20_000, down=900), 1000) == 0


def test_what_is_larger_than_a_day_comes_on_a_day_that_spent_hardly_anything() -> None:
    assert rules.may_download(5000, Spent(1, 0, 100), 1000)
    assert not rules.may_download(5000, Spent(1, 0, 101), 1000)
    assert rules.may_download(900, Spent(1, 0, 100), 1000)
    assert not rules.may_download(901, Spent(1, 0, 100), 1000)
    assert rules.may_download(10**12, Spent(1, 0, 10**12), None)


# the outbox


WAITING = [Waiting(3, 10, "b"), Waiting(1, 10, "a"), Waiting(2, 10, "b", begun=True)]


def test_one_that_has_begun_goes_first_then_the_oldest() -> None:
    assert rules.next_to_send(WAITING) == 2
    assert rules.next_to_send([w for w in WAITING if not w.begun]) == 1
    assert rules.next_to_send([]) is None


def test_only_updates_of_the_same_base_that_have_not_begun_are_superseded() -> None:
    assert rules.superseded(WAITING, "b") == [3]
    assert rules.superseded(WAITING, "c") == []
