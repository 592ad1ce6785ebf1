"""Compare two pieces of LaTeX without units, words and conditions.

A rule returns NotImplemented if it does not apply to the two texts.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from vgs_ray.answers import compare_sympy, definitions, inequalities, numerals, three_valued
from vgs_ray.answers.brackets import enclosed, split_outside
from vgs_ray.answers.three_valued import Truth

_LEAST_DIGITS = 5  # significant digits of a decimal that equals every number that rounds to it

_COMMA = re.compile(r"[,;]")
_COLON = re.compile(":")


def mathematics_equal(gold: str, answer: str) -> Truth:
    """Whether two pieces of LaTeX are equal."""
    if gold == answer:
        return True
    equal = _decimals_equal(gold, answer)
    if equal is not None:
        return equal
    equal = _truncated_decimals_equal(gold, answer)
    if equal is not NotImplemented:
        return equal
    ratios = [split_outside(text, _COLON)[0] for text in (gold, answer)]
    if max(map(len, ratios)) > 2 and "=" not in gold + answer:
        return _ratios_equal(*ratios)
    for rule in (_inequalities_equal, _definitions_equal):
        equal = rule(gold, answer)
        if equal is not NotImplemented:
            return equal
    return _objects_equal(gold, answer)


def _objects_equal(gold: str, answer: str) -> Truth:
    """Compare as sympy objects, then in other notations."""
    first, second = compare_sympy.parse(gold), compare_sympy.parse(answer)
    if first is None or second is None:
        return None
    if _brackets_clash(gold, answer):
        return False
    equal = compare_sympy.objects_equal(first, second)
    parts = [split_outside(text, _COMMA)[0] for text in (gold, answer)]
    if equal and any(len(set(side)) < len(side) for side in parts) and len(parts[0]) == len(parts[1]):
        return three_valued.same_members(
            parts[0], parts[1], mathematics_equal
        )  # `1,1,2` and `1,2,2` are one set in sympy
    if equal and len(parts[0]) != len(parts[1]):
        return True if r"\pm" in gold + answer or enclosed(gold) or enclosed(answer) else None  # `7` and `7,7,7`
    return equal if equal is not False else _equal_in_other_notation(gold, answer)


def _definitions_equal(gold: str, answer: str) -> Any:
    """`f(x)=x^2` equals `f(t)=t^2`, `y=x^2` and `x^2`. NotImplemented if neither defines a function."""
    first, second = definitions.definition(gold), definitions.definition(answer)
    if not ((first and first.variables) or (second and second.variables)):
        return NotImplemented
    if first and second:
        body = (
            definitions.rename(second.body, second.variables, first.variables)
            if first.variables and second.variables
            else second.body
        )
        if body is None:
            return None
        equal = mathematics_equal(first.body, body)
        names_agree = first.name == second.name or "y" in (first.name, second.name) or not (first.name and second.name)
        return equal if names_agree or not equal else None
    defined, other = (first, answer) if first else (second, gold)
    assert defined is not None
    if "=" in other or inequalities.RELATION.search(other):
        return NotImplemented
    equal = mathematics_equal(defined.body, other)
    if equal is False and len(defined.variables) == 1 and len(free := definitions.letters_of(other)) == 1:
        body = definitions.rename(other, tuple(free), defined.variables)
        return None if body and mathematics_equal(defined.body, body) else False
    return equal


_TRUNCATED = re.compile(r"-?\d+\.(\d+)\\ldots ?")


def _truncated_decimals_equal(gold: str, answer: str) -> Any:
    r"""`0.333\ldots` and `\frac{1}{3}`: None if the digits agree, since the further digits are not known, else False."""
    matches = [_TRUNCATED.fullmatch(text) for text in (gold, answer)]
    if not any(matches):
        return NotImplemented
    values = [
        compare_sympy.parse(match[0].replace(r"\ldots", "").strip() if match else text)
        for match, text in zip(matches, (gold, answer), strict=True)
    ]
    if not all(getattr(value, "is_number", False) for value in values):
        return None
    places = min(len(match[1]) for match in matches if match)
    return None if abs((values[0] - values[1]).evalf(30)) <= 10**-places else False


def _ratios_equal(gold: list[str], answer: list[str]) -> Truth:
    """`1:2:3` equals `2:4:6`: each number is divided by the first."""
    if len(gold) != len(answer):
        return False
    scaled = [[rf"\frac{{{part}}}{{{side[0]}}}" for part in side[1:]] for side in (gold, answer)]
    return three_valued.same_in_order(scaled[0], scaled[1], mathematics_equal)


def _decimals_equal(gold: str, answer: str) -> bool | None:
    r"""Compare a decimal with a number. `1.4142` equals `\sqrt{2}`, as it has five significant digits and is its rounding.

    Returns:
        None if neither is a decimal, or if the other is not rational and does not round to it.
    """
    decimals = [numerals.decimal(text) for text in (gold, answer)]
    exact = [
        point.value if point else numerals.ratio(text) for point, text in zip(decimals, (gold, answer), strict=True)
    ]
    if not any(decimals):
        return None
    if exact[0] is not None and exact[1] is not None:
        return _rationals_equal(exact[0], exact[1], decimals)
    for point, other in ((decimals[0], answer), (decimals[1], gold)):
        value = compare_sympy.parse(other) if point and point.digits >= _LEAST_DIGITS else None
        real = value if getattr(value, "is_number", False) and getattr(value, "is_real", False) else None
        if point and real is not None and abs(real.evalf(30) - _rational(point.value)) <= _rational(point.half_unit):
            return True
    return None


def _rationals_equal(gold: Fraction, answer: Fraction, decimals: list[numerals.Decimal | None]) -> bool:
    r"""Compare two rational numbers, at least one of them a decimal.

    Two decimals are equal if the longer one rounds to the shorter one and that has five significant digits: `3.14159` and
    `3.1416`. A fraction without a finite decimal, such as `\frac{1}{3}`, may round to the decimal or differ by
    `RELATIVE_TOLERANCE`: `0.33333`.
    """
    gap = abs(gold - answer)
    if not gap:
        return True
    coarse = max((point for point in decimals if point), key=lambda point: point.half_unit)
    if coarse.digits >= _LEAST_DIGITS and gap <= coarse.half_unit and (all(decimals) or not _integral(gold, answer)):
        return True
    infinite = [
        value
        for value, point in ((gold, decimals[0]), (answer, decimals[1]))
        if not point and not _has_finite_decimal(value)
    ]
    return bool(infinite) and gap <= Fraction(1, 10**5) * max(abs(gold), abs(answer))


def _integral(*values: Fraction) -> bool:
    return any(value.denominator == 1 for value in values)


def _has_finite_decimal(value: Fraction) -> bool:
    return not 10**60 % value.denominator


def _rational(value: Fraction) -> Any:
    import sympy

    return sympy.Rational(value.numerator, value.denominator)


def _inequalities_equal(gold: str, answer: str) -> Any:
    r"""`x>3` equals `3<x` and `(3,\infty)`. NotImplemented if neither text is an inequality."""
    first, second = (inequalities.solution_set(text) for text in (gold, answer))
    if first and second:
        if first[0] != second[0]:
            return False
        same = compare_sympy.sets_equal(first[1], second[1])
        trivial = first[1].is_empty or first[1].complement(_reals()).is_empty
        return None if same and trivial else same  # `x^2+1>0` and `x^2+2>0` both hold everywhere
    solutions = first or second
    other = compare_sympy.parse(answer if first else gold) if solutions else None
    if solutions is None or other is None or not hasattr(other, "is_subset"):
        return NotImplemented
    return compare_sympy.sets_equal(solutions[1], other)


def _reals() -> Any:
    import sympy

    return sympy.S.Reals


def _brackets_clash(gold: str, answer: str) -> bool:
    r"""Whether one answer is `(1,2)` and the other `\{1,2\}`. The parser does not always distinguish them."""
    opened = [parts[0] if (parts := enclosed(text)) and "," in parts[1] else "" for text in (gold, answer)]
    return r"\{" in opened and opened[0] != opened[1] and all(opened)


def _equal_in_other_notation(gold: str, answer: str) -> Truth:
    r"""Compare answers that differ as written: `180^\circ` equals `\pi`; `\log` may be `\ln`, and `\mathbb{R}` may be `R`."""
    degrees = [r"^\circ" in text for text in (gold, answer)]
    if degrees[0] != degrees[1]:
        radians = [text.replace(r"^\circ", r"\cdot\frac{\pi}{180}") for text in (gold, answer)]
        return bool(compare_sympy.objects_equal(*map(compare_sympy.parse, radians)))
    natural = [re.sub(r"\\log(?![A-Za-z_])", r"\\ln", text) for text in (gold, answer)]
    if natural != [gold, answer] and compare_sympy.objects_equal(*map(compare_sympy.parse, natural)):
        return None
    if re.sub(r"\\mathbb\{([A-Z])\}", r"\1", gold) == re.sub(r"\\mathbb\{([A-Z])\}", r"\1", answer):
        return None
    if "=" in gold and "=" in answer and _equal_with_other_variable(gold, answer):
        return None
    counts = [text.count(",") for text in (gold, answer)]
    return None if r"\ldots" in gold + answer and counts[0] != counts[1] and all(counts) else False


def _equal_with_other_variable(gold: str, answer: str) -> bool:
    """Whether two equations differ only in the name of one variable: `n=3k+1` and `n=3m+1`."""
    ours, theirs = (
        definitions.letters_of(first) - definitions.letters_of(second)
        for first, second in ((gold, answer), (answer, gold))
    )
    if len(ours) != 1 or len(theirs) != 1 or {*map(str.lower, ours)} == {*map(str.lower, theirs)}:
        return False
    renamed = definitions.rename(answer, tuple(theirs), tuple(ours))
    return bool(
        renamed
        and gold.split("=")[0] == answer.split("=")[0]
        and compare_sympy.objects_equal(compare_sympy.parse(gold), compare_sympy.parse(renamed))
    )
