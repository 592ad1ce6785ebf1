"""Adaptive budgets: when a vote is decided, and how saved groups are allocated."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from vgs_ray.search.adaptive import allocate_groups, is_decided, lead_probability

WEIGHTS = st.lists(st.floats(0, 20), max_size=6)


def test_lead_probability_of_counts_is_a_binomial_tail() -> None:
    # P(Beta(1 + a, 1 + b) > 1/2) = P(Binomial(a + b + 1, 1/2) <= a) for whole a and b.
    for first in range(8):
        for second in range(first + 1):
            assert lead_probability([second, first]) == pytest.approx(binom.cdf(first, first + second + 1, 0.5))
    assert lead_probability([]) == pytest.approx(0.5)


@given(weights=WEIGHTS, remaining=st.floats(0, 20), confidence=st.floats(0.501, 1))
def test_a_lead_that_cannot_be_overtaken_is_decided_at_any_confidence(
    weights: list[float], remaining: float, confidence: float
) -> None:
    first, second = sorted([*weights, 0.0, 0.0], reverse=True)[:2]
    if second + remaining < first:
        assert is_decided(weights, remaining, confidence)
    elif lead_probability(weights) < confidence:
        assert not is_decided(weights, remaining, confidence)
    if is_decided(weights, remaining, 1.0) and lead_probability(weights) < 1.0:
        assert first > second + remaining


def test_confidence_has_a_range() -> None:
    for wrong in (0.0, 0.5, 1.1):
        with pytest.raises(ValueError, match="choose one"):
            is_decided([1.0], 1.0, wrong)


def votes(answers: Sequence[str]) -> list[float]:
    return [float(answers.count(answer)) for answer in set(answers)]


def test_groups_saved_on_clear_problems_go_to_the_others() -> None:
    problems = ["aaaaaaaaaaaaaaaa", "abcdabcdabcdabcd", "aaaaaaaaaaaaaaaa"]
    groups = allocate_groups(3, 6, 16, 1, lambda problem, groups: votes(problems[problem][:groups]), 0.9)
    assert groups[0] == groups[2] == 3  # 1 - 1/2**4 is the first lead probability over 0.9
    assert groups[1] == 3 * 6 - 2 * 3


@given(st.lists(st.text("ab", min_size=8, max_size=8), min_size=1, max_size=6), st.integers(1, 8), st.floats(0.51, 1))
def test_allocations_stay_within_the_budget_and_the_searched_groups(
    problems: list[str], budget: int, confidence: float
) -> None:
    groups = allocate_groups(
        len(problems), budget, 8, 1, lambda problem, groups: votes(problems[problem][:groups]), confidence
    )
    assert sum(groups) <= budget * len(problems)
    assert all(1 <= count <= 8 for count in groups)
    if sum(groups) < budget * len(problems):
        assert all(
            count == 8 or is_decided(votes(answers[:count]), 8 - count, confidence)
            for count, answers in zip(groups, problems, strict=True)
        )
