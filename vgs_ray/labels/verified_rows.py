"""The rows of the table `verified`, from roll-outs, their roll-ins and their problems."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from vgs_ray.answers.judge import Judge
from vgs_ray.data.lists import arrays
from vgs_ray.data.schemas import VERIFIED
from vgs_ray.grade import Verdict, extract_answer, verdict, without_answer
from vgs_ray.prompts import solution_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def verified_rows(
    roll_outs: pa.Table, roll_ins: pa.Table, problems: pa.Table, tokenizer: PreTrainedTokenizerBase, judge: Judge
) -> pa.Table:
    """The rows of `verified`, in the order of the roll-outs. Each distinct answer of a problem is compared once.

    Args:
        roll_outs: roll_out_id, roll_in_id, problem_id, cut, tokens and finish_reason.
        roll_ins: roll_in_id, prompt and tokens, of at least these roll-outs.
        problems: problem_id and answer, of at least these roll-outs.
        tokenizer: of the reference policy.
        judge: compares answers.
    """
    gold_of = dict(zip(problems["problem_id"].to_pylist(), problems["answer"].to_pylist(), strict=True))
    golds = [gold_of[problem] for problem in roll_outs["problem_id"].to_pylist()]
    answers = _answers(roll_outs, roll_ins, tokenizer)
    pairs = list(zip(golds, answers, strict=True))
    comparisons = judge.judge_pairs((gold, answer) for gold, answer in pairs if isinstance(answer, str))
    verdicts = [
        verdict(answer, comparisons[gold, answer]) if isinstance(answer, str) else answer for gold, answer in pairs
    ]
    rows = roll_outs.select(["roll_out_id", "problem_id"]).to_pylist()
    return pa.Table.from_pylist(
        [{**row, **each._asdict()} for row, each in zip(rows, verdicts, strict=True)], schema=VERIFIED
    )


def _answers(roll_outs: pa.Table, roll_ins: pa.Table, tokenizer: PreTrainedTokenizerBase) -> list[str | Verdict]:
    """The answer of each roll-out, or its verdict if it has none."""
    index = {roll_in_id: row for row, roll_in_id in enumerate(roll_ins["roll_in_id"].to_pylist())}
    prompts, tokens, completions = arrays(roll_ins["prompt"]), arrays(roll_ins["tokens"]), arrays(roll_outs["tokens"])
    answers = []
    for row, completion in zip(roll_outs.drop_columns(["tokens"]).to_pylist(), completions, strict=True):
        roll_in = index[row["roll_in_id"]]
        response = np.concatenate([tokens[roll_in][: row["cut"]], completion])
        answers.append(_answer(row["finish_reason"], prompts[roll_in], response, tokenizer))
    return answers


def _answer(
    finish_reason: str, prompt: np.ndarray, response: np.ndarray, tokenizer: PreTrainedTokenizerBase
) -> str | Verdict:
    """The answer, or the verdict if there is none.

    The prompt is the generator's, because it shows whether the template opened a thinking block; the template of the
    reference policy may differ.
    """
    if finish_reason == "error":  # a failed sample is no evidence about the policy
        return Verdict("unknown", "failed_sample", None)
    if finish_reason == "length":  # even if it contains an answer
        return Verdict("incomplete", "length_limit", None)
    text = solution_text(tokenizer, response, prompt)
    return extract_answer(text) or without_answer(text)
