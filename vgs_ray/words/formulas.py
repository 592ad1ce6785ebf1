"""Formulas of word problems to steps: `(32 + 42) - 35` is `32 + 42 = 74` and `74 - 35 = 39`.

In: the text of a formula, or the numbers of a problem and its answer. Out: steps with exact numbers. Pure functions.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import permutations
from operator import add, mul, sub, truediv
from typing import NamedTuple

NUMBER = re.compile(r"(?<![\w.])(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?![\w%])")
_UNIT = re.compile(r"\([^()]*[A-Za-z][^()]*\)")
_SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_OPERATIONS = {"+": add, "-": sub, "*": mul, "/": truediv}
MOST_NUMBERS = 3
"""Numbers of a problem without a formula; with four, several formulas give most answers."""


class Step(NamedTuple):
    """One calculation with two numbers."""

    left: Fraction
    sign: str
    right: Fraction
    result: Fraction

    def __str__(self) -> str:
        left, right, result = map(decimal_text, (self.left, self.right, self.result))
        return f"{left} {self.sign} {right} = {result}"


def decimal_text(number: Fraction) -> str:
    """A number with at most two decimals as text: `7`, `0.5`."""
    return str(number.numerator) if number.denominator == 1 else f"{float(number):.2f}".rstrip("0")


def steps_of(formula: str) -> list[Step] | None:
    """The steps of a formula, in the order of calculation.

    Units in parentheses, as in ASDiv's `4 (cents) * 2`, and what follows an equals sign are ignored.

    Returns:
        None if the text is no formula of `+ - * /`, or if a number on the way is negative or has more than two decimals.
    """
    expression = _UNIT.sub("", formula).partition("=")[0].replace("$", "").strip()
    try:
        tree = ast.parse(expression, mode="eval").body
        steps: list[Step] = []
        _walk(tree, steps)
    except (SyntaxError, ValueError):
        return None
    return steps


def _walk(node: ast.expr, steps: list[Step]) -> Fraction:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return Fraction(str(node.value))
    if not isinstance(node, ast.BinOp) or type(node.op) not in _SIGNS:
        raise ValueError(f"{ast.dump(node)} is no number and no calculation")
    left, right = _walk(node.left, steps), _walk(node.right, steps)
    sign = _SIGNS[type(node.op)]
    result = apply(left, sign, right)
    if result is None:
        raise ValueError(f"{left} {sign} {right} is negative or has more than two decimals")
    steps.append(Step(left, sign, right, result))
    return result


def apply(left: Fraction, sign: str, right: Fraction) -> Fraction | None:
    """The result of a step. None for a division by 0, or if it is negative or has more than two decimals."""
    if sign == "/" and not right:
        return None
    result: Fraction = _OPERATIONS[sign](left, right)
    return result if result >= 0 and 100 % result.denominator == 0 else None


class _Candidate(NamedTuple):
    """A formula, its value, and its value with other numbers in place of those of the problem."""

    text: str
    value: Fraction
    elsewhere: Fraction


def find_formula(problem: str, answer: Fraction) -> str | None:
    """The formula that gives the answer of a problem from all of its numbers, each used once.

    Formulas that are equal for any numbers, such as a + b and b + a, count as one.

    Returns:
        None if there are fewer than two or more than `MOST_NUMBERS` numbers, no such formula, or several.
    """
    numbers = [Fraction(text.replace(",", "")) for text in NUMBER.findall(problem)]
    if not 2 <= len(numbers) <= MOST_NUMBERS:
        return None
    rng = random.Random(0)
    leaves = [_Candidate(decimal_text(number), number, Fraction(rng.randrange(10**6, 10**9))) for number in numbers]
    fitting: dict[Fraction, str] = {}
    for order in permutations(leaves):
        for found in _combinations(list(order)):
            if found.value == answer and steps_of(found.text):
                fitting.setdefault(found.elsewhere, found.text)
    return next(iter(fitting.values())) if len(fitting) == 1 else None


def _combinations(leaves: list[_Candidate]) -> Iterator[_Candidate]:
    """All formulas with the leaves in this order; first those that are calculated from left to right."""
    if len(leaves) == 1:
        yield leaves[0]
    for cut in range(len(leaves) - 1, 0, -1):
        for left in _combinations(leaves[:cut]):
            for right in _combinations(leaves[cut:]):
                yield from _joined(left, right)


def _joined(left: _Candidate, right: _Candidate) -> Iterator[_Candidate]:
    for sign, operation in _OPERATIONS.items():
        if sign != "/" or (right.value and right.elsewhere):
            text = f"({left.text} {sign} {right.text})"
            yield _Candidate(text, operation(left.value, right.value), operation(left.elsewhere, right.elsewhere))
