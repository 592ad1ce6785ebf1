"""Adaptive budgets: when a vote is decided, and who gets what is saved."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from vgs_ray.search.adaptive import allocate_groups, is_decided, lead_probability

WEIGHTS = st.lists(st.floats(0, 20), max_size=6)


def test_the_lead_of_counts_is_a_binomial_tail() -> None:
    # P(Beta(1 + a, 1 + b) > 1/2) = P(Binomial(a + b + 1, 1/2) <= a) for whole a and b.
    for first in range(8):
        for second in range(first + 1):
            assert lead_probability([second, first]) == pytest.approx(binom.cdf(first, first + second + 1, 0.5))
    assert lead_probability([]) == pytest.approx(0.5)


@given(weights=WEIGHTS, left=st.floats(0, 20), confidence=st.floats(0.501, 1))
def test_what_is_certain_is_decided_at_any_confidence(weights: list[float], left: float, confidence: float) -> None:
    first, second = sorted([*weights, 0.0, 0.0], reverse=True)[:2]
    if second + left < first:
        assert is_decided(weights, left, confidence)
    elif lead_probability(weights) < confidence:
        assert not is_decided(weights, left, confidence)
    if is_decided(weights, left, 1.0) and lead_probability(weights) < 1.0:
        assert first > second + left  # nobody can overtake it


def test_confidence_has_a_range() -> None:
    for wrong in (0.0, 0.5, 1.1):
        with pytest.raises(ValueError, match="choose one"):
            is_decided([1.0], 1.0, wrong)


def votes(answers: Sequence[str]) -> list[float]:
    return [float(answers.count(answer)) for answer in set(answers)]


def test_what_clear_problems_save_goes_to_the_others() -> None:
    problems = ["aaaaaaaaaaaaaaaa", "abcdabcdabcdabcd", "aaaaaaaaaaaaaaaa"]
    used = allocate_groups(3, 6, 16, 1, lambda at, groups: votes(problems[at][:groups]), 0.9)
    assert used[0] == used[2] == 3  # 1 - 1/2**4 is the first lead over 0.9
    assert used[1] == 3 * 6 - 2 * 3


@given(st.lists(st.text("ab", min_size=8, max_size=8), min_size=1, max_size=6), st.integers(1, 8), st.floats(0.51, 1))
def test_nobody_gets_more_than_there_is(problems: list[str], budget: int, confidence: float) -> None:
    used = allocate_groups(len(problems), budget, 8, 1, lambda at, groups: votes(problems[at][:groups]), confidence)
    assert sum(used) <= budget * len(problems)
    assert all(1 <= count <= 8 for count in used)
    if sum(used) < budget * len(problems):
        assert all(
            count == 8 or is_decided(votes(answers[:count]), 8 - count, confidence)
            for count, answers in zip(used, problems, strict=True)
        )
