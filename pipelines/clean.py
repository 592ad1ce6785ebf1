"""clean: raw problems -> `problems` (kept) and `problems_dropped` (with a reason and the evidence)."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from pipelines.recipes import cli
from pipelines.session import progress, ray_session
from pipelines.sources import COLUMNS, benchmark_problems, train_problems
from pipelines.stage import UserError, open_stage
from pipelines.tables import count_by, parts_of, write
from vgs_ray.config import Recipe
from vgs_ray.ids import problem_id
from vgs_ray.problems import check, normalise, validation_split


def check_rows(batch: pa.Table, excluded: frozenset[str], validation_share: float) -> pa.Table:
    """Judge each row by itself: its id, its split, and why it is dropped (null: kept)."""
    rows = []
    for row in batch.to_pylist():
        dropped = check(row, excluded)
        identity = problem_id(row["problem"] or "")
        rows.append(
            {name: row.get(name) for name in (*COLUMNS, "row")}
            | {
                "problem_id": identity,
                "split": validation_split(identity, validation_share),
                "reason": dropped.reason if dropped else None,
                "evidence": dropped.evidence if dropped else None,
            }
        )
    return pa.Table.from_pylist(rows, schema=CHECKED)


CHECKED = pa.schema(
    [(name, pa.string()) for name in (*COLUMNS, "problem_id", "split", "reason", "evidence")] + [("row", pa.int64())]
)


def mark_duplicates(batch: pa.Table, first: dict[str, int]) -> pa.Table:
    """Give every row that passed, but not as the first with its id, the reason `duplicate`."""
    rows = batch.to_pylist()
    for row in rows:
        if row["reason"] is None and first[row["problem_id"]] != row["row"]:
            row |= {"reason": "duplicate", "evidence": f"row {first[row['problem_id']]}"}
    return pa.Table.from_pylist(rows, schema=CHECKED)


def select(batch: pa.Table, kept: bool) -> pa.Table:
    """The rows of one of the two tables."""
    return batch.filter(pc.is_null(batch["reason"]) if kept else pc.is_valid(batch["reason"]))


def first_rows(checked: ray.data.Dataset) -> dict[str, int]:
    """The first row of each problem that passed; only ids and positions come to the driver."""
    first: dict[str, int] = {}
    for row in checked.select_columns(["problem_id", "row", "reason"]).iter_rows():
        if row["reason"] is None:
            first[row["problem_id"]] = min(first.get(row["problem_id"], row["row"]), row["row"])
    return first


def run(recipe: Recipe) -> None:
    stage = open_stage(recipe, "clean", inputs=(), keep_parts=False)
    if stage is None:
        return
    kept, dropped = parts_of(recipe, "clean"), parts_of(recipe, "dropped")
    dropped.folder.mkdir(parents=True, exist_ok=True)
    with ray_session():
        raw = train_problems(recipe.clean.source, recipe.clean.limit, recipe.seed)
        with progress("clean", raw.count(), lambda: kept.rows() + dropped.rows()):
            excluded = ray.put(excluded_texts(recipe.clean.exclude))
            shared: dict[str, Any] = {"validation_share": recipe.clean.validation_share}
            checked = raw.map_batches(
                lambda batch: check_rows(batch, ray.get(excluded), **shared), batch_format="pyarrow", batch_size=500
            ).materialize()
            first = ray.put(first_rows(checked))
            marked = checked.map_batches(
                lambda batch: mark_duplicates(batch, ray.get(first)), batch_format="pyarrow"
            ).materialize()
            write(marked.map_batches(lambda batch: select(batch, kept=True), batch_format="pyarrow"), kept)
            write(marked.map_batches(lambda batch: select(batch, kept=False), batch_format="pyarrow"), dropped)
    if not kept.rows():
        raise UserError(
            f"no problem of {recipe.clean.source} was kept; reasons: {count_by(dropped, 'reason')}: look at {dropped.folder}"
        )
    stage.close(kept=kept.rows(), dropped=dropped.rows(), reasons=count_by(dropped, "reason"))


def excluded_texts(benchmarks: tuple[str, ...]) -> frozenset[str]:
    """The normalised problems of the benchmarks: they must not be trained on."""
    return frozenset(
        normalise(row["problem"]) for source in benchmarks for row in benchmark_problems(source, 0).iter_rows()
    )


if __name__ == "__main__":
    cli(run, "pipelines.clean")
