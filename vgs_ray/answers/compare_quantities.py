r"""Comparison of quantities: numbers by value, units by name. `12\text{ cm}` equals `12`. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

from vgs_ray.answers import units
from vgs_ray.answers.numerals import decimal, ratio
from vgs_ray.answers.quantities import Part, Quantity, marks_clash, total
from vgs_ray.answers.three_valued import Truth, all_true, same_in_order
from vgs_ray.answers.units import NOTHING, Unit

Equal = Callable[[str, str], Truth]
_PERCENT: Unit = frozenset({("percent", 1)})
_DEGREE: Unit = frozenset({("degree", 1)})


def quantities_equal(gold: Quantity, answer: Quantity, equal: Equal) -> Truth:
    """Whether two quantities are equal.

    Args:
        equal: compares two numbers in LaTeX.

    Returns:
        None if they are equal only after conversion (`1 m` and `100 cm`), if a word is not a known unit, or if one side omits
        a mark such as `am`.
    """
    clash = marks_clash(gold.marks, answer.marks)
    if clash:
        return False
    if clash is None and _same_time(gold, answer):
        return None
    parts_equal = _parts_equal(gold, answer, equal)
    if parts_equal is False:
        return None if _equal_after_conversion(gold, answer) else False
    return None if clash is None else parts_equal


def _same_time(gold: Quantity, answer: Quantity) -> bool:
    """Whether two clock times are equal, one of them without a mark: `7:55 p.m.` and `19:55`."""
    hours = []
    for side in (gold, answer):
        clock = re.fullmatch(r"(\d{1,2}):(\d\d)", side.parts[0].number) if len(side.parts) == 1 else None
        if clock is None:
            return False
        hour = int(clock[1]) % 12 if side.marks else int(clock[1])
        hours.append((hour + 12 * ("pm" in side.marks), clock[2]))
    return hours[0] == hours[1]


def _parts_equal(gold: Quantity, answer: Quantity, equal: Equal) -> Truth:
    if len(gold.parts) != len(answer.parts):
        return False
    return same_in_order(gold.parts, answer.parts, lambda first, second: _part_equal(first, second, equal))


def _part_equal(gold: Part, answer: Part, equal: Equal) -> Truth:
    same_unit = units.units_equal(gold.unit, answer.unit)
    if _PERCENT in (gold.unit, answer.unit) and gold.unit != answer.unit and NOTHING in (gold.unit, answer.unit):
        return _percent_equal(gold, answer, equal)
    numbers = equal(_scaled(gold), _scaled(answer))
    if numbers is False and _DEGREE in (gold.unit, answer.unit) and NOTHING in (gold.unit, answer.unit):
        return equal(
            *(rf"({part.number})\cdot\frac{{\pi}}{{180}}" if part.unit else part.number for part in (gold, answer))
        )
    return all_true((numbers, same_unit))


def _percent_equal(gold: Part, answer: Part, equal: Equal) -> Truth:
    r"""`50\%` equals `0.5`, and also `50`. `0.5\%` and `0.5` are unknown if the gold answer has the sign, else different."""
    percent, other = (gold, answer) if gold.unit == _PERCENT else (answer, gold)
    if equal(rf"\frac{{{percent.number}}}{{100}}", other.number):
        return True
    same_number = equal(percent.number, other.number)
    number = _number(percent)
    if same_number and (number is None or abs(number) <= 1):
        return None if percent is gold else False
    return same_number


def _scaled(part: Part) -> str:
    return part.number if part.scale == 1 else rf"({part.number})\cdot {part.scale}"


def _number(part: Part) -> Fraction | None:
    point = decimal(part.number)
    value = point.value if point else ratio(part.number)
    return None if value is None else value * part.scale


def _equal_after_conversion(gold: Quantity, answer: Quantity) -> bool:
    """Whether two quantities are equal in a common unit: `1 h 30 min` and `90 min`."""
    both = [[(_number(part), part.unit) for part in side.parts] for side in (gold, answer)]
    if any(value is None for side in both for value, _ in side):
        return False
    totals = [total([(value, unit) for value, unit in side if value is not None]) for side in both]
    return totals[0] is not None and totals[0] == totals[1]
