"""label: `verified` -> `labels`, the classes that training learns, and with `token_values` a value for each token.

A roll-out with an unknown outcome gets no label and does not count in values. All roll-outs of a problem are labelled together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.cli import cli
from pipelines.session import progress, ray_session
from pipelines.tables.by_problem import ProblemBatch, ProblemFiles, align, map_problems
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import StageTable, stage_table, value_counts, write_dataset
from vgs_ray.config import Label, Recipe
from vgs_ray.data.lists import arrays, ragged
from vgs_ray.data.schemas import LABELS
from vgs_ray.errors import UserError
from vgs_ray.labels.outcomes import hopeless_problems, keeps_hopeless, outcome_labels
from vgs_ray.labels.token_values import token_values

BATCH_ROWS = {"outcome": 32_768, "token_values": 1024}  # by kind; a batch for token_values holds tokens


def label_problems(batch: ProblemBatch, tables: dict[str, StageTable], config: Label) -> pa.Table:
    """The rows of `labels` for a batch of problems."""
    with_tokens = ["tokens"] if config.kind == "token_values" else []
    columns = ["roll_out_id", "roll_in_id", "problem_id", "cut", *with_tokens]
    rows = batch.read_rows(tables["roll_out"], columns).sort_by("roll_out_id")
    outcomes = align(batch.read_rows(tables["verify"], ["roll_out_id", "outcome"]), "roll_out_id", rows["roll_out_id"])
    splits = align(batch.read_rows(tables["clean"], ["problem_id", "split"]), "problem_id", rows["problem_id"])
    labels = outcome_labels(outcomes["outcome"])
    hopeless = hopeless_problems(rows["problem_id"], labels).to_pylist()
    dropped = [problem for problem in hopeless if not keeps_hopeless(problem, config.hopeless_share)]
    is_dropped = pc.is_in(rows["problem_id"], value_set=pa.array(dropped, pa.string()))
    rows = rows.append_column("split", splits["split"]).append_column("label", labels)
    rows = rows.filter(pc.and_(pc.is_valid(labels), pc.invert(is_dropped)))
    values = pa.nulls(len(rows), LABELS.field("values").type)
    if config.kind == "token_values":
        values = completion_values(rows, batch.read_rows(tables["roll_in"], ["roll_in_id", "tokens"]))
    return rows.append_column("values", values).select(LABELS.names).cast(LABELS)


def completion_values(rows: pa.Table, roll_ins: pa.Table) -> pa.Array:
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
        for row, path_values in zip(members, token_values(paths, correct[members].tolist()), strict=True):
            values[row] = path_values[cuts[row] :].astype(np.float32)
    return ragged(values, pa.float32())


def run(recipe: Recipe) -> None:
    stage = open_stage(recipe, "label", inputs=("clean", "roll_in", "roll_out", "verify"), keep_parts=False)
    if stage is None:
        return
    out = stage_table(recipe, "label")
    names = ("roll_out", "verify", "clean", *(("roll_in",) if recipe.label.kind == "token_values" else ()))
    tables = {name: stage_table(recipe, name) for name in names}
    verified = tables["verify"]
    with ray_session(folder=stage.folder), progress("label", verified.count_rows(), out.count_rows):
        batches = ProblemFiles.scan(tables.values()).batches(BATCH_ROWS[recipe.label.kind])
        write_dataset(map_problems(batches, label_problems, tables=tables, config=recipe.label), out.write_part)
    if not out.count_rows():
        raise UserError(
            f"no roll-out of {recipe.folder} got a label, and training needs some; outcomes: "
            f"{value_counts(verified, 'outcome')}. Hopeless problems get none either: check the answers in {verified.folder}, or "
            "raise label.hopeless_share"
        )
    stage.close(
        rows=out.count_rows(),
        **left_out(verified, out),
        labels=value_counts(out, "label"),
        splits=value_counts(out, "split"),
    )


def left_out(verified: StageTable, labels: StageTable) -> dict[str, Any]:
    """Roll-outs without a label, by reason: their outcome is unknown, or their problem is hopeless and was dropped."""
    unknown = value_counts(verified, "outcome").get("unknown", 0)
    return {"left_out": {"unknown": unknown, "hopeless": verified.count_rows() - labels.count_rows() - unknown}}


if __name__ == "__main__":
    cli(run, "pipelines.label")
