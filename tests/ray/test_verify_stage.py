"""Stage verify: all outcomes and reasons; each distinct answer is judged once; committed rows are not judged again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import verify
from pipelines.recipes import sandbox
from pipelines.tables.by_problem import ProblemGroups
from pipelines.tables.publish import in_this_process
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import stage_table
from pipelines.verify import JudgeActor
from vgs_ray.config import JudgeLimits, Recipe
from vgs_ray.data.schemas import TABLES
from vgs_ray.grade import extract_answer
from vgs_ray.models import model_path
from vgs_ray.prompts import load_tokenizer, solution_text, text_of

pytestmark = pytest.mark.usefixtures("local_ray")

TOKENIZER = load_tokenizer(model_path("sandbox:ref"))
GOLDS = {
    "plain": "3",
    "root": r"\sqrt{2}",
    "tower": "9^{9^{9^{9}}}",
    "sum": r"\sum_{n=1}^{99999} n^{999}",
    "nonsense": r"\frac{",
}
BOX = "so 3.\n</think>\nThe answer is \\boxed{%s}"
CASES = {  # roll-in up to the cut, completion, finish reason -> outcome, reason for the problem with the plain gold
    "right": ("", BOX % "3", "stop", "correct", "exact"),
    "wrong": ("", BOX % "5", "stop", "incorrect", "different"),
    "thought ended before the cut": ("so 3.\n</think>\n", "The answer is \\boxed{3}", "stop", "correct", "exact"),
    "at the limit": ("", BOX % "3", "length", "incomplete", "length_limit"),
    "no box": ("", "so 3.\n</think>\nThe answer is", "stop", "incomplete", "no_answer"),
    "no end": ("", "so \\boxed{3}", "stop", "incomplete", "unfinished_thought"),
    "failed": ("", "", "error", "unknown", "failed_sample"),
}
REASONS = {
    "root": ("incorrect", "different"),
    "tower": ("unknown", "too_costly"),
    "sum": ("unknown", "timeout"),
    "nonsense": ("unknown", "unparsable_gold"),
}
COPIES = 3
QUICK = ("plain", "tower")


def encode(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A run up to roll_out whose rows are scattered over parts, every case several times for every problem."""
    made = replace(sandbox(), root=str(tmp_path))
    made = replace(made, judge=JudgeLimits(timeout_s=1.0))
    rows: dict[str, list[dict[str, object]]] = {"clean": [], "roll_in": [], "roll_out": []}
    for problem, gold in GOLDS.items():
        rows["clean"].append({"problem_id": problem, "problem": "?", "answer": gold, "split": "train"})
        for case, (prefix, completion, finish, *_) in CASES.items():
            for copy in range(COPIES):
                shared = {"problem_id": problem, "policy": "ref", "seed": 1, "sampling": "{}", "engine": "none"}
                name, tokens = f"{problem}/{case}/{copy}", encode(prefix)
                rows["roll_in"].append(
                    {**shared, "roll_in_id": name, "prompt": [1], "tokens": [*tokens, 5], "finish_reason": "stop"}
                )
                rows["roll_out"].append(
                    {**shared, "roll_out_id": f"{name}/0", "roll_in_id": name, "cut": len(tokens),
                     "tokens": encode(completion), "finish_reason": finish}
                )  # fmt: skip
    draw = np.random.default_rng(0)
    for name, inputs in (("clean", ()), ("roll_in", ("clean",)), ("roll_out", ("roll_in",))):
        stage, parts = open_stage(made, name, inputs), stage_table(made, name)
        assert stage is not None
        shuffled = [rows[name][index] for index in draw.permutation(len(rows[name]))]
        for start in range(0, len(shuffled), 9):
            parts.write_part(pa.Table.from_pylist(shuffled[start : start + 9], schema=parts.schema))
        stage.publish(parts, in_this_process)
        stage.close(rows=len(shuffled))
    return made


def expected(roll_out: str) -> tuple[str, str]:
    problem, case, *_ = roll_out.split("/")
    answered = CASES[case][4] in ("exact", "different")
    return REASONS[problem] if answered and problem in REASONS else CASES[case][3:]  # type: ignore[return-value]


@pytest.mark.timeout(120)
def test_every_outcome_and_reason_and_a_rerun_judges_only_the_rest(recipe: Recipe) -> None:
    out = stage_table(recipe, "verify")
    out.folder.mkdir(parents=True)
    committed = {
        "roll_out_id": "plain/right/0/0",
        "problem_id": "plain",
        "answer": "kept",
        "outcome": "correct",
        "reason": "x",
    }
    out.write_part(pa.Table.from_pylist([committed], schema=TABLES["verified"]))
    verify.run(recipe)
    rows = out.read().to_pylist()
    assert len(rows) == len(GOLDS) * len(CASES) * COPIES == len({row["roll_out_id"] for row in rows})
    for row in rows:
        if row["roll_out_id"] == committed["roll_out_id"]:
            assert row["answer"] == "kept"
        else:
            assert (row["outcome"], row["reason"]) == expected(row["roll_out_id"]), row["roll_out_id"]


@pytest.mark.timeout(120)
def test_each_distinct_answer_is_judged_once_although_its_rows_are_in_many_parts(recipe: Recipe) -> None:
    tables = {name: stage_table(recipe, name) for name in ("roll_out", "roll_in", "clean")}
    actor = JudgeActor(recipe.policy.model, recipe.judge, tables, stage_table(recipe, "verify"))
    # Fewer rows than a problem has, and the rows of each problem are in many parts.
    batches = ProblemGroups.scan(tables.values()).batches(max_rows=10)
    assert sorted(problem for batch in batches for problem in batch.problems) == sorted(GOLDS)
    found = [row for batch in batches for row in actor(batch._asdict()).to_pylist()]
    hard = {(row["problem_id"], row["answer"]) for row in found if row["answer"] and row["problem_id"] not in QUICK}
    assert actor.judge.judged == len(hard) == 6
    actor.judge.close()


PIECES = ["so 3.", "\n", "</think>", "The answer is ", "\\boxed{4}", "\\frac{1}{2}", "wait, "]


@settings(deadline=None)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=12), box=st.booleans())
def test_decoding_from_the_end_of_the_thought_finds_the_same_answer(pieces: list[str], box: bool) -> None:
    tokens = encode("".join(pieces) + ("\n</think>\n\\boxed{7}" if box else ""))
    whole = extract_answer(text_of(TOKENIZER, tokens))
    assert extract_answer(solution_text(TOKENIZER, np.array(tokens, np.int32))) == whole
