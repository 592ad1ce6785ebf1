r"""Compare expressions by their values: rational numbers exactly, other numbers to 40 digits, expressions at random points.

Different expressions in answers do not agree to 15 digits at eight random points. sympy's `simplify` does not know all identities
(roots and logarithms of products), and its time is not bounded. A point counts only if both sides are defined over the real
numbers there. Variables under roots and logarithms are therefore positive, and other variables have either sign.
"""

from __future__ import annotations

import random
from typing import Any

TOLERANCE = 1e-5
"""Relative tolerance for two numbers if one of them is a decimal."""
_SLACK = 1 + 1e-9  # 0.33333 differs from 1/3 by exactly 1e-5
_EXACT, _DIGITS = 1e-40, 50
_SIZES, _ENOUGH = (2, 3, 4, 8, 12, 20, 30, 50), 4


def expressions_equal(gold: Any, answer: Any) -> bool | None:
    """Whether two expressions have the same values.

    Returns:
        None if it depends on the signs of variables, if they agree at integers only, or if too few points are defined.
    """
    import sympy

    gold, answer = without_functions(gold), without_functions(answer)
    variables = sorted(gold.free_symbols | answer.free_symbols, key=str)
    if not variables:
        return _numbers_equal(gold, answer)
    positive, mixed = (_agreement(gold, answer, _points(variables, signs)) for signs in (False, True))
    if positive and all(positive) and all(mixed) and len(positive) + len(mixed) >= _ENOUGH:
        return None if _domains_differ(gold, answer, variables) else True
    if not positive and not mixed:
        return None
    if positive and all(positive) and len(positive) >= _ENOUGH:  # equal only if all variables are positive
        if gold.has(sympy.Abs) or answer.has(sympy.Abs):
            return None if gold.has(sympy.Abs) == answer.has(sympy.Abs) else False
        return True if len(variables) > 1 or all(map(_has_root, (gold, answer))) else None
    return None if _equal_at_integers(gold, answer, variables) else False


def _numbers_equal(gold: Any, answer: Any) -> bool | None:
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
    """A number with its decimals as exact fractions."""
    import sympy

    floats = value.atoms(sympy.Float)
    return (
        value.xreplace({number: sympy.Rational(str(number)) for number in floats if number.is_finite})
        if floats
        else value
    )


def _terminates(value: Any) -> bool:
    """Whether a fraction has a finite decimal. A different decimal is then another number, and not its rounding."""
    denominator = int(value.q)
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return denominator == 1


def _close(first: Any, second: Any, tolerance: float) -> bool | None:
    """Whether two evaluated numbers are equal within a relative tolerance. None if one is not a number."""
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
    """Whether a number is zero. sympy gives a number the precision of one bit if all of its digits cancelled."""
    real, imaginary = value.as_real_imag()
    return all(part == 0 or getattr(part, "_prec", 53) == 1 for part in (real, imaginary))


def _points(variables: list[Any], signs: bool) -> list[dict[Any, Any]]:
    import sympy

    draw = random.Random(len(variables) + 100 * signs)
    return [
        {variable: sympy.Float((draw.choice((-1, 1)) if signs else 1) * draw.uniform(0.2, size), 40) for variable in variables}
        for size in _SIZES
    ]  # fmt: skip


def _agreement(gold: Any, answer: Any, points: list[dict[Any, Any]]) -> list[bool]:
    """For each point at which both are defined, whether they agree. Stops at the first disagreement."""
    import sympy

    tolerance = TOLERANCE if gold.has(sympy.Float) or answer.has(sympy.Float) else 1e-15
    results: list[bool] = []
    for point in points:
        values = [_value(expression, point) for expression in (gold, answer)]
        if values[0] is None or values[1] is None:
            continue
        close = _close(values[0], values[1], tolerance)
        if close is not None:
            results.append(close)
            if not close:
                break
    return results


def _value(expression: Any, point: dict[Any, Any]) -> Any:
    """The value at a point. None if the argument of a root or logarithm is not positive there."""
    if any(not _is_positive(part, point) for part in _positive_arguments(expression)):
        return None
    value = expression.evalf(30, subs=point)
    return value if value.is_number and not value.free_symbols else None


def _is_positive(part: Any, point: dict[Any, Any]) -> bool:
    value = part.evalf(15, subs=point)
    return bool(value.is_comparable and value > 0)


def _positive_arguments(expression: Any) -> list[Any]:
    """Expressions with variables that must be positive: arguments of logarithms, and bases of powers that are not integers."""
    import sympy

    arguments = []
    for part in sympy.preorder_traversal(expression):
        if isinstance(part, sympy.log) and part.args[0].free_symbols:
            arguments.append(part.args[0])
        elif isinstance(part, sympy.Pow) and part.base.free_symbols and not part.exp.is_integer:
            arguments.append(part.base)
    return arguments


def _has_root(expression: Any) -> bool:
    import sympy

    return any(power.exp.is_integer is False for power in expression.atoms(sympy.Pow))


def _domains_differ(gold: Any, answer: Any, variables: list[Any]) -> bool:
    """Whether only one side has an absolute value, and the sides are defined at different points: ln|x| and ln x."""
    import sympy

    if gold.has(sympy.Abs) == answer.has(sympy.Abs):
        return False
    defined = [[_value(side, point) is None for point in _points(variables, signs=True)] for side in (gold, answer)]
    return defined[0] != defined[1]


def _equal_at_integers(gold: Any, answer: Any, variables: list[Any]) -> bool:
    """Whether two different expressions are equal for integers: (-1)^n and cos(n pi)."""
    import sympy

    special = (sympy.floor, sympy.ceiling, sympy.factorial, sympy.binomial, sympy.Mod, sympy.sin, sympy.cos, sympy.exp)
    powers = [part for part in (gold + answer).atoms(sympy.Pow) if part.exp.free_symbols]
    if not powers and not gold.has(*special) and not answer.has(*special):
        return False
    draw = random.Random(7)
    points = [{variable: sympy.Integer(draw.randint(2, 12)) for variable in variables} for _ in range(6)]
    try:
        return all(_close(gold.subs(point).evalf(30), answer.subs(point).evalf(30), 1e-15) for point in points)
    except Exception:
        return False


def without_functions(expression: Any) -> Any:
    """The expression with each call of an unknown function, such as f(x), replaced by a variable."""
    import sympy
    from sympy.core.function import AppliedUndef

    calls = expression.atoms(AppliedUndef)
    return expression.subs({call: sympy.Symbol(f"call {call}", real=True) for call in calls}) if calls else expression


def proportional(first: Any, second: Any, *, positive: bool = False) -> bool:
    """Whether one expression is a constant (positive) multiple of the other, so that both have the same zeros."""
    import sympy

    first, second = without_functions(first), without_functions(second)
    variables = sorted(first.free_symbols | second.free_symbols, key=str)
    if not variables or first.free_symbols != second.free_symbols:
        return False
    ratios = []
    for point in _points(variables, signs=False) + _points(variables, signs=True):
        values = [_value(side, point) for side in (first, second)]
        if None not in values and values[1] != 0:
            ratios.append(values[0] / values[1])
    tolerance = TOLERANCE if first.has(sympy.Float) or second.has(sympy.Float) else 1e-15
    if len(ratios) < _ENOUGH or not all(_close(ratio, ratios[0], tolerance) for ratio in ratios[1:]):
        return False
    return bool(ratios[0].is_comparable and ratios[0] > 0) if positive else not _is_zero(ratios[0])


def at_least_zero(relation: Any) -> tuple[str, Any]:
    """An inequality as (sign, f), which means f > 0, f >= 0 or f != 0: `x<3` is (">", 3-x)."""
    sign = relation.rel_op
    difference = relation.lhs - relation.rhs
    return {"<": ">", "<=": ">="}.get(sign, sign), (-difference if sign in ("<", "<=") else difference)
