"""Selectors: classes under any relation, weights, ties, and missing answers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgs_ray.search import select

ANSWERS = st.lists(st.one_of(st.none(), st.sampled_from(["", " ", "1", "2", "3", "1.0"])), max_size=12)


def same(a: str, b: str) -> bool:
    return float(a) == float(b)


def test_the_three_selectors() -> None:
    answers, values = ["7", "8", "8", "9", None], [0.95, 0.3, 0.2, 0.9, 1.0]
    assert select.best(answers, values) == "7"
    assert select.majority(answers, values, equivalent=same) == "8"
    assert select.weighted_majority(answers, values, equivalent=same) == "7"
    assert select.weighted_majority([*answers, "9.0"], [*values, 0.1], equivalent=same) == "9"


def test_empty_answers_never_win_a_vote() -> None:
    answers, values = ["7", "", "8", ""], [0.2, 0.9, 0.3, 0.1]
    assert select.weighted_majority(answers, values, equivalent=same) == "8"
    assert select.best(answers, values) == "8"
    assert select.majority(["", "", None, "5"], [1.0] * 4, equivalent=same) == "5"


@pytest.mark.parametrize("vote", [select.best, select.majority, select.weighted_majority])
@pytest.mark.parametrize("answers", [[], [None], ["", "  "]])
def test_without_an_answer_there_is_no_winner(vote: Callable[..., str | None], answers: list[str | None]) -> None:
    assert vote(answers, [0.5] * len(answers)) is None


def test_missing_values_and_nan_weigh_nothing() -> None:
    assert select.weighted_majority(["1", "1", "2"], [math.nan, math.nan, 0.1], equivalent=same) == "2"
    assert select.best(["1", "2"], [None, 0.1]) == "2"
    assert select.best(["1", "2"], [math.nan, math.nan]) == "1"


def test_ties() -> None:
    assert select.majority(["1", "2", "2", "1"], [0.1, 0.9, 0.9, 0.1], equivalent=same) == "1"
    assert select.weighted_majority(["1", "1", "2"], [0.25, 0.25, 0.5], equivalent=same) == "2"
    assert select.best(["1", "2"], [0.5, 0.5]) == "1"


def test_the_relation_need_not_be_symmetric_or_transitive() -> None:
    def near(a: str, b: str) -> bool:
        return 0 <= int(b) - int(a) <= 1

    assert select.classes(["1", "2", "3", "1"], near) == [[0, 1, 3], [2]]
    assert select.classes(["3", "2", "1"], near) == [[0], [1], [2]]
    assert select.majority(["3", "2", "1", "3"], [0.0] * 4, equivalent=near) == "3"


def test_the_relation_is_asked_once_per_text_and_class() -> None:
    calls = []

    def record(a: str, b: str) -> bool:
        calls.append((a, b))
        return a == b

    select.classes(["1", "2", "1", "2", " 1 ", "3"] * 5, record)
    assert calls == [("1", "2"), ("1", "3"), ("2", "3")]


def test_the_default_relation_is_the_grader() -> None:
    assert select.majority([r"\frac{1}{2}", "3", "0.5"], [0.0] * 3) == r"\frac{1}{2}"


def test_each_answer_needs_a_value() -> None:
    with pytest.raises(ValueError, match="2 answers have 1 values"):
        select.best(["1", "2"], [0.5])


@given(ANSWERS, st.data())
def test_properties(answers: list[str | None], data: st.DataObject) -> None:
    values = data.draw(st.lists(st.floats(0, 1), min_size=len(answers), max_size=len(answers)))
    grouped = select.classes(answers, same)
    voters = [i for i, answer in enumerate(answers) if (answer or "").strip()]
    assert sorted(i for members in grouped for i in members) == voters
    assert [members[0] for members in grouped] == sorted(members[0] for members in grouped)
    for vote in (select.best, select.majority, select.weighted_majority):
        winner = vote(answers, values, equivalent=same)
        assert (winner is None) == (not voters)
        assert winner is None or winner in answers
    equal = select.weighted_majority(answers, [0.5] * len(answers), equivalent=same)
    assert equal == select.majority(answers, values, equivalent=same)


@given(st.lists(st.tuples(st.sampled_from("1234"), st.floats(0, 1)), min_size=1, max_size=9))
def test_tied_classes_are_close_to_the_highest_weight(votes: list[tuple[str, float]]) -> None:
    answers, values = [a for a, _ in votes], [v for _, v in votes]
    weighed = select.weigh("weighted_majority", select.classes(answers, same), values)
    highest = max(each.weight for each in weighed)
    tied = select.tied(weighed)
    assert tied
    assert all((each in tied) == (each.weight >= highest - select.TIE) for each in weighed)
    assert sum(each.weight for each in weighed) == pytest.approx(sum(values))
