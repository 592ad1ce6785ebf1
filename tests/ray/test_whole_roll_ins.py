"""Whole roll-ins as roll-outs (TVM): from stage roll_out to training examples, without an engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import export, label, roll_out, verify
from pipelines.recipes import sandbox
from pipelines.tables.publish import in_this_process
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import stage_table
from pipelines.tables.token_store import open_tokens, token_store
from pipelines.train import training_data
from vgs_ray.config import Label, Recipe
from vgs_ray.data.ids import problem_id, roll_in_id
from vgs_ray.prompts import delimiter_tokens, load_tokenizer, prompt_tokens
from vgs_ray.sandbox import policy_path
from vgs_ray.value.training.loader import open_splits

pytestmark = pytest.mark.usefixtures("local_ray")
TOKENIZER = load_tokenizer(str(policy_path("ref")))
PROBLEMS = 6
PATHS = {  # by index: the thought, the answer, how it ended
    0: ("\n1) 3+4=7;\n2) 7*2=14;", 14, "stop"),
    1: ("\n1) 3+4=7;\n2) 7*2=15;", 15, "stop"),
    2: ("\n1) 3+4=7;\n2) 7*2=14;", 14, "stop"),
    3: ("\n1) 3+4=8;\n2) 8*2=16;", 16, "stop"),
    4: ("\n1) 3+4=8; hmm;", 0, "length"),
    5: ("", 0, "error"),
}


def tokens_of(index: int) -> list[int]:
    thought, answer, finish = PATHS[index]
    if finish == "error":
        return []
    end = f"\nso {answer}.\n</think>\nThe answer is \\boxed{{{answer}}}" if finish == "stop" else ""
    return TOKENIZER(thought + end, add_special_tokens=False)["input_ids"] + [1] * (finish == "stop")


def write_roll_ins(root: Path) -> Recipe:
    """The stages clean and roll_in of a run."""
    base = sandbox()
    recipe = replace(base, root=str(root), roll_out=replace(base.roll_out, cuts=0, whole=True))
    rows: dict[str, list[dict[str, object]]] = {"clean": [], "roll_in": []}
    for number in range(PROBLEMS):
        text = f"Start with {number}."
        ids = {"problem_id": problem_id(text)}
        split = "validation" if number == 0 else "train"
        rows["clean"].append({**ids, "problem": text, "answer": "14", "source": "", "solution": "", "split": split})
        rows["roll_in"] += [
            {**ids, "roll_in_id": roll_in_id(ids["problem_id"], "ref", index), "policy": "ref", "seed": index, "sampling": "{}",
             "prompt": prompt_tokens(TOKENIZER, text), "tokens": tokens_of(index), "finish_reason": PATHS[index][2],
             "engine": "none", "error": "it failed" if PATHS[index][2] == "error" else None}
            for index in PATHS
        ]  # fmt: skip
    for name, inputs in (("clean", ()), ("roll_in", ("clean",))):
        stage, table = open_stage(recipe, name, inputs), stage_table(recipe, name)
        assert stage is not None
        for start in range(0, len(rows[name]), 10):
            table.write_part(pa.Table.from_pylist(rows[name][start : start + 10], schema=table.schema))
        stage.publish(table, in_this_process)
        stage.close(rows=len(rows[name]))
    return recipe


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Recipe:
    """A run up to `verify`. Stage roll_out was interrupted: one of its parts was not written yet."""
    recipe = write_roll_ins(tmp_path_factory.mktemp("whole"))
    roll_out.run(recipe)
    folder = recipe.folder / "roll_out"
    rows = stage_table(recipe, "roll_out").read()
    for file in folder.glob("*.*"):
        file.unlink()
    stage_table(recipe, "roll_out").write_part(rows[:20])
    roll_out.run(recipe)
    verify.run(recipe)
    return recipe


def test_each_roll_in_is_a_roll_out(verified: Recipe) -> None:
    roll_ins, roll_outs = (stage_table(verified, name).read().to_pylist() for name in ("roll_in", "roll_out"))
    copied = {row["roll_out_id"]: row for row in roll_outs}
    assert len(copied) == len(roll_outs) == len(roll_ins) == PROBLEMS * len(PATHS)
    for row in roll_ins:
        copy = copied[f"{row['roll_in_id']}/whole"]
        assert copy["cut"] == 0
        assert {name: copy[name] for name in row if name != "prompt"} == {
            name: row[name] for name in row if name != "prompt"
        }
    outcomes = stage_table(verified, "verify").read().to_pylist()
    found = {int(row["roll_out_id"].split("/")[2]): row["outcome"] for row in outcomes}
    assert found == {
        0: "correct", 1: "incorrect", 2: "correct", 3: "incorrect", 4: "incomplete", 5: "unknown",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["token_values", "outcome_values", "step_values", "outcome"])
def test_every_kind_of_label_becomes_training_examples(verified: Recipe, kind, tmp_path: Path) -> None:
    loss = "outcome" if kind == "outcome" else "soft"
    recipe = replace(
        verified, run_name=kind, base_run=verified.name, base_stages=("clean", "roll_in", "roll_out", "verify"),
        label=Label(kind=kind, delimiter=";"), train=replace(verified.train, loss=loss, steps=0, epochs=3, batch_size=4),
    )  # fmt: skip
    label.run(recipe)
    store = token_store(recipe)
    data = training_data(recipe, store)
    assert data.classes == {"incorrect": 10, "correct": 10, "incomplete": 5}
    assert data.steps == 19  # 3 * 25 / 4, rounded up
    train, _ = open_splits(open_tokens(store), recipe.resolved_train)
    for example in (train.example(index) for index in range(len(train))):
        index = int(example.id.split("/")[2])
        assert example.tokens[example.target_start :].tolist() == tokens_of(index)
        if kind == "outcome":
            assert example.values is None
            continue
        values, end = example.values, tokens_of(index).index(*delimiter_tokens(TOKENIZER, ";"))
        assert values[-1] == (index in (0, 2))  # alone with the paths that equal it
        if kind == "outcome_values":
            assert len(set(values.tolist())) == 1
            continue
        assert values[end] == pytest.approx(2 / 3 if index < 3 else 0)
        assert values[0] == pytest.approx(2 / 5) if kind == "token_values" else np.isnan(values[0])
        targets = 3 if index < 4 else 1
        assert np.isfinite(values).sum() == (targets if kind == "step_values" else len(values))


def test_whole_roll_ins_are_exported_as_responses(verified: Recipe) -> None:
    label.run(verified)
    export.run(verified)
    rows = pq.read_table(next((verified.folder / "export/OpenR1-VM/data").glob("train*"))).to_pylist()
    assert len(rows) == PROBLEMS - 1
    for row in rows:
        assert row["roll_in_ids"] == [list(prompt_tokens(TOKENIZER, row["problem"]))] * 5
        assert sorted(row["roll_outs_ids"]) == sorted(tokens_of(index) for index in range(5))
