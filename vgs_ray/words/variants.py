"""The same problem with other numbers, so that a policy learns to calculate instead of remembering answers.

In: a problem and a seed. Out: the problem with new numbers in its text and its steps, or None. Pure functions.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction

from vgs_ray.words.formulas import NUMBER, Step, apply, decimal_text
from vgs_ray.words.sources import WordProblem

ATTEMPTS = 40
_TIMES = re.compile(r"\d:\d")


def with_other_numbers(problem: WordProblem, rng: random.Random) -> WordProblem | None:
    """A variant whose steps have the same signs in the same order.

    Only integers over 1 that occur once in the text and are no result of a step are changed, to between half and twice their
    value. Others, such as the 7 days of a week, stay.

    Returns:
        None if no number can be changed, or if none of `ATTEMPTS` draws has integers where the problem has some.
    """
    changeable = _changeable(problem)
    for _ in range(ATTEMPTS if changeable else 0):
        drawn = {old: Fraction(rng.randint(max(2, int(old) // 2), 2 * int(old))) for old in changeable}
        steps = _recalculated(problem.steps, drawn)
        if steps and any(new != old for old, new in drawn.items()):
            answer = decimal_text(steps[-1].result)
            return problem._replace(problem=_rewritten(problem.problem, drawn), steps=tuple(steps), answer=answer)
    return None


def _value(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))


def _rewritten(text: str, drawn: Mapping[Fraction, Fraction]) -> str:
    def replacement(found: re.Match[str]) -> str:
        new = drawn.get(_value(found[0]))
        return found[0] if new is None else decimal_text(new)

    return NUMBER.sub(replacement, text)


def _changeable(problem: WordProblem) -> list[Fraction]:
    if _TIMES.search(problem.problem):
        return []
    counts = Counter(map(_value, NUMBER.findall(problem.problem)))
    results = {step.result for step in problem.steps}
    used = {number for step in problem.steps for number in (step.left, step.right)}
    return [
        number
        for number, count in counts.items()
        if count == 1 and number.denominator == 1 and number > 1 and number in used - results
    ]


def _recalculated(steps: Sequence[Step], drawn: Mapping[Fraction, Fraction]) -> list[Step] | None:
    """The steps with other numbers. None if one can't be calculated, or is no integer as before."""
    values, changed = dict(drawn), []
    for step in steps:
        left, right = (values.get(number, number) for number in (step.left, step.right))
        result = apply(left, step.sign, right)
        if result is None or (result.denominator == 1) != (step.result.denominator == 1):
            return None
        if values.get(step.result, result) != result:  # one old number would stand for two new ones
            return None
        values[step.result] = result
        changed.append(Step(left, step.sign, right, result))
    return changed
