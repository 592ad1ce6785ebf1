"""Selectors: finished answers vote.

In: answers (None where a response gave none) and their values. Out: one answer, or the classes with their weights.
Which answers are the same is a relation that the caller passes; it need be neither symmetric nor transitive, and it is
asked once per answer and class: `classes` is computed once and shared by all selectors. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Equivalent = Callable[[str, str], bool]
Method = Literal["best", "majority", "weighted_majority"]
TIE = 1e-5
"""Weights that differ by less are tied, as in the published evaluation."""


@dataclass(frozen=True)
class Class:
    """Answers that count as the same.

    Attributes:
        members: positions in the list of answers, ascending; the first one speaks for the class.
        weight: what the selector adds up.
        peak: highest value of a member, 0.0 where none has a value.
    """

    members: tuple[int, ...]
    weight: float
    peak: float


def best(
    answers: Sequence[str | None], values: Sequence[float | None], *, equivalent: Equivalent | None = None
) -> str | None:
    """The answer with the highest value; the first one of equals. None when nobody answered.

    Raises:
        ValueError: answers and values differ in number.
    """
    # No relation is needed: each answer stands for itself.
    return _pick("best", answers, values, lambda first, answer: False)


def majority(
    answers: Sequence[str | None], values: Sequence[float | None] = (), *, equivalent: Equivalent | None = None
) -> str | None:
    """First answer of the largest class. The values are ignored: equal classes go by who came first.

    Args:
        equivalent: (an earlier answer, an answer) -> the same; `vgs_ray.grade.equivalent` by default, which has no time
            limit, so answers of unknown origin are better compared by a `vgs_ray.answers.judge.Judge`.
    """
    return _pick("majority", answers, [None] * len(answers), equivalent)


def weighted_majority(
    answers: Sequence[str | None], values: Sequence[float | None], *, equivalent: Equivalent | None = None
) -> str | None:
    """First answer of the class with the highest sum of values (arXiv 2505.17373, section 2.1).

    Among classes whose sums are equal, the one with the highest single value wins, then the first. None and empty
    answers are no class, so they win only over nothing, as None. A value that is None or NaN weighs nothing.

    Args:
        equivalent: as in `majority`.

    Raises:
        ValueError: answers and values differ in number.
    """
    return _pick("weighted_majority", answers, values, equivalent)


def classes(answers: Sequence[str | None], equivalent: Equivalent | None = None) -> list[list[int]]:
    """Positions of equal answers, classes by first appearance; None and blank answers are in no class.

    An answer joins the first class whose first member is equivalent to it, so nothing is assumed about the relation.
    Answers of the same text are equal without asking: the cost is distinct answers times classes.
    """
    same = equivalent or _by_grade()
    found: list[list[int]] = []
    by_text: dict[str, list[int]] = {}
    for position, answer in enumerate(answers):
        text = (answer or "").strip()
        if not text:
            continue
        if text not in by_text:
            by_text[text] = next((members for members in found if same(answers[members[0]] or "", text)), [])
            if not by_text[text]:
                found.append(by_text[text])
        by_text[text].append(position)
    return found


def weigh(method: Method, grouped: Sequence[Sequence[int]], values: Sequence[float | None]) -> list[Class]:
    """Classes with their weights: members for `majority`, sum of values for `weighted_majority`, peak for `best`."""
    found = []
    for members in grouped:
        weights = [_weight(values[position]) for position in members]
        peak = max(weights)
        weight = {"best": peak, "majority": float(len(members)), "weighted_majority": math.fsum(weights)}[method]
        found.append(Class(tuple(members), weight, peak))
    return found


def tied(weighed: Sequence[Class]) -> list[Class]:
    """Classes whose weight is within `TIE` of the highest, in order; a fair judge draws one of them."""
    top = max((found.weight for found in weighed), default=0.0)
    return [found for found in weighed if found.weight >= top - TIE]


def _pick(
    method: Method, answers: Sequence[str | None], values: Sequence[float | None], equivalent: Equivalent | None
) -> str | None:
    if len(answers) != len(values):
        raise ValueError(f"{len(answers)} answers have {len(values)} values: pass one value for each answer")
    weighed = weigh(method, classes(answers, equivalent), values)
    # `max` keeps the first of equals, so the choice is the same in every run.
    winner = max(weighed, key=lambda found: (found.weight, found.peak), default=None)
    return answers[winner.members[0]] if winner else None


def _by_grade() -> Equivalent:
    from vgs_ray.grade import equivalent  # here, so that importing this module imports no grader

    return equivalent


def _weight(value: float | None) -> float:
    return 0.0 if value is None or math.isnan(value) else value
