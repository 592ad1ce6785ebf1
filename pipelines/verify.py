"""verify: `roll_outs` -> `verified`, the answer and the outcome of each, judged by math-verify in killable processes."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import ray

from pipelines.recipes import cli
from pipelines.session import progress, ray_session
from pipelines.stage import open_stage
from pipelines.tables import Parts, count_by, done_keys, parts_of, without, write
from vgs_ray.config import Recipe, Verify
from vgs_ray.grade import Verdict, extract_answer, verdict
from vgs_ray.judge import Judge
from vgs_ray.prompts import load_tokenizer, text_of
from vgs_ray.sandbox import model_path
from vgs_ray.schemas import VERIFIED

BLOCK_ROWS = 1000


class JudgeRows:
    """An actor with one judging process: whole answers of a batch to outcomes."""

    def __init__(self, model: str, config: Verify, problems: Parts, roll_ins: Parts) -> None:
        self.tokenizer = load_tokenizer(model_path(model))
        self.judge = Judge(workers=1, timeout_s=config.timeout_s, memory_gib=config.memory_gib)
        self.problems, self.roll_ins = problems, roll_ins

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = batch.to_pylist()
        golds = self.problems.lookup([row["problem_id"] for row in rows], ["answer"])
        roll_ins = self.roll_ins.lookup([row["roll_in_id"] for row in rows], ["tokens"])
        answers = [self._answer(row, roll_ins[row["roll_in_id"]]["tokens"]) for row in rows]
        golds_of = [golds[row["problem_id"]]["answer"] for row in rows]
        compared = self.judge.judge_pairs((g, a) for g, a in zip(golds_of, answers, strict=True) if a is not None)
        out = []
        for row, gold, answer in zip(rows, golds_of, answers, strict=True):
            found = unanswered(row) if answer is None else verdict(answer, compared[gold, answer])
            out.append({**row, "answer": answer, "outcome": found.outcome, "reason": found.reason})
        return pa.Table.from_pylist(out, schema=VERIFIED)

    def _answer(self, row: dict[str, Any], roll_in_tokens: list[int]) -> str | None:
        """The answer counts only when the policy ended it: one that was cut off at the length limit is incomplete."""
        if row["finish_reason"] != "stop":
            return None
        return extract_answer(text_of(self.tokenizer, [*roll_in_tokens[: row["cut"]], *row["tokens"]]))


def unanswered(row: dict[str, Any]) -> Verdict:
    """Outcome of a row without an answer; a failed sample says nothing about the policy, so it is unknown."""
    if row["finish_reason"] == "error":
        return Verdict("unknown", "failed_sample", None)
    return Verdict("incomplete", "length_limit" if row["finish_reason"] == "length" else "no_answer", None)


def run(recipe: Recipe) -> None:
    config = recipe.verify
    stage = open_stage(recipe, "verify", inputs=("clean", "roll_in", "roll_out"))
    if stage is None:
        return
    roll_outs, out = parts_of(recipe, "roll_out"), parts_of(recipe, "verify")
    expected = roll_outs.rows()
    with ray_session(), progress("verify", expected, out.rows):
        if out.rows() < expected:
            done = ray.put(done_keys(out))
            source = roll_outs.dataset(["roll_out_id", "roll_in_id", "problem_id", "cut", "tokens", "finish_reason"])
            verified = (
                source.map_batches(lambda batch: without(batch, "roll_out_id", ray.get(done)), batch_format="pyarrow")
                .repartition(target_num_rows_per_block=BLOCK_ROWS)
                .map_batches(
                    JudgeRows,
                    batch_size=None,
                    batch_format="pyarrow",
                    concurrency=config.workers,
                    num_cpus=0.25,
                    fn_constructor_args=(
                        recipe.roll_out.model,
                        config,
                        parts_of(recipe, "clean"),
                        parts_of(recipe, "roll_in"),
                    ),
                )
            )
            write(verified, out)
    stage.close(rows=out.rows(), outcomes=count_by(out, "outcome"), reasons=count_by(out, "reason"))


if __name__ == "__main__":
    cli(run, "pipelines.verify")
