"""Accuracy and cost of each method by budget, and the statistics of answers, on small examples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graded_searches import SHAPE, SIZES, graded_search, leaf, same

from vgs_ray.config import Beam, Variant
from vgs_ray.evaluate.answer_statistics import answer_statistics, calibration
from vgs_ray.evaluate.graded_search import GradedLeaf, GradedSearch
from vgs_ray.evaluate.methods import MethodResult, evaluate_methods
from vgs_ray.search.flops import Cost
from vgs_ray.search.tree import Tree


def table(results: list[MethodResult]) -> dict[tuple[str, int], MethodResult]:
    return {(each.method, each.budget): each for each in results}


def test_accuracy_by_budget_on_a_small_example() -> None:
    leaves = [leaf(0, "1", 0.9), leaf(1, "2", 0.2), leaf(2, "2", 0.5), leaf(3, None, 0.9)]
    by_method = table(evaluate_methods([graded_search(leaves)], SHAPE, same))
    correct = {key: each.correct[0] for key, each in by_method.items()}
    assert correct == pytest.approx(
        {
            ("single", 1): 0.25,
            ("best_of_n", 2): 0.5,
            ("majority", 2): 0.25,  # one tie, which counts half, and one wrong vote
            ("weighted_majority", 2): 0.5,
            ("pass", 2): 0.5,
            ("best_of_n", 4): 1.0,
            ("majority", 4): 0.0,
            ("weighted_majority", 4): 1.0,
            ("pass", 4): 1.0,
        }
    )
    assert by_method["majority", 2].samples == 4


def test_a_variant_has_a_row_at_its_whole_budget() -> None:
    """Also if `budgets` does not have it, such as 3 in (2, 4)."""
    variant = Variant("three", beam=Beam(keep=1, branch=3, groups=1))
    searches = [graded_search([leaf(0, "1", 0.9)], "beam"), graded_search([leaf(0, "1", 0.9)], "three")]
    results = evaluate_methods(searches, replace(SHAPE, variants=(variant,)), same)
    assert {each.budget for each in results if each.method == "three_weighted_majority"} == {3}
    assert 3 not in {each.budget for each in results if each.method == "vgs_weighted_majority"}


def test_a_likely_answer_wins_over_an_overrated_one() -> None:
    likely = [
        leaf(0, "2", 0.8)._replace(logprob=-0.5),
        leaf(1, "1", 0.7)._replace(logprob=-0.1),
        leaf(2, "2", 0.9),  # an engine that computes no log-probability
        leaf(3, None, 0.9)._replace(logprob=-0.1),
    ]
    by_weight = {
        weight: table(evaluate_methods([graded_search(likely)], replace(SHAPE, likelihood=weight), same))
        for weight in (0.0, 0.1, 1.0)
    }
    assert ("best_of_n_likely", 4) not in by_weight[0.0]
    # 0.8 / 0.7 = exp(0.134), and the log-probabilities differ by 0.4.
    assert {weight: by_weight[weight]["best_of_n_likely", 4].correct[0] for weight in (0.1, 1.0)} == {
        0.1: 0.0,
        1.0: 1.0,
    }
    assert by_weight[1.0]["best_of_n", 4].correct[0] == 0.0


def test_the_likelihood_of_an_answer_is_the_mean_over_its_tokens() -> None:
    tree = Tree((1,))
    first = tree.add(0, group=0, round=0, index=0, tokens=(5,), score=None, state="kept", logprob=-1.0)
    last = tree.add(first.id, group=0, round=1, index=0, tokens=(6, 7, 8), score=None, state="finished", logprob=-0.2)
    other = tree.add(first.id, group=0, round=1, index=1, tokens=(6,), score=None, state="finished")
    assert tree.mean_logprob(last.id) == pytest.approx((-1.0 - 0.6) / 4)
    assert tree.mean_logprob(other.id) is None


def test_costs_are_those_of_the_budget() -> None:
    by_method = table(evaluate_methods([graded_search([leaf(g, "1", 0.5) for g in range(4)])], SHAPE, same))
    # The four groups forwarded the prompt once, and two separate runs would have done so twice: half a prompt more for each.
    assert by_method["weighted_majority", 4].cost == Cost(40, 40, 400, 200)
    assert by_method["weighted_majority", 2].cost == Cost(20, 20 + 1.5, 200 + 15, 100 + 7.5)
    assert by_method["majority", 2].cost == Cost(20, 0, 215, 0)  # needs no value model
    assert by_method["single", 1].cost.generated == 10
    assert [by_method["pass", budget].seconds for budget in (2, 4)] == [4.0, 8.0]


def test_adaptive_votes_share_a_budget() -> None:
    clear = graded_search([leaf(g, "1", 0.5) for g in range(6)], name="clear")
    mixed = graded_search([leaf(g, answer, 0.5) for g, answer in enumerate("223111")], name="mixed")
    shape = replace(SHAPE, samples=6, budgets=(4,), confidence=0.9)
    by_method = table(evaluate_methods([clear, mixed], shape, same))
    assert by_method["majority", 4].correct == (1.0, 0.0)
    # The clear problem stops at 3 answers of the 8 that both share. The mixed problem gets the other 5, two against two.
    adaptive = by_method["adaptive_majority", 4]
    assert adaptive.correct == (1.0, 0.5)
    assert adaptive.cost.generated == pytest.approx((30 + 50) / 2)
    assert adaptive.samples == 4
    assert by_method["adaptive_weighted_majority", 4].cost.scored > 0


def test_beams_take_whole_groups() -> None:
    leaves = [leaf(0, "1", 0.4), leaf(1, "2", 0.5)]
    by_method = table(evaluate_methods([graded_search(leaves, "beam")], SHAPE, same))
    assert {method for method, _ in by_method} == {"vgs_weighted_majority", "vgs_best", "vgs_majority", "vgs_pass"}
    assert by_method["vgs_weighted_majority", 2].correct == (0.5,)
    assert by_method["vgs_weighted_majority", 4].correct == (0.0,)
    assert by_method["vgs_pass", 4].correct == (1.0,)
    assert by_method["vgs_pass", 4].cost.generated == 20
    wide = replace(SHAPE, beam=Beam(keep=2, branch=2, groups=1))
    assert {budget for _, budget in table(evaluate_methods([graded_search(leaves, "beam")], wide, same))} == {4}


def test_failed_and_unanswered_searches_count_as_wrong() -> None:
    failed = {
        "benchmark": "",
        "problem_id": "q",
        "explorer": "sample",
        "tree": "",
        "leaves": "",
        "seconds": 1.0,
        "error": "EngineDied",
    }
    pool = [graded_search([leaf(g, None, 0.5) for g in range(4)]), GradedSearch.from_row(failed, SIZES)]
    assert all(each.correct == (0.0, 0.0) for each in evaluate_methods(pool, SHAPE, same))
    unknown = graded_search([GradedLeaf(0, "1", "unknown", 0.5)])
    [row] = answer_statistics([*pool, unknown])
    assert [row[name] for name in ("failed", "searches", "unknown", "incomplete", "answers")] == [1, 3, 1, 4, 5]


def test_searches_must_match() -> None:
    one = graded_search([leaf(0, "1", 0.5)])
    with pytest.raises(ValueError, match="two sample searches"):
        evaluate_methods([one, one], SHAPE, same)
    with pytest.raises(ValueError, match="different problems"):
        evaluate_methods([one, graded_search([leaf(0, "1", 0.5)], "beam", "other")], SHAPE, same)


def test_calibration_on_a_small_example() -> None:
    values, correct = np.array([0.05, 0.95, 0.95, 0.55]), np.array([False, True, False, True])
    summary = calibration(values, correct)
    assert summary is not None
    assert summary["ece"] == pytest.approx((0.05 + 2 * 0.45 + 0.45) / 4)
    assert summary["brier"] == pytest.approx(np.mean((values - correct) ** 2))
    assert summary["auc"] == pytest.approx((1 + 0.5 + 1 + 0) / 4)
    assert [each["answers"] for each in summary["bins"]] == [1, 1, 2]
    assert calibration(np.array([]), np.array([], bool)) is None
    assert calibration(np.array([0.5]), np.array([True]))["auc"] is None
