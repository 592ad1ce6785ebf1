r"""LaTeX to sympy objects with the parser of math-verify (latex2sympy2_extended).

A text that the parser does not read to its end counts as unreadable. sympy is imported on first use.
"""

from __future__ import annotations

import logging
import math
import re
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any

from vgs_ray.answers.numerals import ratio

_LETTERS = re.compile(r"\\(?:begin|end)\{[a-z]*\}|\\[A-Za-z]+(?:\()?|[Ii]")
_OTHER_LETTERS = {
    "I": r"\Upsilon ",
    r"\gamma": r"\Xi_{g}",
    r"\Gamma": r"\Xi_{G}",
}  # the parser reads these as constants
_POWER_OF_I = re.compile(r"(?<![A-Za-z])I\^\{([^{}]+)\}")
_DOUBLE_FACTORIAL = re.compile(r"(?<![\d.])(\d{1,3})!!(?!!)")  # the parser reads `7!!` as (7!)!
_CONJUGATE = re.compile(r"\\overline\{([\dI+\-. ]*I)\}")
_UNREAD = re.compile(
    r"\\\}\\times|"
    r"\\(?:equiv|pmod|bmod|forall|exists|to|mid|Rightarrow|Leftrightarrow|text\{(?!and\}|or\})[^{}]{2,}|permil)|[\"?@#~`]|(?<!,)\\ldots|\\ldots(?=\d)"
)
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")
_SUMS = re.compile(r"\\(?:sum|prod)")
_TWO_NUMBERS = re.compile(r"\d\s+\d|\.\d*\.|(?<![\d])\.(?!\d)")
_FOR_THE_PARSER = (
    (re.compile(r"\\text\{([^{}])\}"), r"\1"),
    (re.compile(r"([A-Za-z])''"), r"\1_{pp}"),
    (re.compile(r"([A-Za-z])'"), r"\1_{p}"),
    (re.compile(r"\({2,}([^()]*)\){2,}"), lambda match: _one_bracket(match[0])),  # the parser takes seconds for `(((x)))`
    (re.compile(r"!="), r"! ="),
    (re.compile(r"\)(?=\()"), r")\\cdot "),
    (re.compile(r"\^\\circ"), ""),
    (re.compile(r"(?<=\d)\("), r"\\cdot("),  # the parser reads `3(2)` as the mixed number 3 + 2
    (re.compile(r"(?<=[)\d])(?=\\binom)|(?<=\))(?=\\frac|\d)"), r"\\cdot "),
    (re.compile(r"\\emptyset"), r"\\{\\}"),
    (re.compile(r"\\bmod"), r"\\mod"),
    (re.compile(r"\\text\{(?:and|or)\}|\\land|\\lor|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])"), ","),
    (re.compile(r",?\\ldots"), r",\\text{dots}"),
)  # fmt: skip


@cache
def library() -> Any:
    """The modules of math-verify and its parser. Their warnings about time limits are off: `vgs_ray.answers.judge` sets these."""
    import math_verify
    from latex2sympy2_extended import latex2sympy2

    for name in ("parser", "grader"):
        logging.getLogger(f"math_verify.{name}").setLevel(logging.ERROR)
    return math_verify, latex2sympy2


def load() -> None:
    """Import sympy and the parser. Call it outside of `try`, so that a broken installation raises."""
    library()


@lru_cache(maxsize=8192)  # gold answers and frequent answers are parsed again and again
def parse(latex: str) -> Any:
    """The sympy object of a normalized answer. None if the parser does not read all of it."""
    _, parser = library()
    exact = ratio(latex)
    if exact is not None:
        return _rational(exact)
    text = latex.replace(r"\bmod", r"\mod")
    text = _DOUBLE_FACTORIAL.sub(lambda match: str(math.prod(range(int(match[1]), 1, -2))), text)
    if (
        "!!" in text
        or _UNREAD.search(text)
        or _TWO_NUMBERS.search(text)
        or (r"^\circ" in text and _TRIGONOMETRIC.search(text))
    ):
        return None
    letters = _OTHER_LETTERS | ({} if _SUMS.search(text) else {"i": "I"})
    text = _LETTERS.sub(lambda match: letters.get(match[0], match[0]), text)
    text = _POWER_OF_I.sub(_power_of_i, text) if letters.get("i") else text
    text = _CONJUGATE.sub(lambda match: f"({match[1].replace('I', '(-I)')})", text)
    for pattern, replacement in _FOR_THE_PARSER:
        text = pattern.sub(replacement, text)
    config = parser.ConversionConfig(lowercase_symbols=False)
    try:
        parsed = parser.latex2sympy(
            text, is_real=True, convert_degrees=False, normalization_config=None, conversion_config=config
        )
    except RecursionError:
        raise
    except Exception:  # the parser raises exceptions of many types
        return _either_sign(text)
    return None if isinstance(parsed, list) else parsed


def _one_bracket(text: str) -> str:
    inner = text.strip("()")
    opened, closed = text.index(inner), len(text) - text.index(inner) - len(inner)
    extra = min(opened, closed) - 1
    return text[extra : len(text) - extra]


def _power_of_i(match: re.Match[str]) -> str:
    """A power of the imaginary unit as a number, since the parser drops the exponent."""
    power = match[1]
    if not power.lstrip("-").isdigit():
        return rf"(\sqrt{{-1}})^{{{power}}}"
    return ("1", "I", "(-1)", "(-I)")[(-1 if power[0] == "-" else 1) * int(power[-2:].lstrip("-")) % 4]


def _rational(value: Fraction) -> Any:
    import sympy

    return sympy.Rational(value.numerator, value.denominator)


def _either_sign(text: str) -> Any:
    r"""The two values of an expression that contains `\pm` once: `1\pm\sqrt{2}`. None for another text."""
    import sympy

    if len(re.findall(r"\\pm(?![A-Za-z])|\\mp(?![A-Za-z])", text)) != 1:
        return None
    values = [parse(re.sub(r"\\[pm]{2}(?![A-Za-z]) ?", sign, text)) for sign in "+-"]
    return (
        sympy.FiniteSet(*values)
        if all(isinstance(value, sympy.Expr | sympy.Set | sympy.Tuple) for value in values)
        else None
    )
