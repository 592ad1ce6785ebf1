"""The rows of the table `labels`, from roll-outs with their outcomes. All roll-outs of a problem are labelled together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vgs_ray.config import Label
from vgs_ray.data.lists import arrays, ragged
from vgs_ray.data.schemas import LABELS
from vgs_ray.labels.outcomes import hopeless_problems, keeps_hopeless, outcome_labels
from vgs_ray.labels.token_values import outcome_values, step_values, token_values


def label_rows(rows: pa.Table, roll_ins: pa.Table | None, config: Label, delimiters: tuple[int, ...] = ()) -> pa.Table:
    """The rows of `labels` for roll-outs of whole problems. Unknown outcomes and dropped hopeless problems have none.

    Args:
        rows: roll_out_id, roll_in_id, problem_id, cut, outcome and split, and the tokens of completions if `roll_ins` is given.
        roll_ins: roll_in_id and tokens, for a kind with a value for each token; None for the kind `outcome`.
        config: settings of stage label.
        delimiters: tokens that end a step.
    """
    labels = outcome_labels(rows["outcome"])
    hopeless = hopeless_problems(rows["problem_id"], labels).to_pylist()
    dropped = [problem for problem in hopeless if not keeps_hopeless(problem, config.hopeless_share)]
    is_dropped = pc.is_in(rows["problem_id"], value_set=pa.array(dropped, pa.string()))
    rows = rows.append_column("label", labels).filter(pc.and_(pc.is_valid(labels), pc.invert(is_dropped)))
    values = pa.nulls(len(rows), LABELS.field("values").type)
    if roll_ins is not None:
        values = completion_values(rows, roll_ins, config, delimiters)
    return rows.append_column("values", values).select(LABELS.names).cast(LABELS)


def completion_values(rows: pa.Table, roll_ins: pa.Table, config: Label, delimiters: tuple[int, ...]) -> pa.Array:
    """The values of the tokens of each completion.

    Values are computed on paths, which are a roll-in up to the cut plus the completion, so roll-outs share prefixes.
    """
    roll_in_tokens = dict(zip(roll_ins["roll_in_id"].to_pylist(), arrays(roll_ins["tokens"]), strict=True))
    completions, cuts = arrays(rows["tokens"]), rows["cut"].to_pylist()
    roll_in_ids, problems = rows["roll_in_id"].to_pylist(), rows["problem_id"].to_numpy()
    correct = rows["label"].to_numpy() == 1
    values: list[np.ndarray] = [np.empty(0, np.float32)] * len(rows)
    for problem in np.unique(problems):
        members = np.flatnonzero(problems == problem).tolist()
        paths = [np.concatenate([roll_in_tokens[roll_in_ids[row]][: cuts[row]], completions[row]]) for row in members]
        of_paths = path_values(paths, correct[members].tolist(), config, delimiters)
        for row, each in zip(members, of_paths, strict=True):
            values[row] = each[cuts[row] :].astype(np.float32)
    return ragged(values, pa.float32())


def path_values(
    paths: Sequence[NDArray[np.int32]], correct: Sequence[bool], config: Label, delimiters: tuple[int, ...]
) -> list[NDArray[np.float64]]:
    """The values of the tokens of one problem's paths."""
    if config.kind == "step_values":
        return step_values(paths, correct, delimiters)
    return outcome_values(paths, correct) if config.kind == "outcome_values" else token_values(paths, correct)
