"""A small finished run up to `verify`, with made-up tokens: what the stages behind it read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.recipes import sandbox
from pipelines.tables.publish import in_this_process
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import stage_table
from vgs_ray.config import Label, Recipe
from vgs_ray.data.ids import problem_id, roll_in_id, roll_out_id

OUTCOMES = ["incorrect", "correct", "incomplete", "unknown"]
FINISH = {"incomplete": "length", "unknown": "error"}
PROBLEMS, ROLL_INS, CUTS = 30, 4, 3


def rows_of_run(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Rows by stage: every fifth problem is hopeless, completions of one roll-in share tokens beyond the cut."""
    draw = np.random.default_rng(seed)
    rows: dict[str, list[dict[str, Any]]] = {"clean": [], "roll_in": [], "roll_out": [], "verify": []}
    for index in range(PROBLEMS):
        text = f"What is {index} + {index}?"
        problem = {"problem_id": problem_id(text), "problem": text, "answer": str(2 * index), "source": "made up",
                   "solution": f"\\boxed{{{2 * index}}}", "split": "validation" if index % 7 == 0 else "train"}  # fmt: skip
        rows["clean"].append(problem)
        prompt = [1, 2, index + 10]
        for number in range(ROLL_INS):
            _add_roll_in(rows, draw, problem["problem_id"], prompt, number, hopeless=index % 5 == 0)
    return rows


def _add_roll_in(
    rows: dict[str, list[dict[str, Any]]],
    draw: np.random.Generator,
    problem: str,
    prompt: list[int],
    number: int,
    hopeless: bool,
) -> None:
    roll_in, tokens = roll_in_id(problem, "ref", number), draw.integers(100, 104, int(draw.integers(6, 20))).tolist()
    rows["roll_in"].append(
        {"roll_in_id": roll_in, "problem_id": problem, "policy": "ref", "seed": 1, "prompt": prompt, "tokens": tokens,
         "finish_reason": "stop", "sampling": "{}", "engine": "none"}
    )  # fmt: skip
    for cut_index, cut in enumerate(sorted(draw.integers(0, len(tokens), CUTS).tolist())):
        shared = {"roll_out_id": roll_out_id(roll_in, cut_index), "problem_id": problem}
        outcome = str(draw.choice(["incorrect", "incomplete", "unknown"] if hopeless else OUTCOMES))
        completion = [] if outcome == "unknown" else draw.integers(100, 103, int(draw.integers(1, 9))).tolist()
        finish = FINISH.get(outcome, "stop")
        rows["roll_out"].append(
            {**shared, "roll_in_id": roll_in, "policy": "ref", "cut": cut, "seed": 2, "tokens": completion,
             "finish_reason": finish, "sampling": "{}", "engine": "none"}
        )  # fmt: skip
        answer = "7" if outcome in ("correct", "incorrect") else None
        rows["verify"].append({**shared, "answer": answer, "outcome": outcome, "reason": "made_up"})


def write_run(root: Path, label: Label, part_rows: int = 37, seed: int = 0) -> Recipe:
    """Write the four stages; their rows are shuffled over parts, so that a problem lies in many."""
    recipe = replace(sandbox(), root=str(root), label=label)
    draw = np.random.default_rng(seed)
    inputs = {"clean": (), "roll_in": ("clean",), "roll_out": ("roll_in",), "verify": ("clean", "roll_in", "roll_out")}
    for name, rows in rows_of_run(seed).items():
        stage, parts = open_stage(recipe, name, inputs[name]), stage_table(recipe, name)
        assert stage is not None
        shuffled = [rows[index] for index in draw.permutation(len(rows))]
        for start in range(0, len(rows), part_rows):
            parts.write_part(pa.Table.from_pylist(shuffled[start : start + part_rows], schema=parts.schema))
        stage.publish(parts, in_this_process)
        stage.close(rows=len(rows))
    return recipe
