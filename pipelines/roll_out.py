"""roll_out: `roll_ins` -> `roll_outs`, completions by the reference policy from cuts of each roll-in."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import ray

from pipelines.actors.sampling import Totals, sample_blocks
from pipelines.cli import cli
from pipelines.session import progress, ray_session
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import StageTable, committed_ids, drop_committed, stage_table, value_counts
from vgs_ray.config import Recipe
from vgs_ray.data.ids import roll_out_id, stable_seed
from vgs_ray.data.schemas import ROLL_OUT_REQUESTS
from vgs_ray.labels.outcomes import cut_positions


def requests_of(roll_in: dict[str, Any], recipe: Recipe) -> list[dict[str, Any]]:
    """The rows that the reference policy has to write for one roll-in; a failed roll-in is cut at its prompt."""
    config, tokens, prompt = recipe.roll_out, list(roll_in["tokens"]), list(roll_in["prompt"])
    seed = stable_seed(recipe.seed, roll_in["roll_in_id"], "cuts")
    rows = []
    for index, cut in enumerate(cut_positions(len(tokens), config.cuts, config.positions, seed, config.scheme)):
        identity = roll_out_id(roll_in["roll_in_id"], index)
        rows.append(
            {
                "roll_out_id": identity,
                "roll_in_id": roll_in["roll_in_id"],
                "problem_id": roll_in["problem_id"],
                "policy": recipe.policy.model,
                "cut": cut,
                "seed": stable_seed(recipe.seed, identity),
                "prefix": prompt + tokens[:cut],
                "max_tokens": config.sampling.max_tokens - cut,
            }
        )
    return rows


def requests(roll_ins: StageTable, recipe: Recipe, done: ray.ObjectRef) -> ray.data.Dataset:
    """All roll-outs that are not durable yet; those of one roll-in stand together, so that they share its prefill."""

    def expand(batch: pa.Table) -> pa.Table:
        rows = [row for roll_in in batch.to_pylist() for row in requests_of(roll_in, recipe)]
        return drop_committed(pa.Table.from_pylist(rows, schema=ROLL_OUT_REQUESTS), "roll_out_id", ray.get(done))

    source = roll_ins.ray_dataset(["roll_in_id", "problem_id", "prompt", "tokens"])
    return source.map_batches(expand, batch_format="pyarrow", batch_size=512)


def run(recipe: Recipe) -> None:
    config = recipe.roll_out
    stage = open_stage(recipe, "roll_out", inputs=("roll_in",))
    if stage is None:
        return
    roll_ins, out = stage_table(recipe, "roll_in"), stage_table(recipe, "roll_out").claim()
    expected = roll_ins.count_rows() * config.cuts
    totals = Totals("roll_out", config.max_error_share)
    with ray_session(folder=stage.folder), progress("roll_out", expected, out.count_rows, note=totals.note):
        if out.count_rows() < expected:
            pending = requests(roll_ins, recipe, ray.put(committed_ids(out)))
            totals.run(
                sample_blocks(pending, recipe.policy.model, config.engine, config.resources, config.sampling, out)
            )
    stage.close(rows=out.count_rows(), finish=value_counts(out, "finish_reason"), speed=totals.speed())


if __name__ == "__main__":
    cli(run, "pipelines.roll_out")
