"""roll_out: `roll_ins` -> `roll_outs`, completions that the reference policy samples from cuts of each roll-in.

With `roll_out.whole`, each roll-in is also a row of its own, with the cut 0, or before its last token if a search selected it.
No engine starts for these rows.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import ray

from pipelines.actors.sampling import Totals, sample_blocks
from pipelines.cli import cli
from pipelines.progress import progress, watched
from pipelines.session import ray_session
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import (
    StageTable,
    committed_ids,
    drop_committed,
    stage_table,
    value_counts,
)
from pipelines.tables.tasks import write_dataset
from vgs_ray.config import Recipe
from vgs_ray.data.lists import arrays, ragged
from vgs_ray.data.schemas import ROLL_OUT_REQUESTS, ROLL_OUTS
from vgs_ray.labels.sampling_requests import roll_out_requests


def pending_requests(roll_ins: StageTable, recipe: Recipe, committed: ray.ObjectRef) -> ray.data.Dataset:
    """The requests whose roll-outs are not committed yet. Those of a roll-in are adjacent, to share prefixes in the cache."""

    def expand(batch: pa.Table) -> pa.Table:
        rows = [row for roll_in in batch.to_pylist() for row in roll_out_requests(roll_in, recipe)]
        return drop_committed(pa.Table.from_pylist(rows, schema=ROLL_OUT_REQUESTS), "roll_out_id", ray.get(committed))

    columns = ["roll_in_id", "problem_id", "prompt", "tokens"]
    return roll_ins.ray_dataset(columns).map_batches(expand, batch_format="pyarrow", batch_size=512)


def whole_roll_outs(roll_ins: pa.Table, selected: list[str]) -> pa.Table:
    """Roll-ins as roll-outs of their own.

    Args:
        roll_ins: rows of the table `roll_ins`.
        selected: generators whose roll-ins a search selected. Such a roll-in is cut before its last token.
    """
    tokens, of_search = arrays(roll_ins["tokens"]), pc.is_in(roll_ins["policy"], pa.array(selected, pa.string()))
    cuts = [max(len(each) - 1, 0) if cut else 0 for each, cut in zip(tokens, of_search.to_pylist(), strict=True)]
    completions = ragged([each[cut:] for each, cut in zip(tokens, cuts, strict=True)], pa.int32())
    ids = pc.binary_join_element_wise(roll_ins["roll_in_id"].cast(pa.string()), "whole", "/")
    rows = roll_ins.set_column(roll_ins.schema.get_field_index("tokens"), "tokens", completions)
    return (
        rows.append_column("roll_out_id", ids).append_column("cut", pa.array(cuts, pa.int32())).select(ROLL_OUTS.names)
    )


def copy_whole(roll_ins: StageTable, out: StageTable, committed: ray.ObjectRef, selected: list[str]) -> None:
    """Commit each roll-in that is not committed yet as a roll-out of its own; see `whole_roll_outs`."""

    def copied(batch: pa.Table) -> pa.Table:
        return drop_committed(whole_roll_outs(batch, selected), "roll_out_id", ray.get(committed))

    columns = [name for name in ROLL_OUTS.names if name not in ("roll_out_id", "cut")]
    rows = roll_ins.ray_dataset(columns).map_batches(copied, batch_format="pyarrow", batch_size=1024)
    write_dataset(rows, out.write_part)


def run(recipe: Recipe) -> None:
    config = recipe.roll_out
    stage = open_stage(recipe, "roll_out", inputs=("roll_in",))
    if stage is None:
        return
    roll_ins, out = stage_table(recipe, "roll_in"), stage_table(recipe, "roll_out").claim()
    expected = roll_ins.count_rows() * (config.cuts + config.whole)
    totals = Totals("roll_out", config.max_error_share)
    note = totals.note if config.cuts else None
    with (
        ray_session(folder=stage.folder, nodes=stage.nodes),
        progress("roll_out", expected, out.count_rows, note=note, watch=watched(out)),
    ):
        ids = committed_ids(out)
        committed = ray.put(ids)
        if config.cuts and len(ids) < expected:
            requests = pending_requests(roll_ins, recipe, committed)
            totals.run(
                sample_blocks(requests, recipe.policy.model, config.engine, config.resources, config.sampling, out)
            )
        if config.whole:
            selected = [generator.name for generator in recipe.roll_in.generators if generator.search]
            copy_whole(roll_ins, out, committed, selected)
        out = stage.publish(out)
    stage.close(
        rows=out.count_rows(), finish=value_counts(out, "finish_reason"), speed=totals.speed(config.engine.max_num_seqs)
    )


if __name__ == "__main__":
    cli(run, "pipelines.roll_out")
