"""Grade responses: the public interface of `vgs_ray.answers`.

In: the gold answer (LaTeX) and the text of a response. Out: the answer in the last complete box, whether it equals the gold
answer, and a `Verdict`. Pure functions without a time limit. sympy can run for hours, so `vgs_ray.answers.judge` runs the
comparison in processes that can be killed. sympy is imported on first use.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from vgs_ray.answers import compare_sympy
from vgs_ray.answers.classify import classify_answer
from vgs_ray.answers.compare import (
    MAX_ANSWER_CHARS,
    RELATIVE_TOLERANCE,
    Comparison,
    compare,
    quick_compare,
    quick_equivalent,
)
from vgs_ray.answers.compare_types import is_readable
from vgs_ray.answers.costly import too_costly
from vgs_ray.answers.extract import END_OF_THOUGHT, MAX_SOLUTION_CHARS, boxes, extract_answer
from vgs_ray.answers.normalize import normalize_answer
from vgs_ray.answers.numerals import integer

__all__ = [
    "MAX_ANSWER_CHARS",
    "MAX_SOLUTION_CHARS",
    "RELATIVE_TOLERANCE",
    "Comparison",
    "Outcome",
    "Verdict",
    "boxes",
    "compare",
    "equivalent",
    "extract_answer",
    "grade",
    "normalize_answer",
    "parse_ok",
    "quick_compare",
    "quick_equivalent",
    "verdict",
    "without_answer",
]

Outcome = Literal["correct", "incorrect", "incomplete", "unknown"]


class Verdict(NamedTuple):
    """The outcome of one response, its reason, and its answer (None if it has none)."""

    outcome: Outcome
    reason: str
    answer: str | None


def parse_ok(gold: str) -> bool:
    """Whether `compare` can parse a gold answer. There is no time limit."""
    if len(gold) > MAX_ANSWER_CHARS or too_costly(gold):
        return False
    if integer(normalize_answer(gold)) is not None:
        return True
    compare_sympy.load()
    try:
        return is_readable(classify_answer(gold))
    except Exception:
        return False


def equivalent(gold: str, answer: str) -> bool:
    """Whether two answers are known to be equal. An unknown result of `compare` counts as False.

    Works in any thread. There is no time limit; `vgs_ray.answers.judge.Judge` has one.
    """
    return compare(gold, answer).equivalent is True


def verdict(answer: str, comparison: Comparison) -> Verdict:
    """The verdict on a response with an answer. An unknown comparison gives the outcome unknown, never incorrect."""
    outcomes: dict[bool | None, Outcome] = {True: "correct", False: "incorrect", None: "unknown"}
    return Verdict(outcomes[comparison.equivalent], comparison.reason, answer)


def without_answer(text: str) -> Verdict:
    """The verdict on a response for which `extract_answer` returns None."""
    return Verdict("incomplete", "no_answer" if END_OF_THOUGHT.search(text) else "unfinished_thought", None)


def grade(gold: str, text: str) -> Verdict:
    """Extract the answer of a response and compare it with the gold answer. There is no time limit, see `compare`.

    Returns:
        The outcome incomplete with the reason "unfinished_thought" or "no_answer", or the result of `compare` with its reason.
    """
    answer = extract_answer(text)
    return without_answer(text) if answer is None else verdict(answer, compare(gold, answer))
