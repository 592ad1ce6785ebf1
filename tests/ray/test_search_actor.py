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
from vgs_ray.config import Beam, DeepConf, Mcts, ParticleFilter, Rebase, Variant, alphamath
from vgs_ray.config.checks import check_recipe
from vgs_ray.data.storage import storage_path
from vgs_ray.data.tokens import Tokens
from vgs_ray.engines.interface import Score
from vgs_ray.evaluate.answer_statistics import answer_statistics
from vgs_ray.evaluate.graded_search import GradedSearch
from vgs_ray.evaluate.methods import evaluate_methods
from vgs_ray.models import OWN_HEAD, RANDOM, model_path
from vgs_ray.sandbox.rows import benchmark_rows
from vgs_ray.search.flops import ModelSizes, model_size, model_sizes
from vgs_ray.search.model_size import NO_MODEL
from vgs_ray.search.tree import Tree
from vgs_ray.value.policy_value import PolicyValueModel

VARIANTS = (
    Variant("tree", mcts=Mcts(simulations=6, width=2, block=24)),
    Variant("balanced", rebase=Rebase(width=4, block=24)),
    Variant("steps", beam=Beam(keep=1, branch=2, block=64, groups=2, delimiter=";")),
    Variant("early", beam=Beam(keep=1, branch=1, block=16, groups=6, align=True), confidence=0.55),
    Variant("sure", beam=Beam(keep=1, branch=2, block=24, groups=4, likelihood=4.0), confidence=0.6, stop="best"),
    Variant("particles", particles=ParticleFilter(width=4, block=24)),
    Variant("deepconf", deepconf=DeepConf(width=6, block=24, warmup=3)),
    Variant("alpha", mcts=alphamath(simulations=6, width=2, block=64, delimiter=";")),
)
TREES = {variant.name: variant.mcts for variant in VARIANTS}
ENGINE = replace(sandbox().evaluate.policy_engine, max_num_seqs=32)
RUNNER = asyncio.Runner()  # one event loop for all tests, as in an actor
CONFIG = replace(
    sandbox().evaluate, samples=4, beam=Beam(keep=1, branch=2, block=24, groups=2), budgets=(4,), greedy=True, variants=VARIANTS,
    policy_engine=ENGINE,
)  # fmt: skip


@pytest.fixture(scope="module")
def solve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchActor]:
    """The actor's class in this process."""
    made = SearchActor(
        replace(sandbox(), evaluate=CONFIG),
        RANDOM,
        StageTable(storage_path(tmp_path_factory.mktemp("out")), "", "searches", "search_id"),
    )
    yield made
    made.policy.close()
    made.judge.close()


def solved(solve: SearchActor, out: Path, problems: list[dict[str, Any]]) -> list[dict[str, Any]]:
    solve.out = StageTable(storage_path(out), "", "searches", "search_id")
    rows = [row for problem in problems for row in searches_of({"benchmark": "sandbox", **problem}, CONFIG)]
    counts = RUNNER.run(solve(pa.Table.from_pylist(rows, schema=REQUESTS))).to_pylist()
    assert counts == [{"rows": len(rows), "errors": counts[0]["errors"]}]
    found = solve.out.read().to_pylist()
    assert sorted(row["search_id"] for row in found) == sorted(row["search_id"] for row in rows)
    return found


def read(rows: list[dict[str, Any]]) -> list[GradedSearch]:
    size = model_size(model_path("sandbox:ref"))
    return [GradedSearch.from_row(row, ModelSizes(size, NO_MODEL), TREES.get(row["explorer"])) for row in rows]


PROBLEMS = [{"problem": row["problem"], "answer": row["answer"]} for row in benchmark_rows(2)]


def test_every_method_has_rows(solve: SearchActor, tmp_path: Path) -> None:
    rows = solved(solve, tmp_path, PROBLEMS)
    assert {row["error"] for row in rows} == {None}
    assert {search.unscored for search in read(rows)} == {0}
    results = evaluate_methods(read(rows), CONFIG)
    methods = {each.method for each in results}
    assert [each.budget for each in results if each.method == "greedy"] == [1]
    assert {"tree_walk", "alpha_walk"} <= methods
    room = solve._room
    assert (room.held, room.running) == (0, 0)
    assert 0 < sum(room.means.values()) < room.tokens  # every search was admitted by the cache
    assert set(room.means) == {"sample", CONFIG.beam, *(variant.shape for variant in VARIANTS)}
    assert [each.budget for each in results if each.method == "early_weighted_majority"] == [6]
    assert [each.budget for each in results if each.method == "sure_best"] == [8]
    for name in ("vgs", "tree", "balanced", "steps", "early", "sure", "particles", "deepconf", "alpha"):
        assert {f"{name}_weighted_majority", f"{name}_best", f"{name}_pass"} <= methods
    for row in rows:
        leaves, tree = json.loads(row["leaves"]), json.loads(row["tree"])
        assert leaves
        assert sum(node["prefilled"] for node in tree["nodes"]) > 0  # the prompt was prefilled
        assert all(node["scored"] == 0 for node in tree["nodes"])  # the random value model reads nothing


def test_a_search_ends_at_an_answer_of_high_value(solve: SearchActor, tmp_path: Path) -> None:
    for search in read([row for row in solved(solve, tmp_path, PROBLEMS) if row["explorer"] == "sure"]):
        groups = max(leaf.group for leaf in search.leaves) + 1
        high = {leaf.group for leaf in search.leaves if leaf.answer and leaf.value and leaf.value >= 0.6}
        assert high == {groups - 1} or (not high - {3} and groups == 4)


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
    found = [row for row in answer_statistics(read(rows)) if row["search"] != "deepconf"]  # it has values of its own
    assert all(row["unscored_blocks"] >= row["answers"] - row["incomplete"] >= 0 < row["answers"] for row in found)
    assert all(row["unscored_blocks"] >= row["answers"] for row in found if row["search"] != "alpha")
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


def test_the_policys_own_head_scores_without_a_second_model(headed_policy: str, tmp_path: Path) -> None:
    config = replace(CONFIG, policy=headed_policy, value_model=OWN_HEAD, value_engine=replace(ENGINE, max_model_len=8))
    recipe = replace(sandbox(), evaluate=config)
    check_recipe(recipe)
    actor = SearchActor(recipe, OWN_HEAD, StageTable(storage_path(tmp_path), "", "searches", "search_id"))
    try:
        assert actor.policy is actor.value
        rows = solved(actor, tmp_path, PROBLEMS[:1])
        assert {row["error"] for row in rows} == {None}
        assert actor.policy.usage.scored == 0
    finally:
        actor.policy.close()
        actor.judge.close()
    sizes = model_sizes(headed_policy, OWN_HEAD)
    searches = [GradedSearch.from_row(row, sizes, TREES.get(row["explorer"])) for row in rows]
    assert {search.unscored for search in searches} == {0}
    results = evaluate_methods(searches, config)
    assert {result.cost.scored for result in results} == {result.cost.value_flops for result in results} == {0}
    assert all(result.cost.policy_flops > 0 and result.correct for result in results)
    model = PolicyValueModel.from_pretrained(headed_policy)
    for row in rows:
        tree = Tree.from_json(json.loads(row["tree"]))
        for node in tree.nodes[1:] if row["explorer"] != "deepconf" else ():
            q = model.values(torch.tensor([tree.prompt + tree.path(node.id)]))[0, -1].item()
            assert node.value == pytest.approx((q + 1) / 2, abs=1e-4)
