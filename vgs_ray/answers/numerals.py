r"""Numbers in text: `1,000`, `0.1\overline{6}`, `1 1/2`, `3rd`, `1e3`, `seven`; integers, fractions and decimals as exact values.

Pure.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

_RUN = re.compile(r"(?<![\d.,])\d+(?:,\d+)+(?:\.\d+)?(?![\d.]|,\d)")
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_SEPARATED = re.compile(r",\s|;|\band\b|\bor\b")
_SPACED = re.compile(r"(?<![\d.,])(?<![\d.,] )\d{1,3}(?: \d{3})+(?! ?\d)")

_REPEATING = re.compile(
    r"(?<![\d.])(?P<whole>\d*)\.(?P<fixed>\d*)"
    r"(?:\\overline\{(?P<bar>\d+)\}|\((?P<round>\d+)\)|(?P<dots>\\dot\{\d\}(?:\d*\\dot\{\d\})?))(?!\d)"
)
_MIXED = re.compile(r"(?<![\d.,/])(\d+) (\d+)/(\d+)(?![\d.])")
_SCIENTIFIC = re.compile(r"(?<![\w.\\}])(\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})(?![\w.^])")
_ORDINAL = re.compile(
    r"(\d)(?:\^\{(?:\\text\{)?(?:st|nd|rd|th)\}{1,2}|\\text\{(?:st|nd|rd|th)\}|(?:st|nd|rd|th)(?![A-Za-z]))"
)
_LEADING_POINT = re.compile(r"(?<![\d}])\.(?=\d)")

_FRACTION = re.compile(r"(?P<sign>-?)\\frac\{(?P<over>[^{}]+)\}\{(?P<under>[^{}]+)\}")
_INTEGER = re.compile(r"([+-]?)(\d+|\d{1,3}(?:,\d{3})+)")
_DECIMAL = re.compile(r"[+-]?(\d+)(?:\.(\d*))?")

_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"  # noqa: E501
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
NUMBERS = {word: value for value, word in enumerate(_ONES.split())} | {
    w: 10 * n for n, w in enumerate(_TENS.split(), 2)
}
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
NUMBERS |= {word: value for value, word in enumerate(_ORDINALS.split(), 1)}
NUMBERS |= {"a dozen": 12, "one hundred": 100, "hundred": 100}


def regroup(text: str) -> str:
    """Remove commas between groups of three digits: `1,000, 2,000` becomes `1000, 2000`.

    `(1,234)` may be a pair. Inside brackets such commas are therefore removed only if the text separates its members in
    another way, as `(1,234, 5,678)` does with a space after the comma.
    """
    if "," not in text:
        return text
    pieces, end, depth = [], 0, 0
    separated = bool(_SEPARATED.search(text))
    for run in _RUN.finditer(text):
        before = text[end : run.start()]
        depth += sum((sign in "([") - (sign in ")]") for sign in before) + before.count(r"\{") - before.count(r"\}")
        pieces += [before, _without_commas(run[0], certain=depth <= 0 or separated)]
        end = run.end()
    return "".join(pieces) + text[end:]


def _without_commas(run: str, certain: bool) -> str:
    if certain and _GROUPED.fullmatch(run):
        return run.replace(",", "")
    if re.search(r",0\d\d(?!\d)", run):  # `000` is not a member of a list
        return _GROUPED.sub(lambda number: number[0].replace(",", ""), run)
    return run


def rewrite_numerals(text: str) -> str:
    r"""Rewrite numbers as LaTeX.

    `10 000` becomes `10000`, `0.\overline{3}` `\frac{1}{3}`, `1 1/2` `1\frac{1}{2}`, `1e3` `1\cdot10^{3}`, `3rd` `3` and `.5`
    `0.5`.
    """
    if not re.search(r"\d", text):
        return text
    text = _SPACED.sub(lambda number: number[0].replace(" ", ""), text)
    text = _REPEATING.sub(_repeating, text)
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", text)
    text = _SCIENTIFIC.sub(r"\1\\cdot10^{\2}", text)
    text = _ORDINAL.sub(r"\1", text)
    return _LEADING_POINT.sub("0.", text)


def _repeating(match: re.Match[str]) -> str:
    fixed = match["fixed"]
    cycle = match["bar"] or match["round"] or re.sub(r"\D", "", match["dots"])
    if len(fixed + cycle) > 60 or not (match["whole"] or match["bar"] or match["dots"]):
        return match[0]
    scale = 10 ** len(fixed)
    value = (
        int(match["whole"] or 0)
        + Fraction(int(fixed or 0), scale)
        + Fraction(int(cycle), scale * (10 ** len(cycle) - 1))
    )
    return str(value) if value.denominator == 1 else rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def integer(text: str) -> str | None:
    """The digits of an integer without leading zeros and commas: `-007` gives `-7`. None for another text."""
    match = _INTEGER.fullmatch(text)
    if match is None:
        return None
    digits = match[2].replace(",", "").lstrip("0") or "0"
    return "-" + digits if match[1] == "-" and digits != "0" else digits


def ratio(text: str) -> Fraction | None:
    r"""The exact value of an integer or of a LaTeX fraction of two integers, `\frac{-1}{2}`. None for another text.

    Votes compare such answers most often, so they have their own short path without sympy.
    """
    match = _FRACTION.fullmatch(text)
    parts = [integer(part) for part in (match["over"], match["under"])] if match else [integer(text), "1"]
    if parts[0] is None or parts[1] in (None, "0"):
        return None
    value = Fraction(int(parts[0]), int(parts[1]))
    return -value if match and match["sign"] else value


class Decimal(NamedTuple):
    """A number with a decimal point: its value, its significant digits, and half a unit of its last place."""

    value: Fraction
    digits: int
    half_unit: Fraction


def decimal(text: str) -> Decimal | None:
    """`0.50` as `Decimal(1/2, 2, 1/200)`. None for a text that is not a decimal number with a point."""
    match = _DECIMAL.fullmatch(text)
    if match is None or not match[2]:
        return None
    digits = (match[1] + match[2]).lstrip("0")
    return Decimal(Fraction(text), len(digits), Fraction(1, 2 * 10 ** len(match[2])))


def number_word(text: str) -> int | None:
    """The value of `seven`, `third` or `twenty-one`. None for another text."""
    words = text.casefold().replace("-", " ").split()
    if len(words) == 2 and words[0] in _TENS.split() and 0 < NUMBERS.get(words[1], 0) < 10:
        return NUMBERS[words[0]] + NUMBERS[words[1]]
    return NUMBERS.get(" ".join(words))
