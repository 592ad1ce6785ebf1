"""SearchActor with a real policy engine: every search becomes a row, also if it fails."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM

from pipelines.actors.searching import SearchActor
from pipelines.evaluate import REQUESTS, searches_of
from pipelines.recipes import sandbox
from pipelines.tables.stage_table import StageTable
from vgs_ray.config import Beam, Mcts, Rebase, Variant
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Score
from vgs_ray.evaluate.answer_statistics import answer_statistics
from vgs_ray.evaluate.graded_search import GradedSearch
from vgs_ray.evaluate.methods import evaluate_methods
from vgs_ray.models import RANDOM, model_path
from vgs_ray.sandbox.rows import benchmark_rows
from vgs_ray.search.flops import NO_MODEL, model_size
from vgs_ray.search.tree import Tree

VARIANTS = (
    Variant("tree", mcts=Mcts(simulations=6, width=2, block=24)),
    Variant("balanced", rebase=Rebase(width=4, block=24)),
    Variant("steps", beam=Beam(keep=1, branch=2, block=64, groups=2, delimiter=";")),
)
RUNNER = asyncio.Runner()  # one event loop for all tests, as in an actor
CONFIG = replace(
    sandbox().evaluate, samples=4, beam=Beam(keep=1, branch=2, block=24, groups=2), budgets=(4,), greedy=True, variants=VARIANTS,
    policy_engine=replace(sandbox().evaluate.policy_engine, max_num_seqs=32),
)  # fmt: skip


@pytest.fixture(scope="module")
def solve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchActor]:
    """The actor's class in this process."""
    made = SearchActor(
        replace(sandbox(), evaluate=CONFIG), RANDOM, StageTable(tmp_path_factory.mktemp("out"), "searches", "search_id")
    )
    yield made
    made.policy.close()
    made.judge.close()


def solved(solve: SearchActor, out: Path, problems: list[dict[str, Any]]) -> list[dict[str, Any]]:
    solve.out = StageTable(out, "searches", "search_id")
    rows = [row for problem in problems for row in searches_of({"benchmark": "sandbox", **problem}, CONFIG)]
    counts = RUNNER.run(solve(pa.Table.from_pylist(rows, schema=REQUESTS))).to_pylist()
    assert counts == [{"rows": len(rows), "errors": counts[0]["errors"]}]
    found = solve.out.read().to_pylist()
    assert sorted(row["search_id"] for row in found) == sorted(row["search_id"] for row in rows)
    return found


def read(rows: list[dict[str, Any]]) -> list[GradedSearch]:
    return [GradedSearch.from_row(row, model_size(model_path("sandbox:ref")), NO_MODEL) for row in rows]


PROBLEMS = [{"problem": row["problem"], "answer": row["answer"]} for row in benchmark_rows(2)]


def test_every_method_has_rows(solve: SearchActor, tmp_path: Path) -> None:
    rows = solved(solve, tmp_path, PROBLEMS)
    assert {row["error"] for row in rows} == {None}
    results = evaluate_methods(read(rows), CONFIG)
    methods = {each.method for each in results}
    assert [each.budget for each in results if each.method == "greedy"] == [1]
    for name in ("vgs", "tree", "balanced", "steps"):
        assert {f"{name}_weighted_majority", f"{name}_best", f"{name}_pass"} <= methods
    for row in rows:
        leaves, tree = json.loads(row["leaves"]), json.loads(row["tree"])
        assert leaves
        assert sum(node["prefilled"] for node in tree["nodes"]) > 0  # the prompt was prefilled
        assert all(node["scored"] == 0 for node in tree["nodes"])  # the random value model reads nothing


def test_a_prompt_that_is_too_long_becomes_a_row_with_an_error(solve: SearchActor, tmp_path: Path) -> None:
    long = {"problem": "Start with 3. " * 200, "answer": "3"}
    rows = solved(solve, tmp_path, [PROBLEMS[0], long])
    failed = [row for row in rows if row["error"]]
    assert len(failed) == len(rows) / 2
    assert all("raise max_model_len" in row["error"] for row in failed)
    both = evaluate_methods(read(rows), CONFIG)
    assert all(len(each.correct) == 2 for each in both)  # the failed problem counts as wrong
    assert {
        each.correct[at] for each in both for at in range(2) if each.problem_ids[at] == failed[0]["problem_id"]
    } == {0.0}
    assert {row["failed"] for row in answer_statistics(read(rows))} == {1}


def test_answers_that_cannot_be_judged_are_counted(solve: SearchActor, tmp_path: Path) -> None:
    rows = solved(solve, tmp_path, [{**PROBLEMS[0], "answer": r"\frac{"}])
    found = answer_statistics(read(rows))
    assert all(row["correct"] == row["incorrect"] == 0 for row in found)
    assert sum(row["unknown"] for row in found) > 0


def test_nan_values_rank_last_and_are_counted(
    solve: SearchActor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(tokens: Tokens) -> Score:
        return Score(math.nan)

    monkeypatch.setattr(solve.value, "score", nothing)
    rows = solved(solve, tmp_path, PROBLEMS[:1])
    assert {row["error"] for row in rows} == {None}
    found = answer_statistics(read(rows))
    assert all(row["unscored_blocks"] >= row["answers"] > 0 for row in found)
    assert all(row["calibration"] is None for row in found)
    assert all(each.correct for each in evaluate_methods(read(rows), CONFIG))


def test_the_greedy_answer_is_that_of_transformers(solve: SearchActor, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_path("sandbox:ref"), dtype=torch.float32)
    for row in solved(solve, tmp_path, PROBLEMS):
        if row["explorer"] == "greedy":
            tree = Tree.from_json(json.loads(row["tree"]))
            [leaf] = tree.leaves()
            expected = model.generate(torch.tensor([tree.prompt]), do_sample=False, max_new_tokens=192)[0]
            assert tree.prompt + tree.path(leaf.id) == tuple(expected.tolist())
