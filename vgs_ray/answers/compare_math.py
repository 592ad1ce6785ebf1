"""Whether two pieces of LaTeX without units, words and conditions are the same mathematics."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from vgs_ray.answers import compare_sympy, definitions, inequalities, numerals, three_valued
from vgs_ray.answers.brackets import enclosed, split_outside
from vgs_ray.answers.three_valued import Truth

_LEAST_DIGITS = 5  # of a decimal that stands for an exact number by being its rounding


_COMMA = re.compile(r"[,;]")
_COLON = re.compile(":")


def mathematics_equal(gold: str, answer: str) -> Truth:
    """Whether two texts without units, words and conditions are the same mathematics."""
    if gold == answer:
        return True
    rounded = _rounding(gold, answer)
    if rounded is not None:
        return rounded
    cut = _cut_off(gold, answer)
    if cut is not NotImplemented:
        return cut
    ratios = [split_outside(text, _COLON)[0] for text in (gold, answer)]
    if max(map(len, ratios)) > 2 and "=" not in gold + answer:
        return _ratios_equal(*ratios)
    regional = _regions(gold, answer)
    if regional is not NotImplemented:
        return regional
    defined = _definitions(gold, answer)
    if defined is not NotImplemented:
        return defined
    first, second = compare_sympy.parse(gold), compare_sympy.parse(answer)
    if first is None or second is None:
        return None
    if _brackets_clash(gold, answer):
        return False
    found = compare_sympy.objects_equal(first, second)
    parts = [split_outside(text, _COMMA)[0] for text in (gold, answer)]
    if found and any(len(set(side)) < len(side) for side in parts) and len(parts[0]) == len(parts[1]):
        return three_valued.same_members(parts[0], parts[1], mathematics_equal)  # 1, 1, 2 and 1, 2, 2
    if found and len(split_outside(gold, _COMMA)[0]) != len(split_outside(answer, _COMMA)[0]):
        return True if r"\pm" in gold + answer or enclosed(gold) or enclosed(answer) else None  # 7 and 7, 7, 7
    return found if found is not False else _other_notation(gold, answer)


def _definitions(gold: str, answer: str) -> Any:
    """`f(x)=x^2` against `f(t)=t^2`, `y=x^2` and `x^2`; NotImplemented where neither defines a function."""
    first, second = definitions.definition(gold), definitions.definition(answer)
    if not ((first and first.letters) or (second and second.letters)):
        return NotImplemented
    if first and second:
        body = (
            definitions.rename(second.body, second.letters, first.letters)
            if first.letters and second.letters
            else second.body
        )
        if body is None:
            return None
        found = mathematics_equal(first.body, body)
        known = first.name == second.name or "y" in (first.name, second.name) or not (first.name and second.name)
        return found if known or not found else None
    defined, other = (first, answer) if first else (second, gold)
    assert defined is not None
    if "=" in other or inequalities.RELATION.search(other):
        return NotImplemented
    found = mathematics_equal(defined.body, other)
    if found is False and len(defined.letters) == 1 and len(free := definitions.letters_of(other)) == 1:
        body = definitions.rename(other, tuple(free), defined.letters)
        return None if body and mathematics_equal(defined.body, body) else False
    return found


_CUT = re.compile(r"-?\d+\.(\d+)\\ldots ?")


def _cut_off(gold: str, answer: str) -> Any:
    r"""`0.333\ldots` may go on in any way: None where its digits are those of the other side, else False."""
    found = [_CUT.fullmatch(text) for text in (gold, answer)]
    if not any(found):
        return NotImplemented
    values = [
        compare_sympy.parse(match[0].replace(r"\ldots", "").strip() if match else text)
        for match, text in zip(found, (gold, answer), strict=True)
    ]
    if not all(getattr(value, "is_number", False) for value in values):
        return None
    places = min(len(match[1]) for match in found if match)
    return None if abs((values[0] - values[1]).evalf(30)) <= 10**-places else False


def _ratios_equal(gold: list[str], answer: list[str]) -> Truth:
    """`1:2:3` against `2:4:6`: each number in relation to the first."""
    if len(gold) != len(answer):
        return False
    scaled = [[rf"\frac{{{part}}}{{{side[0]}}}" for part in side[1:]] for side in (gold, answer)]
    return three_valued.same_in_order(scaled[0], scaled[1], mathematics_equal)


def _rounding(gold: str, answer: str) -> bool | None:
    """True where one is a decimal of five significant digits or more and the other rounds to it; two rationals are decided here."""  # noqa: E501
    decimals = [numerals.decimal(text) for text in (gold, answer)]
    exact = [found[0] if found else numerals.ratio(text) for found, text in zip(decimals, (gold, answer), strict=True)]
    if not any(decimals):
        return None
    if exact[0] is not None and exact[1] is not None:
        return _rationals_equal(exact[0], exact[1], decimals)
    for found, other in ((decimals[0], answer), (decimals[1], gold)):
        value = compare_sympy.parse(other) if found and found[1] >= _LEAST_DIGITS else None
        real = value if getattr(value, "is_number", False) and getattr(value, "is_real", False) else None
        if found and real is not None and abs(real.evalf(30) - _float(found[0])) <= _float(found[2]):
            return True
    return None


def _rationals_equal(gold: Fraction, answer: Fraction, decimals: list[tuple[Fraction, int, Fraction] | None]) -> bool:
    """Two rationals of which one is a decimal. Of two decimals the one with fewer places must be the other one rounded to them;
    a fraction without a finite decimal may differ by `RELATIVE_TOLERANCE`, or round to the decimal."""
    gap = abs(gold - answer)
    if not gap:
        return True
    coarse = max((found for found in decimals if found), key=lambda found: found[2])
    if coarse[1] >= _LEAST_DIGITS and gap <= coarse[2] and (all(decimals) or not _integral(gold, answer)):
        return True
    endless = [
        value for value, found in ((gold, decimals[0]), (answer, decimals[1])) if not found and not _is_decimal(value)
    ]
    return bool(endless) and gap <= Fraction(1, 10**5) * max(abs(gold), abs(answer))


def _integral(*values: Fraction) -> bool:
    return any(value.denominator == 1 for value in values)


def _is_decimal(value: Fraction) -> bool:
    return not 10**60 % value.denominator


def _float(value: Fraction) -> Any:
    import sympy

    return sympy.Rational(value.numerator, value.denominator)


def _regions(gold: str, answer: str) -> Any:
    """Inequalities against inequalities, intervals and unions; NotImplemented where neither is one."""
    found = [inequalities.solution_set(text) for text in (gold, answer)]
    if not any(found):
        return NotImplemented
    if found[0] and found[1]:
        if found[0][0] != found[1][0]:
            return False
        same = compare_sympy.sets_equal(found[0][1], found[1][1])
        trivial = found[0][1].is_empty or found[0][1].complement(_reals()).is_empty
        return None if same and trivial else same  # `x^2+1>0` and `x^2+2>0` both hold everywhere
    other = compare_sympy.parse(answer if found[0] else gold)
    region = found[0] or found[1]
    if region is None or other is None or not hasattr(other, "is_subset"):
        return NotImplemented
    return compare_sympy.sets_equal(region[1], other)


def _reals() -> Any:
    import sympy

    return sympy.S.Reals


def _brackets_clash(gold: str, answer: str) -> bool:
    """(1,2) and {1,2}, which the parser cannot always tell apart."""
    opened = [found[0] if (found := enclosed(text)) and "," in found[1] else "" for text in (gold, answer)]
    return r"\{" in opened and opened[0] != opened[1] and all(opened)


def _other_notation(gold: str, answer: str) -> Truth:
    r"""What is different as it is written may be equal otherwise: degrees and radians, `\log` for the natural logarithm."""
    degrees = [r"^\circ" in text for text in (gold, answer)]
    if degrees[0] != degrees[1]:
        turned = [text.replace(r"^\circ", r"\cdot\frac{\pi}{180}") for text in (gold, answer)]
        return bool(compare_sympy.objects_equal(compare_sympy.parse(turned[0]), compare_sympy.parse(turned[1])))
    natural = [re.sub(r"\\log(?![A-Za-z_])", r"\\ln", text) for text in (gold, answer)]
    if natural != [gold, answer] and compare_sympy.objects_equal(
        compare_sympy.parse(natural[0]), compare_sympy.parse(natural[1])
    ):
        return None
    if re.sub(r"\\mathbb\{([A-Z])\}", r"\1", gold) == re.sub(r"\\mathbb\{([A-Z])\}", r"\1", answer):
        return None
    if "=" in gold and "=" in answer:
        mine, theirs = (
            definitions.letters_of(first) - definitions.letters_of(second)
            for first, second in ((gold, answer), (answer, gold))
        )
        body = (
            definitions.rename(answer, tuple(theirs), tuple(mine))
            if len(mine) == len(theirs) == 1 and {*map(str.lower, mine)} != {*map(str.lower, theirs)}
            else None
        )
        if (
            body
            and gold.split("=")[0] == answer.split("=")[0]
            and compare_sympy.objects_equal(compare_sympy.parse(gold), compare_sympy.parse(body))
        ):
            return None  # n = 3k + 1 and n = 3m + 1
    counts = [text.count(",") for text in (gold, answer)]
    return None if r"\ldots" in gold + answer and counts[0] != counts[1] and all(counts) else False
