"""From searches to the report: rows, comparisons and files."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from graded_searches import SHAPE, SIZES, graded_search, leaf, same

from vgs_ray.config import Beam, Mcts, Sampling, Variant, alphamath
from vgs_ray.engines.scripted import ScriptedPolicy, ScriptedValue, World
from vgs_ray.evaluate import plot
from vgs_ray.evaluate.answer_statistics import answer_statistics
from vgs_ray.evaluate.formats import terminal_table
from vgs_ray.evaluate.graded_search import GradedSearch
from vgs_ray.evaluate.methods import evaluate_methods
from vgs_ray.evaluate.report import comparison_rows, method_rows, write_report
from vgs_ray.search.explore import beam, sample
from vgs_ray.search.flops import tree_costs
from vgs_ray.search.mcts import highest_q_leaf, mcts
from vgs_ray.search.tree import Tree

MCTS = {"tree": Mcts(simulations=24, width=3, block=6), "alpha": alphamath(simulations=24, width=3, block=6)}
RANDOM = replace(SHAPE.beam, choose="random")
FIGURES = ("accuracy_vs_budget", "accuracy_vs_flops", "calibration")
ROW_KEYS = [
    *("benchmark", "method", "budget", "accuracy", "low", "high", "problems", "samples"),
    *("generated_tokens", "prefilled_tokens", "scored_tokens", "flops", "seconds"),
]


async def search_row(problem: int, explorer: str) -> tuple[dict[str, Any], Tree]:
    world, prompt, limits = World(slip=0.08), (problem,), Sampling(max_tokens=40)
    policy, value = ScriptedPolicy(world), ScriptedValue(world)
    if explorer == "sample":
        tree = await sample(policy, value, prompt, count=SHAPE.samples, sampling=limits, seed=problem)
    elif explorer == "greedy":
        tree = await sample(policy, value, prompt, count=1, sampling=limits, seed=problem)
    elif explorer in MCTS:
        tree = await mcts(policy, value, prompt, shape=MCTS[explorer], sampling=limits, seed=problem)
    else:
        shape = SHAPE.beam if explorer == "beam" else RANDOM
        tree = await beam(policy, value, prompt, beam=shape, sampling=limits, seed=problem)
    leaves = [
        {
            "node": node.id,
            "group": node.group,
            "answer": world.answer(prompt, tree.path(node.id)),
            "outcome": world.outcome(prompt, tree.path(node.id)),
            "reason": "",
            "value": node.value,
        }
        for node in tree.leaves()
    ]
    row = {
        "benchmark": "scripted",
        "problem_id": str(problem),
        "explorer": explorer,
        "gold": world.gold(prompt),
        "seconds": 1.0,
        "error": None,
    }
    return {**row, "tree": json.dumps(tree.to_json()), "leaves": json.dumps(leaves)}, tree


async def test_report_of_scripted_searches(tmp_path: Path) -> None:
    searched = [await search_row(problem, explorer) for problem in range(40) for explorer in ("sample", "beam")]
    searches = [GradedSearch.from_row(row, SIZES) for row, _ in searched]
    assert all(
        (search.prompt, search.groups, search.cached) == tree_costs(tree, *SIZES)
        for search, (_, tree) in zip(searches, searched, strict=True)
    )
    results = evaluate_methods(searches, SHAPE, same)
    report = write_report(tmp_path / "evaluate", results, answer_statistics(searches), resamples=200)
    assert json.loads((tmp_path / "evaluate" / "report.json").read_text()) == report
    assert all(list(row) == ROW_KEYS for row in report["rows"])
    assert all(row["low"] <= row["accuracy"] <= row["high"] for row in report["rows"])
    assert all(
        list(row) == ["benchmark", "a", "b", "budget", "difference", "low", "high"] for row in report["comparisons"]
    )
    assert len(report["comparisons"]) == 3 * 2
    best = {(row["b"], row["budget"]): row for row in report["comparisons"]}
    assert best["majority", 4]["low"] > 0
    rows = {(row["method"], row["budget"]): row for row in report["rows"]}
    vote = rows["majority", 4]
    assert [row["method"] for row in report["cheaper"]] == [
        "single",
        "majority",
    ]  # the value model's FLOPs cost more here
    for row in report["cheaper"]:
        found = rows[row["method"], row["budget"]]
        assert row["flops_share"] == found["flops"] / vote["flops"] < 1
        assert row["difference"] == pytest.approx(found["accuracy"] - vote["accuracy"])
        assert row["low"] <= row["difference"] <= row["high"]
        others = [each for each in report["rows"] if each["method"] == row["method"] and each["flops"] < found["flops"]]
        assert all(each["accuracy"] < vote["accuracy"] for each in others)
    text = (tmp_path / "evaluate" / "report.md").read_text()
    assert "0 of 40" in text
    assert "minus `majority` 4, points" in text
    assert "`vgs_weighted_majority` − `majority`" in text
    figures = [f"{name}.{kind}" for name in FIGURES for kind in ("pdf", "png")]
    files = {path.name: path for path in (tmp_path / "evaluate").iterdir()}
    assert sorted(files) == [*figures, "per_problem.parquet", "report.csv", "report.json", "report.md", "report.tex"]
    problems = pq.read_table(files["per_problem.parquet"]).to_pylist()
    for row in report["rows"]:
        correct = [
            each["correct"] for each in problems if (each["method"], each["budget"]) == (row["method"], row["budget"])
        ]
        assert (len(correct), np.mean(correct)) == (row["problems"], pytest.approx(row["accuracy"]))
    for name in figures:
        assert files[name].read_bytes().startswith(b"%PDF" if name.endswith("pdf") else b"\x89PNG")
    with files["report.csv"].open() as file:
        assert [float(row["accuracy"]) for row in csv.DictReader(file)] == [row["accuracy"] for row in report["rows"]]
    assert files["report.tex"].read_text().count("\\midrule") == 1


async def test_the_same_searches_give_the_same_files(tmp_path: Path) -> None:
    searches = [GradedSearch.from_row((await search_row(p, e))[0], SIZES) for p in range(5) for e in ("sample", "beam")]
    for name in ("a", "b"):
        write_report(
            tmp_path / name, evaluate_methods(searches, SHAPE, same), answer_statistics(searches), resamples=50
        )
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


async def test_benchmarks_are_reported_apart_and_averaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "save_figure", lambda figure, path: path.touch())  # saving takes most of the time
    searches = []
    for name, problems in (("easy", range(60)), ("hard", range(12))):
        for problem in problems:
            for explorer in ("sample", "beam"):
                row, _ = await search_row(problem, explorer)
                searches.append(GradedSearch.from_row({**row, "benchmark": name}, SIZES))
    results = evaluate_methods(searches, SHAPE, same)
    report = write_report(tmp_path, results, answer_statistics(searches), resamples=200)
    by_place = {(row["benchmark"], row["method"], row["budget"]): row for row in report["rows"]}
    for method in ("majority", "vgs_weighted_majority"):
        easy, hard, mean = (by_place[name, method, 4] for name in ("easy", "hard", "average"))
        assert mean["accuracy"] == pytest.approx((easy["accuracy"] + hard["accuracy"]) / 2)
        assert mean["flops"] == pytest.approx((easy["flops"] + hard["flops"]) / 2)
        assert (easy["problems"], hard["problems"], mean["problems"]) == (60, 12, 72)
        assert mean["high"] - mean["low"] < hard["high"] - hard["low"]
    gaps = {pair["benchmark"]: pair["difference"] for pair in report["comparisons"] if pair["budget"] == 4}
    assert gaps["average"] == pytest.approx((gaps["easy"] + gaps["hard"]) / 2)
    assert {"accuracy_vs_flops.png", "accuracy_vs_flops-easy.png"} < {path.name for path in tmp_path.iterdir()}


async def test_variants_have_rows_and_comparisons() -> None:
    names = ("sample", "beam", "greedy", "tree", "alpha", "random")
    searched = [await search_row(problem, explorer) for problem in range(40) for explorer in names]
    variants = (*(Variant(name, mcts=shape) for name, shape in MCTS.items()), Variant("random", RANDOM))
    shape = replace(SHAPE, greedy=True, variants=variants)
    searches = [GradedSearch.from_row(row, SIZES, MCTS.get(row["explorer"])) for row, _ in searched]
    assert {search.unscored for search in searches} == {0}
    results = evaluate_methods(searches, shape, same)
    accuracy = {(row["method"], row["budget"]): row["accuracy"] for row in method_rows(results, 200)}
    assert accuracy["vgs_weighted_majority", 4] > accuracy["random_weighted_majority", 4]
    assert accuracy["tree_weighted_majority", 72] > accuracy["single", 1]
    assert {"tree_best", "tree_pass", "random_best", "random_majority"} < {method for method, _ in accuracy}
    assert [budget for method, budget in accuracy if method == "greedy"] == [1]
    for name, mcts_shape in MCTS.items():
        trees = [(row, tree) for row, tree in searched if row["explorer"] == name]
        ends = [(row, highest_q_leaf(tree, mcts_shape)) for row, tree in trees]
        answers = [leaf for row, end in ends for leaf in json.loads(row["leaves"]) if end and leaf["node"] == end.id]
        right = sum(leaf["outcome"] == "correct" for leaf in answers)
        assert accuracy[f"{name}_walk", 72] == right / 40 > accuracy["single", 1]
    assert "random_walk" not in {method for method, _ in accuracy}
    pairs = {(pair["a"], pair["b"], pair["budget"]) for pair in comparison_rows(results, 200)}
    assert ("random_weighted_majority", "majority", 4) in pairs


@pytest.mark.parametrize("wrong", [{"name": "beam", "beam": Beam()}, {"name": "x"}])
def test_a_variant_has_a_name_of_its_own_and_one_shape(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"rename it|set one of them"):
        Variant(**wrong)


def test_differences_match_the_rows() -> None:
    leaves = [leaf(g, "1" if g % 2 else "2", 0.5) for g in range(4)]
    results = evaluate_methods([graded_search(leaves), graded_search(leaves[:2], "beam")], SHAPE, same)
    accuracy = {(row["method"], row["budget"]): row["accuracy"] for row in method_rows(results, 50)}
    for pair in comparison_rows(results, 50):
        at = pair["budget"]
        assert pair["difference"] == pytest.approx(accuracy[pair["a"], at] - accuracy[pair["b"], at])


def test_the_terminal_table_fits() -> None:
    costs = {"generated_tokens": 16384 * 256.0, "scored_tokens": 16384 * 256.0, "flops": 1.234e16, "seconds": 12345.6}
    row = {
        "benchmark": "b",
        "method": "vgs_adaptive_weighted_majority",
        "budget": 1024,
        "accuracy": 1.0,
        "low": 1.0,
        "high": 1.0,
        **costs,
    }
    assert max(map(len, terminal_table([row]).splitlines())) <= 100


def test_a_report_needs_results(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no results"):
        write_report(tmp_path, [], [])


@pytest.mark.parametrize("heights", [[5.0, 5.0, 5.0], [0.0, 10.0, 9.9], [10.0, 10.0, 0.0, 0.1]])
def test_labels_do_not_touch(heights: list[float]) -> None:
    placed = sorted(plot._spread(heights, gap=1.0, top=10.0))
    assert all(b - a >= 1 - 1e-9 for a, b in pairwise(placed))
    assert placed[-1] <= 10
