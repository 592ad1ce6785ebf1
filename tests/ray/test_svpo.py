"""Recipe svpo from raw problems to its report in two rounds, at a small size."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from early import EARLY
from transformers import AutoModelForCausalLM

from pipelines.cli import parse
from pipelines.run import recipes_of_rounds
from pipelines.serving.ingress import free_ports
from pipelines.tables.stage_table import stage_table
from vgs_ray.config import Recipe
from vgs_ray.value.policy_value import PolicyValueModel

pytestmark = pytest.mark.timeout(1800)  # the first test waits for both rounds, and for other early work
ROUNDS = 2
SMALL = shlex.split(
    "--clean.limit 60 --clean.validation 5 --trees.per-problem 1 --trees.search.simulations 48 --pairs.min-margin 0.25 "
    "--pairs.per-problem 1 --tune.paths 32 "
    "--tune.epochs 1 --tune.batch-size 8 --tune.micro-batch 4 --tune.workers 1 --trees.resources.replicas 1 --evaluate.limit 8 "
    "--evaluate.samples 4 --evaluate.beam.groups 2 --evaluate.budgets 4 --evaluate.bootstrap 200 --evaluate.resources.replicas 1"
)


def early_work(folder: Path, environment: Mapping[str, str]) -> tuple[str, str]:
    """The root of the runs, and the output of the whole command."""
    root, [port] = str(folder), free_ports(1)
    command = [sys.executable, "-m", "pipelines.run", "svpo", "--rounds", str(ROUNDS), "--root", root, *SMALL]
    command += ["--serve.port", str(port)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=840)
    assert not done.returncode, done.stdout + done.stderr
    return root, done.stdout


@pytest.fixture(scope="module")
def finished() -> tuple[list[Recipe], str]:
    root, printed = EARLY.result(__name__)
    return recipes_of_rounds(parse("pipelines.run", ["svpo", "--root", root, *SMALL]), ROUNDS), printed


@pytest.fixture(scope="module")
def rounds(finished: tuple[list[Recipe], str]) -> list[Recipe]:
    return finished[0]


def rows_of(recipe: Recipe, stage: str) -> pa.Table:
    return stage_table(recipe, stage).read()


def report_of(recipe: Recipe) -> dict[str, dict]:
    rows = json.loads((recipe.folder / "evaluate" / "report.json").read_text())["rows"]
    return {row["method"]: row for row in rows if row["budget"] in (1, 4)}


def test_both_rounds_grow_trees_and_pair_steps(rounds: list[Recipe]) -> None:
    for recipe in rounds:
        trees, pairs = rows_of(recipe, "trees").to_pylist(), rows_of(recipe, "pairs").to_pylist()
        assert len({tree["tree_id"] for tree in trees}) == len(trees) > 30
        assert {"correct", "incorrect"} <= {outcome for tree in trees for outcome in tree["outcomes"]}
        by_id = {tree["tree_id"]: tree for tree in trees}
        assert len(pairs) > 10
        for pair in pairs:
            tree = by_id[pair["tree_id"]]
            assert pair["q_chosen"] - pair["q_rejected"] >= recipe.pairs.min_margin
            assert pair["prompt_ids"][: len(tree["prompt"])] == tree["prompt"]
            assert pair["chosen_ids"] in tree["tokens"]
            assert pair["rejected_ids"] in tree["tokens"]


def test_only_the_second_round_has_values_from_the_policys_own_head(rounds: list[Recipe]) -> None:
    first, second = (
        [value for tree in rows_of(recipe, "trees").to_pylist() for value in tree["values"]] for recipe in rounds
    )
    assert set(first) == {None}
    assert {0 <= value <= 1 for value in second if value is not None} == {True}
    assert np.std([value for value in second if value is not None]) > 0


def test_each_round_tunes_one_model_that_loads_as_a_plain_policy(rounds: list[Recipe]) -> None:
    weights = []
    for recipe in rounds:
        folder = recipe.folder / "tune" / "model"
        plain = AutoModelForCausalLM.from_pretrained(folder).state_dict()
        both = PolicyValueModel.from_pretrained(folder).policy.state_dict()
        assert all(bool((plain[name] == both[name]).all()) for name in plain)
        weights.append(next(iter(plain.values())))
    assert not bool((weights[0] == weights[1]).all())


def test_the_search_reads_values_without_scoring_a_token(rounds: list[Recipe]) -> None:
    for recipe in rounds:
        rows = report_of(recipe)
        assert {"single", "greedy", "majority", "best_of_n", "weighted_majority", "vgs_weighted_majority"} <= set(rows)
        assert {row["scored_tokens"] for row in rows.values()} == {0}
        assert rows["vgs_weighted_majority"]["generated_tokens"] > 0


def test_the_rounds_end_with_a_table_and_an_answer(finished: tuple[list[Recipe], str]) -> None:
    rounds, printed = finished
    assert "greedy" in (rounds[0].folder / "rounds.md").read_text()
    assert (rounds[0].folder / "rounds.png").stat().st_size > 10_000
    assert "round 2" in printed
    assert "Start with" in printed.partition("round 2")[2], "a problem is put to the served search at the end"
