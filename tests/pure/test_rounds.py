"""Rounds: the recipe of each round, and the table that compares them."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.recipes import RECIPES, sandbox, svpo
from pipelines.recipes.rounds import next_round
from pipelines.roll_out import whole_roll_outs
from pipelines.run import recipes_of_rounds
from vgs_ray.config import Beam, Generator, Label, Recipe
from vgs_ray.config.checks import check_recipe
from vgs_ray.data.schemas import ROLL_INS, ROLL_OUTS
from vgs_ray.errors import UserError
from vgs_ray.evaluate.rounds import round_rows, write_rounds
from vgs_ray.models import OWN_HEAD


def changed_sections(one: Recipe, other: Recipe) -> set[str]:
    return {field.name for field in fields(Recipe) if getattr(one, field.name) != getattr(other, field.name)}


def test_the_first_round_is_the_recipe() -> None:
    assert next_round(svpo(), 1) == svpo()


def test_a_later_round_of_svpo_goes_on_from_the_tuned_model() -> None:
    first = replace(svpo(), root="/runs", run_name="mine")
    cold = replace(first, trees=replace(first.trees, sampling=replace(first.trees.sampling, temperature=0.5)))
    third = next_round(cold, 3)
    model = "/runs/mine-round-2/tune/model"
    assert (third.policy.model, third.tune.init, third.trees.value_model) == (model, model, OWN_HEAD)
    assert third.trees.sampling.temperature == 1.0
    assert third.stage_folder("clean") == Path("/runs/mine/clean")
    assert third.stage_folder("tune") == Path("/runs/mine-round-3/tune")
    assert changed_sections(cold, third) == {"run_name", "base_run", "base_stages", "policy", "trees", "tune"}
    assert next_round(cold, 2).policy.model == "/runs/mine/tune/model"


def test_models_of_earlier_rounds_on_an_object_store_are_urls() -> None:
    tuned = next_round(replace(svpo(), root="s3://bucket/runs"), 2)
    assert tuned.policy.model == tuned.tune.init == "s3://bucket/runs/svpo/tune/model"
    [search] = next_round(replace(sandbox(), root="gs://bucket/runs"), 2).roll_in.generators
    assert search.value_model == "gs://bucket/runs/sandbox/train/value_model"


def test_rounds_of_a_run_on_another_runs_problems_share_these() -> None:
    based = replace(svpo(), root="/runs", base_run="other", base_stages=("clean", "trees"))
    second = next_round(based, 2)
    assert second.stage_folder("clean") == Path("/runs/other/clean")
    assert second.stage_folder("trees") == Path("/runs/svpo-round-2/trees")


def test_a_later_round_of_vgs_searches_with_the_last_value_model_and_trains_on_all_roll_outs() -> None:
    first = replace(sandbox(), root="/runs", run_name="mine")
    third = next_round(first, 3)
    (generator,) = third.roll_in.generators
    assert (generator.name, generator.model) == ("round-3", first.policy.model)
    assert generator.value_model == "/runs/mine-round-2/train/value_model"
    assert generator.search == replace(first.evaluate.beam, groups=1)
    assert third.earlier_runs == ("mine", "mine-round-2")
    assert third.roll_out.whole
    changed = {"run_name", "base_run", "base_stages", "earlier_runs", "roll_in", "roll_out"}
    assert changed_sections(first, third) == changed
    assert next_round(first, 2).earlier_runs == ("mine",)


def test_rounds_that_would_bias_or_mix_rows_are_refused() -> None:
    first = sandbox()
    with pytest.raises(UserError, match="its values are shares of sampled paths"):
        next_round(replace(first, label=Label(kind="token_values")), 2)
    with pytest.raises(UserError, match=r"train.share_policy is set; the roll-ins of a later round"):
        next_round(replace(first, train=replace(first.train, share_policy=True)), 2)
    with pytest.raises(UserError, match="read roll_in, roll_out, verify of one run"):
        next_round(replace(first, base_run="other", base_stages=("clean", "roll_in")), 2)
    with pytest.raises(UserError, match="stages clean, evaluate; a round needs"):
        next_round(replace(first, stages=("clean", "evaluate")), 2)
    shared = next_round(replace(first, base_run="other", base_stages=("clean", "roll_in", "roll_out", "verify")), 2)
    assert (shared.earlier_runs, shared.base_run) == (("other",), "other")


def test_a_search_needs_a_value_model() -> None:
    alone = Generator("guided", "sandbox:ref", search=Beam())
    with pytest.raises(UserError, match="a guided search needs both"):
        check_recipe(replace(sandbox(), roll_in=replace(sandbox().roll_in, generators=(alone,))))


def test_only_the_end_of_a_selected_answer_is_labelled() -> None:
    """Its outcome is exact there, and biased at earlier tokens."""
    answers = {"p/ref/0": ("ref", [5, 6, 7]), "p/round-2/0": ("round-2", [5, 6, 8]), "p/round-2/1": ("round-2", [])}
    rows = [
        {"roll_in_id": name, "problem_id": "p", "policy": policy, "seed": 1, "prompt": [1], "tokens": tokens,
         "finish_reason": "stop", "sampling": "{}", "engine": "none", "error": None}
        for name, (policy, tokens) in answers.items()
    ]  # fmt: skip
    whole = whole_roll_outs(pa.Table.from_pylist(rows, schema=ROLL_INS), ["round-2"]).cast(ROLL_OUTS)
    assert [(row["roll_out_id"], row["cut"], row["tokens"]) for row in whole.to_pylist()] == [
        ("p/ref/0/whole", 0, [5, 6, 7]), ("p/round-2/0/whole", 2, [8]), ("p/round-2/1/whole", 0, []),
    ]  # fmt: skip


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe().label.kind == "outcome"])
def test_every_round_can_run(name: str) -> None:
    recipe = RECIPES[name]()
    apart = replace(recipe, train=replace(recipe.train, share_policy=False))  # later rounds need a separate value model
    rounds = [next_round(apart, number) for number in (1, 2, 3)]
    for each in rounds:
        check_recipe(each)
    assert len({each.folder for each in rounds}) == 3


def test_no_round_is_refused() -> None:
    with pytest.raises(UserError, match="rounds is 0; a run has at least one round"):
        recipes_of_rounds(svpo(), 0)


def test_table_of_rounds(tmp_path: Path) -> None:
    shared = {"benchmark": "sandbox", "budget": 4, "problems": 9, "generated_tokens": 1.0, "flops": 2.0}
    for name, accuracy in (("mine", 0.5), ("mine-round-2", 0.75)):
        methods = {"best_of_n": accuracy, "vgs_weighted_majority": accuracy / 2, "adaptive_majority": 0.1}
        rows = [
            {**shared, "method": method, "accuracy": mean, "low": mean - 0.1, "high": mean + 0.1, "seconds": 1.0}
            for method, mean in methods.items()
        ]
        (tmp_path / name / "evaluate").mkdir(parents=True)
        (tmp_path / name / "evaluate" / "report.json").write_text(json.dumps({"rows": rows}))
    folders = [tmp_path / "mine", tmp_path / "mine-round-2"]
    text = write_rounds(round_rows(folders), tmp_path / "mine")
    assert [line.split() for line in text.splitlines() if line.startswith("best_of_n")] == [
        ["best_of_n", "4", "50.0", "(40.0", "to", "60.0)", "75.0", "(65.0", "to", "85.0)"]
    ]
    assert "adaptive" not in text
    assert "| best_of_n" in (tmp_path / "mine" / "rounds.md").read_text()
    assert (tmp_path / "mine" / "rounds.png").stat().st_size > 10_000
    stored = json.loads((tmp_path / "mine" / "rounds.json").read_text())["rows"]
    assert [(row["round"], row["run"], row["accuracy"]) for row in stored if row["method"] == "best_of_n"] == [
        (1, "mine", 0.5), (2, "mine-round-2", 0.75),
    ]  # fmt: skip
