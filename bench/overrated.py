r"""Which wrong answers does the sandbox's value model overrate? Reads the stored searches of a run; starts no engine.

    python bench/overrated.py runs/sandbox

An answer is classified by its first slip in the sandbox world; `hmm` is a doubt.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from fractions import Fraction
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
import pyarrow.dataset as pads
from tabulate import tabulate

from vgs_ray.calibration import auc
from vgs_ray.data.schemas import SEARCHES
from vgs_ray.models import model_path
from vgs_ray.prompts import load_tokenizer
from vgs_ray.sandbox.measure_policy import boxed_value
from vgs_ray.sandbox.world import SIGNS, Problem, apply_step, systematic_error
from vgs_ray.search.tree import Tree

VERBS = {sign: verb for verb, sign in SIGNS.items()}
DOUBT = "with a doubt"


class Answer(NamedTuple):
    """A finished answer: its class, whether it is correct, its value, and the policy's mean log-probability."""

    kind: str
    correct: bool
    value: float
    logprob: float


def read_problem(text: str) -> Problem:
    """The inverse of `Problem.text`, up to the text around it."""
    start, divisor = re.search(r"Start with (\d+)", text), re.search(r"divided by (\d+)", text)
    assert start, f"not a problem of the sandbox: {text!r}"
    steps = tuple((verb, int(operand)) for verb, operand in re.findall(r"\n\d+\) ([a-z ]+) (\d+)", text))
    return Problem(int(start[1]), steps, int(divisor[1]) if divisor else None)


def first_slip(problem: Problem, text: str) -> str:
    """`none`, `systematic`, `random`, or `other` (a wrong copy or a wrong fraction)."""
    value, lines = problem.start, re.findall(r"\n\d+\) ([^\n]*)", text)
    for (verb, operand), line in zip(problem.steps, lines, strict=False):
        facts = re.findall(r"(\d+)([+\-*])(\d+)=(\d+);", line)
        if not facts or (int(facts[-1][0]), VERBS[facts[-1][1]], int(facts[-1][2])) != (value, verb, operand):
            return "other"
        result = int(facts[-1][3])
        if result != apply_step(value, verb, operand):
            return "systematic" if result == systematic_error(value, verb, operand) else "random"
        value = result
    return "none" if boxed_value(text) == Fraction(value, problem.divisor or 1) else "other"


def read_answers(run: Path) -> list[list[Answer]]:
    """The finished samples of each problem."""
    tokenizer, problems = load_tokenizer(model_path("sandbox:ref")), []
    table = pads.dataset(sorted((run / "evaluate").glob("part-*.parquet")), schema=SEARCHES).to_table()
    for row in table.to_pylist():
        if row["explorer"] == "sample":
            tree, answers = Tree.from_json(json.loads(row["tree"])), []
            problem = read_problem(tokenizer.decode(tree.prompt))
            for leaf in json.loads(row["leaves"]):
                text = tokenizer.decode(tree.path(leaf["node"])).removesuffix(tokenizer.eos_token)
                if tree.nodes[leaf["node"]].state == "finished":
                    kind = DOUBT if "hmm" in text else first_slip(problem, text)
                    logprob = tree.mean_logprob(leaf["node"])
                    answers.append(Answer(kind, leaf["outcome"] == "correct", leaf["value"], logprob or 0.0))
            problems.append(answers)
    return problems


def within_problems(problems: list[list[Answer]], score: str) -> float:
    """Mean AUC of a score over the problems that have right and wrong answers without a doubt."""
    found = []
    for answers in problems:
        sure = [answer for answer in answers if answer.kind != DOUBT]
        correct = np.array([answer.correct for answer in sure], np.bool_)
        if 0 < correct.sum() < len(sure):
            found.append(auc(correct, np.array([getattr(answer, score) for answer in sure])) or 0.0)
    return fmean(found)


def main() -> None:
    """Print the table and the two areas under the curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run of the recipe sandbox")
    problems = read_answers(parser.parse_args().run)
    by_kind, chosen = defaultdict[str, list[Answer]](list), defaultdict[str, int](int)
    for answers in problems:
        for answer in answers:
            by_kind[answer.kind].append(answer)
        chosen[max(answers, key=lambda answer: answer.value).kind] += 1
    rows = [
        [kind, len(group), fmean(each.correct for each in group), fmean(each.value for each in group), chosen[kind]]
        for kind, group in sorted(by_kind.items(), key=lambda item: -len(item[1]))
    ]
    print(tabulate(rows, ["first slip", "answers", "right", "mean value", "highest value"], "github", floatfmt=".3f"))
    for score in ("value", "logprob"):
        print(f"AUC of the {score} within a problem, answers without a doubt: {within_problems(problems, score):.3f}")


if __name__ == "__main__":
    main()
