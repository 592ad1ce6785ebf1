"""Compare an answer with the gold answer: cheap rules first, then by type.

Pure functions without a time limit. sympy can run for hours, so `vgs_ray.answers.judge` runs them in processes that can be
killed.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from vgs_ray.answers import compare_sympy, numerals, numeric
from vgs_ray.answers.answer_types import Unreadable
from vgs_ray.answers.classify import classify_answer
from vgs_ray.answers.compare_types import answers_equal, is_only_number, is_readable
from vgs_ray.answers.costly import too_costly
from vgs_ray.answers.nonsense import is_nonsense
from vgs_ray.answers.normalize import normalize_answer

MAX_ANSWER_CHARS = 1000  # longer answers are not parsed
RELATIVE_TOLERANCE = numeric.TOLERANCE


class Comparison(NamedTuple):
    """Whether an answer equals the gold answer (None: unknown), and the reason; see `compare` for the reasons."""

    equivalent: bool | None
    reason: str


def quick_equivalent(gold: str, answer: str) -> bool | None:
    r"""Compare without sympy: equal normalized texts, and integers or fractions of integers: `\frac{12}{4}` equals `3`.

    Returns:
        None if these rules do not decide.
    """
    if max(len(gold), len(answer)) > MAX_ANSWER_CHARS:
        return True if gold == answer else None
    gold, answer = normalize_answer(gold), normalize_answer(answer)
    if not gold or not answer:
        return False
    if gold == answer:
        return True
    first, second = numerals.ratio(gold), numerals.ratio(answer)
    return None if first is None or second is None else first == second


def quick_compare(gold: str, answer: str) -> Comparison | None:
    """The part of `compare` that takes microseconds. None if the answers have to be parsed."""
    quick = quick_equivalent(gold, answer)
    if quick is None and max(len(gold), len(answer)) > MAX_ANSWER_CHARS:
        return Comparison(None, "too_long")
    if quick is None and (too_costly(answer) or too_costly(gold)):
        return Comparison(None, "too_costly")
    if quick is None and len(normalize_answer(answer)) > MAX_ANSWER_CHARS and is_nonsense(normalize_answer(answer)):
        return Comparison(False, "unparsable_answer")
    return None if quick is None else Comparison(quick, "exact" if quick else "different")


def compare(gold: str, answer: str) -> Comparison:
    """Compare an answer with the gold answer.

    There is no time limit, and sympy can run for hours. Use `vgs_ray.answers.judge.Judge` for the answers of a model.

    Returns:
        equivalent True with the reason "exact" or "math_verify".
        equivalent False with "different" or "unparsable_answer".
        equivalent None with "unparsable_gold", "unread_answer", "undecided" (both answers were parsed, but their texts do not
        determine whether they are equal), "too_long" (over `MAX_ANSWER_CHARS`), "too_costly", or "error" (sympy raised).
    """
    quick = quick_compare(gold, answer)
    if quick is not None:
        return quick
    compare_sympy.load()
    try:
        return compare_read(gold, answer)
    except Exception:  # sympy raises exceptions of many types; a failed comparison is not a wrong answer
        return Comparison(None, "error")


def compare_read(gold: str, answer: str) -> Comparison:
    """`compare` without `quick_compare`."""
    first, second = classify_answer(gold), classify_answer(answer)
    if not is_readable(first):
        return Comparison(None, "unparsable_gold")
    if isinstance(second, Unreadable) and second.nonsense:
        return Comparison(False, "unparsable_answer")
    if not is_readable(second):
        return (
            Comparison(False, "unparsable_answer")
            if is_only_number(first) and not re.search(r"\d", answer)
            else Comparison(None, "unread_answer")
        )
    equal = answers_equal(first, second)
    if equal is None or (equal is False and _may_be_list(gold, answer)):
        return Comparison(None, "undecided")
    return Comparison(equal, "math_verify" if equal else "different")


def _may_be_list(gold: str, answer: str) -> bool:
    """Whether one answer is `100,200,300` and the other the list of these three numbers."""
    return any(
        re.fullmatch(r"\d{1,3}(,\d{3})+", one.strip())
        and answers_equal(classify_answer(one.replace(",", ", ")), classify_answer(other))
        for one, other in ((gold, answer), (answer, gold))
    )
