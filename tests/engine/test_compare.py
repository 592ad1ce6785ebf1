"""The command compare on made-up tables and reports: the same held-out answers are read by the value model of each run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_up_reports import write_run as write_report_of_run
from made_up_run import CUTS, rows_of_run, write_run
from pyarrow.csv import read_csv

from pipelines import compare
from pipelines.label import label_problems
from pipelines.tables.by_problem import ProblemBatch
from pipelines.tables.held_out import PER_PROBLEM, choose_rows, held_out_answers
from pipelines.tables.stage_table import stage_table
from vgs_ray.config import Label, Recipe
from vgs_ray.errors import UserError
from vgs_ray.evaluate import plot
from vgs_ray.value.model import ValueModel
from vgs_ray.value.policy_value import PolicyValueModel
from vgs_ray.value.score_sequences import token_probs


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A run whose labels are in several parts."""
    recipe = write_run(tmp_path, Label(hopeless_share=1.0))
    names = ("roll_out", "verify", "clean")
    tables, labels = {name: stage_table(recipe, name) for name in names}, stage_table(recipe, "label")
    groups = {table.name: [group._asdict() for group in table.row_groups()] for table in tables.values()}
    problems = [row["problem_id"] for row in rows_of_run()["clean"]]
    for start in range(0, len(problems), 11):
        batch = ProblemBatch(problems[start : start + 11], groups)
        labels.write_part(label_problems(batch, tables, recipe.label, ()))
    return recipe


def test_held_out_answers_are_those_of_the_validation_problems(recipe: Recipe) -> None:
    rows = rows_of_run()
    roll_ins = {row["roll_in_id"]: row for row in rows["roll_in"]}
    split = {row["problem_id"]: row["split"] for row in rows["clean"]}
    verified = {row["roll_out_id"]: row["outcome"] for row in rows["verify"]}
    possible = {}
    for row in rows["roll_out"]:
        outcome, roll_in = verified[row["roll_out_id"]], roll_ins[row["roll_in_id"]]
        if split[row["problem_id"]] == "validation" and outcome in ("correct", "incorrect"):
            path = (*roll_in["prompt"], *roll_in["tokens"][: row["cut"]], *row["tokens"])
            possible[row["problem_id"], path] = outcome
    answers = held_out_answers(recipe, 1000, delimiters=(102,))
    for answer in answers:
        tokens = tuple(answer.tokens.tolist())
        assert possible[answer.problem_id, tokens] == ("correct" if answer.correct else "incorrect")
        response = tokens[answer.start :]
        assert (answer.start, answer.step_ends) == (3, tuple(at for at, token in enumerate(response) if token == 102))
    by_problem = {name: sum(answer.problem_id == name for answer in answers) for name, _ in possible}
    available = {name: sum(each == name for each, _ in possible) for name in by_problem}
    assert by_problem == {name: min(PER_PROBLEM, count) for name, count in available.items()}
    assert len(held_out_answers(recipe, 3)) == 3


def test_rows_of_a_problem_come_from_different_roll_ins() -> None:
    rows = [
        {"problem_id": "p", "roll_in_id": f"p/{r}", "roll_out_id": f"p/{r}/{c}"} for r in range(3) for c in range(CUTS)
    ]
    assert [row["roll_out_id"] for row in choose_rows(rows[::-1])] == ["p/0/0", "p/1/0", "p/2/0", "p/0/1"]


def test_values_in_batches_equal_those_of_single_sequences(
    value_folder: Path, policy_folder: Path, recipe: Recipe, tmp_path: Path
) -> None:
    PolicyValueModel.from_policy(policy_folder, seed=4, slot=119).save_pretrained(tmp_path / "policy")
    value_model, policy = (
        ValueModel.from_pretrained(value_folder),
        PolicyValueModel.from_pretrained(tmp_path / "policy"),
    )
    sequences = [answer.tokens for answer in held_out_answers(recipe, 20)]
    for folder, of_one in (
        (value_folder, value_model.success_probs),
        (tmp_path / "policy", lambda ids: (policy.values(ids) + 1) / 2),
    ):
        together = token_probs(folder, sequences, torch.device("cpu"), micro_tokens=64)
        for tokens, values in zip(sequences, together, strict=True):
            with torch.no_grad():
                alone = of_one(torch.tensor([tokens.tolist()]))[0]
            assert torch.allclose(alone, torch.from_numpy(values), atol=1e-5)


def test_compare_reads_each_runs_own_value_model(
    recipe: Recipe,
    policy_folder: Path,
    backbone: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(plot, "draw_figures", lambda report, folder: None)
    root, runs = Path(recipe.root), ("first", "unscored", "second")
    for seed, name in enumerate(runs):
        write_report_of_run(root, name, 0.4 + 0.1 * seed)
        if name != "unscored":
            ValueModel.from_backbone(policy_folder, seed=seed).save_pretrained(root / name / "train" / "value_model")
    compare.run(replace(recipe, label=Label(delimiter=";")), compare.Flags(runs=runs, answers=20))
    folder = recipe.folder / "compare"
    comparison = json.loads((folder / "compare.json").read_text())
    assert list(comparison["held_out"]["runs"]) == ["first", "second"]
    scored = [model for model in comparison["value_models"] if "held_out" in model]
    assert [model["run"] for model in scored] == ["first", "second"]
    assert scored[0]["held_out"]["tokens"]["brier"] != scored[1]["held_out"]["tokens"]["brier"]
    files = {path.name for path in folder.iterdir()}
    assert {"compare.csv", "compare.md", "accuracy_by_run.png", "values_by_position.pdf"} < files
    printed = capsys.readouterr().out
    assert all(f"  {run}  " in printed for run in runs)
    assert read_csv(folder / "compare.csv").num_rows == len(comparison["rows"])
    ValueModel.from_backbone(backbone).save_pretrained(root / "second" / "train" / "value_model")
    with pytest.raises(UserError, match=r"value_model has a vocabulary of 40 tokens, and the answers have token 10\d"):
        compare.run(recipe, compare.Flags(runs=runs))
