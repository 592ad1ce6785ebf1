"""label: `verified` -> `labels`, the classes that training learns, and for some kinds a value for each token.

A roll-out with an unknown outcome gets no label and does not count in values. All roll-outs of a problem are labelled together.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.cli import cli
from pipelines.progress import Watched, progress
from pipelines.session import ray_session
from pipelines.tables.by_problem import ProblemBatch, ProblemGroups, align, map_problems
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import StageTable, all_rows, stage_table, value_counts
from pipelines.tables.tasks import write_dataset
from vgs_ray.config import Label, Recipe
from vgs_ray.errors import UserError
from vgs_ray.labels.label_rows import label_rows
from vgs_ray.labels.outcomes import of_first_roll_ins
from vgs_ray.models import model_path
from vgs_ray.prompts import delimiter_tokens, load_tokenizer

BATCH_ROWS, BATCH_ROWS_WITH_TOKENS = 32_768, 1024
SAMPLED = ("roll_in", "roll_out", "verify")
"""Stages whose rows of earlier runs are labelled too."""


def label_problems(
    batch: ProblemBatch, tables: dict[str, StageTable], config: Label, delimiters: tuple[int, ...]
) -> pa.Table:
    """The rows of `labels` for a batch of problems. `delimiters` are the tokens that end a step."""
    with_values = config.kind != "outcome"
    columns = ["roll_out_id", "roll_in_id", "problem_id", "cut", *(["tokens"] if with_values else [])]
    rows = batch.read_rows(tables["roll_out"], columns).sort_by("roll_out_id")
    rows = rows.filter(of_first_roll_ins(rows["roll_out_id"], config.paths))
    outcomes = align(batch.read_rows(tables["verify"], ["roll_out_id", "outcome"]), "roll_out_id", rows["roll_out_id"])
    splits = align(batch.read_rows(tables["clean"], ["problem_id", "split"]), "problem_id", rows["problem_id"])
    rows = rows.append_column("outcome", outcomes["outcome"]).append_column("split", splits["split"])
    roll_ins = batch.read_rows(tables["roll_in"], ["roll_in_id", "tokens"]) if with_values else None
    return label_rows(rows, roll_ins, config, delimiters)


def step_ends(recipe: Recipe) -> tuple[int, ...]:
    """The tokens that end a step; none for other label kinds.

    Raises:
        UserError: no token of the reference policy ends with the delimiter.
    """
    if recipe.label.kind != "step_values":
        return ()
    try:
        return delimiter_tokens(load_tokenizer(model_path(recipe.policy.model)), recipe.label.delimiter)
    except ValueError as error:
        raise UserError(f"label.delimiter can't be used: {error}") from error


def run(recipe: Recipe) -> None:
    stage = open_stage(recipe, "label", inputs=("clean", *SAMPLED), keep_parts=False, earlier=SAMPLED)
    if stage is None:
        return
    out, config, delimiters = stage_table(recipe, "label").claim(), recipe.label, step_ends(recipe)
    with_values = config.kind != "outcome"
    names = ("roll_out", "verify", "clean", *(["roll_in"] if with_values else []))
    tables = {name: all_rows(recipe, name) if name in SAMPLED else stage_table(recipe, name) for name in names}
    verified = tables["verify"]
    with (
        ray_session(folder=stage.folder, nodes=stage.nodes),
        progress("label", verified.count_rows(), out.count_rows, watch=Watched(stage.folder)),
    ):
        max_rows = BATCH_ROWS_WITH_TOKENS if with_values else BATCH_ROWS
        batches = ProblemGroups.scan(tables.values()).batches(max_rows)
        labelled = map_problems(batches, label_problems, tables=tables, config=config, delimiters=delimiters)
        write_dataset(labelled, out.write_part, cpus=1.0)
        out = stage.publish(out)
    if not out.count_rows():
        raise UserError(
            f"no roll-out of {recipe.folder} got a label, and training needs some; outcomes: "
            f"{value_counts(verified, 'outcome')}. Hopeless problems get none either: check the answers in {verified.folder}, or "
            "raise label.hopeless_share"
        )
    stage.close(
        rows=out.count_rows(),
        **left_out(verified, out, config.paths),
        labels=value_counts(out, "label"),
        splits=value_counts(out, "split"),
    )


def left_out(verified: StageTable, labels: StageTable, paths: int) -> dict[str, Any]:
    """Roll-outs without a label, by reason: another path, an unknown outcome, or a hopeless problem that was dropped."""
    rows = verified.read(["roll_out_id", "outcome"])
    used = rows.filter(of_first_roll_ins(rows["roll_out_id"], paths))
    unknown = pc.sum(pc.equal(used["outcome"], "unknown"), min_count=0).as_py()
    other = {"other_paths": len(rows) - len(used)} if paths else {}
    return {"left_out": {**other, "unknown": unknown, "hopeless": len(used) - labels.count_rows() - unknown}}


if __name__ == "__main__":
    cli(run, "pipelines.label")
