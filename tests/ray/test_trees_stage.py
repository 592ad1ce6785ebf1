"""Stages trees and pairs with a real policy: whole trees, also after a killed actor, and pairs that TRL reads as they are."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
from datasets import load_dataset
from ray_processes import workers

from pipelines import pairs, trees
from pipelines.recipes import svpo
from pipelines.tables.publish import in_this_process
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import stage_table
from vgs_ray.config import Pairs, Recipe, ReferencePolicy
from vgs_ray.data import schemas
from vgs_ray.data.ids import problem_id, tree_id
from vgs_ray.errors import UserError
from vgs_ray.labels.tree_values import REWARDS, tree_values
from vgs_ray.models import OWN_HEAD
from vgs_ray.prompts import load_tokenizer
from vgs_ray.sandbox import policy_path
from vgs_ray.sandbox.rows import benchmark_rows
from vgs_ray.search.mcts import visits
from vgs_ray.search.tree import Tree

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.timeout(400)]

PER_PROBLEM = 2
PROBLEMS = [{"problem": row["problem"], "answer": row["answer"], "split": "train"} for row in benchmark_rows(5)]
PROBLEMS[0]["split"] = "validation"
UNKNOWN = {**PROBLEMS[1], "problem": PROBLEMS[1]["problem"] + " ", "answer": r"\frac{"}
TOO_LONG = {"problem": "Start with 3. " * 200, "answer": "3", "split": "train"}
TEST = {"problem": "Start with 4.", "answer": "3", "split": "test"}


def recipe_in(root: Path, name: str = "svpo") -> Recipe:
    base = svpo()
    search = replace(base.trees.search, simulations=30, parallel=1)
    engine = replace(base.trees.policy_engine, max_num_seqs=32)
    grown = replace(
        base.trees, per_problem=PER_PROBLEM, search=search, policy_engine=engine, concurrent=3,
        resources=replace(base.trees.resources, replicas=1),
    )  # fmt: skip
    return replace(base, root=str(root), run_name=name, trees=grown, pairs=Pairs(min_margin=0.5))


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A run up to trees."""
    recipe = recipe_in(tmp_path_factory.mktemp("runs"))
    rows = [
        {**row, "problem_id": problem_id(row["problem"] + row["answer"])}
        for row in (*PROBLEMS, UNKNOWN, TOO_LONG, TEST)
    ]
    stage, problems = open_stage(recipe, "clean", ()), stage_table(recipe, "clean")
    assert stage is not None
    problems.write_part(pa.Table.from_pylist(rows, schema=problems.schema))
    stage.publish(problems, in_this_process)
    stage.close(kept=len(rows))
    trees.run(recipe)
    return recipe


def test_trees_are_requested_in_the_order_of_the_problems(grown: Recipe) -> None:
    """Those of one problem, which are requested far apart, then lie together in the published table."""
    asked = trees.pending_requests(stage_table(grown, "clean"), grown, ray.put(pa.array([], pa.string()))).take_all()
    for index in range(PER_PROBLEM):
        problems = [row["problem_id"] for row in asked if row["tree_id"] == tree_id(row["problem_id"], index)]
        assert len(problems) == len(PROBLEMS) + 2
        assert problems == sorted(problems)


def rows_by_id(recipe: Recipe) -> dict[str, dict[str, Any]]:
    table = stage_table(recipe, "trees").read()
    assert table.schema.equals(schemas.TREES)
    rows = {row["tree_id"]: row for row in table.to_pylist()}
    assert len(rows) == len(table)
    return rows


def of_problem(recipe: Recipe, problem: dict[str, Any]) -> list[dict[str, Any]]:
    rows, identity = rows_by_id(recipe), problem_id(problem["problem"] + problem["answer"])
    return [rows[tree_id(identity, index)] for index in range(PER_PROBLEM)]


def stored_tree(row: dict[str, Any], width: int) -> Tree:
    tree = Tree(tuple(row["prompt"]))
    places: dict[int, int] = {}
    for at, parent in enumerate(row["parents"]):
        above = tree.nodes[parent]
        index = above.index * width + places.setdefault(parent, 0)
        places[parent] += 1
        tree.add(
            parent, group=0, round=above.round + 1, index=index, tokens=tuple(row["tokens"][at]), score=None,
            state=row["states"][at], logprob=row["logprobs"][at],
        )  # fmt: skip
    return tree


def test_every_training_problem_has_its_trees_and_q_is_that_of_the_search(grown: Recipe) -> None:
    rows = rows_by_id(grown)
    assert len(rows) == (len(PROBLEMS) + 2) * PER_PROBLEM
    assert not any(row["split"] == "test" for row in rows.values())
    assert len({row["seed"] for row in rows.values()}) == len(rows)
    shape = grown.trees.search
    for row in rows.values():
        ended = [outcome is not None for outcome in row["outcomes"]]
        assert ended == [state in ("finished", "length") for state in row["states"]]
        rewards = {id: REWARDS[outcome] for id, outcome in enumerate(row["outcomes"], 1) if outcome}
        seen = visits(stored_tree(row, shape.width), shape, rewards)
        assert row["visits"] == [seen.count.get(id, 0) for id in range(1, len(ended) + 1)]
        assert [q or 0.0 for q in row["q"]] == pytest.approx(
            [seen.mean(id) for id in range(1, len(ended) + 1)], abs=1e-6
        )
    first, second = of_problem(grown, PROBLEMS[2])
    assert (first["prompt"], first["split"]) == (second["prompt"], "train")
    assert first["tokens"] != second["tokens"]
    assert {outcome for row in rows.values() for outcome in row["outcomes"]} >= {"correct", "incorrect", "unknown"}


def test_a_prompt_that_is_too_long_and_an_answer_that_is_not_known_are_rows(grown: Recipe) -> None:
    for row in of_problem(grown, TOO_LONG):
        assert "raise max_model_len of trees.policy_engine" in row["error"]
        assert row["parents"] == row["outcomes"] == []
    for row in of_problem(grown, UNKNOWN):
        assert row["error"] is None
        assert not {"correct", "incorrect"} & set(row["outcomes"])
    counts = json.loads((grown.stage_folder("trees") / "_stage.json").read_text())["counts"]
    assert (counts["rows"], counts["errors"], counts["problems"]) == (14, PER_PROBLEM, 7)
    assert counts["nodes"] == sum(len(row["parents"]) for row in rows_by_id(grown).values())
    assert counts["without_correct_answer"] >= 2


def kill_an_actor_after(rows: int, recipe: Recipe, killed: list[int]) -> None:
    """Kill the process of the actor as soon as the table has more rows."""
    table = stage_table(recipe, "trees")
    while table.count_rows() <= rows:
        time.sleep(0.05)
    for process in workers(os.getpid(), "TreeActor"):
        process.kill()
        killed.append(process.pid)


def test_an_interrupted_run_with_a_killed_actor_gives_the_same_trees(grown: Recipe) -> None:
    whole, again = rows_by_id(grown), replace(grown, run_name="again")
    again = replace(again, base_run="svpo", base_stages=("clean",), trees=replace(grown.trees, concurrent=2))
    stage, table = open_stage(again, "trees", ("clean",)), stage_table(again, "trees")
    assert stage is not None
    kept = [row for position, row in enumerate(whole.values()) if position % 3 == 0]
    table.write_part(pa.Table.from_pylist(kept, schema=table.schema))
    killed: list[int] = []
    killer = threading.Thread(target=kill_an_actor_after, args=(len(kept), again, killed))
    killer.start()
    trees.run(again)
    killer.join()
    assert killed
    rows = rows_by_id(again)
    for row in (*rows.values(), *whole.values()):
        row.pop("seconds")
        row.pop("logprobs")  # sums of another batch differ in the last bits
    assert rows == whole


def test_the_values_of_a_policy_with_a_value_head_come_with_its_blocks(grown: Recipe, tmp_path: Path) -> None:
    from vgs_ray.value.policy_value import PolicyValueModel

    shutil.copytree(policy_path("ref"), tmp_path / "policy")
    PolicyValueModel.from_policy(policy_path("ref")).save_pretrained(tmp_path / "policy")
    search = replace(grown.trees.search, simulations=4)
    own = replace(grown.trees, per_problem=1, search=search, value_model=OWN_HEAD)
    policy = ReferencePolicy(str(tmp_path / "policy"))
    headed = replace(grown, run_name="own", base_run="svpo", base_stages=("clean",), policy=policy, trees=own)
    trees.run(headed)
    rows = rows_by_id(headed).values()
    assert sum(row["error"] is None for row in rows) == len(PROBLEMS) + 1
    for row in rows:
        assert all(
            value is not None and 0 <= value <= 1 for value in row["values"]
        )  # also of blocks that are not visited
        q, counts = tree_values(row["parents"], row["values"], row["outcomes"])
        assert (row["q"], row["visits"]) == (pytest.approx(q[1:], abs=1e-6), counts[1:])


def test_trl_reads_the_pairs_as_they_are(grown: Recipe, tmp_path: Path) -> None:
    pairs.run(grown)
    table, tokenizer = stage_table(grown, "pairs"), load_tokenizer(str(policy_path("ref")))
    assert table.read().schema.equals(schemas.PAIRS)
    loaded = load_dataset(
        "parquet", data_files=[str(file) for file in table.files()], split="train", cache_dir=str(tmp_path)
    )
    assert len(loaded) == table.count_rows() > 5
    for row in loaded:
        assert row["q_chosen"] - row["q_rejected"] >= 0.5
        assert tokenizer(row["prompt"])["input_ids"] == row["prompt_ids"]
        for side in ("chosen", "rejected"):
            assert tokenizer(row["prompt"] + row[side])["input_ids"] == row["prompt_ids"] + row[f"{side}_ids"]
    unpaired = stage_table(grown, "unpaired").read().to_pylist()
    assert {row["tree_id"] for row in unpaired} | set(loaded["tree_id"]) == set(rows_by_id(grown))
    assert [row["reason"] for row in unpaired if "failed" in row["reason"]] == ["failed"] * PER_PROBLEM
    paths, nodes = stage_table(grown, "value_paths").read().to_pylist(), defaultdict[str, set[tuple[int, ...]]](set)
    for path in paths:
        nodes[path["tree_id"]] |= {tuple(path["tokens"][: end + 1]) for end in path["positions"]}
    for name, tree in rows_by_id(grown).items():
        assert len(nodes[name]) == sum(q is not None for q in tree["q"])
    manifest = json.loads((grown.folder / "pairs" / "_stage.json").read_text())
    assert manifest["counts"]["value_paths"] == len(paths) > len(nodes) > 0


def test_no_pair_at_all_is_one_clear_line(grown: Recipe) -> None:
    base = replace(grown, run_name="none", base_run="svpo", base_stages=("clean", "trees"))
    with pytest.raises(
        UserError, match=r"no tree .* has a pair.*below_margin \d+.*failed 2.*--pairs.min-margin \(2.5\)"
    ):
        pairs.run(replace(base, pairs=Pairs(min_margin=2.5)))
    pairs.run(replace(base, pairs=Pairs(kind="solution")))
    found = stage_table(base, "pairs").read().to_pylist()
    assert len({row["pair_id"] for row in found}) == len(found) > 0
    assert all((row["q_chosen"], row["q_rejected"], row["depth"]) == (1, -1, 0) for row in found)
