"""Calculations without a story, from which a policy learns to add, subtract, multiply and divide.

In: a seed. Out: `Calculate: 37 + 25, 6 * 12` and the lines `37 + 25 = 62.` and `6 * 12 = 72.`. Pure functions.
"""

from __future__ import annotations

import random
from fractions import Fraction

from vgs_ray.words.formulas import Step, apply, decimal_text

SOURCE = "calculations"
PER_ROW = 8
_SIGNS = "+++---**//"


def calculation_rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Rows with the columns problem, answer (of the last calculation), solution and source.

    Args:
        count: rows, each with `PER_ROW` calculations.
        seed: other seeds give other numbers.
    """
    rng = random.Random(seed)
    return [_row([_step(rng) for _ in range(PER_ROW)]) for _ in range(count)]


def _row(steps: list[Step]) -> dict[str, str]:
    wanted = ", ".join(f"{decimal_text(left)} {sign} {decimal_text(right)}" for left, sign, right, _ in steps)
    return {
        "problem": f"Calculate: {wanted}",
        "answer": decimal_text(steps[-1].result),
        "solution": "\n".join(f"{step}." for step in steps),
        "source": SOURCE,
    }


def _step(rng: random.Random) -> Step:
    """A calculation with integers, mostly of two digits, as word problems have them."""
    sign = rng.choice(_SIGNS)
    if sign in "+-":
        smaller, larger = sorted(rng.randint(1, rng.choice((20, 100, 100, 1000))) for _ in range(2))
        left, right = (larger, smaller) if sign == "-" or rng.random() < 0.5 else (smaller, larger)
    else:
        right, left = rng.randint(2, 12), rng.randint(2, rng.choice((12, 30, 100)))
        if sign == "/":
            left *= right
    result = apply(Fraction(left), sign, Fraction(right))
    assert result is not None
    return Step(Fraction(left), sign, Fraction(right), result)
