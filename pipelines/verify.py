"""verify: `roll_outs` -> `verified`, the answer and the outcome of each roll-out.

math-verify compares answers in processes that can be killed. All roll-outs of a problem are verified together, so each
distinct answer is compared with the reference answer once.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import ray

from pipelines.cli import cli
from pipelines.progress import Watched, progress
from pipelines.session import ray_session
from pipelines.tables.by_problem import ProblemBatch, ProblemGroups
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import (
    StageTable,
    committed_ids,
    drop_committed,
    stage_table,
    value_counts,
)
from pipelines.tables.tasks import map_items, write_dataset
from vgs_ray.answers.judge import Judge
from vgs_ray.config import JudgeLimits, Recipe
from vgs_ray.labels.verified_rows import verified_rows
from vgs_ray.models import model_path
from vgs_ray.prompts import load_tokenizer

BATCH_ROWS = 1024
JUDGE_CPUS = 0.25
INPUTS = ("clean", "roll_in", "roll_out")


class JudgeActor:
    """Verifies the roll-outs of whole problems, with one judge process."""

    def __init__(self, model: str, limits: JudgeLimits, tables: dict[str, StageTable], out: StageTable) -> None:
        self.tokenizer = load_tokenizer(model_path(model))
        self.judge = Judge(workers=1, timeout_s=limits.timeout_s, memory_gib=limits.memory_gib)
        self.tables, self.committed = tables, committed_ids(out)

    def __call__(self, item: dict[str, Any]) -> pa.Table:
        """The rows for the roll-outs of a `ProblemBatch`, without those that are committed."""
        batch = ProblemBatch(**item)
        columns = ["roll_out_id", "roll_in_id", "problem_id", "cut", "tokens", "finish_reason"]
        roll_outs = drop_committed(batch.read_rows(self.tables["roll_out"], columns), "roll_out_id", self.committed)
        roll_ins = batch.read_rows(self.tables["roll_in"], ["roll_in_id", "prompt", "tokens"])
        problems = batch.read_rows(self.tables["clean"], ["problem_id", "answer"])
        return verified_rows(roll_outs, roll_ins, problems, self.tokenizer, self.judge)


def run(recipe: Recipe) -> None:
    config = recipe.verify
    stage = open_stage(recipe, "verify", inputs=INPUTS)
    if stage is None:
        return
    tables = {name: stage_table(recipe, name) for name in ("roll_out", "roll_in", "clean")}
    out = stage_table(recipe, "verify").claim()
    expected = tables["roll_out"].count_rows()
    with (
        ray_session(folder=stage.folder, nodes=stage.nodes),
        progress("verify", expected, out.count_rows, watch=Watched(stage.folder)),
    ):
        if len(committed_ids(out)) < expected:
            batches = [batch._asdict() for batch in ProblemGroups.scan(tables.values()).batches(BATCH_ROWS)]
            judged = map_items(
                batches,
                JudgeActor,
                compute=ray.data.ActorPoolStrategy(size=config.workers),
                num_cpus=JUDGE_CPUS,
                arguments=(recipe.policy.model, recipe.judge, tables, out),
            )
            write_dataset(judged, out.write_part)
        out = stage.publish(out)
    stage.close(rows=out.count_rows(), outcomes=value_counts(out, "outcome"), reasons=value_counts(out, "reason"))


if __name__ == "__main__":
    cli(run, "pipelines.verify")
