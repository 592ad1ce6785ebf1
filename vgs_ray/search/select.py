"""Selectors: choose one answer among the finished answers of a search.

In: answers (None where a response has none) and their values. Out: one answer, or the answer classes with their weights.

The caller passes the relation `equivalent` that groups answers into classes. It need be neither symmetric nor transitive. It is
called once for each answer text and class; all selectors share the result of `classes`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Equivalent = Callable[[str, str], bool]
Selector = Literal["best", "majority", "weighted_majority"]
TIE = 1e-5
"""Weights that differ by less are tied, as in the published evaluation."""


@dataclass(frozen=True)
class AnswerClass:
    """A class of equivalent answers.

    Attributes:
        members: positions in the list of answers, ascending; the first member represents the class.
        weight: by the selector.
        max_value: highest value of a member; 0.0 if no member has a value.
    """

    members: tuple[int, ...]
    weight: float
    max_value: float


def best(
    answers: Sequence[str | None], values: Sequence[float | None], *, equivalent: Equivalent | None = None
) -> str | None:
    """The answer with the highest value; the first of equals. None if there is no answer.

    Args:
        answers: one for each response.
        values: one for each answer.
        equivalent: not used; each answer is its own class.

    Raises:
        ValueError: the numbers of answers and values differ.
    """
    return _select("best", answers, values, lambda first, answer: False)


def majority(
    answers: Sequence[str | None], values: Sequence[float | None] = (), *, equivalent: Equivalent | None = None
) -> str | None:
    """The first answer of the largest class. Values are ignored; of classes of equal size the first one wins.

    Args:
        answers: one for each response.
        values: not used.
        equivalent: (an earlier answer, an answer) -> whether they are equal. The default, `vgs_ray.grade.equivalent`, has no time
            limit: for answers from an unknown origin, use a `vgs_ray.answers.judge.Judge`.
    """
    return _select("majority", answers, [None] * len(answers), equivalent)


def weighted_majority(
    answers: Sequence[str | None], values: Sequence[float | None], *, equivalent: Equivalent | None = None
) -> str | None:
    """The first answer of the class with the highest sum of values (arXiv 2505.17373, section 2.1).

    Of classes with equal sums, the class with the highest single value wins, then the first. None and blank answers belong to
    no class. A value of None or NaN has weight 0.

    Args:
        answers: one for each response.
        values: one for each answer.
        equivalent: as in `majority`.

    Raises:
        ValueError: the numbers of answers and values differ.
    """
    return _select("weighted_majority", answers, values, equivalent)


def classes(answers: Sequence[str | None], equivalent: Equivalent | None = None) -> list[list[int]]:
    """Positions of the answers of each class, in the order of first appearance. None and blank answers are in no class.

    An answer joins the first class whose first member is equivalent to it. Answers with equal text are equivalent without
    a call of the relation.
    """
    same = equivalent or _default_relation()
    groups: list[list[int]] = []
    by_text: dict[str, list[int]] = {}
    for position, answer in enumerate(answers):
        text = (answer or "").strip()
        if not text:
            continue
        if text not in by_text:
            by_text[text] = next((members for members in groups if same(answers[members[0]] or "", text)), [])
            if not by_text[text]:
                groups.append(by_text[text])
        by_text[text].append(position)
    return groups


def weigh(selector: Selector, grouped: Sequence[Sequence[int]], values: Sequence[float | None]) -> list[AnswerClass]:
    """Classes with their weights: the size for `majority`, the sum of values for `weighted_majority`, the maximum for `best`."""
    weighed = []
    for members in grouped:
        weights = [_weight(values[position]) for position in members]
        maximum = max(weights)
        by_selector = {"best": maximum, "majority": float(len(members)), "weighted_majority": math.fsum(weights)}
        weighed.append(AnswerClass(tuple(members), by_selector[selector], maximum))
    return weighed


def likely_value(value: float | None, logprob: float | None, weight: float) -> float | None:
    """value * exp(weight * logprob), to select or to rank by value and likelihood together.

    A value model that learns from outcomes need not notice an improbable token, such as a wrong result, that the policy's own
    likelihood shows (docs/rounds.md).

    Args:
        value: P(correct).
        logprob: mean log-probability of the tokens under the policy.
        weight: of the likelihood; 0 returns the value.

    Returns:
        None without a value, or without a log-probability if the weight is not 0.
    """
    if value is None or not weight:
        return value
    return None if logprob is None else value * math.exp(weight * logprob)


def tied(weighed: Sequence[AnswerClass]) -> list[AnswerClass]:
    """The classes whose weight is within `TIE` of the highest, in order."""
    highest = max((each.weight for each in weighed), default=0.0)
    return [each for each in weighed if each.weight >= highest - TIE]


def _select(
    selector: Selector, answers: Sequence[str | None], values: Sequence[float | None], equivalent: Equivalent | None
) -> str | None:
    if len(answers) != len(values):
        raise ValueError(f"{len(answers)} answers have {len(values)} values: pass one value for each answer")
    weighed = weigh(selector, classes(answers, equivalent), values)
    # `max` returns the first of equals.
    winner = max(weighed, key=lambda each: (each.weight, each.max_value), default=None)
    return answers[winner.members[0]] if winner else None


def _default_relation() -> Equivalent:
    from vgs_ray.grade import equivalent  # importing this module must not import the grader

    return equivalent


def _weight(value: float | None) -> float:
    return 0.0 if value is None or math.isnan(value) else value
