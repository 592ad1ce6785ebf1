r"""Whether two quantities are the same: numbers by value, units by name. Pure.

A unit that one side leaves out is no difference.
"""

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
    """Whether two quantities are the same.

    Returns:
        None where they are in other units and equal after conversion, or a word of theirs is not known, or one leaves out a word
        that changes the meaning.
    """
    clash = marks_clash(gold.marks, answer.marks)
    if clash:
        return False
    if clash is None and _same_time(gold, answer):
        return None
    found = _parts_equal(gold, answer, equal)
    if found is False:
        return None if _convertible(gold, answer) else False
    return None if clash is None else found


def _same_time(gold: Quantity, answer: Quantity) -> bool:
    """Whether `7:55 p.m.` and `19:55` are meant."""
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
    units_same = units.units_equal(gold.unit, answer.unit)
    if _PERCENT in (gold.unit, answer.unit) and gold.unit != answer.unit and NOTHING in (gold.unit, answer.unit):
        return _percent_equal(gold, answer, equal)
    numbers = equal(_scaled(gold), _scaled(answer))
    if numbers is False and _DEGREE in (gold.unit, answer.unit) and NOTHING in (gold.unit, answer.unit):
        return equal(
            *(rf"({part.number})\cdot\frac{{\pi}}{{180}}" if part.unit else part.number for part in (gold, answer))
        )
    return all_true((numbers, units_same))


def _percent_equal(gold: Part, answer: Part, equal: Equal) -> Truth:
    """50% is 0.5; where the gold answer has the sign, or the number is over 1, it is also 50 with the sign left out."""
    percent, other = (gold, answer) if gold.unit == _PERCENT else (answer, gold)
    if equal(rf"\frac{{{percent.number}}}{{100}}", other.number):
        return True
    found = equal(percent.number, other.number)
    number = _number(percent)
    if found and (number is None or abs(number) <= 1):
        return None if percent is gold else False
    return found


def _scaled(part: Part) -> str:
    return part.number if part.scale == 1 else rf"({part.number})\cdot {part.scale}"


def _number(part: Part) -> Fraction | None:
    found = decimal(part.number)
    value = found[0] if found else ratio(part.number)
    return None if value is None else value * part.scale


def _convertible(gold: Quantity, answer: Quantity) -> bool:
    """Whether two quantities are equal in a common unit, or one without a unit is the other in some unit of its parts."""
    both = [[(_number(part), part.unit) for part in side.parts] for side in (gold, answer)]
    if any(value is None for side in both for value, _ in side):
        return False
    totals = [total([(value, unit) for value, unit in side if value is not None]) for side in both]
    return totals[0] is not None and totals[0] == totals[1]
