"""Cleaning rules: which problems can be used for training, and why the others cannot.

In: one row in the layout of OpenR1-Math (problem, solution, answer, question_type, ...). Out: None to keep it, or a `Dropped`
with a reason and the evidence. Pure functions of one row. The last three reasons need other rows: see
`vgs_ray.cleaning.copies` and `vgs_ray.cleaning.contamination`.

The rules are regular expressions tuned on MATH-500, NuminaMath, OlympiadBench and PutnamBench. In doubt they drop a row: a lost
problem costs little, while a problem whose answer cannot be checked puts wrong labels on all of its roll-outs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from vgs_ray.cleaning.figures import replace_figures
from vgs_ray.cleaning.gold_answers import no_value
from vgs_ray.cleaning.multiple_choice import choice, is_kind
from vgs_ray.cleaning.proofs import asks_for_proof
from vgs_ray.cleaning.several_questions import several_questions
from vgs_ray.grade import MAX_ANSWER_CHARS, boxes, equivalent, parse_ok

Reason = Literal[
    "malformed",
    "no_single_box",
    "box_disagrees",
    "not_checkable",
    "multiple_choice",
    "several_questions",
    "needs_figure",
    "duplicate",
    "near_duplicate",
    "contaminated",
]
REASONS: tuple[Reason, ...] = Reason.__args__  # type: ignore[attr-defined]  # in the order of the checks


class Dropped(NamedTuple):
    """Why a row is not used. `evidence` is the part of the row that broke the rule."""

    reason: Reason
    evidence: str


def check(
    row: Mapping[str, Any], equal: Callable[[str, str], bool] = equivalent, readable: Callable[[str], bool] = parse_ok
) -> Dropped | None:
    """The first rule that a row breaks, or None for a usable problem.

    Args:
        row: needs `problem` and `answer`. `solution`, `question_type`, `problem_type` and `answer_type` are read if present.
        equal: compares the answer with the boxes of the solution. `grade.equivalent` has no time limit; a `Judge` has one.
        readable: whether an answer can be parsed. `grade.parse_ok` has no time limit.
    """
    problem, answer = row.get("problem"), row.get("answer")
    if not isinstance(problem, str) or not problem.strip():
        return Dropped("malformed", f"problem is {_shown(problem)}, and must be a non-empty text")
    if not isinstance(answer, str) or not answer.strip():
        return Dropped("malformed", f"answer is {_shown(answer)}, and must be a non-empty text")
    text = replace_figures(problem, " [figure] ")
    return (
        _check_box(answer, row.get("solution"), equal)
        or _check_checkable(row, text, answer, readable)
        or _check_choice(row, text, answer)
        or _check_single(text)
        or _check_figure(text)
    )


def boxed_answer(solution: object) -> str | None:
    """The answer of a row without an answer column: the last complete box of its solution, or an empty text without a box.

    Returns None if there is no solution. The row is then malformed.
    """
    if not isinstance(solution, str) or not solution.strip():
        return None
    return (boxes(solution) or [""])[-1]


def _shown(value: object) -> str:
    return repr(value)[:60]


def _check_box(answer: str, solution: object, equal: Callable[[str, str], bool]) -> Dropped | None:
    """A solution must have one distinct answer in its boxes, equal to the answer column. Rows without solution pass."""
    if not isinstance(solution, str) or not solution.strip():
        return None
    distinct: list[str] = []
    for box in boxes(solution):
        if not any(equal(other, box) for other in distinct):
            distinct.append(box)
        if len(distinct) == 4:  # enough for the evidence
            break
    if len(distinct) != 1:
        return Dropped(
            "no_single_box", f"different boxes: {', '.join(distinct)[:200]}" if distinct else "no complete box"
        )
    if equal(answer, distinct[0]):
        return None
    return Dropped("box_disagrees", f"answer {answer[:100]}, box {distinct[0][:100]}")


_PROOF_KINDS = re.compile(
    r"(?:(?:open ended |math(?:ematical)? )?proofs?|prove|proving|theorem proving|tp|need human evaluate|证明题?)"
    r"(?: questions?| problems?| based)?"
)


def _check_checkable(
    row: Mapping[str, Any], problem: str, answer: str, readable: Callable[[str], bool]
) -> Dropped | None:
    if kind := is_kind(row, _PROOF_KINDS):
        return Dropped("not_checkable", kind)
    if proof := asks_for_proof(problem):
        return Dropped("not_checkable", _around(problem, proof))
    if len(answer) > MAX_ANSWER_CHARS:
        return Dropped("not_checkable", f"the answer has {len(answer)} characters: {answer[:100]}")
    if why := "a proof" if asks_for_proof(answer) else no_value(answer):
        return Dropped("not_checkable", f"the answer is no value but {why}: {answer[:100]}")
    if not re.search(r"[\w∞∅]", answer) or not readable(answer):
        return Dropped("not_checkable", f"math-verify cannot read the answer {answer[:100]}")
    return None


def _check_choice(row: Mapping[str, Any], problem: str, answer: str) -> Dropped | None:
    evidence = choice(row, problem, answer)
    return Dropped("multiple_choice", evidence) if evidence else None


def _check_single(problem: str) -> Dropped | None:
    mark = several_questions(problem)
    return Dropped("several_questions", _around(problem, mark)) if mark else None


_DRAWN = r"(?:figure|diagram|picture|drawing|illustration|sketch)"
_PLACE = r"(?:shown|below|above|here|(?:at|to|on) (?:the )?(?:right|left))"
_SHOWN = r"(?:shown|pictured|depicted|illustrated)"
_FIGURE = re.compile(
    r"!\[|\bhttps?://|\bwww\.|\\includegraphics|<img\b|如图|下图"
    rf"|\b(?:in|from|see|on|per|to) the (?:\w+ )?{_DRAWN}\b"
    rf"|\b(?:{_DRAWN}|graph|chart|grid|image|map)s? (?:is |are |as )?(?:\w+ )?{_PLACE}\b"
    rf"|\bthe {_DRAWN} (?:shows|depicts|illustrates|represents)\b"
    rf"|\b(?:as|is|are) {_SHOWN}\b(?! that)|\b{_SHOWN} (?:below|above|here|(?:in|at|on) the)\b"
    rf"|\b(?:fig(?:ure)?\.?|diagram) ?\d"
    rf"|\b(?:below|above|following|accompanying|adjacent|attached) (?:{_DRAWN}|graph|image)\b",
    re.I,
)


def _check_figure(problem: str) -> Dropped | None:
    """The text refers to a figure that it does not contain as code, or has a link."""
    reference = None if "[figure]" in problem else _FIGURE.search(problem)
    return Dropped("needs_figure", _around(problem, reference)) if reference else None


def _around(text: str, match: re.Match[str]) -> str:
    return " ".join(text[max(0, match.start() - 30) : match.end() + 60].split())
