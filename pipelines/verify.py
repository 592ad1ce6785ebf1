"""verify: `roll_outs` -> `verified`, the answer and the outcome of each, judged by math-verify in killable processes.

All roll-outs of a problem are judged together, so that each pair (gold, answer) is judged once however many share it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import ray

from pipelines.cli import cli
from pipelines.session import progress, ray_session
from pipelines.tables.by_problem import ProblemBatch, ProblemFiles
from pipelines.tables.stage import open_stage
from pipelines.tables.stage_table import (
    StageTable,
    committed_ids,
    drop_committed,
    stage_table,
    value_counts,
    write_dataset,
)
from pipelines.tables.tasks import map_items
from vgs_ray.answers.judge import Judge
from vgs_ray.config import JudgeLimits, Recipe
from vgs_ray.data.lists import arrays
from vgs_ray.data.schemas import VERIFIED
from vgs_ray.grade import Verdict, extract_answer, verdict, without_answer
from vgs_ray.models import model_path
from vgs_ray.prompts import load_tokenizer, solution_text

BATCH_ROWS = 1024
INPUTS = ("clean", "roll_in", "roll_out")


class JudgeProblems:
    """An actor with one judging process: the roll-outs of whole problems to outcomes."""

    def __init__(self, model: str, limits: JudgeLimits, tables: dict[str, StageTable], out: StageTable) -> None:
        self.tokenizer = load_tokenizer(model_path(model))
        self.judge = Judge(workers=1, timeout_s=limits.timeout_s, memory_gib=limits.memory_gib)
        self.tables, self.done = tables, committed_ids(out)

    def __call__(self, item: dict[str, Any]) -> pa.Table:
        """The rows of a `ProblemBatch` that are not committed yet."""
        batch = ProblemBatch(**item)
        columns = ["roll_out_id", "roll_in_id", "problem_id", "cut", "tokens", "finish_reason"]
        table = drop_committed(batch.read_rows(self.tables["roll_out"], columns), "roll_out_id", self.done)
        roll_ins = batch.read_rows(self.tables["roll_in"], ["roll_in_id", "prompt", "tokens"])
        names, prompts, tokens = (
            roll_ins["roll_in_id"].to_pylist(),
            arrays(roll_ins["prompt"]),
            arrays(roll_ins["tokens"]),
        )
        at = {name: index for index, name in enumerate(names)}
        golds = dict(
            zip(*batch.read_rows(self.tables["clean"], ["problem_id", "answer"]).to_pydict().values(), strict=True)
        )
        rows = table.drop_columns(["tokens"]).to_pylist()
        found = [
            self._read(row, prompts[at[row["roll_in_id"]]], tokens[at[row["roll_in_id"]]], completion)
            for row, completion in zip(rows, arrays(table["tokens"]), strict=True)
        ]
        pairs = [(golds[row["problem_id"]], answer) for row, answer in zip(rows, found, strict=True)]
        compared = self.judge.judge_pairs((gold, answer) for gold, answer in pairs if isinstance(answer, str))
        out = []
        for row, (gold, answer) in zip(rows, pairs, strict=True):
            judged = verdict(answer, compared[gold, answer]) if isinstance(answer, str) else answer
            out.append({**row, **judged._asdict()})
        return pa.Table.from_pylist(out, schema=VERIFIED)

    def _read(
        self, row: dict[str, Any], prompt: np.ndarray, roll_in: np.ndarray, completion: np.ndarray
    ) -> str | Verdict:
        """The answer, or the verdict where there is none. One that was cut off at the length limit does not count.

        The generator's prompt says whether a thought was open: its template may differ from the reference policy's.
        """
        if row["finish_reason"] == "error":  # a failed sample says nothing about the policy
            return Verdict("unknown", "failed_sample", None)
        if row["finish_reason"] == "length":
            return Verdict("incomplete", "length_limit", None)
        text = solution_text(self.tokenizer, np.concatenate([roll_in[: row["cut"]], completion]), prompt)
        return extract_answer(text) or without_answer(text)


def run(recipe: Recipe) -> None:
    config = recipe.verify
    stage = open_stage(recipe, "verify", inputs=INPUTS)
    if stage is None:
        return
    tables, out = (
        {name: stage_table(recipe, name) for name in ("roll_out", "roll_in", "clean")},
        stage_table(recipe, "verify"),
    )
    expected = tables["roll_out"].count_rows()
    with ray_session(folder=stage.folder), progress("verify", expected, out.count_rows):
        if out.count_rows() < expected:
            batches = [batch._asdict() for batch in ProblemFiles.scan(tables.values()).batches(BATCH_ROWS)]
            judged = map_items(
                batches,
                JudgeProblems,
                compute=ray.data.ActorPoolStrategy(size=config.workers),
                num_cpus=0.25,
                arguments=(recipe.policy.model, recipe.judge, tables, out),
            )
            write_dataset(judged, out.claim().write_part)
    stage.close(rows=out.count_rows(), outcomes=value_counts(out, "outcome"), reasons=value_counts(out, "reason"))


if __name__ == "__main__":
    cli(run, "pipelines.verify")
