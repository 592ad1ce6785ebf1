"""Public data sets of word problems to `WordProblem`s.

In: a file, its URL or a data set on Hugging Face, as `vgs_ray.cleaning.raw_rows` reads them. Out: problems with the answer and
the steps that their formula gives. Rows without usable steps are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

from vgs_ray.cleaning.raw_rows import inspect_source, read_piece
from vgs_ray.errors import UserError
from vgs_ray.evaluate.benchmarks import final_answer
from vgs_ray.words.formulas import Step, decimal_text, find_formula, steps_of

Row = dict[str, str]
_STATED = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?|\.\d+")
"""Numbers of a text, also those of percentages and of times of day."""
COMMON = frozenset(map(Fraction, (*range(13), 24, 25, 30, 50, 52, 60, 100, 365, 1000)))
"""Numbers that a step may use although the problem does not state them: number words, and sizes of units."""


class WordProblem(NamedTuple):
    """A problem with the steps of its solution, of which the last one gives the answer."""

    source: str
    problem: str
    answer: str
    steps: tuple[Step, ...]


class Layout(NamedTuple):
    """The columns of a data set, and how a row becomes the text of a problem, its answer and its formulas."""

    columns: tuple[str, ...]
    read: Callable[[Row], tuple[str, str, list[str]]]


def _mawps(row: Row) -> tuple[str, str, list[str]]:
    """MAWPS in the layout of math-evaluation-harness has no formula: the only one that gives the answer is taken."""
    formula = find_formula(row["input"], Fraction(row["target"] or -1))
    return row["input"], row["target"], [formula] if formula else []


def _asdiv(row: Row) -> tuple[str, str, list[str]]:
    return f"{row['body']} {row['question']}", row["answer"].partition("(")[0], [row["formula"]]


def _svamp(row: Row) -> tuple[str, str, list[str]]:
    body = row["Body"].strip()
    return (
        f"{body}{'' if body.endswith(('.', '?', '!', ',')) else ','} {row['Question']}",
        row["Answer"],
        [row["Equation"]],
    )


def _gsm8k(row: Row) -> tuple[str, str, list[str]]:
    return row["question"], final_answer(row["answer"]).replace(",", ""), re.findall(r"<<(.*?)>>", row["answer"])


LAYOUTS = {
    "mawps": Layout(("input", "target"), _mawps),
    "asdiv": Layout(("body", "question", "answer", "formula"), _asdiv),
    "svamp": Layout(("Body", "Question", "Equation", "Answer"), _svamp),
    "gsm8k": Layout(("question", "answer"), _gsm8k),
}


def read_problems(kind: str, source: str) -> Iterator[WordProblem]:
    """The problems of a data set whose answer follows from their formulas, and from the numbers that they state.

    Args:
        kind: layout of the data set, from `LAYOUTS`.
        source: a file, its URL, or the id of a data set on Hugging Face.

    Raises:
        UserError: the source can't be read, or lacks a column.
    """
    layout = LAYOUTS[kind]
    columns, pieces = inspect_source(source, limit=0)
    if missing := [name for name in layout.columns if name not in columns]:
        raise UserError(
            f"{source} has no column {', '.join(missing)} (found: {', '.join(columns) or 'none'}), and {kind} has the columns "
            f"{', '.join(layout.columns)}: pass the source to the option of its data set"
        )
    for piece in pieces:
        for table in read_piece(piece, list(layout.columns)):
            for row in table.to_pylist():
                found = _word_problem(kind, *layout.read({name: text or "" for name, text in row.items()}))
                if found:
                    yield found


def _word_problem(kind: str, text: str, answer: str, formulas: list[str]) -> WordProblem | None:
    parts = [steps_of(formula) for formula in formulas]
    steps = tuple(step for part in parts for step in part or ())
    try:
        wanted = Fraction(answer.strip())
    except ValueError:
        return None
    if not parts or not all(parts) or steps[-1].result != wanted or not _explained(text, steps):
        return None
    problem = re.sub(r"\s+([.?,!])", r"\1", " ".join(text.split()))
    return WordProblem(kind, problem, decimal_text(wanted), steps)


def _explained(text: str, steps: tuple[Step, ...]) -> bool:
    """Whether each number of a step is stated, common, or the result of an earlier step; some rationales skip a calculation."""
    known = {Fraction(number.replace(",", "")) for number in _STATED.findall(text)} | COMMON
    for step in steps:
        if not {step.left, step.right} <= known:
            return False
        known.add(step.result)
    return True
