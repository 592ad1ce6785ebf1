"""The probability that a chosen answer is correct: its fit, its report, and the searches for which it holds."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgs_ray.config import Beam, Evaluate, Sampling
from vgs_ray.evaluate.answer_probability import FEWEST, ChosenAnswer, chosen_answers, fit, probability_rows
from vgs_ray.evaluate.graded_search import GradedLeaf, GradedSearch
from vgs_ray.search.answer_probability import AnswerProbability, FittedProbabilities, features
from vgs_ray.search.flops import Cost

TRUE = AnswerProbability(0.5, 0.5, 0.3, 0.4, -1.0)


def draw(problems: int, seed: int = 0) -> list[ChosenAnswer]:
    """Chosen answers that are correct as often as `TRUE` says, four for each problem."""
    random, found = np.random.default_rng(seed), []
    for problem in range(problems):
        for budget in (2, 4, 8, 16):
            share, value = random.random(), random.random()
            found.append(
                ChosenAnswer(f"p{problem}", budget, share, value, random.random() < TRUE.of(share, value, budget))
            )
    return found


def test_the_fit_finds_the_probability() -> None:
    fitted = fit(draw(4000))
    assert fitted is not None
    assert np.allclose(fitted, TRUE, atol=0.15)
    for share, value, budget in ((0.1, 0.9, 2), (0.9, 0.1, 16), (0.5, 0.5, 4)):
        assert fitted.of(share, value, budget) == pytest.approx(TRUE.of(share, value, budget), abs=0.04)


def test_the_report_is_about_problems_that_were_not_fitted() -> None:
    [row] = probability_rows({"beam": draw(400), "sample": []})
    assert (row["search"], row["answers"], row["problems"]) == ("beam", 1600, 400)
    assert row["probability"]["ece"] < 0.05
    assert row["probability"]["brier"] < min(row["share"]["brier"], row["value"]["brier"])
    coin = np.random.default_rng(1)
    noise = [each._replace(correct=bool(coin.random() < 0.5)) for each in draw(400)]
    [row] = probability_rows({"sample": noise})
    assert row["probability"]["auc"] == pytest.approx(0.5, abs=0.06)


def test_too_few_problems_give_no_probability() -> None:
    few = [each for each in draw(400) if each.correct] + [each for each in draw(400) if not each.correct][: FEWEST - 1]
    assert fit(few) is None
    assert probability_rows({"beam": few}) == []


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 1024))
def test_a_probability_is_one(share: float, value: float, budget: int) -> None:
    assert all(np.isfinite(features(share, value, budget)))
    assert 0 < TRUE.of(share, value, budget) < 1
    assert TRUE.of(1.0, value, budget) >= TRUE.of(share, value, budget)


def search(explorer: str, answers: list[tuple[int, str, float, str]]) -> GradedSearch:
    leaves = tuple(GradedLeaf(group, answer, outcome, value) for group, answer, value, outcome in answers)
    return GradedSearch("p", explorer, leaves, Cost(), {}, 1.0)


def test_the_answers_are_those_of_the_weighted_majority_in_disjoint_runs() -> None:
    config = Evaluate(samples=4, beam=Beam(keep=1, branch=2, groups=2), budgets=(2, 4), confidence=0.0)
    samples = search(
        "sample",
        [(0, "1", 0.6, "correct"), (1, "2", 0.2, "incorrect"), (2, "1", 0.1, "correct"), (3, "3", 0.7, "unknown")],
    )
    found = chosen_answers([samples, search("greedy", [(0, "1", 0.5, "correct")])], config, lambda a, b: a == b)
    first, *others = found["sample"]
    assert (first.budget, first.share, first.value, first.correct) == (2, pytest.approx(0.75), 0.6, True)
    assert [(each.budget, each.correct) for each in others] == [], "the others chose an answer that could not be judged"
    beam = search("beam", [(0, "1", 0.6, "correct"), (1, "2", 0.2, "incorrect")])
    found = chosen_answers([beam], config, lambda a, b: a == b)
    assert [(each.budget, round(each.share, 2), each.correct) for each in found["beam"]] == [
        (2, 1.0, True), (2, 1.0, False), (4, 0.75, True),
    ]  # fmt: skip


def test_a_search_unlike_those_of_the_evaluation_has_no_probability() -> None:
    beam, sampling = Beam(keep=1, branch=2, block=16, groups=8), Sampling(max_tokens=100, stop_token_ids=(7,))
    fitted = FittedProbabilities(beam, sampling, (4, 16), {"beam": TRUE})
    stored = FittedProbabilities.from_json(json.loads(json.dumps(asdict(fitted))))
    assert stored == fitted
    assert stored.of_search("beam", replace(beam, groups=2), sampling, 4) == TRUE
    assert stored.of_search("beam", replace(beam, block=32), sampling, 16) is None
    assert stored.of_search("beam", beam, replace(sampling, temperature=1.0), 16) is None
    assert stored.of_search("beam", beam, sampling, 32) is None
    assert stored.of_search("sample", beam, sampling, 16) is None
