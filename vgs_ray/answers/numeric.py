r"""Equality of expressions by their values: exactly where they are rational, to 40 digits where they are numbers, at random
points where they have letters.

Two different expressions of the kind that answers have do not agree to 15 digits at eight random points, and sympy's `simplify`
neither finds all identities (roots and logarithms of products) nor ends in bounded time. A point counts where both sides are
defined over the real numbers: the letters under roots and logarithms are then positive by themselves, and the others of either sign.
"""  # noqa: E501

from __future__ import annotations

import random
from typing import Any

TOLERANCE = 1e-5
"""Relative; two numbers of which one is a decimal are different when they differ by more."""
_SLACK = 1 + 1e-9  # 0.33333 is exactly 1e-5 below 1/3
_EXACT, _DIGITS = 1e-40, 50
_SIZES, _ENOUGH = (2, 3, 4, 8, 12, 20, 30, 50), 4


def expressions_equal(gold: Any, answer: Any) -> bool | None:
    """Whether two expressions have the same values; None where that hangs on signs, on integers, or cannot be found out."""
    import sympy

    gold, answer = without_functions(gold), without_functions(answer)
    letters = sorted(gold.free_symbols | answer.free_symbols, key=str)
    if not letters:
        return _numbers(gold, answer)
    positive, mixed = (_agreement(gold, answer, _points(letters, signs)) for signs in (False, True))
    if positive and all(positive) and all(mixed) and len(positive) + len(mixed) >= _ENOUGH:
        return None if _domains_differ(gold, answer, letters) else True
    if not positive and not mixed:
        return None
    if positive and all(positive) and len(positive) >= _ENOUGH:  # equal for positive letters only
        if gold.has(sympy.Abs) or answer.has(sympy.Abs):
            return None if gold.has(sympy.Abs) == answer.has(sympy.Abs) else False
        return True if len(letters) > 1 or all(map(_has_root, (gold, answer))) else None
    return None if _equal_at_integers(gold, answer, letters) else False


def _numbers(gold: Any, answer: Any) -> bool | None:
    import sympy

    first, second = gold.doit(), answer.doit()
    rational = [_rational(value) for value in (first, second)]
    if all(value.is_Rational for value in rational) and (rational[0] == rational[1] or all(map(_terminates, rational))):
        return bool(rational[0] == rational[1])
    if first == second:
        return not first.has(sympy.nan, sympy.zoo)
    if first.is_Rational and second.is_Rational:
        return False
    if second.has(sympy.nan, sympy.zoo):
        return None if first.has(sympy.nan, sympy.zoo) else False
    if first.is_infinite or second.is_infinite:
        return False if first.is_extended_real and second.is_extended_real else None
    return _close(
        first.evalf(_DIGITS),
        second.evalf(_DIGITS),
        TOLERANCE if first.has(sympy.Float) or second.has(sympy.Float) else _EXACT,
    )


def _rational(value: Any) -> Any:
    """A number with its decimals as the fractions that they are."""
    import sympy

    floats = value.atoms(sympy.Float)
    return (
        value.xreplace({number: sympy.Rational(str(number)) for number in floats if number.is_finite})
        if floats
        else value
    )


def _terminates(value: Any) -> bool:
    """Whether a fraction has a finite decimal: then a decimal that differs from it is another number and no rounding."""
    denominator = int(value.q)
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return denominator == 1


def _close(first: Any, second: Any, tolerance: float) -> bool | None:
    """Whether two evaluated numbers differ relatively by no more than the tolerance; None where they are no numbers."""
    import sympy

    if not (first.is_comparable or first.is_complex) or not (second.is_comparable or second.is_complex):
        return None
    if first.has(sympy.nan, sympy.zoo) or second.has(sympy.nan, sympy.zoo):
        return None
    zeros = [_is_zero(value) for value in (first, second)]
    if any(zeros):
        return all(zeros)
    size = max(abs(first), abs(second))
    return bool(abs(first - second) <= tolerance * size * _SLACK)


def _is_zero(value: Any) -> bool:
    """sympy marks a number whose digits all cancelled by a precision of one bit."""
    real, imaginary = value.as_real_imag()
    return all(part == 0 or getattr(part, "_prec", 53) == 1 for part in (real, imaginary))


def _points(letters: list[Any], signs: bool) -> list[dict[Any, Any]]:
    import sympy

    draw = random.Random(len(letters) + 100 * signs)
    return [
        {letter: sympy.Float((draw.choice((-1, 1)) if signs else 1) * draw.uniform(0.2, size), 40) for letter in letters}
        for size in _SIZES
    ]  # fmt: skip


def _agreement(gold: Any, answer: Any, points: list[dict[Any, Any]]) -> list[bool]:
    """At the points where both are defined, whether they agree. Ends at the first where they do not."""
    import sympy

    tolerance = TOLERANCE if gold.has(sympy.Float) or answer.has(sympy.Float) else 1e-15
    found: list[bool] = []
    for point in points:
        values = [_value(expression, point) for expression in (gold, answer)]
        if values[0] is None or values[1] is None:
            continue
        close = _close(values[0], values[1], tolerance)
        if close is not None:
            found.append(close)
            if not close:
                break
    return found


def _value(expression: Any, point: dict[Any, Any]) -> Any:
    """The value at a point; None where a root or a logarithm of letters is not defined there."""
    if any(not _natural(part, point) for part in _bounded(expression)):
        return None
    value = expression.evalf(30, subs=point)
    return value if value.is_number and not value.free_symbols else None


def _natural(part: Any, point: dict[Any, Any]) -> bool:
    value = part.evalf(15, subs=point)
    return bool(value.is_comparable and value > 0)


def _bounded(expression: Any) -> list[Any]:
    """Arguments with letters that must be positive: of logarithms, and of powers that are not integer."""
    import sympy

    found = []
    for part in sympy.preorder_traversal(expression):
        if isinstance(part, sympy.log) and part.args[0].free_symbols:
            found.append(part.args[0])
        elif isinstance(part, sympy.Pow) and part.base.free_symbols and not part.exp.is_integer:
            found.append(part.base)
    return found


def _has_root(expression: Any) -> bool:
    import sympy

    return any(power.exp.is_integer is False for power in expression.atoms(sympy.Pow))


def _domains_differ(gold: Any, answer: Any, letters: list[Any]) -> bool:
    """Whether an absolute value on one side makes it defined where the other is not, as in ln|x| and ln x."""
    import sympy

    if gold.has(sympy.Abs) == answer.has(sympy.Abs):
        return False
    defined = [[_value(side, point) is None for point in _points(letters, signs=True)] for side in (gold, answer)]
    return defined[0] != defined[1]


def _equal_at_integers(gold: Any, answer: Any, letters: list[Any]) -> bool:
    """Whether two expressions that differ agree where the letters are integers, as (-1)^n and cos(n pi) do."""
    import sympy

    special = (sympy.floor, sympy.ceiling, sympy.factorial, sympy.binomial, sympy.Mod, sympy.sin, sympy.cos, sympy.exp)
    powers = [part for part in (gold + answer).atoms(sympy.Pow) if part.exp.free_symbols]
    if not powers and not gold.has(*special) and not answer.has(*special):
        return False
    draw = random.Random(7)
    points = [{letter: sympy.Integer(draw.randint(2, 12)) for letter in letters} for _ in range(6)]
    try:
        found = [_close(gold.subs(point).evalf(30), answer.subs(point).evalf(30), 1e-15) for point in points]
    except Exception:
        return False
    return all(found)


def without_functions(expression: Any) -> Any:
    """Calls of unknown functions, such as f(x), as letters of their own."""
    import sympy
    from sympy.core.function import AppliedUndef

    calls = expression.atoms(AppliedUndef)
    return expression.subs({call: sympy.Symbol(f"call {call}", real=True) for call in calls}) if calls else expression


def proportional(first: Any, second: Any, *, positive: bool = False) -> bool:
    """Whether one expression is a constant (positive) multiple of the other: then both are zero at the same places."""
    import sympy

    first, second = without_functions(first), without_functions(second)
    letters = sorted(first.free_symbols | second.free_symbols, key=str)
    if not letters or first.free_symbols != second.free_symbols:
        return False
    ratios = []
    for point in _points(letters, signs=False) + _points(letters, signs=True):
        values = [_value(side, point) for side in (first, second)]
        if None not in values and values[1] != 0:
            ratios.append(values[0] / values[1])
    tolerance = TOLERANCE if first.has(sympy.Float) or second.has(sympy.Float) else 1e-15
    if len(ratios) < _ENOUGH or not all(_close(ratio, ratios[0], tolerance) for ratio in ratios[1:]):
        return False
    return bool(ratios[0].is_comparable and ratios[0] > 0) if positive else not _is_zero(ratios[0])


def at_least_zero(relation: Any) -> tuple[str, Any]:
    """An inequality as (its sign, f) with f > 0, f >= 0 or f != 0."""
    sign = relation.rel_op
    difference = relation.lhs - relation.rhs
    return {"<": ">", "<=": ">="}.get(sign, sign), (-difference if sign in ("<", "<=") else difference)
