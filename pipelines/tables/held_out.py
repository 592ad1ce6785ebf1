"""Finished answers to validation problems, read from the tables `labels`, `roll_ins` and `roll_outs` without Ray.

Only the ids and labels of the whole tables are read, then the tokens of the chosen rows.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pyarrow.compute as pc

from pipelines.tables.stage_table import StageTable, stage_table
from vgs_ray.config import Recipe
from vgs_ray.data.parquet import retried
from vgs_ray.evaluate.value_curves import Answer
from vgs_ray.labels.outcomes import OUTCOME_CLASSES

CORRECT, INCORRECT = OUTCOME_CLASSES["correct"], OUTCOME_CLASSES["incorrect"]


PER_PROBLEM = 4


def held_out_answers(recipe: Recipe, most: int, delimiters: tuple[int, ...] = ()) -> list[Answer]:
    """Correct and incorrect answers to problems of the validation split, `PER_PROBLEM` of each problem whatever their outcome.

    Args:
        recipe: of the run with the tables.
        most: number of answers at most; problems are taken in the order of their ids, which are hashes.
        delimiters: tokens that end a step.

    Returns:
        Answers sorted by problem; empty if the tables have none.
    """
    labels = stage_table(recipe, "label")
    if not labels.files():
        return []
    chosen = choose_rows(_validation_rows(labels))[:most]
    roll_outs = _rows(stage_table(recipe, "roll_out"), ["tokens"], [row["roll_out_id"] for row in chosen])
    roll_ins = _rows(stage_table(recipe, "roll_in"), ["prompt", "tokens"], [row["roll_in_id"] for row in chosen])
    answers = []
    for row in chosen:
        roll_in, roll_out = roll_ins[row["roll_in_id"]], roll_outs[row["roll_out_id"]]
        response = [*roll_in["tokens"][: row["cut"]], *roll_out["tokens"]]
        ends = tuple(place for place, token in enumerate(response) if token in delimiters)
        tokens = np.array([*roll_in["prompt"], *response], np.int32)
        answers.append(Answer(row["problem_id"], tokens, len(roll_in["prompt"]), row["label"] == CORRECT, ends))
    return answers


def _validation_rows(labels: StageTable) -> list[dict[str, Any]]:
    held_out = (pc.field("split") == "validation") & pc.field("label").isin([CORRECT, INCORRECT])
    columns = ["problem_id", "roll_in_id", "roll_out_id", "cut", "label"]
    table = retried(partial(labels.dataset().to_table, columns=columns, filter=held_out))
    return [dict(row) for row in table.to_pylist()]


def choose_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first rows of each problem by id, of different roll-ins as far as there are enough; sorted by problem."""
    by_problem: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for row in sorted(rows, key=lambda row: (row["problem_id"], row["roll_out_id"])):
        same = by_problem.setdefault(row["problem_id"], [])
        same.append((sum(other["roll_in_id"] == row["roll_in_id"] for _, other in same), row))
    return [row for same in by_problem.values() for _, row in sorted(same, key=lambda ranked: ranked[0])[:PER_PROBLEM]]


def _rows(table: StageTable, columns: list[str], ids: list[str]) -> dict[str, dict[str, Any]]:
    """The rows with these ids."""
    return {row[table.key]: row for row in table.rows_with(ids, [table.key, *columns]).to_pylist()}
