"""label: `verified` -> `labels`, the class of each roll-out that training reads. Unknown outcomes never become labels."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.recipes import cli
from pipelines.session import progress, ray_session
from pipelines.stage import UserError, open_stage
from pipelines.tables import Parts, count_by, parts_of, write
from vgs_ray.config import Recipe
from vgs_ray.labels.outcomes import outcome_label
from vgs_ray.schemas import LABELS


def label_rows(batch: pa.Table, problems: Parts, roll_outs: Parts, hopeless: frozenset[str]) -> pa.Table:
    """Outcomes to classes; joins the cut and the split."""
    rows = batch.to_pylist()
    splits = problems.lookup([row["problem_id"] for row in rows], ["split"])
    cuts = roll_outs.lookup([row["roll_out_id"] for row in rows], ["roll_in_id", "cut"])
    out = []
    for row in rows:
        label = outcome_label(row["outcome"])
        if label is not None and row["problem_id"] not in hopeless:
            out.append({**splits[row["problem_id"]], **cuts[row["roll_out_id"]], **row, "label": label})
    return pa.Table.from_pylist(out, schema=LABELS)


def hopeless_problems(verified: Parts) -> frozenset[str]:
    """Problems that no roll-out solved (the paper leaves them out); two short columns come to the driver."""
    table = verified.read(["problem_id", "outcome"])
    solved = set(table.filter(pc.equal(table["outcome"], "correct"))["problem_id"].to_pylist())
    return frozenset(set(table["problem_id"].to_pylist()) - solved)


def run(recipe: Recipe) -> None:
    stage = open_stage(recipe, "label", inputs=("clean", "roll_out", "verify"), keep_parts=False)
    if stage is None:
        return
    verified, out = parts_of(recipe, "verify"), parts_of(recipe, "label")
    problems, roll_outs = parts_of(recipe, "clean"), parts_of(recipe, "roll_out")
    with ray_session(), progress("label", verified.rows(), out.rows):
        hopeless = hopeless_problems(verified) if recipe.label.drop_hopeless else frozenset()
        shared: dict[str, Any] = {"problems": problems, "roll_outs": roll_outs, "hopeless": hopeless}
        source = verified.dataset(["roll_out_id", "problem_id", "outcome"])
        write(source.map_batches(label_rows, batch_format="pyarrow", batch_size=4096, fn_kwargs=shared), out)
    if not out.rows():
        raise UserError(
            f"no roll-out of {recipe.folder} became a label; outcomes: {count_by(verified, 'outcome')}: look at the answers "
            f"in {verified.folder}"
        )
    stage.close(
        rows=out.rows(),
        left_out=verified.rows() - out.rows(),
        labels=count_by(out, "label"),
        splits=count_by(out, "split"),
    )


if __name__ == "__main__":
    cli(run, "pipelines.label")
